"""Workloads by name or file, as the command line gives them; what is wrong with one is said.

A workload is a name of `WORKLOADS` or a file that `sim.workloads.load` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sim import workloads as w
from sim.workloads import Workload

__all__ = ["WORKLOADS", "workload"]

Generator = Callable[[float, float, int], Workload]

WORKLOADS: Mapping[str, Generator] = {
    "sharegpt_bursty": w.sharegpt_bursty,
    "short_prompts_long_outputs": w.short_prompts_long_outputs,
    "sharegpt_poisson": lambda rate, duration, seed: w.generate(w.Poisson(rate, duration), w.SHAREGPT, seed),
    "sharegpt_gamma": lambda rate, duration, seed: w.generate(w.Gamma(rate, 3.0, duration), w.SHAREGPT, seed),
    "sharegpt_mmpp": lambda rate, duration, seed: w.generate(
        w.MMPP((0.5 * rate, 2.5 * rate), (60.0, 20.0), duration), w.SHAREGPT, seed
    ),
    "sharegpt_diurnal": lambda rate, duration, seed: w.generate(
        w.Diurnal(rate, 0.6, duration, period=duration), w.SHAREGPT, seed
    ),
    "sharegpt_ramp": lambda rate, duration, seed: w.generate(
        w.Ramp(0.5 * rate, 1.5 * rate, duration), w.SHAREGPT, seed
    ),
    "sharegpt_surge": lambda rate, duration, seed: w.generate(
        w.Steps((0.75 * rate, 2.0 * rate, 0.75 * rate), (0.4 * duration, 0.6 * duration), duration),
        w.SHAREGPT,
        seed,
    ),
    "sharegpt_sessions": lambda rate, duration, seed: w.Sessions(
        w.Poisson(rate / 4, duration), w.Chat(w.SHAREGPT, turns=4.0)
    ).workload(seed),
}
"""By name: from requests/s on average, seconds, and a seed. Of `sharegpt_sessions` a quarter as many sessions
start in that time; their later turns go on after it."""


def workload(text: str, rate: float | None, duration: float | None, seed: int | None) -> Workload:
    """The workload of this name or file.

    A name: `rate` requests/s (8 without) for `duration` seconds (1,000 without). A file: as it was recorded;
    at another rate, cut to a duration, or with a seed resampled (see `sim.workloads.resample`).
    """
    found = _workload(text, rate, duration, seed)
    if not len(found):
        raise ValueError(f"{text} with rate={rate}, duration={duration} and seed={seed} has no request in it")
    return found


def _workload(text: str, rate: float | None, duration: float | None, seed: int | None) -> Workload:
    if text in WORKLOADS:
        given = 8.0 if rate is None else rate, 1000.0 if duration is None else duration
        return WORKLOADS[text](*given, 0 if seed is None else seed)
    if not Path(text).is_file():
        if Path(text).suffix:
            raise FileNotFoundError(f"the workload's file is not there: {text!r}")
        raise ValueError(f"no workload is called {text!r}; expected a file or one of {', '.join(WORKLOADS)}")
    recorded = w.load(text)
    if rate is not None:
        recorded = w.at_rate(recorded, rate)
    if seed is not None:
        return w.resample(recorded, seed, duration=duration)
    return recorded if duration is None else w.window(recorded, float(recorded.arrival[0]), duration)
