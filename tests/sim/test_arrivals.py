"""Arrival processes: each has the rate and the burstiness that it promises, and only the seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import workloads as w
from sim.streams import ARRIVALS, stream

LONG = 20_000.0
PROCESSES: list[Any] = [
    w.Poisson(4.0, LONG),
    w.Gamma(4.0, 0.5, LONG),
    w.Gamma(4.0, 3.0, LONG),
    w.Gamma(4.0, 0.0, LONG),
    w.Bursty(4.0, LONG),
    w.MMPP((1.0, 13.0), (30.0, 10.0), LONG),
    w.Diurnal(4.0, 0.8, LONG, period=2000.0),
    w.Ramp(1.0, 7.0, LONG),
    w.Steps((2.0, 8.0, 2.0), (5000.0, LONG - 5000.0 * 5 / 3), LONG),
    w.Waves(1.0, 7.0, (40.0, 40.0), 20.0, LONG),
]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_times_are_ordered_within_the_duration_and_of_the_seed(process: Any) -> None:
    """Not decreasing, from 0 up to the duration, the same for a seed and different for another."""
    times = process.times(stream(1, ARRIVALS))
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] <= process.duration
    assert times.tobytes() == process.times(stream(1, ARRIVALS)).tobytes()
    assert times.tobytes() != process.times(stream(2, ARRIVALS)).tobytes() or process == PROCESSES[3]


@pytest.mark.parametrize(
    ("process", "tolerance"),
    [
        (process, 0.15 if isinstance(process, w.MMPP | w.Waves) else 0.02)
        for process in PROCESSES
        if not isinstance(process, w.Steps)
    ],
)
def test_the_rate_is_the_nominal_one(process: Any, tolerance: float) -> None:
    """4 requests/s over 20,000 s, within what its burstiness allows (3 standard deviations or more)."""
    assert len(process.times(stream(3, ARRIVALS))) / LONG == pytest.approx(4.0, rel=tolerance)


@pytest.mark.parametrize(("cv", "seed"), [(0.25, 1), (0.5, 2), (1.0, 3), (2.0, 4), (5.0, 5)])
def test_gamma_gaps_have_their_cv(cv: float, seed: int) -> None:
    """The coefficient of variation asked for, 1 being Poisson."""
    gaps = np.diff(w.Gamma(10.0, cv, LONG).times(stream(seed, ARRIVALS)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_counts_are_as_dispersed_as_their_mean() -> None:
    """Index of dispersion 1 in windows of any length; gaps of CV 1."""
    figures = w.generate(w.Poisson(5.0, LONG), w.SHAREGPT, seed=0).describe()
    assert figures["gap_cv"] == pytest.approx(1.0, rel=0.02)
    for seconds, tolerance in ((1, 0.05), (10, 0.1), (60, 0.25)):
        assert figures[f"dispersion_{seconds}s"] == pytest.approx(1.0, rel=tolerance)


def test_mmpp_has_the_dispersion_of_its_theory() -> None:
    """Two states: the index of dispersion of long windows tends to
    1 + 2 (r1 - r2)^2 p1 p2 / (mean rate x (1/s1 + 1/s2)), Fischer and Meier-Hellstern 1993."""
    (r1, r2), (s1, s2) = (2.0, 20.0), (6.0, 2.0)
    p1, p2 = s1 / (s1 + s2), s2 / (s1 + s2)
    mean = r1 * p1 + r2 * p2
    theory = 1 + 2 * (r1 - r2) ** 2 * p1 * p2 / (mean * (1 / s1 + 1 / s2))
    process = w.MMPP((r1, r2), (s1, s2), 100_000.0)
    assert process.rate == pytest.approx(mean)
    figures = w.generate(process, w.Independent(w.Fixed(1), w.Fixed(1)), seed=1).describe()
    assert figures["dispersion_60s"] == pytest.approx(theory, rel=0.1)


def test_waves_rise_and_fall_in_ramps() -> None:
    """No change is sudden: within a ramp the rate goes through what lies between, and stays outside."""
    process = w.Waves(0.0, 100.0, (400.0, 400.0), 200.0, 4000.0)
    counts = np.bincount((process.times(stream(5, ARRIVALS)) / 20).astype(int), minlength=200) / 20
    between = (counts > 20) & (counts < 80)
    assert 0.1 < between.mean() < 0.6
    assert np.abs(np.diff(counts)).max() < 30  # 10 by the ramp, and noise; a jump would be 100
    assert (counts < 1).any()
    assert (counts > 90).any()


def test_waves_come_in_their_time() -> None:
    """Without ramps each stay at a rate lasts from half to one and a half times its mean."""
    process = w.Waves(0.0, 50.0, (20.0, 10.0), 0.0, 3000.0)
    busy = np.bincount(process.times(stream(5, ARRIVALS)).astype(int), minlength=3000) > 0
    edges = np.flatnonzero(np.diff(busy)) + 1
    stays = np.diff(edges)
    calm, crest = (stays[0::2], stays[1::2]) if not busy[edges[0]] else (stays[1::2], stays[0::2])
    for found, mean in ((calm, 20), (crest, 10)):
        assert found.min() >= mean / 2 - 2
        assert found.max() <= 1.5 * mean + 2
        assert found.mean() == pytest.approx(mean, rel=0.15)


def _count(times: Any, start: float, end: float) -> int:
    return int(((times >= start) & (times < end)).sum())


def test_a_rate_that_varies_is_followed() -> None:
    """Arrivals between two times are as many as the integral of the rate, within 4 standard deviations."""
    day, swing = 2000.0, 0.8
    for process, start, end, expected in (
        (w.Steps((2.0, 20.0, 0.0), (100.0, 900.0), 1000.0), 0.0, 100.0, 200.0),
        (w.Steps((2.0, 20.0, 0.0), (100.0, 900.0), 1000.0), 100.0, 900.0, 16_000.0),
        (w.Steps((2.0, 20.0, 0.0), (100.0, 900.0), 1000.0), 900.0, 1000.0, 0.0),
        (w.Ramp(0.0, 20.0, 1000.0), 0.0, 500.0, 2500.0),
        (w.Ramp(0.0, 20.0, 1000.0), 500.0, 1000.0, 7500.0),
        (w.Ramp(20.0, 0.0, 1000.0), 0.0, 500.0, 7500.0),
        (w.Diurnal(10.0, swing, day, day), 0.0, day / 4, 10 * (day / 4 - swing * day / (2 * np.pi))),
        (w.Diurnal(10.0, swing, day, day), day / 4, day / 2, 10 * (day / 4 + swing * day / (2 * np.pi))),
    ):
        found = _count(process.times(stream(5, ARRIVALS)), start, end)
        assert abs(found - expected) <= 4 * np.sqrt(expected), process


def test_recorded_arrivals_are_themselves() -> None:
    """To be joined with other lengths."""
    workload = w.generate(w.Recorded((0.0, 0.5, 0.5)), w.Independent(w.Fixed(3), w.Fixed(4)), seed=1)
    assert workload.arrival.tolist() == [0.0, 0.5, 0.5]
    assert workload.prompt_tokens.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: w.Poisson(-1.0, 10), "Poisson: rate=-1.0; expected a positive, finite number of requests/s"),
        (lambda: w.Poisson(1.0, float("nan")), "Poisson: duration=nan; expected .* number of seconds"),
        (lambda: w.Poisson(0.01, 10), "Poisson: rate=0.01 .* is less than one request; raise one"),
        (lambda: w.Gamma(1.0, -1, 10), "Gamma: cv=-1; expected a number from 0 to 100"),
        (lambda: w.MMPP((1.0,), (2.0,), 10), "for each of at least two states"),
        (lambda: w.Waves(1, 2, (3.0,), 1, 10), r"Waves: stays=\(3.0,\); expected two, the mean seconds"),  # type: ignore[arg-type]
        (lambda: w.Waves(-1.0, 2, (3.0, 3.0), 1, 10), "Waves: low=-1.0; expected .* requests/s"),
        (lambda: w.Waves(1.0, 2, (3.0, 0.0), 1, 10), r"Waves: stays\[1\]=0.0; expected .* seconds"),
        (lambda: w.Waves(1.0, 2, (3.0, 3.0), -1, 10), "Waves: ramp=-1; expected .* seconds"),
        (lambda: w.MMPP((1.0, -2.0), (2.0, 2.0), 10), r"MMPP: rates\[1\]=-2.0; expected .* requests/s"),
        (lambda: w.MMPP((1.0, 2.0), (2.0, 0.0), 10), r"MMPP: stays\[1\]=0.0; expected .* seconds"),
        (lambda: w.Diurnal(1.0, 1.5, 10), r"Diurnal: swing=1.5; expected a number from 0 to 1"),
        (lambda: w.Ramp(1.0, -1.0, 10), r"Ramp: end=-1.0; expected a number of at least 0 requests/s"),
        (lambda: w.Steps((1.0, 2.0), (20.0,), 10), "expected one increasing time in seconds within the"),
        (lambda: w.Bursty(1.0, 10, conditioned=1), "Bursty: conditioned=1; expected True or False"),  # type: ignore[arg-type]
        (lambda: w.Bursty(-1.0, 10), "Bursty: rate=-1.0; expected a positive, finite number of requests/s"),
        (lambda: w.MMPP(5.0, (2.0,), 10), "MMPP: rates=5.0; expected a tuple of numbers"),  # type: ignore[arg-type]
        (lambda: w.Steps((1.0, 2.0), ("5",), 10), r"Steps: at\[0\]='5'; expected a number"),  # type: ignore[arg-type]
        (lambda: w.Recorded(3.0), "Recorded: at=3.0; expected a tuple of numbers"),  # type: ignore[arg-type]
        (lambda: w.Recorded(("x",)), r"Recorded: at\[0\]='x'; expected a number"),  # type: ignore[arg-type]
        (lambda: w.Diurnal(1.0, 0.5, 10, period=0), "Diurnal: period=0; expected .* number of seconds"),
        (lambda: w.generate(3, w.SHAREGPT, 1), "arrivals=3; expected arrivals, .* with a method times"),  # type: ignore[arg-type]
        (lambda: w.Recorded((1.0, 0.5)), r"Recorded: at\[1\]=0.5; expected finite seconds"),
    ],
)
def test_a_bad_field_is_named(make: Any, message: str) -> None:
    """Class, field, value, range and unit."""
    with pytest.raises(ValueError, match=message):
        make()


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(0.5, 50), duration=st.floats(4, 100), seed=st.integers(0, 1000))
def test_a_thinner_pattern_is_the_same_pattern(rate: float, duration: float, seed: int) -> None:
    """Poisson arrivals of a seed at twice the rate are the same ones, twice as dense."""
    slow = w.Poisson(rate, duration).times(stream(seed, ARRIVALS))
    fast = w.Poisson(2 * rate, duration / 2).times(stream(seed, ARRIVALS))
    assert fast * 2 == pytest.approx(slow)
