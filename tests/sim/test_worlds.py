"""Other worlds: an honest policy decides the same until the future it cannot see has become the present."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Autoscaling, Cluster, Replica, Workload, workloads
from sim.autoscalers import QueueLength
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue
from sim.recording import Recorder, record, recording
from sim.results import Run
from sim.schedulers import FirstComeFirstServed, ShortestPromptFirst
from sim.worlds import future_changed, varied
from tests.sim.strategies import ROUTERS, scenarios, vllm_scenarios

checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def recorder(policy: Any) -> Recorder:
    made = record(policy)
    assert made is not None
    return made


class Clairvoyant:
    """Finds the workload in the memory of the process, and sends the shortest outputs first."""

    def __init__(self) -> None:
        self.outputs: np.ndarray[Any, Any] | None = None

    def route(self, queue: Any, replicas: Any, now: float) -> Iterator[tuple[Any, Any]]:
        if self.outputs is None:
            from sim.state import NOW, OUTPUT_LENGTH, State

            states = [each for each in gc.get_objects() if isinstance(each, State)]
            state = next(each for each in states if each.clock[NOW] == now and each.work[0, 0])
            self.outputs = state.lengths[:, OUTPUT_LENGTH]
        for request in sorted(queue, key=lambda each: self.outputs[each.id]):  # type: ignore[index]
            replica = min(replicas, key=lambda each: each.running + each.waiting)
            if replica.running + replica.waiting < 40:
                yield request, replica


@pytest.mark.parametrize("router", ROUTERS)
@checked
@given(
    scenario=st.one_of(scenarios(), vllm_scenarios()),
    part=st.floats(0, 1),
    key=st.integers(0, 2**32 - 1),
)
def test_no_view_shows_the_future(
    router: str, scenario: tuple[Cluster, Workload], part: float, key: int
) -> None:
    """Up to any call, a router decides the same whatever comes after it."""
    cluster, workload = scenario
    first = recorder(ROUTERS[router]())
    cluster.run(workload, first.policy)
    log = first.log()
    call = int(part * (recording(log).calls - 1))
    again = recorder(ROUTERS[router]())
    with future_changed([(again, log)], call, key):
        cluster.run(workload, again.policy)
    assert recording(log).differs(again.log(), call + 1) is None


@pytest.mark.parametrize("layer", ["scheduler", "autoscaler"])
@pytest.mark.parametrize("call", [0, 1, 7, 12])
def test_the_other_layers_see_no_future_either(layer: str, call: int) -> None:
    """A batch scheduler's plans and an autoscaler's targets do not depend on it."""
    cluster = Cluster(
        replicas=1, engine="vllm", kv_blocks=1200, autoscaling=Autoscaling(max_replicas=4, interval=5)
    )
    workload = workloads.sharegpt_bursty(rate=6.0, duration=60, seed=1)

    def run(key: int | None, log: bytes = b"") -> bytes:
        chosen = recorder(ShortestPromptFirst() if layer == "scheduler" else QueueLength())
        policies = {"scheduler": FirstComeFirstServed(), "autoscaler": QueueLength(), layer: chosen.policy}
        if key is None:
            cluster.run(workload, LeastLoadedQueue(), **policies)
        else:
            with future_changed([(chosen, log)], call, key):
                cluster.run(workload, LeastLoadedQueue(), **policies)
        return chosen.log()

    log = run(None)
    changed = run(1, log)
    assert changed != log
    assert recording(log).differs(changed, call + 1) is None


def test_who_knows_the_future_is_found() -> None:
    """A router that reads output lengths decides otherwise where only they are other."""
    cluster, workload = Cluster(replicas=2), workloads.sharegpt_bursty(rate=6.0, duration=100, seed=4)
    first = recorder(Clairvoyant())
    cluster.run(workload, first.policy)
    log = first.log()
    call = recording(log).calls // 2
    again = recorder(Clairvoyant())
    with future_changed([(again, log)], call, 1):
        cluster.run(workload, again.policy)
    assert recording(log).differs(again.log(), call + 1) is not None


@pytest.mark.parametrize("key", range(4))
def test_what_turns_out_longer_still_fits(key: int) -> None:
    """Also where replicas have more blocks than the cluster's own setting says, and so a larger watermark."""
    cluster = Cluster(replicas=2, kv_blocks=100, each=(Replica(kv_blocks=2000),) * 2)
    workload = Workload.from_arrays(arrival=[0.0], prompt_tokens=[31_000], output_tokens=[600])
    first, again = recorder(LeastLoadedQueue()), recorder(LeastLoadedQueue())
    cluster.run(workload, first.policy)
    with future_changed([(again, first.log())], 0, key):
        run = cluster.run(workload, again.policy)
    assert run.requests["output_tokens"][0] > 600
    assert run.metrics["rejected_fraction"] == 0


