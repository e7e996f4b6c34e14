"""The pool of replications that the calibration tests draw from: `python -m tests.pool` makes it anew.

A row a seed: 200 s of ShareGPT-like requests at 8 a second on four A10 replicas, some seeds past the knee and
some before it. The columns hold the least-loaded queue (LLQ), Head-Room Admission (HRA), and candidates that
are equivalent by construction: LLQ with ties broken at random, each by a stream of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import Cluster, workloads
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue
from sim.policies import ReplicaView, RequestView

FILE = Path(__file__).parent / "data" / "replications.csv"
SEEDS = 2000
EQUIVALENT = 6
MEAN = "mean_response_time"
METRICS = (MEAN, "p90_response_time", "p99_response_time", "restarted_fraction")
COLUMNS = (
    *(f"{router} {metric}" for router in ("llq", "hra") for metric in METRICS),
    *(f"tie{stream} {MEAN}" for stream in range(EQUIVALENT)),
)


class RandomTies:
    """The least-loaded queue with ties broken at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterable[tuple[RequestView, ReplicaView]]:
        """Each request at once to one of the replicas with the fewest requests."""
        for request in queue:
            loads = [replica.waiting + replica.running for replica in replicas]
            tied = [replica for replica, load in zip(replicas, loads, strict=True) if load == min(loads)]
            yield request, tied[int(self._rng.random() * len(tied))]


def replication(seed: int) -> list[float]:
    """The row of a seed, in the order of `COLUMNS`, to five digits."""
    cluster = Cluster(replicas=4, gpu="a10", model="llama-3-8b", kv_blocks=2240)
    workload = workloads.sharegpt_bursty(rate=8.0, duration=200, seed=seed)
    row = []
    for router in (LeastLoadedQueue(), HeadRoomAdmission()):
        metrics = cluster.run(workload, router=router).metrics
        row += [metrics[name] for name in METRICS]
    for stream in range(EQUIVALENT):
        ties = RandomTies(np.random.default_rng([seed, stream]))
        row.append(cluster.run(workload, router=ties).metrics[MEAN])
    return [float(f"{value:.5g}") for value in row]


def read() -> dict[str, NDArray[np.float64]]:
    """The pool by column, each with one value a seed."""
    with FILE.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return dict(zip(head, np.array(rows, dtype=float).T, strict=True))


def main() -> None:
    """Write the pool."""
    FILE.parent.mkdir(exist_ok=True)
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as workers:
        rows = workers.map(replication, range(SEEDS), chunksize=20)
        with FILE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([f"{value:g}" for value in row] for row in rows)


if __name__ == "__main__":
    main()
