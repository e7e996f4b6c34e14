"""A policy elsewhere than it was designed: `python -m sim transfer LAYER CANDIDATE`, a Markdown table.

Other GPUs, models, engines, loads and traces. The load of a setting is a share of what it can serve, so that
none is idle and none hopeless. That is measured: the rate at which the middle half of a backlog is finished,
1,000 requests a replica that come at once, behind the least-loaded queue. Below 1 requests queue in bursts;
above it they queue more and more, but for no longer than the trace lasts. For autoscalers the load is the
number of replicas that the mean rate would keep so busy.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim import naming
from sim import workloads as w
from sim.baselines import LeastLoadedQueue
from sim.cluster import Cluster
from sim.intervals import paired_difference, paired_ratio
from sim.layers import NamedPolicy, Policies, policy
from sim.scaling import Autoscaling
from sim.workloads import Workload

__all__ = ["PLANS", "TRACES", "Plan", "Setting", "capacity", "report", "rivals"]

TRACES: Mapping[str, str] = {
    "azure-conv": "AzureLLMInferenceTrace_conv.csv",
    "azure-code": "AzureLLMInferenceTrace_code.csv",
    "mooncake": "mooncake_conversation.jsonl",
    "sharegpt": "sharegpt_inflated_12qps_300s.csv",
}
"""Files below `traces/` of `--data`: github.com/Azure/AzurePublicDataset (2023), kvcache-ai/Mooncake
(conversation), and ShareGPT with inflated lengths of pouyahmdn/vidur."""

BACKLOG = 1000
"""Requests a replica by which its capacity is measured."""


@dataclass(frozen=True)
class Setting:
    """A cluster, a workload (a name of `sim.naming` or of `TRACES`) and the loads at which it is served."""

    cluster: Cluster
    workload: str
    loads: tuple[float, ...]
    home: bool = False
    """Whether the policy was designed there."""

    @property
    def label(self) -> str:
        """GPUs, model, engine and workload, as cells of the table."""
        cluster = self.cluster
        gpus = f"{cluster.tensor_parallel} x {cluster.gpu}" if cluster.tensor_parallel > 1 else cluster.gpu
        replicas = "autoscaled" if cluster.autoscaling else cluster.replicas
        home = " (home)" if self.home else ""
        return f"{gpus}, {replicas} | {cluster.model} | {cluster.engine} | {self.workload}{home}"


@dataclass(frozen=True)
class Plan:
    """What is measured of a layer: against whom, in which metrics (smaller is better), where.

    `requests` come at every setting, or what comes in `duration` seconds where that is given. `slo` are
    seconds to the first token and for each later one.
    """

    against: tuple[str, ...]
    metrics: tuple[str, ...]
    settings: tuple[Setting, ...]
    requests: int = 3000
    duration: float | None = None
    slo: tuple[float, float] | None = None


_VLLM: Mapping[str, Any] = {"engine": "vllm", "max_num_batched_tokens": 2048}
_A10 = Cluster(replicas=4, kv_blocks=2240)
_A10_VLLM = replace(_A10, **_VLLM)
_A100 = Cluster(replicas=2, gpu="a100-80g", kv_blocks=28_615, max_num_seqs=256, **_VLLM)
_RTX = Cluster(replicas=4, gpu="rtx-4090", kv_blocks=2588, **_VLLM)
_H100 = Cluster(replicas=2, gpu="h100", kv_blocks=28_615, max_num_seqs=256, **_VLLM)
_H100_70B = Cluster(
    replicas=2,
    gpu="h100",
    model="llama-3-70b",
    tensor_parallel=4,
    kv_blocks=31_124,
    max_num_seqs=256,
    **_VLLM,
)
"""KV blocks as vLLM would have them (`sim.costs.shapes.kv_blocks`), the A10's as published."""
_ROUTED = (0.9, 1.2)
"""1.2 is about the load of `specs/test_router.py`."""
_SCHEDULED = (0.7, 0.85)
"""About the lowest and the highest load of `specs/test_batch_scheduler.py`."""


def _scaled(cluster: Cluster) -> Cluster:
    return replace(
        cluster,
        replicas=4,
        autoscaling=Autoscaling(max_replicas=32, interval=5, provisioning_time=10, load_time=20),
    )


