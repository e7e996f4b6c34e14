"""The baselines do what is written of them, on views made by hand."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim import Cluster, baselines, workloads


def replica(index: int, **seen: Any) -> Any:
    """A replica's view; 2,240 blocks of 16 tokens unless said otherwise."""
    empty = {"waiting": 0, "running": 0, "waiting_prompt_tokens": 0, "blocks_used": 0, "requests": ()}
    return SimpleNamespace(**(empty | {"index": index, "blocks_total": 2240, "block_size": 16} | seen))


def request(id_: int, prompt_tokens: int = 10, tokens_done: int = 0) -> Any:
    """A request's view."""
    return SimpleNamespace(id=id_, arrival=float(id_), prompt_tokens=prompt_tokens, tokens_done=tokens_done)


def decisions(router: Any, queue: list[Any], replicas: list[Any]) -> list[tuple[int, int]]:
    """(request id, replica index) of each pair."""
    return [(one.id, other.index) for one, other in router.route(tuple(queue), tuple(replicas), 0.0)]


def test_round_robin_takes_turns() -> None:
    """Request by request, across calls."""
    router, replicas = baselines.RoundRobin(), [replica(0), replica(1), replica(2)]
    assert decisions(router, [request(0), request(1)], replicas) == [(0, 0), (1, 1)]
    assert decisions(router, [request(2), request(3)], replicas) == [(2, 2), (3, 0)]


@pytest.mark.parametrize("rng", [np.random.default_rng(5), random.Random(5)])
def test_random_spreads(rng: Any) -> None:
    """Uniform over the replicas, from either kind of generator."""
    drawn = [
        index for _, index in decisions(baselines.Random(rng), [request(0)] * 3000, [replica(0), replica(1)])
    ]
    assert 1400 < sum(drawn) < 1600


def test_least_loaded_queue_counts_waiting_and_running() -> None:
    """LLQ looks at both, LOR at the waiting ones only; ties go to the lowest index."""
    replicas = [
        replica(0, waiting=1, running=1),
        replica(1, waiting=2),
        replica(2, running=1),
        replica(3, running=9),
    ]
    assert decisions(baselines.LeastLoadedQueue(), [request(0)], replicas) == [(0, 2)]
    assert decisions(baselines.LeastOutstandingRequests(), [request(0)], replicas) == [(0, 2)]
    assert decisions(baselines.LeastOutstandingRequests(), [request(0)], replicas[::-1]) == [(0, 3)]
    assert decisions(baselines.LeastLoadedQueue(), [request(0)], replicas[:2]) == [(0, 0)]


def test_expert_holds_when_all_are_committed() -> None:
    """2,100 committed blocks are still open, one more is full; what it sends counts; shortest prompt
    first."""
    full = replica(0, running=1, requests=(request(9, prompt_tokens=16 * 2101),))
    grown = replica(1, running=1, requests=(request(8, prompt_tokens=16, tokens_done=16 * 2100),))
    queue = [request(0, 500), request(1, 20)]
    assert decisions(baselines.Expert(), queue, [full, grown]) == [(1, 1)]
    assert decisions(baselines.Expert(), queue, [full]) == []


def test_expert_breaks_ties_at_random() -> None:
    """Equal replicas share, by the generator that it was given."""
    drawn = [
        decisions(baselines.Expert(np.random.default_rng(seed)), [request(0)], [replica(0), replica(1)])[0][1]
        for seed in range(60)
    ]
    assert 15 < sum(drawn) < 45


def test_head_room_admission() -> None:
    """Need, load and safety as published: ceil(1.6 x prompt / 16) blocks, 3 % of the blocks stay free."""
    router = baselines.HeadRoomAdmission()
    # 10 blocks for 100 tokens; 2,240 - 2,162 - 10 = 68 >= 67.2 fits, one more used block does not.
    assert decisions(router, [request(0, 100)], [replica(0, blocks_used=2162)]) == [(0, 0)]
    assert decisions(router, [request(0, 100)], [replica(0, blocks_used=2163)]) == []
    # The waiting requests' need counts as load: 101 tokens take 11 blocks.
    assert (
        decisions(router, [request(0, 100)], [replica(0, blocks_used=2152, waiting_prompt_tokens=101)]) == []
    )
    # Least load first, then fewest requests; the shortest prompt is taken first and a misfit holds all behind
    # it.
    pair = [replica(0, blocks_used=7, running=3), replica(1, blocks_used=7, running=2)]
    assert decisions(router, [request(0, 30_000), request(1, 9)], pair) == [(1, 1)]


@pytest.mark.slow
def test_published_order_on_a_loaded_cluster() -> None:
    """Past the knee head-room admission and the expert beat LLQ, which beats RR, and restart fewer
    requests."""
    workload = workloads.sharegpt_bursty(rate=9.0, duration=400, seed=0)
    run = {
        name: Cluster().run(workload, getattr(baselines, name)()).metrics
        for name in ("RoundRobin", "LeastLoadedQueue", "Expert", "HeadRoomAdmission")
    }
    time = {name: metrics["mean_response_time"] for name, metrics in run.items()}
    assert max(time["Expert"], time["HeadRoomAdmission"]) < 0.8 * time["LeastLoadedQueue"]
    assert time["LeastLoadedQueue"] < time["RoundRobin"]
    assert run["HeadRoomAdmission"]["restarted_fraction"] < run["LeastLoadedQueue"]["restarted_fraction"] / 2
