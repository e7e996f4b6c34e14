"""A search in SVG pictures: its progress against simulations, and one objective against another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_glia.drawing import COLOURS, Picture, stepped

_BLUE, _RED, _GREEN, *_ = COLOURS
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
    most = max((each["simulations"] for each in trials), default=0) or 1
    title = f"{quantity[:80]} (dots: tried; line: best so far)"
    picture = Picture(title, "simulations", (0, most), _ends(shown))
    if threshold is not None:
        picture.level(threshold, f"asked: {threshold:.4g}", _RED)
    if best:
        picture.line(stepped(best, most), _BLUE)
    for simulations, measured in tried:
        picture.dot(simulations, measured, _GREY)
    return picture.svg()


def trade_off(front: Mapping[str, Any], across: int, up: int = 0) -> str:
    """One objective of a Pareto set against another, with what is asked of each.

    Args:
        front: Its ``objectives``, and its ``candidates``, each with what it ``measured`` of each objective.
        across: The place of the objective that goes from left to right among the objectives; `up`, of the
            other.
    """
    x, y = front["objectives"][across], front["objectives"][up]
    places = [(each, each["measured"][across], each["measured"][up]) for each in front["candidates"]]
    picture = Picture(
        y["quantity"][:90],
        x["quantity"][:90],
        _ends([x["threshold"], *(end for _, over, _ in places for end in _reach(over))]),
        _ends([y["threshold"], *(end for _, _, high in places for end in _reach(high))]),
    )
    picture.upright(x["threshold"], f"asked: {x['asked']}", _RED)
    picture.level(y["threshold"], f"asked: {y['asked']}", _RED)
    for each, over, high in sorted(places, key=lambda place: (place[0]["winner"], place[0]["member"])):
        winner, member = bool(each["winner"]), bool(each["member"])
        colour = _GREEN if winner else _BLUE if member else _GREY
        if winner or member:
            picture.line([(end, high["point"]) for end in _reach(over)], colour, 1)
            picture.line([(over["point"], end) for end in _reach(high)], colour, 1)
            name = f"#{each['number']}" if each["number"] else "as it is"
            # Those that are hard to tell from the winner are at its place: its name is on the other side.
            picture.name(over["point"], high["point"], name, colour, left=winner)
        picture.dot(over["point"], high["point"], colour)
    picture.legend([("winner", _GREEN), ("in the Pareto set", _BLUE), ("other candidates", _GREY)])
    return picture.svg()


def _reach(measured: Mapping[str, Any]) -> tuple[float, float]:
    """From where to where it may be, as far as that is known."""
    low, point, high = measured["low"], measured["point"], measured["high"]
    return point if low is None else low, point if high is None else high


def _ends(shown: Sequence[float]) -> tuple[float, float]:
    """From the least to the most, with some room."""
    values = [value for value in shown if math.isfinite(value)] or [0.0]
    low, high = min(values), max(values)
    spare = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - spare, high + spare
