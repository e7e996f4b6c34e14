"""A policy in another process decides as it would have here, and is believed nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from gpu_harness.apart import answering, asking
from sim import Autoscaling, Cluster
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue, RoundRobin
from sim.results import Run
from sim.workloads import sharegpt_bursty


def run(router: Any, autoscaler: Any = None) -> Run:
    scaling = Autoscaling(max_replicas=3, interval=1.0) if autoscaler else None
    cluster = Cluster(replicas=2, kv_blocks=600, engine="vllm", autoscaling=scaling)
    return cluster.run(sharegpt_bursty(rate=6.0, duration=40, seed=3), router=router, autoscaler=autoscaler)


def apart(policy: Any) -> Any:
    return asking(answering(policy))


class Nosy:
    """Decides by all that can be seen, one pair at a time, and by what it was told of ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int, str]] = []

    def route(self, queue: Any, replicas: Any, now: float) -> Iterable[Any]:
        for request in queue:
            chosen = min(replicas, key=lambda replica: self.weight(replica, now))
            free = chosen.blocks_total - chosen.blocks_used
            if request.prompt_tokens // chosen.block_size < free or not chosen.requests:
                yield request, chosen

    def weight(self, replica: Any, now: float) -> Any:
        inside = sum(request.tokens_done + (request.state == "running") for request in replica.requests)
        queues = (replica.waiting, replica.running, replica.waiting_prompt_tokens)
        return inside + sum(queues) + replica.preemptions + len(replica.requests), replica.index

    def completed(self, request: Any, now: float) -> None:
        self.ends.append((request.id, request.tokens_done, request.state))


class Busy:
    """An autoscaler by what waits."""

    def target(self, cluster: Any, now: float) -> int:
        return 1 + int(cluster.queued + sum(replica.waiting for replica in cluster.replicas) > 2)


@pytest.mark.parametrize("make", [RoundRobin, LeastLoadedQueue, HeadRoomAdmission, Nosy])
def test_routers_decide_as_here(make: Any) -> None:
    """In the simulator, where runs can be repeated, a router that is asked apart gives the same run, bit by
    bit, and hears of the same ends."""
    here, there = make(), make()
    first, second = run(here), run(apart(there))
    for name, column in first.requests.items():
        assert column.tobytes() == second.requests[name].tobytes(), name
    assert getattr(here, "ends", None) == getattr(there, "ends", None)


def test_autoscalers_decide_as_here() -> None:
    """So does an autoscaler."""
    first, second = run(RoundRobin(), Busy()), run(RoundRobin(), apart(Busy()))
    assert first.metrics == pytest.approx(second.metrics)
    assert first.series["active"].max() > first.series["active"].min()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([[99, 0]], r"names what is not in `queue` or `replicas`"),
        ([[0, 7]], r"names what is not in `queue` or `replicas`"),
        ([0], r"names what is not"),
        ({"metrics": 1}, r"names what is not"),
        (None, r"names what is not"),
    ],
)
def test_only_what_is_there_can_be_named(answer: Any, says: str) -> None:
    """An answer, by whomever it was written, names requests and replicas of the question or ends the run."""

    def ask(question: bytes) -> bytes:
        return json.dumps(["route"] if b"methods" in question else answer).encode()

    with pytest.raises(Exception, match=says):
        run(asking(ask))


def test_what_is_no_policy_is_told() -> None:
    """Neither a number nor a batch scheduler can be asked for routes."""
    with pytest.raises(ValueError, match="nothing that could make them: give its class the methods"):
        apart(3)

    class Planner:
        def plan(self, engine: Any, now: float) -> None: ...

    with pytest.raises(ValueError, match="a batch scheduler decides inside the servers"):
        apart(Planner()).plan(None, 0.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "returned 3 where an iterable of pairs"),
        ([5], "gave 5 where a pair"),
        ([(1, 2)], "gave (1, 2) where"),
    ],
)
def test_what_is_no_pair_is_told_there(given: Any, says: str) -> None:
    """What a router gives wrongly is told by the process that has it."""

    class Wrong:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return given

    with pytest.raises(Exception) as caught:
        run(apart(Wrong()))
    assert says in " ".join(str(caught.value).split())
