"""Shared prefixes: names of the blocks of prompts, equal exactly where the text up to there is equal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PrefixHashes"]


@dataclass(frozen=True, eq=False)
class PrefixHashes:
    """The blocks of every request's context (its prompt, and its output as far as one knows it) by name.

    A name stands for a block's tokens and all tokens before it, as the keys of vLLM's prefix cache and the
    `hash_ids` of Mooncake's traces do: two requests share a prefix exactly as far as their names agree.
    Blocks beyond a request's names are its own. Make one with `of`.
    """

    block_tokens: int
    """Tokens per name; the last block of a request may hold fewer."""
    offsets: NDArray[np.int64]
    """The names of request k are ids[offsets[k]:offsets[k + 1]]."""
    ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        if isinstance(self.block_tokens, bool) or self.block_tokens < 1:
            raise ValueError(
                f"block_tokens={self.block_tokens!r}; expected a whole number of at least 1 token per block"
            )
        for array in (self.offsets, self.ids):
            array.flags.writeable = False

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], *, block_tokens: int) -> PrefixHashes:
        """From the names of each request's blocks, first block first; ValueError for a name below 0."""
        lists = [np.asarray(row, np.int64).reshape(-1) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int64)
        ids = np.concatenate([np.empty(0, np.int64), *lists])
        if len(ids) and ids.min() < 0:
            row = int(np.searchsorted(offsets, np.argmin(ids), side="right")) - 1
            raise ValueError(
                f"hash ids of row {row} hold {int(ids.min())}; expected whole numbers of at least 0"
            )
        return cls(block_tokens, offsets, ids)

    def __len__(self) -> int:
        """How many requests there are."""
        return len(self.offsets) - 1

    def __getitem__(self, request: int) -> NDArray[np.int64]:
        """The names of this request's blocks."""
        return self.ids[self.offsets[request] : self.offsets[request + 1]]

    def __repr__(self) -> str:
        rows = [self[request].tolist() for request in range(len(self))]
        return f"PrefixHashes.of({rows}, block_tokens={self.block_tokens})"

    def check_fit(self, context_tokens: NDArray[np.int64]) -> None:
        """ValueError unless there is a row for each request, with no more names than its tokens fill."""
        if len(self) != len(context_tokens):
            raise ValueError(
                f"hashes has {len(self)} rows; expected {len(context_tokens)}, one for each request"
            )
        named = np.diff(self.offsets)
        most = -(-context_tokens // self.block_tokens)
        if (named > most).any():
            row = int(np.argmax(named > most))
            raise ValueError(
                f"hashes of row {row} name {named[row]} blocks of {self.block_tokens} tokens; expected "
                f"at most {most[row]}, for its prompt and output have {context_tokens[row]} tokens"
            )

    def select(self, requests: NDArray[np.int64]) -> PrefixHashes:
        """The rows of these requests, in this order."""
        counts = np.diff(self.offsets)[requests]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        return PrefixHashes(
            self.block_tokens, offsets, self.ids[np.repeat(self.offsets[requests], counts) + within]
        )

    def refined(self, block_tokens: int) -> PrefixHashes:
        """The same sharing in smaller blocks, say an engine's KV blocks; ValueError if they do not divide
        these. A last block that is not full is named as if it were."""
        ratio, rest = divmod(self.block_tokens, block_tokens)
        if rest:
            raise ValueError(
                f"names of blocks of {self.block_tokens} tokens cannot be refined to blocks of "
                f"{block_tokens!r} tokens; expected a divisor of {self.block_tokens}"
            )
        ids = (self.ids[:, None] * ratio + np.arange(ratio)).reshape(-1)
        return PrefixHashes(block_tokens, self.offsets * ratio, ids)

    def reused(self) -> NDArray[np.int64]:
        """Of each request, how many leading blocks an earlier one had: what an endless cache would hit."""
        seen: set[int] = set()
        hits = np.zeros(len(self), np.int64)
        names = self.ids.tolist()
        bounds = self.offsets.tolist()
        for request in range(len(self)):
            mine = names[bounds[request] : bounds[request + 1]]
            hits[request] = next((k for k, name in enumerate(mine) if name not in seen), len(mine))
            seen.update(mine)
        return hits
