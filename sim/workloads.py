"""Workloads: what arrives when, and how long it turns out to be; and generators of them that only a seed
decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim import lengths
from sim.prefixes import Prefixes

__all__ = ["Workload", "bursty_arrivals", "sharegpt_bursty", "short_prompts_long_outputs"]


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival. Make one with `from_arrays` or a generator of this module."""

    arrival: NDArray[np.float64]
    """Seconds, not decreasing."""
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] | None = None
    session: NDArray[np.int64] | None = None
    """The conversation a request belongs to; -1 for none."""
    prefixes: Prefixes | None = None
    """Which blocks of tokens are equal, for prefix caching; None if no two requests begin alike."""
    ttft_slo: NDArray[np.float64] | None = None
    """Seconds within which a request's first token should come; NaN for no bound."""
    tpot_slo: NDArray[np.float64] | None = None
    """Seconds that each later output token should take on average; NaN for no bound."""

    @classmethod
    def from_arrays(
        cls,
        *,
        arrival: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        priority: ArrayLike | None = None,
        session: ArrayLike | None = None,
        prefixes: Prefixes | None = None,
        ttft_slo: ArrayLike | None = None,
        tpot_slo: ArrayLike | None = None,
    ) -> Workload:
        """A workload of these columns (copied), one entry a request.

        Raises ValueError naming the first bad row: arrivals must be finite, not negative and not decreasing,
        in seconds; lengths whole numbers of at least one token; all columns equally long.
        """
        times = np.array(arrival, dtype=np.float64)
        if times.ndim != 1:
            raise ValueError(
                f"arrival has the shape {times.shape}; expected one number of seconds per request"
            )
        _check_rows("arrival", times, ~np.isfinite(times), "expected a finite number of seconds")
        _check_rows("arrival", times, times < 0, "expected at least 0 seconds")
        earlier = np.concatenate([[False], np.diff(times) < 0])
        _check_rows("arrival", times, earlier, "which is before the row above it; sort the rows by arrival")

        if prefixes is not None and not isinstance(prefixes, Prefixes):
            raise ValueError(f"prefixes={prefixes!r}; expected sim.Prefixes, as from Prefixes.from_rows")
        if prefixes is not None and len(prefixes) != len(times):
            raise ValueError(
                f"prefixes has {len(prefixes)} rows; expected {len(times)}, as many as arrival has"
            )

        def column(name: str, values: ArrayLike, least: int | None) -> NDArray[np.int64]:
            return _whole_numbers(name, values, len(times), least)

        return cls(
            arrival=_frozen(times),
            prompt_tokens=column("prompt_tokens", prompt_tokens, 1),
            output_tokens=column("output_tokens", output_tokens, 1),
            priority=None if priority is None else column("priority", priority, None),
            session=None if session is None else column("session", session, -1),
            prefixes=prefixes,
            ttft_slo=None if ttft_slo is None else _seconds("ttft_slo", ttft_slo, len(times)),
            tpot_slo=None if tpot_slo is None else _seconds("tpot_slo", tpot_slo, len(times)),
        )

    def __len__(self) -> int:
        return len(self.arrival)


def _whole_numbers(name: str, values: ArrayLike, rows: int, least: int | None) -> NDArray[np.int64]:
    given = np.asarray(values)
    if given.shape != (rows,):
        raise ValueError(
            f"{name} has the shape {given.shape}; expected {rows} entries, as many as arrival has"
        )
    if given.dtype.kind not in "iuf" and rows:
        raise ValueError(f"{name} has the type {given.dtype}; expected whole numbers")
    if given.dtype.kind == "f":
        whole = np.isfinite(given) & (given == np.floor(given))
        _check_rows(name, given, ~whole, "expected a whole number")
    if least is not None:
        unit = " token" if name.endswith("tokens") else ""
        _check_rows(name, given, given < least, f"expected at least {least}{unit}")
    return _frozen(given.astype(np.int64))


