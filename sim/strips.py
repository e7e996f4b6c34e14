"""Strips: one row for each replica over a common time, for what happens on each at once."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from sim.figures import Axis

__all__ = ["strips"]

_CELLS = 240
"""Time steps of a strip at most."""


def strips(
    time: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    top: float,
    unit: str,
    title: str,
    fill: str,
    width: int = 640,
    names: list[str] | None = None,
) -> str:
    """An SVG with a row for each column of `values[k, replica]`: its height up to `top`, over `time` in s.

    Each step of time shows the mean, and as a thin line the largest value, of the samples in it.
    """
    rows = values.shape[1]
    names = [f"replica {k}" for k in range(rows)] if names is None else names
    height = 44 if rows <= 8 else max(14, 352 // rows)
    gap, left, right = (8 if rows <= 8 else 2), 66, width - 12
    bottom = rows * (height + gap)
    axis = Axis(float(time[0]) if len(time) else 0.0, float(time[-1]) if len(time) else 1.0)
    size = max(1, -(-len(time) // _CELLS))
    starts = np.arange(0, len(time), size)
    xs = left + axis.place(np.append(time[starts], axis.high)) * (right - left)
    parts = [f'<svg viewBox="0 0 {width} {bottom + 40}" role="img" aria-label="{escape(title)}">']
    for tick in axis.ticks():
        x = left + float(axis.place([tick])[0]) * (right - left)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>'
            f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{axis.name(tick)}</text>'
        )
    for row in range(rows):
        base = row * (height + gap) + height
        column = values[:, row].astype(float)
        mean = column.mean() if len(column) else 0.0
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{base}" y2="{base}"/>')
        if len(starts):
            steps = np.diff(np.append(starts, len(column)))
            level = np.add.reduceat(column, starts) / steps
            most = np.maximum.reduceat(column, starts)
            parts.append(_steps(xs, base - _scaled(level, top, height), base, f"fill:{fill};opacity:.38"))
            parts.append(_outline(xs, base - _scaled(most, top, height), fill))
        step = max(1, -(-14 // (height + gap)))  # rows too low for a name each have every second one named
        if row % step == 0:
            parts.append(
                f'<text x="{left - 8}" y="{base - height / 2 + 4}" text-anchor="end">'
                f"{escape(names[row])}</text>"
            )
        parts.append(
            f'<rect x="{left}" y="{base - height}" width="{right - left}" height="{height}" '
            f'fill="transparent"><title>'
            f"{escape(names[row])}: mean {mean:.3g}, at most "
            f"{column.max() if len(column) else 0:.3g} {escape(unit)}</title></rect>"
        )
    middle = (left + right) / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + 32}" text-anchor="middle">time, s '
        f"(full height: {top:.3g} {escape(unit)})</text>"
    )
    return "".join(parts) + "</svg>"


def _scaled(values: NDArray[np.float64], top: float, height: float) -> NDArray[np.float64]:
    return np.clip(values / (top or 1.0), 0.0, 1.0) * height


def _steps(xs: NDArray[np.float64], ys: NDArray[np.float64], base: float, style: str) -> str:
    points = " ".join(
        f"{a:.1f},{y:.1f} {b:.1f},{y:.1f}"
        for a, b, y in zip(xs[:-1].tolist(), xs[1:].tolist(), ys.tolist(), strict=True)
    )
    return f'<polygon style="{style}" points="{xs[0]:.1f},{base} {points} {xs[-1]:.1f},{base}"/>'


def _outline(xs: NDArray[np.float64], ys: NDArray[np.float64], stroke: str) -> str:
    points = " ".join(
        f"{a:.1f},{y:.1f} {b:.1f},{y:.1f}"
        for a, b, y in zip(xs[:-1].tolist(), xs[1:].tolist(), ys.tolist(), strict=True)
    )
    return f'<polyline style="fill:none;stroke:{stroke};stroke-width:1" points="{points}"/>'
