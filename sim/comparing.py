"""Policies of one layer side by side on the same workloads: `python -m sim compare`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import bounds, naming
from sim.intervals import Interval, paired_difference, paired_ratio
from sim.layers import Policies, policy
from sim.policies import PolicyError
from sim.results import Run
from sim.showing import cluster_of, policies_of, rejections, size, titles
from sim.workloads import ClosedWorkload

__all__ = ["METRICS", "report", "rows"]

METRICS = (
    "mean_response_time",
    "p99_response_time",
    "mean_ttft",
    "mean_tpot",
    "throughput",
    "restarted_fraction",
)
"""What is compared unless `--metric` says otherwise."""

BOUNDS = {"mean_response_time": bounds.mean_response_time, "mean_ttft": bounds.mean_ttft}
"""What of them has a lower bound."""

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""values[policy][metric]: one number a seed."""


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report; writes the page if `--html` asks for one.

    All serve the same workloads, one a seed, beside the same policies of the other layers. The change against
    the first is that of the pairs, with a 95 % interval: a ratio by paired t of its logarithm, or where a
    value may be 0 a difference.
    """
    layer, beside = options.layer, policies_of(options)
    if layer in beside:
        raise ValueError(f"--{layer} {beside[layer].name} where {layer}s are compared; name it among them")
    beside = {"router": policy("router", "llq"), **beside}
    compared = [policy(layer, text) for text in options.policies]
    rivals = {one.label: Policies(**{**beside, layer: one}) for one in compared}
    if len(rivals) < len(compared):
        raise ValueError(f"a {layer} is given twice; expected different ones")
    autoscaled = layer == "autoscaler" or "autoscaler" in beside
    cluster = cluster_of(options, autoscaled=autoscaled)
    metrics = tuple(options.metric or (*METRICS, *(("gpu_hours",) if autoscaled else ())))
    values: dict[str, dict[str, list[float]]] = {label: {name: [] for name in metrics} for label in rivals}
    bounded = not cluster.autoscaling and not cluster.failures
    least: dict[str, list[float]] = {name: [] for name in metrics if bounded and name in BOUNDS}
    first: dict[str, Run] = {}
    rejected: dict[str, list[NDArray[np.int64]]] = {label: [] for label in rivals}
    failed: dict[str, PolicyError] = {}
    lead: list[str] = []
    for seed in range(options.seed, options.seed + options.seeds):
        workload = naming.workload(options.workload, options.rate, options.duration, seed)
        lead = lead or titles(cluster, workload, options.workload)
        if isinstance(workload, ClosedWorkload):
            least = {}  # nobody knows when its requests will arrive
        else:
            for name, found in least.items():
                found.append(BOUNDS[name](cluster, workload).seconds)
        for label in values:
            if label in failed:
                continue
            try:
                run = rivals[label].serve(cluster, workload, seed)
            except PolicyError as error:
                if label == compared[0].label:
                    raise  # nothing is left to compare with
                failed[label] = error
                continue
            first.setdefault(label, run)
            rejected[label].append(run.requests["rejected"])
            for name in metrics:
                try:
                    values[label][name].append(run.metrics[name])
                except KeyError as error:
                    raise ValueError(error.args[0]) from None
    values = {label: of for label, of in values.items() if label not in failed}
    first = {label: run for label, run in first.items() if label not in failed}
    others = [one.label for other, one in beside.items() if other != layer]
    if others:
        lead.append(f"{layer}s beside {' + '.join(others)}")
    seeds = f"seeds {options.seed} to {options.seed + options.seeds - 1}"
    note = f"{seeds}; means over seeds; change against {compared[0].label} on the same seeds, 95 % interval"
    tables = {name: rows(values, name) for name in metrics}

    def bound(name: str) -> str:
        return f"no policy can be below {_figure(float(np.mean(least[name])), False)} (sim.bounds)"

    if options.seeds == 1:
        note = f"seed {options.seed} alone, so no interval; change against {compared[0].label}"
    warnings = list(rejections({label: rejected[label] for label in values}))
    yield from (*lead, note, *warnings)
    width = max(map(len, values))
    for name, table in tables.items():
        yield f"\n{name}"
        for label, mean, change, interval in table:
            yield f"  {label:{width}s}  {mean:>10s}  {change:>8s}  {interval}".rstrip()
        if name in least:
            yield f"  {bound(name)}"
    for label in failed:
        yield f"\n{label} failed and is left out"
    if options.html is not None:
        Path(options.html).write_text(
            _page(
                f"{len(first)} {layer}s on {size(cluster)} replicas",
                options.seed,
                [*lead, *warnings, *(f"{name}: {bound(name)}" for name in tables if name in least)],
                note,
                tables,
                first,
            ),
            "utf-8",
        )
        yield f"\ndrawn in {options.html} (runs of seed {options.seed})"
    for fault in failed.values():
        raise fault


def _page(
    title: str,
    seed: int,
    lead: Sequence[str],
    note: str,
    rows: Mapping[str, Sequence[tuple[str, str, str, str]]],
    runs: Mapping[str, Run],
) -> str:
    from sim.page import page, table

    cells = [
        (name, [(mean, f"{change} {interval}".strip()) for _, mean, change, interval in of_rivals])
        for name, of_rivals in rows.items()
    ]
    shown = table(list(runs), cells)
    return page(title, [*lead, f"{note}. The figures below the table are of seed {seed}."], runs, shown)


def rows(values: Values, metric: str) -> list[tuple[str, str, str, str]]:
    """Of each policy its name, its mean, the change against the first, and the interval of that."""
    (baseline, below), *others = ((name, of[metric]) for name, of in values.items())
    fraction = metric.endswith(("_fraction", "_share"))
    made = [(baseline, _figure(float(np.mean(below)), fraction), "", "")]
    for name, above in others:
        if min(*above, *below) > 0 and not fraction:
            ratio = paired_ratio(above, below)
            change = Interval(ratio.estimate - 1, ratio.low - 1, ratio.high - 1)
            texts = [f"{bound:+.1%}" if math.isfinite(bound) else "?" for bound in vars(change).values()]
        else:
            change = paired_difference(above, below)
            texts = [_difference(bound, fraction) for bound in vars(change).values()]
        interval = f"[{texts[1]}, {texts[2]}]" if len(above) > 1 else ""
        made.append((name, _figure(float(np.mean(above)), fraction), texts[0], interval))
    return made


def _figure(value: float, fraction: bool) -> str:
    return f"{value:.1%}" if fraction else f"{value:,.3f}" if value < 100 else f"{value:,.1f}"


def _difference(value: float, fraction: bool) -> str:
    if not math.isfinite(value):
        return "?"
    return f"{value * 100:+.1f} pt" if fraction else f"{value:+.3g}"
