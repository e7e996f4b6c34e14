"""Figures of runs: the best so far against what was spent, bands over runs, and how soon and how often.

A band is of what the runs themselves have shown, never of draws from them.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_glia.comparing.runs import SearchRun

_NEARLY = 0.95
_MANY = 20
"""Runs from which on a band is of the middle 90 %, and not of all."""


@dataclass(frozen=True)
class Curve:
    """Steps: from each place on, the value there."""

    places: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, place: float) -> float:
        """The value at a place; at the first, before it."""
        return self.values[max(0, bisect_right(self.places, place) - 1)]


@dataclass(frozen=True)
class Band:
    """Of several curves at common places: the middle, and from where to where they go."""

    places: tuple[float, ...]
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]


def best_so_far(run: SearchRun, kind: str) -> Curve:
    """The goal's quantity of the best candidate with all replications, against what was spent of a kind.

    Without any place if none was measured in all of them.
    """
    places, values, least = [], [], math.inf
    for row in run.rows:
        loss = row["loss"]
        if row["measured"] is None or row["seeds"] != run.rows[0]["seeds"] or loss >= least:
            continue
        least = loss
        places.append(float(row["spent"].get(kind, 0.0)))
        values.append(float(row["measured"]))
    return Curve(tuple(places), tuple(values))


def spent(run: SearchRun, kind: str) -> float:
    """What the search had spent of a kind with its last candidate."""
    return max(float(row["spent"].get(kind, 0.0)) for row in run.rows)


def band(curves: Sequence[Curve]) -> Band:
    """From the least to the most of them, or of twenty or more the middle 90 %."""
    places = sorted({place for curve in curves for place in curve.places})
    ranked = [sorted(curve.at(place) for curve in curves) for place in places]
    out = math.floor(0.05 * len(curves)) if len(curves) >= _MANY else 0
    return Band(
        tuple(places),
        tuple(values[out] for values in ranked),
        tuple(statistics.median(values) for values in ranked),
        tuple(values[-1 - out] for values in ranked),
    )


def t95(run: SearchRun) -> float | None:
    """Simulations until the loss had fallen by 95 % of what it fell by in the end; None if it never fell."""
    full = [row for row in run.rows if row["loss"] is not None and row["seeds"] == run.rows[0]["seeds"]]
    if not full:
        return None
    start, end = full[0]["loss"], min(row["loss"] for row in full)
    if end >= start:
        return None
    reached = next(row for row in full if row["loss"] <= start - _NEARLY * (start - end))
    return float(reached["spent"].get("simulations", 0.0))


def tried(run: SearchRun) -> tuple[list[float], int]:
    """What each candidate of a run has measured, in however many replications, and how many did not work."""
    rows = run.rows[1:]
    return [float(row["measured"]) for row in rows if row["measured"] is not None], sum(
        row["measured"] is None for row in rows
    )


def reaching(runs: Sequence[SearchRun], value: float) -> int:
    """How many of the runs end with a design that is at least as good as a value."""
    return sum(run.final is not None and run.goal.better(run.final.point, value) for run in runs)
