"""The arithmetic of verdicts."""

from __future__ import annotations

import math
import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_glia.statistics import (
    Interval,
    bounds,
    enough_equal,
    mean_interval,
    moments,
    replications_to_decide,
    t_quantile,
)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 19, 29, 50, 199, 1000])
def test_quantiles_are_those_of_scipy(df: int) -> None:
    """Student's quantile agrees with scipy's to nine digits, in both tails and the middle."""
    for p in (0.001, 0.025, 0.1, 0.4, 0.5, 0.6, 0.75, 0.95, 0.975, 0.995, 0.9995):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(("p", "df"), [(0.0, 3), (1.0, 3), (-0.1, 3), (0.9, 0)])
def test_quantile_refuses_what_has_none(p: float, df: int) -> None:
    """A probability outside (0, 1), or no degree of freedom, is an error that shows the value."""
    with pytest.raises(ValueError, match=f"is {p if df else df!r}"):
        t_quantile(p, df)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_interval_covers_the_truth_as_often_as_it_says(n: int) -> None:
    """Of 95 % intervals of normal samples, 93 to 97 % cover the true mean."""
    samples = np.random.default_rng(n).normal(3.0, 2.0, size=(20_000, n))
    low, high = bounds(*moments(samples), n, 0.95)
    assert 0.93 < np.mean((low <= 3.0) & (high >= 3.0)) < 0.97


different = st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda s: len(set(s)) > 1)


@given(different, st.floats(0.5, 0.999))
def test_symmetric_samples_have_the_interval_of_scipy(samples: list[int], confidence: float) -> None:
    """Samples with their mirror image: mean and ends are those of Student's interval."""
    both = [float(each) for sample in samples for each in (sample, -sample)]
    interval = mean_interval(both, confidence)
    error = float(np.std(both, ddof=1)) / math.sqrt(len(both))
    expected = stats.t.interval(confidence, len(both) - 1, 0.0, error)
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-7)


@given(different, st.floats(0.5, 0.999))
def test_skewed_samples_reach_farther_on_the_side_of_their_tail(
    samples: list[int], confidence: float
) -> None:
    """The end on the other side is Student's; to the one on the tail's side skewness adds in quadrature."""
    n, skew = len(samples), float(stats.skew(samples, bias=False)) if len(samples) > 2 else 0.0
    interval = mean_interval(samples, confidence)
    sd, t = float(np.std(samples, ddof=1)), float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    student = t * sd / math.sqrt(n)
    tail = 0.3 * skew * (1 + 12 / n) * sd * (1 + 2 * t * t) / n
    low, high = interval.mean - interval.low, interval.high - interval.mean
    assert low == pytest.approx(math.hypot(student, min(tail, 0)), rel=1e-7)
    assert high == pytest.approx(math.hypot(student, max(tail, 0)), rel=1e-7)


def test_deterministic_samples_give_an_interval_without_width() -> None:
    """What does not depend on the seed is known exactly, whatever rounding its mean would suffer."""
    interval = mean_interval([0.1] * 3, 0.95, deterministic=True)
    assert (interval.low, interval.mean, interval.high, interval.sd) == (0.1, 0.1, 0.1, 0.0)


@pytest.mark.parametrize(("confidence", "enough"), [(0.5, 2), (0.95, 6), (0.97, 7), (0.99, 8), (0.999, 11)])
def test_few_equal_samples_show_nothing(confidence: float, enough: int) -> None:
    """Equal by chance, n samples show by the sign test what half of all are; too few of them, nothing."""
    assert enough_equal(confidence) == enough
    assert 1 - 2.0 ** (1 - enough) >= confidence > 1 - 2.0 ** (2 - enough)
    few, many = mean_interval([3.0] * (enough - 1), confidence), mean_interval([3.0] * enough, confidence)
    assert (few.mean, few.low, few.high) == (3.0, -math.inf, math.inf)
    assert (many.mean, many.low, many.high) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("threshold", [0.1, 0.0])
def test_few_equal_samples_need_enough_of_them(threshold: float) -> None:
    """The number told is that of the sign test, on the threshold, too: `<= 0` is shown by six zeros."""
    assert replications_to_decide(mean_interval([0.0] * 3, 0.95), threshold) == 6


def test_one_sample_says_nothing_of_its_spread() -> None:
    """The interval of a single sample is the whole line."""
    interval = mean_interval([2.0], 0.95)
    assert (interval.low, interval.high, interval.mean) == (-math.inf, math.inf, 2.0)
    assert math.isnan(interval.sd)


def test_no_sample_is_an_error() -> None:
    """There is no interval of nothing."""
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([], 0.95)


@pytest.mark.parametrize("gap", [0.05, 0.2, 0.5])
def test_replications_to_decide_are_enough_and_not_far_too_many(gap: float) -> None:
    """With the same mean and spread, the number given decides, and half of it does not."""
    interval = mean_interval([0.1, 1.0, -1.0, 0.5, -0.6], 0.95)
    needed = replications_to_decide(interval, gap)
    assert needed is not None

    def high(n: int) -> float:
        return float(bounds(interval.mean, interval.sd, interval.skew, n, interval.confidence)[1])

    assert high(needed) < gap < high(max(2, needed // 2))


def test_interval_that_excludes_the_threshold_needs_no_more_replications() -> None:
    """What is decided already is settled by the replications at hand."""
    interval = mean_interval([0.0, 1.0, -1.0, 0.5, -0.5], 0.95)
    assert replications_to_decide(interval, interval.high + 0.01) == interval.n


def test_some_questions_no_number_of_replications_decides() -> None:
    """A mean on its threshold, or an unknown spread, is never settled."""
    assert replications_to_decide(mean_interval([1.0, -1.0], 0.95), 0.0) is None
    assert replications_to_decide(mean_interval([1.0], 0.95), 0.0) is None
    hair = Interval(mean=1e-9, sd=1.0, n=5, confidence=0.95, low=-1.0, high=1.0)
    assert replications_to_decide(hair, 0.0) is None


def test_a_close_call_costs_milliseconds() -> None:
    """Saying how many thousands of replications would decide must not take as long as running some."""
    interval = mean_interval([0.58, 0.60, 0.62, 0.60], 0.95)
    assert min(timeit.repeat(lambda: replications_to_decide(interval, 0.60005), number=1, repeat=2)) < 0.1
