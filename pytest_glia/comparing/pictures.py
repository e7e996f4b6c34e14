"""The pictures of a comparison, each an SVG: curves, direct programs, and confirmed results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_glia.comparing.curves import Curve, band, best_so_far, spent, tried
from pytest_glia.comparing.runs import Goal, Measured, SearchRun
from pytest_glia.drawing import COLOURS, Picture, Point, stepped

Runs = Mapping[str, Sequence[SearchRun]]
"""By designer."""

KINDS = {"simulations": ("simulations", 1.0), "seconds": ("minutes", 60.0), "tokens": ("tokens", 1.0)}
KINDS["dollars"] = ("dollars", 1.0)
"""What is spent: its name, and how many of the ledger's unit make one."""

_BINS = 20


def kinds(runs: Runs) -> list[str]:
    """What any of the runs has spent."""
    return [kind for kind in KINDS if any(spent(run, kind) > 0 for each in runs.values() for run in each)]


def best_so_far_picture(runs: Runs, goal: Goal, baselines: Mapping[str, Measured], kind: str) -> str:
    """A line of the median run a designer, in a band of all its runs; baselines and the goal as levels."""
    name, unit = KINDS[kind]
    curves = {designer: [best_so_far(run, kind) for run in each] for designer, each in runs.items()}
    found = {designer: [curve for curve in each if curve.places] for designer, each in curves.items()}
    most = max(spent(run, kind) for each in runs.values() for run in each)
    values = [value for each in found.values() for curve in each for value in curve.values]
    levels = _levels(goal, baselines)
    ends = _ends([*values, *levels.values()])
    picture = Picture(f"best so far: {goal.quantity[:80]}", name, (0, most / unit), ends)
    for level, value in levels.items():
        picture.level(value, level)
    for drawn, colour in zip(found.values(), _colours(), strict=False):
        if drawn:
            _draw_band(picture, drawn, most, unit, colour)
    names = [f"{designer} ({len(drawn)} runs)" for designer, drawn in found.items()]
    picture.legend(list(zip(names, _colours(), strict=False)))
    return picture.svg()


def _draw_band(picture: Picture, curves: Sequence[Curve], most: float, unit: float, colour: str) -> None:
    of = band(curves)
    low = _steps(of.places, of.low, most, unit)
    high = _steps(of.places, of.high, most, unit)
    if len(curves) > 1:
        picture.area([*low, *reversed(high)], colour)
    picture.line(_steps(of.places, of.middle, most, unit), colour)


def direct_picture(runs: Sequence[SearchRun], baselines: Mapping[str, Measured]) -> str:
    """How many of the programs of best-of-n measured how much, and at the right how many did not work."""
    goal = runs[0].goal
    values = [value for run in runs for value in tried(run)[0]]
    failed = sum(tried(run)[1] for run in runs)
    start = runs[0].rows[0]["measured"]
    low, high = _ends([*values, *([] if start is None else [start])])
    width = (high - low) / _BINS
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / width))] += 1
    most = max(*counts, failed, 1)
    across = f"{goal.quantity[:60]}; at the right in red: {failed} of {len(values) + failed} that failed"
    picture = Picture("direct programs", across, (low, high + 3 * width), (0, most))
    for place, count in enumerate(counts):
        picture.bar((low + place * width, low + (place + 1) * width), count, COLOURS[0])
    picture.bar((high + width, high + 2 * width), failed, COLOURS[1])
    marks = {
        **({} if start is None else {"start": start}),
        **{name: each.point for name, each in baselines.items()},
    }
    for value in marks.values():
        if low <= value <= high:
            picture.line([(value, 0), (value, most)], "#555555", 1)
    return picture.svg()


def confirmed_picture(runs: Runs, goal: Goal, baselines: Mapping[str, Measured]) -> str:
    """Each run's design on its confirmation seeds, with its interval, by designer."""
    finals = [(designer, run.final) for designer, each in runs.items() for run in each if run.final]
    levels = _levels(goal, baselines)
    shown = [end for _, final in finals for end in (final.low, final.point, final.high) if end is not None]
    picture = Picture(
        f"confirmed: {goal.quantity[:80]}",
        "",
        (0, len(finals) + 1),
        _ends([*shown, *levels.values()]),
        ticks=False,
    )
    for level, value in levels.items():
        picture.level(value, level)
    colours = dict(zip(runs, _colours(), strict=False))
    for place, (designer, final) in enumerate(finals, start=1):
        low = final.point if final.low is None else final.low
        high = final.point if final.high is None else final.high
        picture.interval(place, low, final.point, high, colours[designer])
    picture.legend(list(colours.items()))
    return picture.svg()


def _levels(goal: Goal, baselines: Mapping[str, Measured]) -> dict[str, float]:
    return {
        f"asked: {goal.op} {goal.threshold:g}": goal.threshold,
        **{name: each.point for name, each in baselines.items()},
    }


def _ends(values: Sequence[float]) -> Point:
    """From the least to the most of them, with some room."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    spare = 0.06 * (high - low) or abs(high) or 1.0
    return low - spare, high + spare


def _steps(places: Sequence[float], values: Sequence[float], most: float, unit: float) -> list[Point]:
    points = [(place / unit, value) for place, value in zip(places, values, strict=True)]
    return stepped(points, most / unit)


def _colours() -> Iterator[str]:
    while True:
        yield from COLOURS
