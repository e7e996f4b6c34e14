"""Arrivals whose rate varies: diurnal, ramp, steps, waves; and arrivals that were recorded.

A Poisson process with rate r(t) is made from one of rate 1 by the inverse of its integral R(t), so that one
seed gives the same pattern of arrivals, stretched, at any rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.workloads import fields

__all__ = ["Diurnal", "Ramp", "Recorded", "Steps", "Waves"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Diurnal:
    """Poisson arrivals with r(t) = rate x (1 - swing x cos(2 pi t / period)): a night, a day, a night."""

    rate: float
    """Mean requests/s."""
    swing: float
    """0 for a constant rate, 1 for a rate that falls to 0 at night."""
    duration: float
    """Seconds."""
    period: float = 86_400.0
    """Seconds of a day; shorten it to have days pass in minutes."""

    def __post_init__(self) -> None:
        fields.positive(self, "requests/s", rate=self.rate)
        fields.positive(self, "seconds", duration=self.duration, period=self.period)
        fields.number(self, 0.0, 1.0, "(of the mean rate)", swing=self.swing)

    def times(self, rng: np.random.Generator) -> Floats:
        turn = 2 * np.pi / self.period

        def integral(time: Floats) -> Floats:
            return self.rate * (time - self.swing * np.sin(turn * time) / turn)

        # 1,000 points a period; between two of them the rate is taken as constant.
        points = int(np.ceil(self.duration / self.period * 1000)) + 1000
        grid = np.linspace(0.0, self.duration, points)
        return _by_inverse(rng, grid, integral(grid))


@dataclass(frozen=True)
class Ramp:
    """Poisson arrivals whose rate goes in a straight line from `start` to `end`: where is the knee?"""

    start: float
    """Requests/s at 0 s."""
    end: float
    """Requests/s at the end."""
    duration: float
    """Seconds."""

    def __post_init__(self) -> None:
        fields.number(self, 0.0, np.inf, "requests/s", start=self.start, end=self.end)
        fields.positive(self, "seconds", duration=self.duration)

    def times(self, rng: np.random.Generator) -> Floats:
        slope = (self.end - self.start) / self.duration
        total = (self.start + self.end) / 2 * self.duration
        unit = _unit_poisson(rng, total)
        # R(t) = start t + slope t^2 / 2, solved for t in the form that is stable for a slope near 0.
        with np.errstate(invalid="ignore", divide="ignore"):
            times = 2 * unit / (self.start + np.sqrt(np.maximum(self.start**2 + 2 * slope * unit, 0.0)))
        return np.minimum(np.nan_to_num(times), self.duration)


@dataclass(frozen=True)
class Steps:
    """Poisson arrivals whose rate jumps at given times: a surge, an outage elsewhere, a launch."""

    rates: tuple[float, ...]
    """Requests/s, one for each piece."""
    at: tuple[float, ...]
    """Seconds at which each rate but the first begins; increasing, within the duration."""
    duration: float
    """Seconds."""

    def __post_init__(self) -> None:
        fields.positive(self, "seconds", duration=self.duration)
        fields.numbers(self, rates=self.rates, at=self.at)
        for piece, rate in enumerate(self.rates):
            fields.number(self, 0.0, np.inf, "requests/s", **{f"rates[{piece}]": rate})
        edges = (0.0, *self.at, self.duration)
        if len(self.rates) != len(self.at) + 1 or any(b <= a for a, b in pairwise(edges)):
            raise ValueError(
                f"Steps: at={self.at!r} with {len(self.rates)} rates and duration={self.duration!r}; "
                "expected one increasing time in seconds within the duration for each rate but the first"
            )

    def times(self, rng: np.random.Generator) -> Floats:
        edges = np.array([0.0, *self.at, self.duration])
        integral = np.concatenate([[0.0], np.cumsum(np.diff(edges) * self.rates)])
        return _by_inverse(rng, edges, integral)


@dataclass(frozen=True)
class Waves:
    """Poisson arrivals whose rate rises from `low` to `high` and falls again, at random times.

    Stays at either rate last from half to one and a half times their mean, uniformly, and from one to the
    other the rate goes in a straight line for `ramp` seconds: load that builds up, as that of people does,
    where `MMPP` jumps. The first state is drawn by the share of time that each has.
    """

    low: float
    """Requests/s between waves."""
    high: float
    """Requests/s on their crests."""
    stays: tuple[float, float]
    """Mean seconds of a stay at the low and at the high rate."""
    ramp: float
    """Seconds of each rise and of each fall."""
    duration: float
    """Seconds."""

    def __post_init__(self) -> None:
        fields.number(self, 0.0, np.inf, "requests/s", low=self.low, high=self.high)
        fields.numbers(self, stays=self.stays)
        if len(self.stays) != 2:
            raise ValueError(
                f"Waves: stays={self.stays!r}; expected two, the mean seconds of a stay at the low rate and "
                "at the high one"
            )
        for place, stay in enumerate(self.stays):
            fields.positive(self, "seconds", **{f"stays[{place}]": stay})
        fields.number(self, 0.0, np.inf, "seconds", ramp=self.ramp)
        fields.positive(self, "seconds", duration=self.duration)

    def times(self, rng: np.random.Generator) -> Floats:
        rates = (self.low, self.high)
        state = int(rng.random() < self.stays[1] / sum(self.stays))
        edges, levels = [0.0], [rates[state]]
        while edges[-1] < self.duration:
            left = edges[-1] + self.stays[state] * rng.uniform(0.5, 1.5)
            state = 1 - state
            edges += [left, left + self.ramp]
            levels += [rates[1 - state], rates[state]]
        # A ramp is cut into pieces between which the rate is taken as constant, as a day is.
        grid = np.unique(np.append(np.clip(edges, 0.0, self.duration), np.linspace(0.0, self.duration, 4000)))
        middle = np.interp((grid[1:] + grid[:-1]) / 2, edges, levels)
        return _by_inverse(rng, grid, np.concatenate([[0.0], np.cumsum(np.diff(grid) * middle)]))


@dataclass(frozen=True)
class Recorded:
    """Exactly these arrivals: a trace's, to be joined with other lengths. Nothing is drawn."""

    at: tuple[float, ...]
    """Seconds, not decreasing."""

    def __post_init__(self) -> None:
        fields.numbers(self, at=self.at)
        times = np.asarray(self.at, np.float64)
        bad = ~np.isfinite(times) | (times < 0) | (np.diff(times, prepend=-np.inf) < 0)
        if times.ndim != 1 or bad.any():
            row = int(np.argmax(bad)) if times.ndim == 1 else 0
            raise ValueError(
                f"Recorded: at[{row}]={times.reshape(-1)[row].item()!r}; expected finite seconds of at least "
                "0, none before the one above it"
            )

    @property
    def duration(self) -> float:
        """Seconds until the last arrival."""
        return self.at[-1] if self.at else 0.0

    def times(self, rng: np.random.Generator) -> Floats:
        return np.array(self.at, np.float64)


def _by_inverse(rng: np.random.Generator, grid: Floats, integral: Floats) -> Floats:
    """Arrivals of the rate whose integral has these values on the grid, in a straight line between them."""
    # Where the rate is 0 the integral stands still; that an arrival falls there has probability 0.
    return np.interp(_unit_poisson(rng, float(integral[-1])), integral, grid)


def _unit_poisson(rng: np.random.Generator, total: float) -> Floats:
    """Arrivals of a Poisson process of rate 1 in [0, total)."""
    chunk = int(total) + 16
    times = np.cumsum(rng.exponential(1.0, chunk))
    while times[-1] < total:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.exponential(1.0, chunk))])
    return times[times < total]
