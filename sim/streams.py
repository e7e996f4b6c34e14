"""Randomness: one stream of the seed for each purpose, so that a change to one leaves the others as they are.

Two runs that share a seed then differ only in what is compared (common random numbers), whatever a policy or
another generator draws.
"""

from __future__ import annotations

import numpy as np

__all__ = ["ARRIVALS", "OUTPUTS", "POLICY", "PROMPTS", "RESAMPLING", "THINKING", "TURNS", "checked", "stream"]

ARRIVALS, PROMPTS, OUTPUTS, POLICY, TURNS, THINKING, RESAMPLING = range(7)


def stream(seed: int, purpose: int) -> np.random.Generator:
    """The generator of this seed for this purpose, one of the constants above; ValueError for a bad seed."""
    return np.random.default_rng(np.random.SeedSequence(checked(seed), spawn_key=(purpose,)))


def checked(seed: int) -> int:
    """The seed as an int; ValueError unless it is a whole number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}; expected a whole number of at least 0")
    return int(seed)
