"""Prompts of token ids for a workload: of the exact lengths, and equal as far as its prefixes say."""

from __future__ import annotations

import numpy as np

from sim.workloads import Workload

__all__ = ["Prompting"]


class Prompting:
    """Token ids, the same for the same workload and salt; with another salt no prompt begins as before.

    `vocabulary` (from, below) are the ids to draw from; they must be ordinary tokens of the model.
    """

    def __init__(
        self, workload: Workload, *, salt: int = 0, vocabulary: tuple[int, int] = (10, 1000)
    ) -> None:
        low, high = vocabulary
        if not 0 <= low < high:
            raise ValueError(f"vocabulary={vocabulary!r}; expected the first id and one past the last")
        self._workload, self._salt, self._vocabulary = workload, salt, vocabulary

    def __getitem__(self, request: int) -> list[int]:
        """The prompt of one request, as many ids as its `prompt_tokens`."""
        length = int(self._workload.prompt_tokens[request])
        made: list[int] = []
        shared = self._workload.prefixes
        if shared is not None:
            row = shared.hashes[shared.starts[request] : shared.starts[request + 1]]
            for name in row[: -(-length // shared.block_size)].tolist():
                made += self._drawn((1, name & (2**63 - 1), name < 0), shared.block_size)
        if len(made) < length:
            made += self._drawn((2, request), length - len(made))
        return made[:length]

    def _drawn(self, seed: tuple[int, ...], count: int) -> list[int]:
        rng = np.random.default_rng((self._salt, *map(int, seed)))
        found: list[int] = rng.integers(*self._vocabulary, count).tolist()
        return found
