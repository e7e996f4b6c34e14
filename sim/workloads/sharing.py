"""Shared prefixes as rows of a table: a request's own row, some of the rows, and what a cache would hit.

What the rows mean is told in `sim.prefixes`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.prefixes import Prefixes

__all__ = ["check_fit", "chosen", "reused", "row", "written"]

Ints = NDArray[np.int64]


def row(prefixes: Prefixes, request: int) -> Ints:
    """The names of this request's blocks."""
    return prefixes.hashes[prefixes.starts[request] : prefixes.starts[request + 1]]


def chosen(prefixes: Prefixes, requests: Ints) -> Prefixes:
    """The rows of these requests, in this order."""
    counts = np.diff(prefixes.starts)[requests]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    hashes = prefixes.hashes[np.repeat(prefixes.starts[requests], counts) + within]
    return Prefixes(starts, hashes, prefixes.block_size)


def reused(prefixes: Prefixes) -> Ints:
    """Of each request, how many leading blocks an earlier one had: what an endless cache would hit."""
    seen: set[int] = set()
    hits = np.zeros(len(prefixes), np.int64)
    names, starts = prefixes.hashes.tolist(), prefixes.starts.tolist()
    for request in range(len(prefixes)):
        mine = names[starts[request] : starts[request + 1]]
        hits[request] = next((k for k, name in enumerate(mine) if name not in seen), len(mine))
        seen.update(mine)
    return hits


def check_fit(prefixes: Prefixes, tokens: Ints) -> None:
    """ValueError unless there is a row for each request, with no more names than its tokens fill."""
    if len(prefixes) != len(tokens):
        raise ValueError(f"prefixes has {len(prefixes)} rows; expected {len(tokens)}, as many as arrival has")
    named = np.diff(prefixes.starts)
    most = -(-tokens // prefixes.block_size)
    if (named > most).any():
        bad = int(np.argmax(named > most))
        raise ValueError(
            f"prefixes of row {bad} names {named[bad]} blocks of {prefixes.block_size} tokens; expected at "
            f"most {most[bad]}, for its prompt and output have {tokens[bad]} tokens"
        )


def written(prefixes: Prefixes) -> str:
    """The call that makes them."""
    rows = [row(prefixes, request).tolist() for request in range(len(prefixes))]
    return f"Prefixes.from_rows({rows}, block_size={prefixes.block_size})"
