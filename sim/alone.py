"""What requests take alone on an idle replica: the yardstick of a slowdown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.compiled import njit
from sim.costs.step import Tables, step_seconds

__all__ = ["response_times"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_step_seconds = njit(step_seconds)


def response_times(tables: Tables, budget: int, prompt_tokens: Ints, output_tokens: Ints) -> Floats:
    """Seconds of each request's steps with nothing else in them, in steps of at most `budget` tokens, with
    room for it and nothing of it in the prefix cache."""
    lengths = np.stack([prompt_tokens, output_tokens], axis=1).astype(np.int64)
    decoded = np.zeros(int(lengths.sum(axis=1).max(initial=0)) + 1)
    seconds = np.zeros(len(lengths))
    _sum_steps(Tables(*map(np.ascontiguousarray, tables)), budget, lengths, decoded, seconds)
    return seconds


@njit
def _sum_steps(tables: Tables, budget: int, lengths: Ints, decoded: Floats, seconds: Floats) -> None:
    """Fill `seconds`, through `decoded`: the sum over decodes that read 1, 2, ... KV tokens."""
    for context in range(1, len(decoded)):
        decoded[context] = decoded[context - 1] + _step_seconds(tables, 1, 1, 1, context, context, 0, 0, 0)
    for request in range(len(lengths)):
        prompt, output = lengths[request]
        total = decoded[prompt + output - 1] - decoded[prompt]
        computed = 0
        while computed < prompt:
            chunk = min(prompt - computed, budget)
            pairs = chunk * (2 * computed + chunk + 1)
            total += _step_seconds(tables, chunk, 1, 0, 0, 0, pairs, computed + chunk, chunk)
            computed += chunk
        seconds[request] = total