def test_a_call_in_a_later_run_leaves_the_earlier_one() -> None:
    """Where a replication runs two clusters with one router, only the run of the call has another future."""
    cluster = Cluster(replicas=2)
    loads = [workloads.sharegpt_bursty(rate=4.0, duration=20, seed=seed) for seed in range(2)]
    first = recorder(HeadRoomAdmission())
    before = [cluster.run(load, first.policy) for load in loads]
    log = first.log()
    call = recording(log).calls - 10
    again = recorder(HeadRoomAdmission())
    with future_changed([(again, log)], call, 1):
        after = [cluster.run(load, again.policy) for load in loads]
    assert recording(log).differs(again.log(), call + 1) is None
    assert dict(before[0].totals) == dict(after[0].totals)
    assert dict(before[1].totals) != dict(after[1].totals)


@pytest.mark.parametrize("call", [5, 60])
def test_a_closed_loop_has_other_futures_too(call: int) -> None:
    """Users whose replies come later send their next requests later: up to the call nothing shows it."""
    lengths = workloads.LogNormal(100, 1.0), workloads.LogNormal(100, 1.0)
    loop = workloads.ClosedLoop(users=8, requests=100, lengths=workloads.Independent(*lengths))
    cluster, workload = Cluster(replicas=2), loop.workload(seed=1)
    first, again = recorder(LeastLoadedQueue()), recorder(LeastLoadedQueue())
    before = cluster.run(workload, first.policy)
    with future_changed([(again, first.log())], call, 1):
        after = cluster.run(workload, again.policy)
    assert recording(first.log()).differs(again.log(), call + 1) is None
    assert not np.array_equal(before.requests["finish"], after.requests["finish"])
    with varied(3):
        other = cluster.run(workload, LeastLoadedQueue())
    assert sorted(other.requests["output_tokens"]) == sorted(before.requests["output_tokens"])
    assert other.requests["arrival"][0] > before.requests["arrival"][0]


def test_a_varied_workload_is_of_the_same_kind() -> None:
    """The same requests in another order, the same gaps, a little later; the same for the same key."""
    cluster, workload = Cluster(replicas=2), workloads.sharegpt_bursty(rate=4.0, duration=50, seed=4)

    def served(key: int) -> Run:
        with varied(key):
            return cluster.run(workload, LeastLoadedQueue())

    one, same, other = map(served, (1, 1, 2))
    assert np.array_equal(one.requests["finish"], same.requests["finish"])
    assert not np.array_equal(one.requests["output_tokens"], other.requests["output_tokens"])
    assert sorted(one.requests["output_tokens"]) == sorted(workload.output_tokens)
    assert sorted(one.requests["prompt_tokens"]) == sorted(workload.prompt_tokens)
    pairs = set(zip(workload.prompt_tokens.tolist(), workload.output_tokens.tolist(), strict=True))
    there = zip(one.requests["prompt_tokens"].tolist(), one.requests["output_tokens"].tolist(), strict=True)
    assert np.mean([pair in pairs for pair in there]) < 0.3
    assert np.allclose(np.diff(one.requests["arrival"]), np.diff(workload.arrival))
    assert 0 < one.requests["arrival"][0] - workload.arrival[0] < 10


def test_what_was_served_before_tells_nothing_of_the_next_run() -> None:
    """A policy that serves the same requests twice in a replication knows them by heart: each run is another
    draw, so that this gains nothing there."""
    workload = workloads.sharegpt_bursty(rate=6.0, duration=60, seed=1)

    def served() -> list[list[int]]:
        with varied(5):
            runs = [Cluster(replicas=2).run(workload, LeastLoadedQueue()) for _ in range(2)]
        return [run.requests["tokens_made"].tolist() for run in runs]

    first, second = served()
    assert sorted(first) == sorted(second)
    assert first != second
    assert served() == [first, second]


def test_conversations_stay_in_order() -> None:
    """What a later turn shares with an earlier one depends on the order: only the moment is another."""
    workload = Workload.from_arrays(
        arrival=[0.0, 1.0, 2.0], prompt_tokens=[5, 6, 7], output_tokens=[3, 4, 5], session=[0, 0, 0]
    )
    with varied(1):
        run = Cluster(replicas=1, engine="vllm").run(workload, LeastLoadedQueue())
    assert run.requests["prompt_tokens"].tolist() == [5, 6, 7]
    assert run.requests["arrival"][0] > 0
