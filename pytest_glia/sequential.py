"""Error kept in hand when a question is asked more than once: planned looks, and repeated confirmations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from pytest_glia.statistics import Floats, enough_equal

# Points of the quadrature at each look: enough for six digits where looks lie 5 % or more apart.
_NODES = 48


def pocock(confidence: float, looks: Sequence[float]) -> float:
    """The confidence of each look at growing samples, for `confidence` over all of them together.

    Pocock's design (Biometrika 64:191, 1977): every look has the same nominal level. `looks` are the sample
    sizes at the looks, or anything in proportion to them, growing. The nominal level is exact for normal
    samples of known spread; used with t quantiles it is close from three samples on (docs/verdicts.md).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}: give a probability between 0 and 1")
    if not looks or any(later <= earlier for earlier, later in zip([0, *looks], looks, strict=False)):
        raise ValueError(f"looks is {looks!r}: give sample sizes above zero, each larger than the one before")
    # Bonferroni's confidence is enough whatever the looks have in common.
    enough = 1 - (1 - confidence) / len(looks)
    low, high = (NormalDist().inv_cdf(0.5 + level / 2) for level in (confidence, enough))
    quadrature = np.polynomial.legendre.leggauss(_NODES)
    while high - low > 1e-8:
        middle = (low + high) / 2
        if _stays_within(middle, looks, *quadrature) < confidence:
            low = middle
        else:
            high = middle
    return 2 * NormalDist().cdf((low + high) / 2) - 1


def confirmation_confidence(confidence: float, attempt: int) -> float:
    """The confidence of the `attempt`-th confirmation, so that all there may be err at most as often as one.

    Of the error allowed, 6 / (pi k)^2 goes to attempt k; these shares add up to one.
    """
    if attempt < 1:
        raise ValueError(f"attempt is {attempt!r}: the first one is 1")
    return 1 - (1 - confidence) * 6 / (math.pi * attempt) ** 2


def confirmation_seeds(replications: int, confidence: float, attempt: int) -> int:
    """How many seeds the `attempt`-th confirmation has: enough for a metric that never varies."""
    return max(replications, enough_equal(confirmation_confidence(confidence, attempt)))


def _stays_within(bound: float, looks: Sequence[float], points: Floats, weights: Floats) -> float:
    """P(|Z| < bound at every look), Z the standardised sum of the samples so far.

    By recursive integration over the sum at each look (Armitage, McPherson & Rowe, J. R. Stat. Soc. A
    132:235, 1969), with Gauss-Legendre `points` and `weights` between the bounds.
    """
    sums = np.zeros(1)
    mass = np.ones(1)
    before = 0.0
    for look in looks:
        reach = bound * math.sqrt(look)
        step = math.sqrt(look - before)
        after = reach * points
        density = np.exp(-0.5 * ((after[:, None] - sums) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        sums, mass, before = after, reach * weights * (density @ mass), look
    return float(mass.sum())
