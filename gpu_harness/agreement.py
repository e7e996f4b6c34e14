"""How two testbeds agree: errors of their metrics, and whether they rank policies alike (Kendall's tau-b)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from sim.intervals import paired_ratio

__all__ = ["order", "tau_b"]

By = Mapping[str, Sequence[float]]
"""By policy, a positive number for each seed, the same seeds for all."""


def order(values: By, confidence: float = 0.95) -> dict[tuple[str, str], int]:
    """Of each pair of policies whether the first has more (1) or less (-1) than the second, or they are tied
    (0): the interval of their ratio, over pairs of the same seed, holds 1. ValueError for fewer than two
    seeds."""
    counts = {len(of) for of in values.values()}
    if len(values) < 2 or min(counts) < 2 or len(counts) > 1:
        raise ValueError(
            f"{len(values)} policies with {', '.join(map(str, sorted(counts)))} seeds; expected at least two "
            "policies and at least two seeds, the same for all"
        )
    found = {}
    for one, other in itertools.combinations(values, 2):
        ratio = paired_ratio(values[one], values[other], confidence)
        found[one, other] = int(ratio.low > 1) - int(ratio.high < 1)
    return found


def tau_b(one: Mapping[tuple[str, str], int], other: Mapping[tuple[str, str], int]) -> float:
    """Kendall's tau-b of two orders of the same pairs: (concordant - discordant) / sqrt(pairs not tied in the
    one x pairs not tied in the other). NaN where one ties them all, unless both do: then they agree, 1."""
    both = sum(one[pair] * other[pair] for pair in one)
    first, second = (sum(map(abs, of.values())) for of in (one, other))
    if first == second == 0:
        return 1.0
    return both / math.sqrt(first * second) if first and second else math.nan
