"""A search's progress as an SVG picture: what was tried, and the best so far, against simulations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pytest_glia.visible import visible

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 40, 50
_BLUE, _GREY, _RED = "#1f5fa8", "#8a8a8a", "#b3261e"
_TICKS = 5


def progress(trials: Sequence[Mapping[str, Any]], quantity: str, threshold: float | None) -> str:
    """The picture of a search.

    Args:
        trials: In order, each with ``simulations`` spent by then, what it ``measured`` (None if it does not
            work) and what the ``best`` so far measured.
        quantity: What that is, in words.
        threshold: What is asked of it; None if nothing is.
    """
    shown = (
        [each["measured"] for each in trials] + [each["best"]["measured"] for each in trials] + [threshold]
    )
    values = [value for value in shown if value is not None and math.isfinite(value)] or [0.0]
    low, high = min(values), max(values)
    spare = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    axes = _Axes(max((each["simulations"] for each in trials), default=0) or 1, low - spare, high + spare)
    parts = [*axes.drawn(quantity)]
    if threshold is not None:
        y = axes.y(threshold)
        parts += [
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="{_RED}" '
            'stroke-dasharray="6 4"/>',
            _text(_WIDTH - _RIGHT, y - 5, f"asked: {threshold:.4g}", "end", _RED),
        ]
    parts += _steps(axes, trials)
    for each in trials:
        if each["measured"] is not None:
            x, y = axes.x(each["simulations"]), axes.y(each["measured"])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_GREY}"/>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">'
    )
    ground = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"


class _Axes:
    """From simulations and values to places in the picture."""

    def __init__(self, most: float, low: float, high: float) -> None:
        self._most, self._low, self._high = most, low, high

    def x(self, simulations: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * simulations / self._most

    def y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def drawn(self, quantity: str) -> list[str]:
        """Frame, ticks and labels."""
        floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [f'<path d="M{_LEFT} {_TOP}V{floor}H{right}" fill="none" stroke="black"/>']
        for i in range(_TICKS + 1):
            value = self._low + (self._high - self._low) * i / _TICKS
            parts.append(_text(_LEFT - 8, self.y(value) + 4, f"{value:.4g}", "end"))
        step = _round_up(self._most / _TICKS)
        for count in range(0, int(self._most) + 1, step):
            parts.append(_text(self.x(count), floor + 18, str(count), "middle"))
        parts.append(_text((_LEFT + right) / 2, _HEIGHT - 10, "simulations", "middle"))
        parts.append(_text(_LEFT, _TOP - 16, f"{quantity[:80]} (dots: tried; line: best so far)", "start"))
        return parts


def _round_up(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    power = 1
    while 5 * power < number:
        power *= 10
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= number)


def _steps(axes: _Axes, trials: Sequence[Mapping[str, Any]]) -> list[str]:
    path, last = "", 0.0
    for each in trials:
        best = each["best"]["measured"]
        if best is None:
            continue
        x, y = axes.x(each["simulations"]), axes.y(best)
        path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
        last = x
    end = axes.x(trials[-1]["simulations"]) if trials else last
    return [f'<path d="{path}H{end:.1f}" fill="none" stroke="{_BLUE}" stroke-width="2"/>'] if path else []


def _text(x: float, y: float, text: str, anchor: str, colour: str = "black") -> str:
    words = escape(visible(text, line=True))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
