"""What one engine step takes, from precomputed arrays: a handful of look-ups, in plain Python or compiled.

A step takes
    linear[tokens] + head[sequences]                            all layers but attention; LM head, sampler
  + base[decodes] + rate[decodes] x KV tokens read              attention of the decodes, by mean context
  + straggler[decodes] x (longest context - mean context)       its slowest thread block
  + max(pair x query-key pairs, key x keys of the deepest       attention of the prefill chunks: all the GPU's
        chunk) + chunk terms                                    work, or a thread block's way through its keys
seconds of GPU time. The decode terms have a second set for steps that also prefill: the attention kernel then
loses its decode form (split over the context, heads of a group packed) and reads keys and values about twice
as slowly. CPU work is added, or hidden behind the GPU where the engine schedules asynchronously.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTEXT_KNOTS", "SEGMENTS", "Batch", "Tables", "step_seconds"]

Floats = NDArray[np.float64]

CONTEXT_KNOTS = (128, 512, 1024, 2048, 4096)
"""Mean contexts, in KV tokens, at which the cost of one more token may change."""
SEGMENTS = len(CONTEXT_KNOTS) + 1

# decode[decodes, ...]: SEGMENTS times seconds, SEGMENTS times seconds per KV token, and seconds per token of
# (longest - mean context); then the same beside a prefill.
BASE, PER_KV_TOKEN, STRAGGLER = 0, SEGMENTS, 2 * SEGMENTS
BESIDE_PREFILL = 2 * SEGMENTS + 1

# rates[...]: seconds per half a query-key pair, and per key of the deepest chunk; of the prefill chunks
# together: per step, per token, per (sequence beside it x tokens of the longest chunk); CPU seconds a step
# that the GPU waits for, and that run beside it.
HALF_PAIR, KEY, CHUNKS, CHUNK_TOKEN, GRID, SERIAL_CPU, PARALLEL_CPU = 0, 1, 2, 3, 4, 5, 6
RATES = 7


class Tables(NamedTuple):
    """A profile as arrays, for one engine's limits; seconds throughout."""

    linear: Floats
    """linear[tokens of the step]."""
    head: Floats
    """head[requests in the step]."""
    decode: Floats
    """decode[requests that decode, ...], as the constants above say."""
    rates: Floats


class Batch(NamedTuple):
    """What a step computes."""

    tokens: int
    """All tokens of the step."""
    sequences: int
    """Requests in the step."""
    decodes: int
    """Requests that decode: one token each."""
    context: int
    """KV tokens that the decodes read, their own among them."""
    deepest: int
    """KV tokens that the decode with the most context reads."""
    pairs: int
    """Twice the query-key pairs of the prefill chunks."""
    depth: int
    """Keys that the last token of the deepest prefill chunk sees."""
    longest: int
    """Tokens of the longest prefill chunk; 0 if nothing is prefilled."""

    @classmethod
    def of(cls, requests: Iterable[tuple[int, int, bool]]) -> Batch:
        """The step that computes for each request so many tokens, after so many whose KV is held, and whether
        it decodes (then one token)."""
        rows = list(requests)
        decoded = [before + 1 for _, before, decodes in rows if decodes]
        chunks = [(tokens, before) for tokens, before, decodes in rows if not decodes]
        return cls(
            tokens=sum(tokens for tokens, _, _ in rows),
            sequences=len(rows),
            decodes=len(decoded),
            context=sum(decoded),
            deepest=max(decoded, default=0),
            pairs=sum(tokens * (2 * before + tokens + 1) for tokens, before in chunks),
            depth=max((before + tokens for tokens, before in chunks), default=0),
            longest=max((tokens for tokens, _ in chunks), default=0),
        )


def step_seconds(
    tables: Tables,
    tokens: int,
    sequences: int,
    decodes: int,
    context: int,
    deepest: int,
    pairs: int,
    depth: int,
    longest: int,
) -> float:
    """Seconds of a step; the arguments are the fields of `Batch`. Numba compiles it as it is."""
    rates = tables.rates
    seconds = tables.linear[tokens] + tables.head[sequences]
    if decodes > 0:
        row = tables.decode[decodes]
        mean = context / decodes
        at = BESIDE_PREFILL if longest > 0 else 0
        straggler = (deepest - mean) * row[at + STRAGGLER]
        for knot in CONTEXT_KNOTS:
            at += mean > knot
        seconds += row[at + BASE] + context * row[at + PER_KV_TOKEN] + straggler
    if longest > 0:
        seconds += max(pairs * rates[HALF_PAIR], depth * rates[KEY])
        seconds += (
            rates[CHUNKS] + (tokens - decodes) * rates[CHUNK_TOKEN] + (sequences - 1) * longest * rates[GRID]
        )
    return float(max(seconds, rates[PARALLEL_CPU]) + rates[SERIAL_CPU])
