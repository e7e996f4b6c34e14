"""Seeds of replications: which are known beforehand, and which nobody could know."""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

Purpose = Literal["development", "guard"]

FIXED = "fixed"
"""The name of the guard seeds that are the same for ever."""


def known(purpose: Purpose, n: int) -> tuple[int, ...]:
    """The first `n` seeds of a purpose, the same for ever: 32-bit integers.

    ``development`` seeds are those of a search; ``guard`` seeds are those of a plain run, which no
    search has used.
    """
    return tuple(_seed(hashlib.sha256(f"glia {purpose} {i}".encode()).digest()) for i in range(n))


def guard(name: str, n: int) -> tuple[int, ...]:
    """The first `n` guard seeds of a name: of ``fixed`` those `known`, of any other text its own.

    Who is told the text has the seeds again; no search uses them for anything but its first look.
    """
    if name == FIXED:
        return known("guard", n)
    return tuple(_seed(hashlib.sha256(f"glia guard seeds {name} {i}".encode()).digest()) for i in range(n))


def sealed(secret: bytes, content: str, n: int, *, wide: bool = False) -> tuple[int, ...]:
    """`n` confirmation seeds of a candidate: HMAC-SHA256 of its `content` hash under the run's secret.

    They cannot be known before the candidate's text is fixed, and anyone who is told the secret
    afterwards can compute them again. `wide` ones have 63 bits, too many to try them all: a candidate in
    another process than its simulation does not find its seed by what it sees.
    """
    digests = [hmac.new(secret, f"glia confirmation {content} {i}".encode(), "sha256") for i in range(n)]
    return tuple(
        int.from_bytes(each.digest()[:8], "big") >> 1 if wide else _seed(each.digest()) for each in digests
    )


def policy_seed(seed: int) -> int:
    """What the random stream of the policy itself starts from, apart from the streams of the workload.

    It does not tell the replication's seed, from which the workload could be drawn again.
    """
    return _hidden("policy", seed)


def global_seed(seed: int) -> int:
    """What the global generators of a replication start from; it does not tell the seed either."""
    return _hidden("global", seed)


def apart_seed(seed: int) -> int:
    """As `global_seed`, for a candidate in another process than the spec, whose draws it must not know."""
    return _hidden("apart", seed)


def _hidden(purpose: str, seed: int) -> int:
    return _seed(hashlib.sha256(f"glia {purpose} {seed}".encode()).digest())


def _seed(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "big")
