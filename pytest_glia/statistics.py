"""The arithmetic of verdicts: intervals of a mean, Student's t, replications that would decide.

Everything works on paired differences or plain samples that the caller has already formed; nothing
here knows what was measured. Only the standard library and numpy are needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Degrees of freedom from which the expansion around the normal distribution is exact to 1e-9.
_NEARLY_NORMAL = 300

# What few samples of a skewed distribution understate of its skewness: theirs is that divided by 1 + c / n on
# average, with c = 7 to 11 for exponential and log-normal samples, 9 to 22 for this simulator's.
_UNSEEN_SKEW = 12

# Johnson's term, which is of first order, with the next ones for it: with less, the means and ratios of
# docs/verdicts.md are covered too seldom; with more, 20 replications have less power than is said there.
_HIGHER_ORDERS = 1.8

# More replications than this will not be run by anybody.
_TOO_MANY = 1_000_000


# With which intervals of quantiles cover as often as those of means.
_QUANTILES = 1.15


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided interval.

    ``n`` samples with standard deviation ``sd`` (``n - 1`` in the denominator), skewness ``skew`` and mean
    ``mean``; with probability ``confidence`` the interval [``low``, ``high``] covers the expected value, if
    the samples are not much more skewed than they look. Its reach was multiplied by ``stretch``.
    """

    mean: float
    sd: float
    n: int
    confidence: float
    low: float
    high: float
    skew: float = 0.0
    stretch: float = 1.0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_interval(
    samples: Sequence[float], confidence: float, *, deterministic: bool = False, stretch: float = 1.0
) -> Interval:
    """The mean of `samples` with its two-sided interval: `bounds`, whose reach is multiplied by `stretch`.

    A single sample says nothing of its spread, so its interval is the whole line. Samples that are all
    equal have an interval of width zero if they are as many as `enough_equal` asks for, or are known to be
    `deterministic`, which no sample can show; of others it is the whole line.
    """
    values = np.asarray(samples, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("no samples: an interval needs at least one")
    if n == 1:
        return Interval(float(values[0]), math.nan, 1, confidence, -math.inf, math.inf)
    if np.all(values == values[0]):
        known = deterministic or n >= enough_equal(confidence)
        reach = 0.0 if known else math.inf
        value = float(values[0])
        return Interval(value, 0.0, n, confidence, value - reach, value + reach)
    mean, sd, skew = (float(each) for each in moments(values))
    low, high = (float(mean + stretch * (end - mean)) for end in bounds(mean, sd, skew, n, confidence))
    return Interval(mean, sd, n, confidence, low, high, skew, stretch)


def logarithm(ratio: float) -> float:
    """The natural logarithm, to 13 decimals: that of 9 / 10 is that of 0.9, and of 18 / 20."""
    return round(math.log(ratio), 13)


def moments(samples: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and skewness along the last axis, corrected for small samples.

    The skewness is G1 of Joanes & Gill, The Statistician 47:183 (1998), and what it leaves unseen of a skewed
    distribution; zero for two samples.
    """
    n = samples.shape[-1]
    mean, sd = samples.mean(axis=-1), samples.std(axis=-1, ddof=1)
    if n < 3:
        return mean, sd, np.zeros_like(mean)
    scaled = (samples - mean[..., None]) / np.where(sd > 0, sd, 1.0)[..., None]
    skew = (scaled * scaled * scaled).sum(axis=-1) * n / ((n - 1) * (n - 2))
    return mean, sd, skew * (1 + _UNSEEN_SKEW / n)


def bounds(
    mean: Floats | float, sd: Floats | float, skew: Floats | float, n: int, confidence: float
) -> tuple[Floats, Floats]:
    """The ends of the interval of a mean: Student's, longer on the side of the longer tail.

    There, what N. J. Johnson's modified t test adds for skewed samples (J. Am. Stat. Assoc. 73:536, 1978;
    solved for the mean to first order) is added in quadrature: a skewness that may well be chance costs next
    to nothing, a large one its due. The other end stays: `skew` never makes an interval shorter.
    """
    t = t_quantile(0.5 + confidence / 2, n - 1)
    reach = t * sd / math.sqrt(n)
    tail = _HIGHER_ORDERS * skew * sd * (1 + 2 * t * t) / (6 * n)
    return mean - np.hypot(reach, np.minimum(tail, 0.0)), mean + np.hypot(reach, np.maximum(tail, 0.0))


def stretch_of(metric: str) -> float:
    """By how much the interval of a metric reaches farther than its mean's would.

    Quantiles, which the field names so (``p90_response_time``), have tails that a handful of replications
    does not show: calibrated on the simulator's, see docs/verdicts.md.
    """
    return _QUANTILES if re.search(r"\bp\d+(_|\b)|_p\d+\b", metric) else 1.0


def enough_equal(confidence: float) -> int:
    """How many replications that all measured the same show that half of all do so, or more.

    The sign test: the range of n samples covers their median with probability 1 - 2^(1 - n).
    """
    return math.ceil(1 - math.log2(1 - confidence))


def replications_to_decide(interval: Interval, threshold: float) -> int | None:
    """How many replications would put `threshold` outside the interval, if mean, spread and skewness stay.

    None if no number would: the mean lies on the threshold, or the spread is unknown. Values that are all
    the same decide on any threshold as soon as they are `enough_equal`, on their own value, too.
    """
    if not interval.sd:
        return max(interval.n, enough_equal(interval.confidence))
    gap = threshold - interval.mean
    if not gap or not math.isfinite(interval.sd):
        return None

    def decides(n: int) -> bool:
        low, high = bounds(0.0, interval.sd, interval.skew, n, interval.confidence)
        return bool(interval.stretch * high < gap or gap < interval.stretch * low)

    low, high = 1, max(interval.n, 2)
    while not decides(high):
        low, high = high, 2 * high
        if high > _TOO_MANY:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def t_quantile(p: float, df: int) -> float:
    """The `p` quantile of Student's t with `df` degrees of freedom, to about 1e-10.

    Inverts the distribution function by bisection; `p` in (0, 1), `df` at least 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"p is {p!r}: give a probability between 0 and 1")
    if df < 1:
        raise ValueError(f"df is {df!r}: give at least one degree of freedom")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if df > _NEARLY_NORMAL:
        return _nearly_normal_quantile(p, df)
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < p:
        low, high = high, high * 2
    while high - low > 1e-12 * max(1.0, high):
        middle = (low + high) / 2
        if _t_cdf(middle, df) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _nearly_normal_quantile(p: float, df: int) -> float:
    """The quantile for many degrees of freedom, by the expansion of Abramowitz & Stegun 26.7.5."""
    x = NormalDist().inv_cdf(p)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / df**power for power, term in enumerate(terms, start=1))


def _t_cdf(t: float, df: int) -> float:
    """P(T <= t) for t >= 0, by the finite sums of Abramowitz & Stegun 26.7.3-4."""
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    if df == 1:
        return 0.5 + theta / math.pi
    term = cosine if df % 2 else 1.0
    total = term
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (theta + sine * total) if df % 2 else sine * total
    return 0.5 + inside / 2
