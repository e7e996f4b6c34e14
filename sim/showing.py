"""One run, printed and drawn: `python -m sim run`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import naming
from sim.cluster import Cluster
from sim.layers import LAYERS, NamedPolicy, Policies, policy
from sim.results import Run
from sim.scaling import Autoscaling
from sim.workloads import ClosedWorkload, Workload

__all__ = [
    "add_cluster_arguments",
    "add_policy_arguments",
    "add_workload_arguments",
    "cluster_of",
    "description",
    "figures",
    "policies_of",
    "rejections",
    "report",
    "size",
    "titles",
]

_TYPES = {"int": int, "float": float, "str": str}


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """--workload, --rate, --duration."""
    parser.add_argument(
        "--workload",
        default="sharegpt_bursty",
        metavar="NAME_OR_FILE",
        help=f"{', '.join(naming.WORKLOADS)}; a closed loop, "
        f"{naming.CLOSED}[:users=64,requests=2000,think=0,spread=0]; or a trace: CSV, JSONL or Parquet "
        "(default %(default)s)",
    )
    parser.add_argument("--rate", type=float, help="requests/s (8 without; a trace: as recorded)")
    parser.add_argument("--duration", type=float, help="seconds of arrivals (1,000 without; a trace: all)")


def add_policy_arguments(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """--router, --scheduler, --autoscaler; `nargs` as `argparse` has it."""
    for layer, module in (
        ("router", "baselines or balancing"),
        ("scheduler", "schedulers"),
        ("autoscaler", "autoscalers"),
    ):
        parser.add_argument(
            f"--{layer}",
            metavar="FILE[:CLASS]",
            nargs=nargs,
            help=f"or a name in sim.{module}"
            + (" (LeastLoadedQueue beside another layer)" if layer == "router" else ""),
        )


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for every setting of `Cluster` that is a number, a name or a switch, and of `Autoscaling`."""
    group = parser.add_argument_group("cluster")
    for field in fields(Cluster):
        option = "--" + field.name.replace("_", "-")
        kind = str(field.type).split(" ")[0]
        if kind == "bool":
            flag = argparse.BooleanOptionalAction
            group.add_argument(option, action=flag, default=field.default, help="default %(default)s")
        elif kind in _TYPES:
            group.add_argument(option, type=_TYPES[kind], default=field.default, help="default %(default)s")
    group = parser.add_argument_group("autoscaling, under an autoscaler")
    for scaling in fields(Autoscaling):
        option = "--" + scaling.name.replace("_", "-")
        group.add_argument(option, type=_TYPES[str(scaling.type)], help=f"default {scaling.default}")


def cluster_of(options: argparse.Namespace, *, autoscaled: bool) -> Cluster:
    """The cluster of these options; ValueError if one is out of its range, or says how to scale where nothing
    does."""
    settings: dict[str, Any] = {
        field.name: getattr(options, field.name) for field in fields(Cluster) if hasattr(options, field.name)
    }
    scaling = {field.name: getattr(options, field.name) for field in fields(Autoscaling)}
    scaling = {name: value for name, value in scaling.items() if value is not None}
    if scaling and not autoscaled:
        given = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in scaling.items())
        raise ValueError(f"{given} without an autoscaler; expected --autoscaler FILE[:CLASS] or a name")
    return Cluster(**settings, autoscaling=Autoscaling(**scaling) if autoscaled else None)


def policies_of(options: argparse.Namespace) -> dict[str, NamedPolicy]:
    """The policies given, by layer."""
    return {
        layer: policy(layer, getattr(options, layer))
        for layer in LAYERS
        if getattr(options, layer) is not None
    }


def size(cluster: Cluster) -> str:
    """How many replicas there are."""
    scaling = cluster.autoscaling
    return f"{cluster.replicas}" if scaling is None else f"{scaling.min_replicas} to {scaling.max_replicas}"