PLANS: Mapping[str, Plan] = {
    "router": Plan(
        against=("LeastLoadedQueue", "HeadRoomAdmission"),
        metrics=("mean_response_time", "p99_response_time"),
        settings=(
            Setting(_A10, "sharegpt_bursty", _ROUTED, home=True),
            Setting(_A10_VLLM, "sharegpt_bursty", _ROUTED),
            Setting(_RTX, "sharegpt_bursty", _ROUTED),
            Setting(_H100, "sharegpt_bursty", _ROUTED),
            Setting(_H100_70B, "sharegpt_bursty", _ROUTED),
            Setting(_A10, "short_prompts_long_outputs", _ROUTED),
            Setting(_A10, "sharegpt", _ROUTED),
            Setting(_A10, "azure-conv", _ROUTED),
            Setting(_A10, "azure-code", _ROUTED),
            Setting(_H100, "mooncake", _ROUTED),
        ),
    ),
    "scheduler": Plan(
        against=("FirstComeFirstServed", "StallFree"),
        metrics=("p90_ttft", "p99_ttft", "mean_tpot"),
        settings=(
            Setting(_A100, "code_completion", _SCHEDULED, home=True),
            Setting(_A10_VLLM, "code_completion", _SCHEDULED),
            Setting(_H100, "code_completion", _SCHEDULED),
            Setting(_H100_70B, "code_completion", _SCHEDULED),
            Setting(_A100, "sharegpt_bursty", _SCHEDULED),
            Setting(_A10_VLLM, "sharegpt_bursty", _SCHEDULED),
            Setting(_A100, "azure-code", _SCHEDULED),
            Setting(_A100, "azure-conv", _SCHEDULED),
            Setting(_H100, "mooncake", _SCHEDULED),
        ),
    ),
    "autoscaler": Plan(
        against=("ThroughputThreshold", "KvUtilisation(target=0.5)", "ConcurrencyTarget(target=14)"),
        metrics=("gpu_hours", "slo_violations"),
        settings=(
            Setting(_scaled(_A10_VLLM), "changing_mix", (3.0, 6.0), home=True),
            Setting(_scaled(_RTX), "changing_mix", (3.0,)),
            Setting(_scaled(_A100), "changing_mix", (3.0,)),
            Setting(_scaled(_H100_70B), "changing_mix", (3.0,)),
            Setting(_scaled(_A10_VLLM), "sharegpt_surge", (3.0,)),
            Setting(_scaled(_A10_VLLM), "code_completion", (3.0,)),
            Setting(_scaled(_A10_VLLM), "azure-conv", (3.0,)),
            Setting(_scaled(_A10_VLLM), "azure-code", (3.0,)),
        ),
        duration=1800.0,
        slo=(5.0, 0.15),
    ),
}
"""By layer: what each policy was designed on, other systems with the same work, and other work."""

_THRESHOLD = 0.49
"""Share of its capacity that the tuned throughput threshold trusts a replica with where it was tuned
(0.525 requests/s, docs/layers.md); elsewhere it is given the same share."""


