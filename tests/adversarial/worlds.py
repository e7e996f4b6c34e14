"""The small cluster and workload that hostile candidates are tried on."""

from __future__ import annotations

from typing import Any

from sim import Cluster, Run, Workload, workloads

CLUSTER = Cluster(replicas=2, kv_blocks=900)


def workload(seed: int) -> Workload:
    """A minute of requests, past what the cache holds at times."""
    return workloads.sharegpt_bursty(rate=6.5, duration=60, seed=seed)


def serve(router: Any, seed: int) -> Run:
    """One replication."""
    return CLUSTER.run(workload(seed), router=router)
