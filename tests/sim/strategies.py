"""Small random clusters, workloads and routers for the property tests: tight enough that everything
happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sim import Cluster, Workload, strategies
from sim.baselines import (
    Expert,
    HeadRoomAdmission,
    LeastLoadedQueue,
    LeastOutstandingRequests,
    Random,
    RoundRobin,
)

Hoarder, Learner = strategies.Hoarder, strategies.Learner

ROUTERS: dict[str, Callable[[], Any]] = {
    "Random": Random,
    "RoundRobin": RoundRobin,
    "LeastLoadedQueue": LeastLoadedQueue,
    "LeastOutstandingRequests": LeastOutstandingRequests,
    "Expert": Expert,
    # With head-room a prompt might never be admitted to caches this small.
    "HeadRoomAdmission": lambda: HeadRoomAdmission(reserve=0.0, safety=0.0),
    "Hoarder": lambda: Hoarder(3),
    "Learner": Learner,
}


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[Cluster, Workload]:
    """A cluster with hardly any cache and a workload, of bursts and ties, each of whose requests fits it
    alone."""
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    prompt, output = draw(st.sampled_from([(3, 40), (20, 20), (60, 3), (30, 60)]))
    watermark = draw(st.sampled_from([0.0, 0.01, 0.2]))
    largest = -(-(prompt + output) // block_size)
    cluster = Cluster(
        replicas=draw(st.integers(1, 4)),
        kv_blocks=int(largest / (1 - watermark)) + draw(st.integers(2, 12)),
        block_size=block_size,
        max_num_seqs=draw(st.sampled_from([2, 6, 32])),
        max_num_batched_tokens=draw(st.sampled_from([512, 24, 8, 3, 1])),
        watermark=watermark,
        time_scale=draw(st.sampled_from([0.5, 1.0, 2.0])),
    )
    count = draw(st.integers(2, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gaps = rng.exponential(draw(st.sampled_from([0.001, 0.05, 2.0])), count)
    gaps[rng.random(count) < 0.3] = 0.0
    return cluster, Workload.from_arrays(
        arrival=np.cumsum(gaps),
        prompt_tokens=rng.integers(1, prompt + 1, count),
        output_tokens=rng.integers(1, output + 1, count),
    )
