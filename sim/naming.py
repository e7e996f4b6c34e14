"""Workloads by name or file, as the command line gives them; what is wrong with one is said.

A workload is a name of `WORKLOADS`, a closed loop as `sharegpt_closed:users=64,think=5`, or a file that
`sim.workloads.load` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sim import workloads as w
from sim.complaints import nearest
from sim.workloads import ClosedWorkload, Workload

__all__ = ["CLOSED", "WORKLOADS", "workload"]

Generator = Callable[[float, float, int], Workload]

WORKLOADS: Mapping[str, Generator] = {
    "sharegpt_bursty": w.sharegpt_bursty,
    "short_prompts_long_outputs": w.short_prompts_long_outputs,
    "code_completion": w.code_completion,
    "changing_mix": w.changing_mix,
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

CLOSED = "sharegpt_closed"
_LOOP: Mapping[str, tuple[Callable[[str], float], float]] = {
    "users": (int, 64),
    "requests": (int, 2000),
    "think": (float, 0.0),
    "spread": (float, 0.0),
}
"""The settings of a closed loop (see `sim.workloads.ClosedLoop`) and what they are unless given."""


def workload(
    text: str, rate: float | None, duration: float | None, seed: int | None
) -> Workload | ClosedWorkload:
    """The workload of this name or file.

    A name: `rate` requests/s (8 without) for `duration` seconds (1,000 without); a closed loop has neither. A
    file: as it was recorded; at another rate, cut to a duration, or with a seed resampled (see
    `sim.workloads.resample`).
    """
    name, _, loop = text.partition(":")
    if name == CLOSED:
        if rate is not None or duration is not None:
            raise ValueError(
                f"rate={rate!r} and duration={duration!r} with {text}, whose users come when they have their "
                "replies; leave them out and give users, think and requests"
            )
        return _closed(loop).workload(0 if seed is None else seed)
    found = _workload(text, rate, duration, seed)
    if not len(found):
        raise ValueError(f"{text} with rate={rate}, duration={duration} and seed={seed} has no request in it")
    return found


def _closed(text: str) -> w.ClosedLoop:
    """The closed loop of `users=64,think=5`, in ShareGPT's lengths."""
    settings = {name: value for name, (_, value) in _LOOP.items()}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            settings[name] = _LOOP[name][0](value)
        except (KeyError, ValueError):
            raise ValueError(
                f"{part!r} in {CLOSED}:{text}; expected NAME=NUMBER with a name of {', '.join(_LOOP)} "
                "(users and requests in whole numbers, the others in seconds)"
            ) from None
    loop: dict[str, Any] = settings
    return w.ClosedLoop(lengths=w.SHAREGPT, **loop)


def _workload(text: str, rate: float | None, duration: float | None, seed: int | None) -> Workload:
    if text in WORKLOADS:
        given = 8.0 if rate is None else rate, 1000.0 if duration is None else duration
        return WORKLOADS[text](*given, 0 if seed is None else seed)
    if not Path(text).is_file():
        if Path(text).suffix:
            raise FileNotFoundError(f"the workload's file is not there: {text!r}")
        names = (*WORKLOADS, CLOSED)
        raise ValueError(
            f"no workload is called {text!r}{nearest(text, names)}; expected a file or one of "
            f"{', '.join(names)}"
        )
    recorded = w.load(text)
    if rate is not None:
        recorded = w.at_rate(recorded, rate)
    if seed is not None:
        return w.resample(recorded, seed, duration=duration)
    return recorded if duration is None else w.window(recorded, float(recorded.arrival[0]), duration)