def _seconds(name: str, values: ArrayLike, rows: int) -> NDArray[np.float64]:
    given = np.array(values, dtype=np.float64)
    if given.shape != (rows,):
        raise ValueError(
            f"{name} has the shape {given.shape}; expected {rows} entries, as many as arrival has"
        )
    _check_rows(name, given, given <= 0, "expected a positive number of seconds, or NaN for no bound")
    return _frozen(given)


def _check_rows(name: str, values: NDArray[Any], bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name} of row {row} is {values[row].item()!r}; {expected}")


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def bursty_arrivals(
    rng: np.random.Generator, rate: float, duration: float, *, conditioned: bool = True
) -> NDArray[np.float64]:
    """Arrival times in seconds from 0 on, at `rate` a second, for `duration` seconds; log-normal gaps of
    sigma 2.

    The gaps have the mean 1/rate and a standard deviation of 7.3/rate: long silences, then bursts (the
    arrivals of the Glia paper, arXiv 2510.27176). So heavy a tail makes the number of arrivals in 1,000 s
    vary by about 15 % from seed to seed, more than the effect of most designs. With `conditioned` there are
    exactly round(rate x duration) arrivals, and their gaps, scaled by one factor, fill the duration: the
    bursts remain and the realised rate is the nominal one. Without, the arrivals are those that fall into the
    duration.
    """
    for name, value in {"rate": rate, "duration": duration}.items():
        if not (np.isfinite(value) and value > 0):
            unit = "requests/s" if name == "rate" else "seconds"
            raise ValueError(f"{name}={value!r}; expected a positive, finite number of {unit}")
    mean, sigma = np.log(1 / rate) - 2.0, 2.0
    expected = round(rate * duration)
    if expected < 1:
        raise ValueError(
            f"rate={rate!r} requests/s for duration={duration!r} s is less than one request; raise one"
        )
    if conditioned:
        gaps = rng.lognormal(mean, sigma, expected)
        times = np.concatenate([[0.0], np.cumsum(gaps)])
        return times[:-1] * (duration / times[-1])  # type: ignore[no-any-return]
    times = np.zeros(1)
    while times[-1] < duration:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.lognormal(mean, sigma, expected))])
    return times[times < duration]


def sharegpt_bursty(rate: float, duration: float, seed: int, conditioned: bool = True) -> Workload:
    """Chat requests with ShareGPT's lengths (see `sim.lengths`) in bursts (see `bursty_arrivals`).

    rate in requests/s, duration in seconds. Arrivals, prompts and outputs come from separate streams of the
    seed: the k-th request has the same lengths at any rate.
    """
    return _generated(
        seed,
        lambda rng: bursty_arrivals(rng, rate, duration, conditioned=conditioned),
        lengths.sharegpt_prompt_tokens,
        lengths.sharegpt_output_tokens,
    )


def short_prompts_long_outputs(rate: float, duration: float, seed: int, conditioned: bool = True) -> Workload:
    """Short questions with long answers: prompts uniform on 20 to 120 tokens, outputs log-normal, in bursts.

    Outputs have sigma 0.8 and a mean of 800 tokens before they are cut at 4,096 (about 785 after). A prompt
    says nothing of its answer's length. Arguments and streams as for `sharegpt_bursty`.
    """

    def outputs(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        drawn = rng.lognormal(np.log(800) - 0.8**2 / 2, 0.8, count)
        return np.clip(np.rint(drawn), 1, 4096).astype(np.int64)

    return _generated(
        seed,
        lambda rng: bursty_arrivals(rng, rate, duration, conditioned=conditioned),
        lambda rng, count: rng.integers(20, 121, count),
        outputs,
    )


def _generated(
    seed: int,
    arrivals: Callable[[np.random.Generator], NDArray[np.float64]],
    prompts: Callable[[np.random.Generator, int], NDArray[np.int64]],
    outputs: Callable[[np.random.Generator, int], NDArray[np.int64]],
) -> Workload:
    """One stream of the seed for each purpose, so that a change to one leaves the others as they are."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}; expected a whole number of at least 0")
    streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(int(seed)).spawn(3)]
    times = arrivals(streams[0])
    return Workload.from_arrays(
        arrival=times,
        prompt_tokens=prompts(streams[1], len(times)),
        output_tokens=outputs(streams[2], len(times)),
    )
