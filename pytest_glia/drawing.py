"""A small picture in SVG: two axes, and lines, bands, bars and intervals on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pytest_glia.visible import visible

COLOURS = ("#1f5fa8", "#b3261e", "#2e7d32", "#8e5ea2", "#c77700", "#00838f", "#5d4037")
_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 40, 70
_TICKS = 5

Point = tuple[float, float]


class Picture:
    """Drawn on from left to right and low to high; `svg` is the whole of it.

    Args:
        title: Above it.
        across: What goes from left to right.
        x, y: From where to where the axes go, each of some length.
        ticks: Whether places across are numbers to be shown.
    """

    def __init__(self, title: str, across: str, x: Point, y: Point, *, ticks: bool = True) -> None:
        self._x, self._y = x, y
        floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        self._parts = [
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            f'<path d="M{_LEFT} {_TOP}V{floor}H{right}" fill="none" stroke="black"/>',
            _text(_LEFT, _TOP - 16, title, "start"),
            _text((_LEFT + right) / 2, floor + 36, across, "middle"),
        ]
        for value in round_steps(*self._y):
            self._parts.append(_text(_LEFT - 8, self._down(value) + 4, f"{value:.6g}", "end"))
        for value in round_steps(*self._x) if ticks else ():
            self._parts.append(_text(self._over(value), floor + 18, f"{value:.6g}", "middle"))

    def line(self, points: Sequence[Point], colour: str, width: float = 2) -> None:
        """From point to point."""
        path = " ".join(f"{self._over(x):.1f},{self._down(y):.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )

    def area(self, points: Sequence[Point], colour: str) -> None:
        """All that lies within, pale."""
        path = " ".join(f"{self._over(x):.1f},{self._down(y):.1f}" for x, y in points)
        self._parts.append(f'<polygon points="{path}" fill="{colour}" fill-opacity="0.15"/>')

    def level(self, value: float, name: str, colour: str = "#555555") -> None:
        """A dashed line all across, with its name."""
        y = self._down(value)
        self._parts.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="{colour}" '
            'stroke-dasharray="6 4"/>'
        )
        self._parts.append(_text(_WIDTH - _RIGHT, y - 5, name, "end", colour))

    def upright(self, value: float, name: str, colour: str = "#555555") -> None:
        """A dashed line from the floor up, with its name at the top."""
        x = self._over(value)
        self._parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="{colour}" '
            'stroke-dasharray="6 4"/>'
        )
        left = value < sum(self._x) / 2
        self._parts.append(
            _text(x + (5 if left else -5), _TOP + 10, name, "start" if left else "end", colour)
        )

    def bar(self, x: Point, height: float, colour: str) -> None:
        """From the floor up, between two places."""
        left, right, top = self._over(x[0]), self._over(x[1]), self._down(height)
        floor = _HEIGHT - _BOTTOM
        self._parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(1.0, right - left - 1):.1f}" '
            f'height="{max(0.0, floor - top):.1f}" fill="{colour}"/>'
        )

    def interval(self, x: float, low: float, point: float, high: float, colour: str) -> None:
        """A point, and from where to where it may be."""
        self.line([(x, low), (x, high)], colour)
        self.dot(x, point, colour)

    def dot(self, x: float, y: float, colour: str) -> None:
        """At a place."""
        self._parts.append(
            f'<circle cx="{self._over(x):.1f}" cy="{self._down(y):.1f}" r="4" fill="{colour}"/>'
        )

    def name(self, x: float, y: float, text: str, colour: str, *, left: bool = False) -> None:
        """A word beside a place, at its right or left."""
        over = self._over(x) + (-7 if left else 7)
        self._parts.append(_text(over, self._down(y) - 6, text, "end" if left else "start", colour))

    def label(self, x: float, text: str) -> None:
        """A word below the floor."""
        self._parts.append(_text(self._over(x), _HEIGHT - _BOTTOM + 18, text, "middle"))

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        """Names with their colours, at the bottom."""
        for place, (name, colour) in enumerate(names):
            x = _LEFT + place * (_WIDTH - _LEFT - _RIGHT) / max(1, len(names))
            self._parts.append(
                f'<rect x="{x:.1f}" y="{_HEIGHT - 20}" width="10" height="10" fill="{colour}"/>'
            )
            self._parts.append(_text(x + 14, _HEIGHT - 11, name, "start"))

    def svg(self) -> str:
        """As text of a file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
            f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">'
        )
        return "\n".join([head, *self._parts, "</svg>"]) + "\n"

    def _over(self, value: float) -> float:
        low, high = self._x
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)

    def _down(self, value: float) -> float:
        low, high = self._y
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)


def stepped(points: Sequence[Point], end: float) -> list[Point]:
    """The corners of steps from point to point, the last of which goes on to the end."""
    corners: list[Point] = []
    for x, y in points:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return [*corners, (end, corners[-1][1])]


def round_steps(low: float, high: float) -> list[float]:
    """Some five round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * _TICKS >= (high - low) * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str, colour: str = "black") -> str:
    words = escape(visible(text, line=True))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
