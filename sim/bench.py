"""How fast the simulator is: `python -m sim bench`.

Simulated requests per second of wall-clock time, end to end (from a workload to its metrics) on one core,
under a least-loaded-queue router in plain Python that reads every view at every call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sim.cluster import Cluster, warm_up
from sim.policies import ReplicaView, RequestView
from sim.workloads import sharegpt_bursty


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


def report(rate: float, duration: float, repeats: int) -> Iterator[str]:
    """The lines of the report."""
    began = time.perf_counter()
    warm_up()
    yield (
        f"compiled (or loaded from the disk cache) in {time.perf_counter() - began:.2f} s, not counted below"
    )
    workload = sharegpt_bursty(rate, duration, seed=0)
    cluster = Cluster()
    seconds = []
    for _ in range(repeats):
        router = ReadingLeastLoadedQueue()
        began = time.perf_counter()
        run = cluster.run(workload, router)
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
    rates = sorted(len(workload) / second for second in seconds)
    yield (
        f"{statistics.median(rates):,.0f} requests/s "
        f"(median of {repeats}; {rates[0]:,.0f} to {rates[-1]:,.0f}): {len(workload)} requests at {rate:g}/s "
        f"on 4 replicas, {expected} router calls counted, each reading all views of 4 replicas, "
        f"{int(run.totals['steps'])} engine steps, {metrics['restarts']:.2f} restarts per request"
    )