def titles(cluster: Cluster, workload: Workload | ClosedWorkload, name: str) -> list[str]:
    """What was run, in two sentences, and what of the costs is not measured."""
    of = workload.describe()
    lengths = (
        f"{of['mean_prompt_tokens']:,.0f} prompt and {of['mean_output_tokens']:,.0f} output tokens on average"
    )
    came = (
        f"of {len(workload.starts):,} users, who think {of['mean_think']:.3g} s on average"
        if isinstance(workload, ClosedWorkload)
        else f"in {of['duration']:,.1f} s ({of['rate']:.3g}/s, gaps' CV {of['gap_cv']:.1f})"
    )
    marks = ", ".join(f"{profile} ({marks or 'all measured'})" for profile, marks in cluster.marks.items())
    notes = [f"{cluster.tensor_parallel} GPUs each"] if cluster.tensor_parallel > 1 else []
    notes += [f"{cluster.replicas} at the start"] if cluster.autoscaling else []
    beside = f" ({', '.join(notes)})" if notes else ""
    return [
        f"{size(cluster)} x {cluster.gpu}{beside} with {cluster.model}, {cluster.kv_blocks:,} KV blocks of "
        f"{cluster.block_size} tokens each",
        f"{name}: {len(workload):,} requests {came}; {lengths}",
        f"costs of {marks}",
    ]


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report; writes the page if `--html` asks for one."""
    given = policies_of(options)
    if not given:
        raise ValueError("no policy is given; expected --router, --scheduler or --autoscaler")
    policies = Policies(**{"router": policy("router", "llq"), **given})
    cluster = cluster_of(options, autoscaled=policies.autoscaler is not None)
    workload = naming.workload(options.workload, options.rate, options.duration, options.seed)
    run = policies.serve(cluster, workload, 0 if options.seed is None else options.seed)
    lead = titles(cluster, workload, options.workload)
    yield f"{policies.label} on {lead[0]}"
    yield from lead[1:]
    warnings = list(rejections({policies.label: [run.requests["rejected"]]}))
    yield from warnings
    yield ""
    yield from figures(run)
    if options.html is not None:
        from sim.page import page

        Path(options.html).write_text(
            page(f"{policies.label} on {size(cluster)} replicas", [*lead, *warnings], {policies.label: run}),
            "utf-8",
        )
        yield f"\ndrawn in {options.html}"


def description(options: argparse.Namespace) -> Iterator[str]:
    """What a workload is like: `python -m sim describe`."""
    workload = naming.workload(options.workload, options.rate, options.duration, options.seed)
    yield str(workload.describe())
    if options.svg is not None:
        if isinstance(workload, ClosedWorkload):
            raise ValueError(f"{options.workload} has no arrivals to draw before a run; leave --svg out")
        workload.plot(options.svg)
        yield f"drawn in {options.svg}"


def rejections(runs: Mapping[str, Sequence[NDArray[np.int64]]]) -> Iterator[str]:
    """A warning for each policy under which requests were rejected; the column of each of its runs."""
    for label, columns in runs.items():
        count, requests = sum(int(column.sum()) for column in columns), sum(map(len, columns))
        if count:
            yield (
                f"warning: {count:,} of {requests:,} requests rejected under {label}, too long for a KV cache"
            )


def figures(run: Run) -> Iterator[str]:
    """The metrics as a table: times first, then the rest, three to a line."""
    metrics = run.metrics
    kinds = ("mean", "p50", "p90", "p99")
    yield f"{'':20s}" + "".join(f"{kind:>11s}" for kind in kinds)
    for name, label, factor in (
        ("response_time", "response time, s", 1.0),
        ("ttft", "TTFT, s", 1.0),
        ("tpot", "TPOT, ms", 1e3),
        ("slowdown", "slowdown", 1.0),
    ):
        yield f"{label:20s}" + "".join(f"{metrics[f'{kind}_{name}'] * factor:11,.2f}" for kind in kinds)
    yield ""
    rest = {
        name: value for name, value in metrics.items() if not name.startswith(tuple(f"{k}_" for k in kinds))
    }
    yield from _columns({name: _value(name, value) for name, value in rest.items()})


def _value(name: str, value: float) -> str:
    if name.endswith(("_share", "_fraction")) or name.startswith("kv_use"):
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def _columns(values: Mapping[str, str], columns: int = 3) -> Iterator[str]:
    cells = [f"{name:20s}{value:>9s}" for name, value in values.items()]
    rows = -(-len(cells) // columns)
    for row in range(rows):
        yield "   ".join(cells[row::rows]).rstrip()
