"""Arrival processes of a constant rate: when requests come, in seconds from 0 on.

Each is plain data with a method `times(rng)`; `sim.workloads.generate` joins one with a source of lengths.
A renewal process starts at an arrival that it does not show, except `Bursty`, which shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.workloads import fields

__all__ = ["MMPP", "Arrivals", "Bursty", "Gamma", "Poisson", "bursty_arrivals"]

Floats = NDArray[np.float64]

MOST_REQUESTS = 10**7
"""Of a generated workload: a run of so many takes minutes and 7 GB."""


class Arrivals(Protocol):
    """A random process of arrivals over `duration` seconds."""

    @property
    def duration(self) -> float:
        """Seconds from 0 in which requests arrive."""
        ...

    def times(self, rng: np.random.Generator) -> Floats:
        """Arrival times in seconds, from 0 up to the duration, not decreasing."""
        ...


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals: exponential gaps, coefficient of variation 1."""

    rate: float
    """Requests/s."""
    duration: float
    """Seconds."""

    def __post_init__(self) -> None:
        _check_rate(self, self.rate, self.duration)

    def times(self, rng: np.random.Generator) -> Floats:
        return _renewal(lambda count: rng.exponential(1 / self.rate, count), self.rate, self.duration)


@dataclass(frozen=True)
class Gamma:
    """Gamma-distributed gaps: the usual knob for burstiness (cv > 1) or regularity (cv < 1) of a renewal
    process, as vLLM's benchmark (its `burstiness` is 1/cv^2) and BurstGPT have it."""

    rate: float
    """Requests/s."""
    cv: float
    """Coefficient of variation of the gaps: 1 is Poisson, 0 is a clock."""
    duration: float
    """Seconds."""

    def __post_init__(self) -> None:
        _check_rate(self, self.rate, self.duration)
        fields.number(self, 0.0, 100.0, "(standard deviation over mean of the gaps)", cv=self.cv)

    def times(self, rng: np.random.Generator) -> Floats:
        if self.cv == 0:
            return _renewal(lambda count: np.full(count, 1 / self.rate), self.rate, self.duration)
        shape = self.cv**-2
        return _renewal(
            lambda count: rng.gamma(shape, 1 / (self.rate * shape), count), self.rate, self.duration
        )


@dataclass(frozen=True)
class Bursty:
    """Log-normal gaps of sigma 2: long silences, then bursts; see `bursty_arrivals`."""

    rate: float
    """Requests/s."""
    duration: float
    """Seconds."""
    conditioned: bool = True
    """Exactly round(rate x duration) arrivals, so that the realised rate is the nominal one."""

    def __post_init__(self) -> None:
        _check_rate(self, self.rate, self.duration)
        fields.flag(self, conditioned=self.conditioned)

    def times(self, rng: np.random.Generator) -> Floats:
        return bursty_arrivals(rng, self.rate, self.duration, conditioned=self.conditioned)


@dataclass(frozen=True)
class MMPP:
    """Markov-modulated Poisson process: Poisson arrivals whose rate jumps between states at random times.

    After a stay of exponential length the next state is any other one, equally likely; the first is drawn by
    the share of time that each has in the long run. Gaps within a state are independent, but the states make
    them correlated, which no renewal process can: calm minutes, then busy ones.
    """

    rates: tuple[float, ...]
    """Requests/s of each state; 0 for silence."""
    stays: tuple[float, ...]
    """Mean seconds of a stay in each state."""
    duration: float
    """Seconds."""

    def __post_init__(self) -> None:
        fields.numbers(self, rates=self.rates, stays=self.stays)
        if len(self.rates) < 2 or len(self.rates) != len(self.stays):
            raise ValueError(
                f"MMPP: rates={self.rates!r} and stays={self.stays!r}; expected a rate in requests/s and a "
                "mean stay in seconds for each of at least two states"
            )
        for state, (rate, stay) in enumerate(zip(self.rates, self.stays, strict=True)):
            fields.number(self, 0.0, np.inf, "requests/s", **{f"rates[{state}]": rate})
            fields.positive(self, "seconds", **{f"stays[{state}]": stay})
        fields.positive(self, "seconds", duration=self.duration)
        _check_expected(self, self.rate, self.duration)

    @property
    def rate(self) -> float:
        """Requests/s in the long run: each state's rate by its share of the time (states are visited equally
        often)."""
        return float(np.dot(self.rates, self.stays) / np.sum(self.stays))

    def times(self, rng: np.random.Generator) -> Floats:
        shares = np.asarray(self.stays) / np.sum(self.stays)
        state = int(rng.choice(len(shares), p=shares))
        pieces: list[Floats] = [np.empty(0)]
        now = 0.0
        while now < self.duration:
            stay = rng.exponential(self.stays[state])
            count = rng.poisson(self.rates[state] * stay)
            pieces.append(now + np.sort(rng.random(count)) * stay)
            now += stay
            state = (state + int(rng.integers(1, len(shares)))) % len(shares)
        times = np.concatenate(pieces)
        return times[times < self.duration]


def bursty_arrivals(
    rng: np.random.Generator, rate: float, duration: float, *, conditioned: bool = True
) -> Floats:
    """Arrival times in seconds from 0 on, at `rate` a second, for `duration` seconds; log-normal gaps of
    sigma 2.

    The gaps have the mean 1/rate and a standard deviation of 7.3/rate: long silences, then bursts (the
    arrivals of the Glia paper, arXiv 2510.27176). So heavy a tail makes the number of arrivals in 1,000 s
    vary by about 15 % from seed to seed, more than the effect of most designs. With `conditioned` there are
    exactly round(rate x duration) arrivals, and their gaps, scaled by one factor, fill the duration: the
    bursts remain and the realised rate is the nominal one. Without, the arrivals are those that fall into the
    duration.
    """
    _check_bursty(rate, duration)
    mean, sigma = np.log(1 / rate) - 2.0, 2.0
    expected = round(rate * duration)
    if conditioned:
        gaps = rng.lognormal(mean, sigma, expected)
        times = np.concatenate([[0.0], np.cumsum(gaps)])
        return times[:-1] * (duration / times[-1])  # type: ignore[no-any-return]
    times = np.zeros(1)
    while times[-1] < duration:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.lognormal(mean, sigma, expected))])
    return times[times < duration]


def _check_bursty(rate: float, duration: float) -> None:
    _check_rate(None, rate, duration)


def _check_rate(owner: object, rate: float, duration: float) -> None:
    fields.positive(owner, "requests/s", rate=rate)
    fields.positive(owner, "seconds", duration=duration)
    _check_expected(owner, rate, duration)


def _check_expected(owner: object, rate: float, duration: float) -> None:
    if round(rate * duration) < 1:
        name = f"{type(owner).__name__}: " if owner is not None else ""
        raise ValueError(
            f"{name}rate={rate!r} requests/s for duration={duration!r} s is less than one request; raise one"
        )
    if rate * duration > MOST_REQUESTS:
        name = f"{type(owner).__name__}: " if owner is not None else ""
        raise ValueError(
            f"{name}rate={rate!r} requests/s for duration={duration!r} s is {rate * duration:.3g} requests; "
            f"expected at most {MOST_REQUESTS:,}; lower one"
        )


def _renewal(gaps: Callable[[int], Floats], rate: float, duration: float) -> Floats:
    """The arrivals within the duration of a process with these gaps, drawn in chunks."""
    chunk = int(rate * duration) + 16
    times = np.cumsum(gaps(chunk))
    while times[-1] < duration:
        times = np.concatenate([times, times[-1] + np.cumsum(gaps(chunk))])
    return times[times < duration]