def capacity(cluster: Cluster, workload: Workload) -> float:
    """Requests/s that the cluster finishes of a backlog, in its middle half; of one replica if it is
    autoscaled. The lengths are the workload's, taken in order and again from its beginning."""
    single = replace(cluster, replicas=1, autoscaling=None) if cluster.autoscaling else cluster
    count = BACKLOG * single.replicas
    backlog = w.select(workload, np.arange(count) % len(workload), np.zeros(count))
    finish = np.sort(single.run(backlog, router=LeastLoadedQueue()).requests["finish"])
    finish = finish[np.isfinite(finish)]
    first, last = len(finish) // 4, 3 * len(finish) // 4
    return float((last - first) / (finish[last] - finish[first]))


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the table, as they are measured.

    FileNotFoundError if there is no such folder or file, ValueError for a trace that cannot be read or a name
    that no policy has, PolicyError if the candidate fails: what was measured before it stays printed.
    """
    plan = PLANS[options.layer]
    candidate = policy(options.layer, options.candidate)
    if options.data is not None and not options.data.is_dir():
        raise FileNotFoundError(
            f"--data {str(options.data)!r} is no folder; expected one that holds traces/, or none"
        )
    yield (
        f"Change of each metric, smaller is better, against each baseline on the same {options.seeds} seeds, "
        "with its 95 % interval: **worse** or better if that lies on one side of 0, as one in twenty does by "
        "chance where nothing changes. A load of 1 is what a backlog is served at (`sim/transfer.py`)."
    )
    yield ""
    head = ["GPU, replicas", "model", "engine", "trace", "load", "metric", "mean"]
    head += [f"against {text.partition('(')[0]}" for text in plan.against]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    left_out = []
    for setting in plan.settings:
        source = _source(setting.workload, options.data)
        if source is None:
            left_out.append(setting)
            continue
        for load in setting.loads:
            yield from _rows(plan, setting, source, load, candidate, options.seeds)
    if left_out:
        files = sorted({f"traces/{TRACES[setting.workload]}" for setting in left_out})
        yield ""
        yield f"Left out, for there is no {', no '.join(files)} (give its folder with --data)."


def _source(name: str, data: Path | None) -> str | None:
    """What `sim.naming.workload` knows it by; None for a trace that is not there."""
    if name not in TRACES:
        return name
    path = (data or Path()) / "traces" / TRACES[name]
    return str(path) if data is not None and path.is_file() else None


def _workload(plan: Plan, source: str, rate: float, seed: int) -> Workload:
    duration = plan.requests / rate if plan.duration is None else plan.duration
    made = naming.workload(source, rate, duration, seed)
    assert isinstance(made, Workload)
    if plan.slo is None:
        return made
    return w.with_slo(made, ttft=plan.slo[0], tpot=plan.slo[1])


def rivals(plan: Plan, most: float) -> list[str]:
    """The plan's baselines, the threshold set for replicas that serve so many requests/s at most."""
    threshold = f"ThroughputThreshold(per_replica={_THRESHOLD * most:.6g})"
    return [threshold if text == "ThroughputThreshold" else text for text in plan.against]


def _rows(
    plan: Plan, setting: Setting, source: str, load: float, candidate: NamedPolicy, seeds: int
) -> Iterator[str]:
    """A row for each metric of one setting at one load."""
    most = capacity(setting.cluster, _workload(plan, source, 5.0, 0))
    rate = load * most
    layer = candidate.layer
    compared = [candidate, *(policy(layer, text) for text in rivals(plan, most))]
    values: list[dict[str, list[float]]] = [{name: [] for name in plan.metrics} for _ in compared]
    rejected = requests = 0
    for seed in range(seeds):
        workload = _workload(plan, source, rate, seed)
        for one, of in zip(compared, values, strict=True):
            beside = {} if layer == "router" else {"router": policy("router", "llq")}
            run = Policies(**{**beside, layer: one}).serve(setting.cluster, workload, seed)
            for name in plan.metrics:
                of[name].append(run.metrics[name])
        rejected, requests = rejected + int(run.requests["rejected"].sum()), requests + len(workload)
    note = f", {rejected / requests:.1%} rejected" if rejected else ""
    for name in plan.metrics:
        ours, *theirs = (of[name] for of in values)
        cells = " | ".join(_change(name, ours, other) for other in theirs)
        yield (
            f"| {setting.label} | {load:g} ({rate:.3g}/s{note}) | {name} | {_figure(name, ours)} | {cells} |"
        )


def _figure(name: str, values: Sequence[float]) -> str:
    mean = float(np.mean(values))
    return f"{mean:.1%}" if name == "slo_violations" else f"{mean:.3g}"


def _change(name: str, values: Sequence[float], baseline: Sequence[float]) -> str:
    """The paired change in per cent, or of shares in points, its interval, and what it shows."""
    if name == "slo_violations":
        found = paired_difference(values, baseline)
        bounds, unit = [found.estimate, found.low, found.high], " pt"
    else:
        found = paired_ratio(values, baseline)
        bounds, unit = [found.estimate - 1, found.low - 1, found.high - 1], " %"
    point, low, high = (f"{100 * each:+.1f}" if math.isfinite(each) else "?" for each in bounds)
    shown = "better" if bounds[2] < 0 else "**worse**" if bounds[1] > 0 else "not shown"
    return f"{point}{unit} [{low}, {high}], {shown}"
