"""How fast the simulator is: `python -m sim bench`.

Simulated requests per second of wall-clock time, end to end (from a workload to its metrics) on one core,
under a least-loaded-queue router in plain Python that reads every view at every call.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from sim.cluster import Cluster, warm_up
from sim.policies import ReplicaView, RequestView
from sim.schedulers import FirstComeFirstServed
from sim.workloads import Workload, sharegpt_bursty


class _AtEveryStep(FirstComeFirstServed):
    plans_decodes = True


class ReadingLeastLoadedQueue:
    """LLQ that reads waiting, running, waiting_prompt_tokens and blocks_used of every replica at every call.

    The latter two break ties. It counts its calls and the views read.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.views_read = 0

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterable[tuple[RequestView, ReplicaView]]:
        self.calls += 1
        loads = [(r.waiting + r.running, r.waiting_prompt_tokens, r.blocks_used) for r in replicas]
        self.views_read += len(loads)
        pairs = []
        for request in queue:
            best = loads.index(min(loads))
            requests, prompt_tokens, blocks = loads[best]
            loads[best] = (requests + 1, prompt_tokens + request.prompt_tokens, blocks)
            pairs.append((request, replicas[best]))
        return pairs


AZURE_RATE = 28.0
"""Requests/s of workload W."""


def azure(trace: Path) -> Workload:
    """Workload W: the first 2,000 lengths of Azure's 2023 trace of conversations, at most 4,096 tokens each,
    Poisson at 28 requests/s.

    FileNotFoundError if the trace is not there.
    """
    if not trace.is_file():
        raise FileNotFoundError(
            f"Azure's trace is not at {str(trace)!r}; it is AzureLLMInferenceTrace_conv.csv of "
            "github.com/Azure/AzurePublicDataset"
        )
    with trace.open(newline="") as file:
        rows = csv.DictReader(file)
        lengths = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in islice(rows, 2000)]
    prompts, outputs = np.clip(np.array(lengths), 1, 4096).T
    gaps = np.random.default_rng(0).exponential(1 / AZURE_RATE, len(lengths))
    return Workload.from_arrays(arrival=np.cumsum(gaps), prompt_tokens=prompts, output_tokens=outputs)


AZURE_CLUSTER = Cluster(
    replicas=4,
    engine="vllm",
    max_num_batched_tokens=2048,
    max_num_seqs=256,
    kv_blocks=27_000,  # 80 GB x 0.9 less 16 GB of weights, at 2 MiB a block
    gpu="a100-80g",
)
"""The cluster of workload W."""


def report(
    rate: float, duration: float, repeats: int, *, trace: Path | None = None, scheduler: bool = False
) -> Iterator[str]:
    """The lines of the report: workload W if a trace is given, else the routing problem's; with `scheduler`
    under a batch scheduler in Python (on vLLM's engine)."""
    began = time.perf_counter()
    warm_up()
    yield (
        f"compiled (or loaded from the disk cache) in {time.perf_counter() - began:.2f} s, not counted below"
    )
    workload = azure(trace) if trace else sharegpt_bursty(rate, duration, seed=0)
    cluster = AZURE_CLUSTER if trace else Cluster(engine="vllm" if scheduler else "sarathi")
    plans = _AtEveryStep() if scheduler else None
    seconds = []
    for _ in range(repeats):
        router = ReadingLeastLoadedQueue()
        began = time.perf_counter()
        run = cluster.run(workload, router, plans)
        metrics = run.metrics
        seconds.append(time.perf_counter() - began)
        # A completion is one call for each instant and replica at which requests completed.
        ends = np.stack([run.requests["finish"], run.requests["replica"].astype(float)])
        expected = len(workload) + np.unique(ends, axis=1).shape[1]
        if not (router.calls == metrics["router_calls"] == expected and router.views_read == 4 * expected):
            raise AssertionError(
                f"the router was called {router.calls} times and read {router.views_read} views; expected "
                f"one call for each of {len(workload)} arrivals and for each step with completions, "
                f"{expected} in all, and 4 views each"
            )
        steps, planned = run.totals["steps"], run.totals["scheduler_calls"]
        if plans is not None and planned < steps:
            raise AssertionError(f"the batch scheduler was called {planned:.0f} times in {steps:.0f} steps")
    rates = sorted(len(workload) / second for second in seconds)
    rate = AZURE_RATE if trace else rate
    kind = f"{cluster.engine} engine" + (", a batch scheduler in Python at every step" if scheduler else "")
    yield (
        f"{statistics.median(rates):,.0f} requests/s "
        f"(median of {repeats}; {rates[0]:,.0f} to {rates[-1]:,.0f}): {len(workload)} requests at "
        f"{rate:g}/s on 4 replicas, {kind}, {expected} router calls counted, each reading "
        f"all views of 4 replicas, {int(run.totals['steps'])} engine steps, {metrics['restarts']:.2f} "
        "restarts per request"
    )
