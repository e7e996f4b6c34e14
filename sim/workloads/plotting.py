"""The picture of a workload: arrivals over time, gaps between them, and lengths, in one SVG."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.figures import STYLE, Axis, Figure, colour
from sim.workloads.table import Workload

__all__ = ["cdf", "panels", "picture", "rate_over_time"]


def picture(workload: Workload) -> str:
    """An SVG file of the three panels; ValueError for a workload without requests."""
    if not len(workload):
        raise ValueError("a workload of 0 requests has no picture; expected at least one request")
    width, height = 640, 250
    parts = [
        f'<svg x="0" y="{k * (height + 24) + 24}" width="{width}" height="{height}"{svg.removeprefix("<svg")}'
        f'<text class="label" x="52" y="{k * (height + 24) + 20}" font-weight="600">{title}</text>'
        for k, (title, svg) in enumerate(panels(workload, width, height))
    ]
    total = 3 * (height + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{total}" style="fill:var(--paper)"/>{"".join(parts)}</svg>\n'
    )


def panels(workload: Workload, width: int = 640, height: int = 250) -> list[tuple[str, str]]:
    """Titles and figures: the rate over time, the gaps against those of Poisson arrivals, the lengths."""
    gaps = np.diff(workload.arrival)
    gaps = gaps[gaps > 0]
    found = [("Arrivals", rate_over_time(workload.arrival, width, height))]
    if len(gaps):
        low, high = _decades(gaps)
        figure = Figure(Axis(low, high, "gap between arrivals, s", log=True), _SHARE, width, height)
        grid = np.geomspace(low, high, 200)
        figure.line(grid, 1 - np.exp(-grid / gaps.mean()), "var(--c7)", "Poisson arrivals of this rate")
        figure.line(*cdf(gaps), colour(0), "this workload")
        found.append(("Gaps", figure.svg("share of gaps up to a length")))
    both = np.concatenate([workload.prompt_tokens, workload.output_tokens])
    low, high = _decades(both.astype(float))
    figure = Figure(Axis(low, high, "tokens", log=True), _SHARE, width, height)
    figure.line(*cdf(workload.prompt_tokens), colour(0), "prompts")
    figure.line(*cdf(workload.output_tokens), colour(1), "outputs")
    return [*found, ("Lengths", figure.svg("share of requests up to a length"))]


_SHARE = Axis(0.0, 1.0, "share up to", percent=True)


def rate_over_time(arrival: NDArray[np.float64], width: int, height: int) -> str:
    """Bars of arrivals per second, about a hundred."""
    start, end = float(arrival[0]), float(arrival[-1])
    if end <= start:
        end = start + 1.0
    edges = np.linspace(start, end, 101)
    counts, _ = np.histogram(arrival, edges)
    rates = counts / (edges[1] - edges[0])
    figure = Figure(
        Axis(start, end, "time, s"), Axis(0.0, float(rates.max()) * 1.05, "requests/s"), width, height
    )
    titles = [f"{edges[k]:.1f} s: {counts[k]} requests" for k in range(100)]
    figure.bars(edges, rates, colour(0), titles)
    return figure.svg("arrivals per second over time")


def cdf(
    values: NDArray[np.float64] | NDArray[np.int64], points: int = 400
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles and their levels, evenly spaced, with a finer upper tail."""
    levels = np.unique(np.concatenate([np.linspace(0, 1, points), 1 - np.geomspace(1e-4, 0.1, 40)]))
    return np.quantile(values, levels), levels


def _decades(values: NDArray[np.float64]) -> tuple[float, float]:
    """A logarithmic axis that holds all but the smallest thousandth of these positive values."""
    low, high = float(np.quantile(values, 0.001)), float(values.max())
    return low * 0.9, max(high, low * 1.5) * 1.1
