"""The HTML page of one run or several: self-contained, for light and dark screens, without network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from sim.figures import STYLE, Axis, Figure, colour
from sim.results import STATUSES, Run
from sim.strips import strips
from sim.workloads.plotting import cdf, rate_over_time

__all__ = ["page", "table"]

_LAYOUT = """
* { box-sizing: border-box; } body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 32px 28px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 0 0 2px; } p { margin: 0 0 8px; color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin: 20px 0; }
.tile, .card { background: var(--card); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(520px, 100%), 1fr)); gap: 16px;
  margin-bottom: 16px; }
.card p { font-size: 13px; margin-bottom: 8px; } .wide { overflow-x: auto; margin: 20px 0; }
td small { display: block; color: var(--soft); font-size: 12.5px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }
"""

Floats = NDArray[np.float64]


def page(title: str, lead: Sequence[str], runs: Mapping[str, Run], tables: str = "") -> str:
    """The page of these runs, by the name of their router; `tables` is HTML that comes first."""
    single = len(runs) == 1
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(line)}</p>" for line in lead)]
    if single:
        (run,) = runs.values()
        parts.append(_tiles(run))
    parts.append(tables)
    finished = {name: _response(run, "finish") for name, run in runs.items()}
    first = {name: _response(run, "first_token") for name, run in runs.items()}
    rejected = any(run.metrics["rejected_fraction"] for run in runs.values())
    left = ", of all but the rejected" if rejected else ""
    parts.append('<div class="cards">')
    parts.append(_card("Response time", f"Share of requests done within a time{left}", _cdfs(finished, "s")))
    note = f"Share of requests with output within a time{left}"
    parts.append(_card("Time to first token", note, _cdfs(first, "s")))
    parts.append("</div>")
    for number, (name, run) in enumerate(runs.items()):
        if not single:
            parts.append(f'<h2><i class="key" style="background:{colour(number)}"></i>{escape(name)}</h2>')
        parts.append(f'<div class="cards">{"".join(_over_time(run, colour(number)))}</div>')
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_LAYOUT}</style></head>\n<body><main>\n{body}\n"
        "</main></body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """An HTML table in a card: a column for each series, with its colour, and in each cell a figure with a
    remark below."""
    names = "".join(
        f'<th><i class="key" style="background:{colour(number)}"></i>{escape(name)}</th>'
        for number, name in enumerate(head)
    )
    lines = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{escape(value)}<small>{escape(remark)}</small></td>" for value, remark in cells)
        + "</tr>"
        for name, cells in rows
    )
    return f'<div class="card wide"><table><tr><th></th>{names}</tr>{lines}</table></div>'


def _tiles(run: Run) -> str:
    metrics = run.metrics
    shown = {
        "mean response time": f"{metrics['mean_response_time']:.1f} s",
        "99 % within": f"{metrics['p99_response_time']:.1f} s",
        "mean time to first token": f"{metrics['mean_ttft']:.2f} s",
        "mean time per output token": f"{metrics['mean_tpot'] * 1e3:.0f} ms",
        "requests/s": f"{metrics['throughput']:.2f}",
        "requests evicted at least once": f"{metrics['restarted_fraction']:.1%}",
        "KV cache in use, mean": f"{metrics['kv_use_mean']:.0%}",
    }
    if run.totals["autoscaler_calls"]:
        shown["GPU hours paid for"] = f"{metrics['gpu_hours']:.2f}"
    if metrics["rejected_fraction"]:
        shown["of the requests rejected"] = f"{metrics['rejected_fraction']:.1%}"
    if late := metrics["unfinished_fraction"] - metrics["rejected_fraction"]:
        shown["of the requests unfinished"] = f"{late:.1%}"
    tiles = (
        f'<div class="tile"><b>{value}</b><span>{escape(name)}</span></div>' for name, value in shown.items()
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _card(title: str, note: str, figure: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3><p>{escape(note)}</p>{figure}</div>'


def _response(run: Run, column: str) -> Floats:
    """Of the requests that were not rejected; infinite where it did not come about."""
    seconds = run.requests[column] - run.requests["arrival"]
    seconds = np.where(np.isfinite(seconds), seconds, np.inf)
    return seconds[run.requests["rejected"] == 0]  # type: ignore[no-any-return]


def _cdfs(seconds: Mapping[str, Floats], unit: str) -> str:
    every = np.concatenate(list(seconds.values()))
    every = every[(every > 0) & np.isfinite(every)]
    low, high = (float(np.quantile(every, 0.001)), float(every.max())) if len(every) else (0.1, 1.0)
    figure = Figure(
        Axis(low * 0.95, max(high, low * 2) * 1.05, f"time, {unit}", log=True),
        Axis(0.0, 1.0, "share of requests", percent=True),
        left=62,
    )
    for number, (name, values) in enumerate(seconds.items()):
        done = values[np.isfinite(values)]
        if len(done):
            times, shares = cdf(done)
            shares = shares * (len(done) / len(values))
            figure.line(times, shares, colour(number), name if len(seconds) > 1 else "")
    if len(seconds) == 1 and len(every):
        for share in (0.5, 0.99):
            if share * (len(values) - 1) > len(done) - 1:
                continue  # so many were not done
            at = float(np.quantile(np.minimum(values, every.max()), share))
            figure.mark(at, f"p{share * 100:g}: {at:.3g} s", 0.55 - share / 2)
    return figure.svg("cumulative distribution")


def _over_time(run: Run, fill: str) -> list[str]:
    series, requests = run.series, run.requests
    time = series["time"]
    waiting = series["waiting"].astype(float)
    kv_use = series["blocks_used"] / run.replicas["kv_blocks"] * 100
    active = series["active"]
    paid = np.sum([series[status] for status in STATUSES], axis=0)
    changes = run.totals["autoscaler_calls"] > 0 or len(np.unique(active)) > 1
    cards = [
        _card(
            "KV cache in use",
            "Of each replica's own blocks; the line is the largest value of each step",
            strips(time, kv_use, top=100, unit="%", title="KV use", fill=fill),
        ),
        _card(
            "Waiting at each replica",
            "Requests sent to it that are not in its batch, evicted ones included",
            strips(
                time, waiting, top=max(waiting.max(initial=0), 1), unit="requests", title="waiting", fill=fill
            ),
        ),
        _card(
            "Requests in the system",
            "From arrival to the last token, or to its rejection",
            _population(requests, fill),
        ),
        *([_card("Replicas", REPLICAS, _replicas(time, active, paid, fill))] if changes else []),
        _card("Arrivals", "Requests per second", rate_over_time(requests["arrival"], 640, 240)),
        _card(
            "Restarts",
            "Share of requests evicted at least once, by when they arrived",
            _evicted(requests, fill),
        ),
        _card("Restarts of a request", "Requests by how often each was evicted", _restarts(requests, fill)),
    ]
    return cards


REPLICAS = "Paid for are also those that start, drain, or have failed and come back"


def _replicas(time: Floats, active: Floats, paid: Floats, fill: str) -> str:
    """How many took requests, and how many were paid for."""
    figure = Figure(
        Axis(0.0, float(time[-1]), "time, s"),
        Axis(0.0, max(float(paid.max()), 4.0) * 1.1, "replicas"),
        legend_above=True,
    )
    figure.area(np.repeat(time, 2)[1:], np.repeat(active, 2)[:-1], fill)
    figure.line(time, active, fill, "take requests", steps=True)
    figure.line(time, paid, "var(--c7)", "paid for", steps=True)
    return figure.svg("replicas over time")


def _population(requests: Mapping[str, NDArray[np.float64]], fill: str) -> str:
    """How many requests had arrived and not left: in the global queue, and in all."""
    arrived, rejected = requests["arrival"], requests["rejected"] > 0
    sent = np.where(np.isfinite(requests["routed"]), requests["routed"], np.inf)
    sent = np.where(rejected & np.isinf(sent), arrived, sent)  # at once, as no replica could hold it
    leave = np.where(np.isfinite(requests["finish"]), requests["finish"], np.inf)
    leave = np.sort(np.where(rejected, sent, leave))
    sent = np.sort(sent)
    end = max(float(arrived[-1]), float(leave[np.isfinite(leave)].max(initial=0.0)))
    grid = np.linspace(0.0, end, 400)

    def before(times: Floats) -> Floats:
        return np.searchsorted(times, grid, side="right").astype(float)

    inside, queued = before(arrived) - before(leave), before(arrived) - before(sent)
    figure = Figure(
        Axis(0.0, end, "time, s"), Axis(0.0, float(inside.max()) * 1.05 or 1.0, "requests"), legend_above=True
    )
    figure.area(grid, inside, fill)
    figure.line(grid, inside, fill, "in the system")
    figure.line(grid, queued, "var(--c7)", "held by the router")
    return figure.svg("requests in the system over time")


def _evicted(requests: Mapping[str, NDArray[np.float64]], fill: str) -> str:
    arrival, evicted = requests["arrival"], requests["restarts"] > 0
    edges = np.linspace(float(arrival[0]), max(float(arrival[-1]), float(arrival[0]) + 1e-9), 61)
    counts, _ = np.histogram(arrival, edges)
    hit, _ = np.histogram(arrival[evicted], edges)
    share = hit / np.maximum(counts, 1)
    figure = Figure(
        Axis(edges[0], edges[-1], "arrival, s"), Axis(0.0, max(float(share.max()), 0.01) * 1.05, percent=True)
    )
    titles = [f"{edges[k]:.0f} s: {hit[k]} of {counts[k]} requests" for k in range(60)]
    figure.bars(edges, share, fill, titles)
    return figure.svg("share of requests evicted, by arrival")


def _restarts(requests: Mapping[str, NDArray[np.float64]], fill: str) -> str:
    most = min(int(requests["restarts"].max(initial=0)), 20)
    counts = np.bincount(np.minimum(requests["restarts"].astype(int), most), minlength=most + 1)
    figure = Figure(
        Axis(-0.5, max(most, 4) + 0.5, "evictions of a request" + (" (20: or more)" if most == 20 else "")),
        Axis(0.8, max(float(counts.max()), 1.0) * 1.3, "requests", log=True),
    )
    titles = [f"{k} evictions: {count} requests" for k, count in enumerate(counts.tolist())]
    figure.bars(np.arange(most + 2) - 0.5, counts, fill, titles)
    return figure.svg("requests by number of evictions")
