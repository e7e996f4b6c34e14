"""The arithmetic of verdicts: Student's t, intervals of a mean, replications that would decide.

Everything works on paired differences or plain samples that the caller has already formed; nothing
here knows what was measured. Only the standard library and numpy are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

# Degrees of freedom from which the expansion around the normal distribution is exact to 1e-9.
_NEARLY_NORMAL = 300

# More replications than this will not be run by anybody.
_TOO_MANY = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided Student-t interval.

    ``n`` samples with standard deviation ``sd`` (``n - 1`` in the denominator) and mean ``mean``;
    with probability ``confidence`` the interval [``low``, ``high``] covers the expected value if the
    samples are close to normal.
    """

    mean: float
    sd: float
    n: int
    confidence: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_interval(samples: Sequence[float], confidence: float) -> Interval:
    """The mean of `samples` with its two-sided t interval.

    Samples that are all equal give an interval of width zero: the quantity is deterministic. A
    single sample says nothing of its spread, so its interval is the whole line.
    """
    values = np.asarray(samples, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("no samples: an interval needs at least one")
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, 1, confidence, -math.inf, math.inf)
    if np.all(values == values[0]):
        return Interval(float(values[0]), 0.0, n, confidence, float(values[0]), float(values[0]))
    sd = float(values.std(ddof=1))
    half = t_quantile(0.5 + confidence / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, sd, n, confidence, mean - half, mean + half)


def replications_to_decide(interval: Interval, threshold: float) -> int | None:
    """How many replications would put `threshold` outside the interval, if mean and spread stay.

    None if no number would: the mean lies on the threshold, or the spread is unknown.
    """
    gap = abs(interval.mean - threshold)
    if not gap or not math.isfinite(interval.sd):
        return None

    def decides(n: int) -> bool:
        half = t_quantile(0.5 + interval.confidence / 2, n - 1) * interval.sd / math.sqrt(n)
        return half < gap

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
