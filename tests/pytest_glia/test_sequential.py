"""Planned looks and repeated confirmations: the error allowed is the error of all of them together."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_glia.sequential import confirmation_confidence, confirmation_seeds, pocock
from pytest_glia.statistics import mean_interval


@pytest.mark.parametrize(
    ("confidence", "looks", "level"),
    [
        (0.95, 2, 0.0294),
        (0.95, 3, 0.0221),
        (0.95, 4, 0.0182),
        (0.95, 5, 0.0158),
        (0.99, 2, 0.0056),
        (0.99, 3, 0.0041),
        (0.90, 5, 0.0339),
    ],
)
def test_equal_looks_have_the_published_level(confidence: float, looks: int, level: float) -> None:
    """Nominal levels of Pocock's table (Biometrika 64:191, 1977), to its four digits."""
    assert 1 - pocock(confidence, range(1, looks + 1)) == pytest.approx(level, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 0.999), st.lists(st.integers(1, 40), min_size=2, max_size=2, unique=True))
def test_two_looks_are_a_bivariate_normal(confidence: float, sizes: list[int]) -> None:
    """With the level found, both looks stay within their bounds as often as asked, by scipy's integration."""
    first, last = sorted(sizes)
    bound = stats.norm.ppf(0.5 + pocock(confidence, (first, last)) / 2)
    correlation = math.sqrt(first / last)
    both = stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], allow_singular=True)
    ends = [(s, t) for s in (bound, -bound) for t in (bound, -bound)]
    inside = sum(np.sign(s) * np.sign(t) * both.cdf([s, t]) for s, t in ends)
    assert inside == pytest.approx(confidence, abs=1e-4)


def test_one_look_keeps_the_confidence() -> None:
    """Who looks once pays nothing, whatever the size."""
    assert pocock(0.95, [7]) == pytest.approx(0.95, abs=1e-12)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0.5, 0.999))
@settings(max_examples=25, deadline=None)
def test_a_level_lies_between_one_look_and_bonferroni(steps: list[int], confidence: float) -> None:
    """Each look is judged more strictly than a single one, and less than with looks that share nothing."""
    level = 1 - pocock(confidence, np.cumsum(steps).tolist())
    assert (1 - confidence) / len(steps) <= level + 1e-9
    assert level <= 1 - confidence + 1e-9


@pytest.mark.parametrize("looks", [[], [0, 1], [3, 3], [5, 2]])
def test_looks_must_grow(looks: list[int]) -> None:
    """The error shows the looks."""
    with pytest.raises(ValueError, match=re.escape(f"looks is {looks!r}: give sample sizes")):
        pocock(0.95, looks)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_probability(confidence: float) -> None:
    """The error shows the value."""
    with pytest.raises(ValueError, match=f"confidence is {confidence!r}"):
        pocock(confidence, [1, 2])


def test_all_attempts_together_err_as_often_as_one_may() -> None:
    """The errors allowed to a million attempts add up to that of one, and each has less than the last."""
    allowed = [1 - confirmation_confidence(0.95, attempt) for attempt in (1, 2, 3)]
    assert allowed == pytest.approx([0.030396, 0.007599, 0.003377], abs=1e-6)
    total = 0.05 * 6 / math.pi**2 * np.sum(1 / np.arange(1, 1_000_001, dtype=float) ** 2)
    assert sum(allowed) < total < 0.05
    with pytest.raises(ValueError, match="attempt is 0"):
        confirmation_confidence(0.95, 0)


@given(st.integers(2, 30), st.floats(0.5, 0.999), st.integers(1, 50))
def test_a_metric_that_never_varies_can_be_confirmed_at_every_attempt(
    replications: int, confidence: float, attempt: int
) -> None:
    """There are never fewer seeds than replications, and enough for equal values to have an interval."""
    n = confirmation_seeds(replications, confidence, attempt)
    assert n >= replications
    interval = mean_interval([0.0] * n, confirmation_confidence(confidence, attempt))
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert n == replications or math.isinf(mean_interval([0.0] * (n - 1), interval.confidence).high)
