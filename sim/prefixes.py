"""Shared prefixes of prompts: which blocks of tokens of a workload's requests are equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.settings import check

__all__ = ["Prefixes"]

MOST = 1_000_000
"""Tokens per block at most."""


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Block hashes of each request's tokens, prompt first and then output, as far as they matter.

    Two requests whose k-th hashes are equal have the same first (k + 1) x `block_size` tokens, as in vLLM's
    hash chains and Mooncake's `hash_ids`. Blocks beyond a request's row are its own. Rows may reach into the
    output, so that the next turn of a conversation finds the answer of the last. Make one with `from_rows`.

    A router sees a row as far as the prompt's full blocks go. One that ends before, where nobody will share
    what follows, tells it the future: name all full blocks, as engines do.
    """

    starts: NDArray[np.int64]
    """Row k is hashes[starts[k]:starts[k + 1]]; one entry more than requests."""
    hashes: NDArray[np.int64]
    block_size: int
    """Tokens per hashed block."""

    def __post_init__(self) -> None:
        check("block_size", self.block_size, 1, MOST, "tokens per block", whole=True)
        for name in ("starts", "hashes"):
            column = np.asarray(getattr(self, name))
            if column.ndim != 1 or (column.dtype.kind not in "iu" and column.size):
                raise ValueError(f"{name}={column!r:.60}; expected one column of whole numbers")
        starts = np.asarray(self.starts)
        if not len(starts) or starts[0] != 0 or starts[-1] != len(self.hashes) or (np.diff(starts) < 0).any():
            raise ValueError(
                f"starts={starts!r:.60}; expected numbers that do not fall, from 0 to the number of hashes, "
                f"{len(self.hashes)}"
            )

    @classmethod
    def from_rows(cls, rows: list[ArrayLike], block_size: int) -> Prefixes:
        """One row of hashes (whole numbers of up to 64 bits) a request; ValueError if a row or the block size
        is not that."""
        check("block_size", block_size, 1, MOST, "tokens per block", whole=True)
        columns = [_column(row) for row in rows]
        for number, column in enumerate(columns):
            if column.ndim != 1 or column.dtype.kind not in "iu":
                raise ValueError(f"the hashes of row {number} are {rows[number]!r}; expected whole numbers")
        starts = np.cumsum([0, *(len(column) for column in columns)]).astype(np.int64)
        # Column by column: together, signed and unsigned ones would become floats, and near hashes one.
        hashes = np.concatenate([np.zeros(0, np.int64), *(column.astype(np.int64) for column in columns)])
        for array in (starts, hashes):
            array.flags.writeable = False
        return cls(starts, hashes, int(block_size))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def in_blocks(self, block_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(starts, hashes) for blocks of another size, of which one must be a multiple of the other."""
        mine = self.block_size
        if block_size == mine:
            return self.starts, self.hashes
        if mine % block_size == 0:
            ratio, hashes = mine // block_size, self.hashes
            if max(abs(int(hashes.min(initial=0))), abs(int(hashes.max(initial=0)))) >= 2**63 // ratio:
                hashes = _numbered(hashes)  # the product would wrap
            return self.starts * ratio, (hashes[:, None] * ratio + np.arange(ratio)).ravel()
        if block_size % mine:
            raise ValueError(
                f"the workload's prefixes are hashed in blocks of {mine} tokens and the cluster's block_size "
                f"is {block_size}; expected one to be a multiple of the other"
            )
        ratio = block_size // mine
        kept = [
            self.hashes[begin:end][ratio - 1 :: ratio]
            for begin, end in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]
        starts = np.cumsum([0, *(len(row) for row in kept)]).astype(np.int64)
        return starts, np.concatenate([np.zeros(0, np.int64), *kept])


def _numbered(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in place of hashes, in the order in which they come first: what comes later changes none."""
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[which]


def _column(row: ArrayLike) -> NDArray[Any]:
    """The row as an array: whole if its hashes are."""
    column = np.asarray(row)
    if column.size == 0:
        return np.zeros(0, np.int64)
    # NumPy takes a list with numbers below and above 2**63 for floats.
    if column.dtype.kind == "f" and isinstance(row, list) and all(isinstance(each, int) for each in row):
        return np.array([each % 2**64 for each in row], np.uint64)
    return column


def contents(
    prefixes: Prefixes | None, tokens: NDArray[np.int64], block_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`contents` and `contents_of` of a run's state (see `sim.state`); `tokens` of each request in all.

    Hashes that several requests share become 0, 1, ...; all others are contents of their own request.
    """
    requests = len(tokens)
    full = -(-tokens // block_size)
    if prefixes is None:
        starts, hashes = np.zeros(requests + 1, np.int64), np.zeros(0, np.int64)
    else:
        starts, hashes = prefixes.in_blocks(block_size)
    unique, dense = np.unique(hashes, return_inverse=True)
    own = np.concatenate([[0], np.cumsum(full)]) + len(unique)
    return dense.astype(np.int64), np.stack([starts, own], axis=1).astype(np.int64)
