"""Small random clusters, workloads and routers for the property tests: tight enough that everything
happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from sim import Cluster, Failure, Workload, strategies
from sim.baselines import (
    Expert,
    HeadRoomAdmission,
    LeastLoadedQueue,
    LeastOutstandingRequests,
    Random,
    RoundRobin,
)
from sim.prefixes import Prefixes

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
def scenarios(draw: st.DrawFn, /, **settings: Any) -> tuple[Cluster, Workload]:
    """A cluster with hardly any cache and a workload, of bursts and ties, each of whose requests fits it
    alone; `settings` of the cluster besides."""
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
        **settings,
    )
    if draw(st.integers(0, 2)) == 0:
        moments = st.sampled_from([0.0, 0.05, 0.5, 1.0, 2.0, 4.0])
        failures = st.builds(Failure, st.integers(0, cluster.replicas - 1), at=moments, duration=moments)
        cluster = replace(cluster, failures=tuple(draw(st.lists(failures, max_size=4))))
    cluster = replace(cluster, staleness=draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])))
    cluster = replace(cluster, engine_waits=draw(st.sampled_from([True, False])))
    count = draw(st.integers(2, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gaps = rng.exponential(draw(st.sampled_from([0.001, 0.05, 2.0])), count)
    gaps[rng.random(count) < 0.3] = 0.0
    return cluster, Workload.from_arrays(
        arrival=np.cumsum(gaps),
        prompt_tokens=rng.integers(1, prompt + 1, count),
        output_tokens=rng.integers(1, output + 1, count),
    )


def begin_alike(session: ArrayLike, tokens: ArrayLike, block_size: int = 16) -> Prefixes:
    """Requests of one session share the full blocks of their first `tokens` tokens; those of -1 nothing."""
    reach = int(np.max(tokens)) // block_size + 1
    pairs = zip(np.asarray(session).tolist(), np.asarray(tokens).tolist(), strict=True)
    rows: list[ArrayLike] = [
        one * reach + np.arange(many // block_size if one >= 0 else 0) for one, many in pairs
    ]
    return Prefixes.from_rows(rows, block_size)


@st.composite
def vllm_scenarios(draw: st.DrawFn, /, **settings: Any) -> tuple[Cluster, Workload]:
    """The same on vLLM's engine, with every setting that it has, priorities, and shared prefixes."""
    cluster, workload = draw(
        scenarios(
            engine="vllm",
            **{
                "scheduling_policy": draw(st.sampled_from(["fcfs", "priority"])),
                "prefix_caching": draw(st.booleans()),
                "full_prompt_must_fit": draw(st.booleans()),
                "step_overhead": draw(st.sampled_from([0.0, 0.002])),
                "chunked_prefill": draw(st.sampled_from([True, True, False])),
                "long_prefill_token_threshold": draw(st.sampled_from([0, 0, 1, 5])),
                **settings,
            },
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens = workload.prompt_tokens + workload.output_tokens
    if not cluster.chunked_prefill:  # else most would be rejected
        least = max(cluster.max_num_batched_tokens, int(tokens.max()))
        cluster = replace(cluster, max_num_batched_tokens=least)
    session = rng.integers(-1, 1 + len(workload) // 6, len(workload))
    shared = (tokens * rng.random(len(workload)) ** 0.5).astype(int)
    return cluster, Workload.from_arrays(
        arrival=workload.arrival,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        priority=rng.integers(0, 3, len(workload)),
        session=session,
        prefixes=draw(st.sampled_from([None, begin_alike(session, shared, cluster.block_size)])),
    )


def scenarios_of_both() -> st.SearchStrategy[tuple[Cluster, Workload]]:
    """On either engine."""
    return st.one_of(scenarios(), vllm_scenarios())


def without_faults(scenario: tuple[Cluster, Workload]) -> tuple[Cluster, Workload]:
    """The same with live views and replicas that do not fail."""
    return replace(scenario[0], failures=(), staleness=0.0), scenario[1]
