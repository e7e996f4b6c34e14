"""A search's progress as an SVG picture: what was tried, and the best so far, against simulations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_glia.drawing import COLOURS, Picture, stepped

_BLUE, _RED, *_ = COLOURS
_GREY = "#8a8a8a"


def progress(trials: Sequence[Mapping[str, Any]], quantity: str, threshold: float | None) -> str:
    """The picture of a search.

    Args:
        trials: In order, each with ``simulations`` spent by then, what it ``measured`` (None if it does not
            work) and what the ``best`` so far measured.
        quantity: What that is, in words.
        threshold: What is asked of it; None if nothing is.
    """
    tried = [(each["simulations"], each["measured"]) for each in trials if each["measured"] is not None]
    best = [
        (each["simulations"], each["best"]["measured"])
        for each in trials
        if each["best"]["measured"] is not None
    ]
    shown = [value for _, value in tried + best] + ([] if threshold is None else [threshold])
    values = [value for value in shown if math.isfinite(value)] or [0.0]
    low, high = min(values), max(values)
    spare = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    most = max((each["simulations"] for each in trials), default=0) or 1
    title = f"{quantity[:80]} (dots: tried; line: best so far)"
    picture = Picture(title, "simulations", (0, most), (low - spare, high + spare))
    if threshold is not None:
        picture.level(threshold, f"asked: {threshold:.4g}", _RED)
    if best:
        picture.line(stepped(best, most), _BLUE)
    for simulations, measured in tried:
        picture.dot(simulations, measured, _GREY)
    return picture.svg()
