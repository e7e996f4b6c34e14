"""Figures as SVG text: axes, lines, bars and strips of a heat map, for pages that need no network.

Colours are CSS variables, which the page (`STYLE`) sets for light and dark screens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["STYLE", "Axis", "Figure", "colour", "thinned"]

STYLE = """
:root { --ink: #1f2430; --soft: #667085; --grid: #e7e9ef; --paper: #ffffff; --card: #f7f8fb;
  --c0: #2f6fde; --c1: #e2703a; --c2: #2a9d74; --c3: #a454c4; --c4: #c9971c; --c5: #d1466f;
  --c6: #3aa3b8; --c7: #7a7f8c; --heat: #2f6fde; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ee; --soft: #98a2b3; --grid: #2a2f3a;
  --paper: #14171d; --card: #1c2028; --c0: #6f9ff2; --c1: #f0935f; --c2: #4fc49a; --c3: #c386de;
  --c4: #e3b84e; --c5: #ec7a9b; --c6: #63c3d6; --c7: #a3a8b4; --heat: #6f9ff2; } }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, "Segoe UI", Roboto, sans-serif; }
svg text { fill: var(--soft); } svg .label { fill: var(--ink); } svg .grid { stroke: var(--grid); }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""


def colour(k: int) -> str:
    """The k-th colour of a series, as CSS."""
    return f"var(--c{k % 8})"


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with a label that gives the unit; logarithmic if asked for."""

    low: float
    high: float
    label: str = ""
    log: bool = False
    percent: bool = False
    """Ticks as percentages of 1."""

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Where these values are: 0 at the low end, 1 at the high end, cut off beyond."""
        given = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.log:
            given, low, high = np.log(np.maximum(given, self.low)), math.log(low), math.log(high)
        return np.clip((given - low) / ((high - low) or 1.0), 0.0, 1.0)

    def ticks(self) -> list[float]:
        """Round values, about five."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) < 4 else (1,)
            found = [step * 10.0**decade for decade in decades for step in steps]
        else:
            raw = (self.high - self.low) / 5 or 1.0
            size = 10.0 ** math.floor(math.log10(raw))
            step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)
            found = [
                step * k for k in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)
            ]
        return [tick for tick in found if self.low * 0.999999 <= tick <= self.high * 1.000001]

    def name(self, tick: float) -> str:
        """The tick as text."""
        if self.percent:
            return f"{tick * 100:g}%"
        return f"{tick:,.0f}" if abs(tick) >= 1000 else f"{tick:g}"


@dataclass
class Figure:
    """A plot under construction; `svg()` is its text. Coordinates are those of its axes."""

    x: Axis
    y: Axis
    width: int = 640
    height: int = 240
    left: int = 52
    legend_above: bool = False
    """Names of lines in a row above the plot, rather than in its lower right corner."""
    _parts: list[str] = field(default_factory=list)
    _names: list[tuple[str, str]] = field(default_factory=list)

    @property
    def _box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the plotting area, in pixels."""
        return self.left, 30.0 if self.legend_above else 12.0, self.width - 22.0, self.height - 40.0

    def _pixels(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        left, top, right, bottom = self._box
        return left + self.x.place(x) * (right - left), bottom - self.y.place(y) * (bottom - top)

    def line(self, x: ArrayLike, y: ArrayLike, stroke: str, name: str = "", *, steps: bool = False) -> None:
        """A line through these points, or with steps: each value holds until the next."""
        xs, ys = self._pixels(x, y)
        if not len(xs):
            return
        if steps:
            xs, ys = np.repeat(xs, 2)[1:], np.repeat(ys, 2)[:-1]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs.tolist(), ys.tolist(), strict=True))
        self._parts.append(f'<polyline class="line" style="stroke:{stroke}" points="{points}"/>')
        if name:
            self._names.append((name, stroke))

    def area(self, x: ArrayLike, y: ArrayLike, fill: str) -> None:
        """What lies below the line through these points."""
        xs, ys = self._pixels(x, y)
        if not len(xs):
            return
        bottom = self._box[3]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs.tolist(), ys.tolist(), strict=True))
        self._parts.append(
            f'<polygon style="fill:{fill};opacity:.18" '
            f'points="{xs[0]:.1f},{bottom:.1f} {points} {xs[-1]:.1f},{bottom:.1f}"/>'
        )

    def bars(self, edges: ArrayLike, heights: ArrayLike, fill: str, titles: Sequence[str] = ()) -> None:
        """A bar from each edge to the next; a title shows where the pointer rests."""
        borders = np.asarray(edges, np.float64)
        lefts, tops = self._pixels(borders[:-1], heights)
        rights, _ = self._pixels(borders[1:], heights)
        bottom = self._box[3]
        for k, (a, b, top) in enumerate(zip(lefts.tolist(), rights.tolist(), tops.tolist(), strict=True)):
            if bottom - top > 0.05:
                title = f"<title>{escape(titles[k])}</title>" if titles else ""
                self._parts.append(
                    f'<rect x="{a + 0.5:.1f}" y="{top:.1f}" width="{max(b - a - 1, 0.6):.1f}" '
                    f'height="{bottom - top:.1f}" style="fill:{fill}">{title}</rect>'
                )

    def mark(self, x: float, text: str, height: float = 0.9) -> None:
        """A dashed vertical line with a word at this share of the height, on the side that has room."""
        (at,), _ = self._pixels([x], [0.0])
        _, top, right, bottom = self._box
        side = 5 if right - at > 90 else -5
        self._parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}" stroke-dasharray="3 3" '
            f'style="stroke:var(--soft)"/><text class="label" x="{at + side:.1f}" '
            f'y="{bottom - height * (bottom - top) - 4:.1f}" text-anchor="{"end" if side < 0 else "start"}">'
            f"{escape(text)}</text>"
        )

    def svg(self, title: str) -> str:
        """The figure, its title for readers that do not see it."""
        left, top, right, bottom = self._box
        parts = [f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(title)}">']
        for tick in self.x.ticks():
            (at,), _ = self._pixels([tick], [self.y.low])
            parts.append(
                f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>'
                f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{self.x.name(tick)}</text>'
            )
        for tick in self.y.ticks():
            _, (at,) = self._pixels([self.x.low], [tick])
            parts.append(
                f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
                f'<text x="{left - 7}" y="{at + 4:.1f}" text-anchor="end">{self.y.name(tick)}</text>'
            )
        parts += self._parts
        middle = (left + right) / 2
        parts.append(
            f'<text x="{middle}" y="{bottom + 33}" text-anchor="middle">{escape(self.x.label)}</text>'
        )
        parts.append(
            f'<text transform="translate(13 {(top + bottom) / 2}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.label)}</text>"
        )
        parts += self._legend()
        return "".join(parts) + "</svg>"

    def _legend(self) -> list[str]:
        left, top, right, bottom = self._box
        parts = []
        for k, (name, stroke) in enumerate(self._names):
            y = bottom - 12 - 17 * (len(self._names) - 1 - k)
            if self.legend_above:
                y, right = top - 14, left + 150 * (k + 1)
            parts.append(
                f'<line x1="{right - 14}" x2="{right - 2}" y1="{y - 4}" y2="{y - 4}" class="line" '
                f'style="stroke:{stroke}"/>'
                f'<text class="label" x="{right - 20}" y="{y}" text-anchor="end">{escape(name)}</text>'
            )
        return parts


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of neighbours, so that at most so many points remain."""
    size = -(-len(x) // most)
    if size <= 1:
        return x, y
    starts = np.arange(0, len(x), size)
    return x[starts], np.add.reduceat(y.astype(float), starts) / np.diff(np.append(starts, len(x)))
