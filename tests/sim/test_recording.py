"""A recorded run, replayed where its policies never were, is the same run; a forged recording is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Autoscaling, Cluster, Plan, Run, Workload, workloads
from sim.autoscalers import QueueLength
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue, RoundRobin
from sim.policies import PolicyError
from sim.recording import NotRecorded, record, recording
from sim.schedulers import ShortestPromptFirst
from tests.sim.strategies import ROUTERS, scenarios, vllm_scenarios

checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def equal(one: Run, other: Run) -> bool:
    """Whether two runs are the same in all that they tell."""
    return (
        all(np.array_equal(one.requests[name], other.requests[name], equal_nan=True) for name in one.requests)
        and all(np.array_equal(one.series[name], other.series[name]) for name in one.series)
        and dict(one.totals) == dict(other.totals)
    )


@pytest.mark.parametrize("router", ROUTERS)
@checked
@given(scenario=st.one_of(scenarios(), vllm_scenarios()))
def test_a_recorded_router_gives_the_same_run(router: str, scenario: tuple[Cluster, Workload]) -> None:
    """On both engines, with failures and stale views: noting changes nothing, and neither does replaying."""
    cluster, workload = scenario
    plain = cluster.run(workload, ROUTERS[router]())
    recorder = record(ROUTERS[router]())
    assert recorder is not None
    assert equal(cluster.run(workload, recorder.policy), plain)
    replayed = recording(recorder.log())
    assert equal(cluster.run(workload, replayed), plain)
    assert replayed.asked == plain.totals["router_calls"]


@pytest.mark.parametrize("block_size", [1, 16, 1000])
@pytest.mark.parametrize("tokens", [2_000, 20_000])
@pytest.mark.parametrize("more", [{}, {"max_num_seqs": 7}, {"max_num_batched_tokens": 9}])
def test_long_decodes_are_replayed_step_by_step(block_size: int, tokens: int, more: Any) -> None:
    """Long outputs on few blocks: runs of decodes end by completions, evictions and arrivals, and none is
    seen."""
    cluster = Cluster(
        replicas=2, kv_blocks=tokens // block_size, block_size=block_size, watermark=0.0, **more
    )
    rng = np.random.default_rng(tokens)
    workload = Workload.from_arrays(
        arrival=np.cumsum(rng.exponential(2.0, 60)),
        prompt_tokens=rng.integers(1, 300, 60),
        output_tokens=rng.integers(1, 700, 60),
    )
    recorder = record(LeastLoadedQueue())
    assert recorder is not None
    plain = cluster.run(workload, recorder.policy)
    assert equal(cluster.run(workload, recording(recorder.log())), plain)


def test_two_runs_with_one_router_are_one_recording() -> None:
    """The calls of a policy are numbered through, over all runs of a replication."""
    cluster = Cluster(replicas=2)
    loads = [workloads.sharegpt_bursty(rate=4.0, duration=20, seed=seed) for seed in range(2)]
    recorder = record(RoundRobin())
    assert recorder is not None
    plain = [cluster.run(load, recorder.policy) for load in loads]
    replayed = recording(recorder.log())
    assert all(equal(cluster.run(load, replayed), run) for load, run in zip(loads, plain, strict=True))


@pytest.mark.parametrize("decodes", [True, False])
def test_all_three_layers_are_recorded(decodes: bool) -> None:
    """A batch scheduler's plans and an autoscaler's targets are replayed like a router's pairs."""
    cluster = Cluster(
        replicas=1,
        engine="vllm",
        kv_blocks=1200,
        autoscaling=Autoscaling(max_replicas=4, interval=5, provisioning_time=5, load_time=5),
    )
    workload = workloads.sharegpt_bursty(rate=6.0, duration=60, seed=1)

    class Evicting(ShortestPromptFirst):
        """Also evicts, and gives tokens."""

        plans_decodes = decodes

        def plan(self, engine: Any, now: float) -> Any:
            running = engine.running
            evict = running[-1:] if len(running) > 6 and int(now * 100) % 7 == 0 else ()
            tokens = {running[0]: min(1, running[0].tokens_to_compute)} if running[:-1] else {}
            return Plan(super().plan(engine, now).admit, evict, tokens)

    made = LeastLoadedQueue(), Evicting(), QueueLength()
    plain = cluster.run(workload, *made)
    recorders = [record(policy) for policy in (LeastLoadedQueue(), Evicting(), QueueLength())]
    assert equal(cluster.run(workload, *(each.policy for each in recorders if each)), plain)
    replayed = [recording(recorder.log()) for recorder in recorders if recorder]
    assert equal(cluster.run(workload, *replayed), plain)
    assert plain.metrics["restarts"] > 0
    assert plain.totals["autoscaler_calls"] > 3


@pytest.mark.parametrize("target", [np.int64(3), np.uint8(2), 2**31, 2**80, np.uint64(2**63)])
def test_every_target_that_a_run_takes_is_recorded(target: Any) -> None:
    """NumPy's whole numbers and those beyond any cluster replay like small ones of Python."""
    cluster = Cluster(replicas=1, autoscaling=Autoscaling(max_replicas=4, interval=2, load_time=5))
    workload = workloads.sharegpt_bursty(rate=4.0, duration=60, seed=1)
    recorder = record(type("Wanting", (), {"target": lambda self, cluster, now: target})())
    assert recorder is not None
    plain = cluster.run(workload, RoundRobin(), autoscaler=recorder.policy)
    assert equal(cluster.run(workload, RoundRobin(), autoscaler=recording(recorder.log())), plain)
    assert len(set(plain.requests["replica"].tolist())) == min(int(target), 4)


def test_what_is_no_policy_is_not_recorded() -> None:
    """A function, a class or a plain object is left to whoever asks."""
    assert record(sorted) is None
    assert record(RoundRobin) is None
    assert record(object()) is None


def forged(calls: list[list[tuple[int, int]]]) -> bytes:
    """A log that nobody has recorded."""
    counts = np.array([len(call) for call in calls], np.int32)
    sent = np.array([pair for call in calls for pair in call], np.int32).reshape(-1, 2)
    head = json.dumps([len(counts), len(sent), 0, 0, 1]).encode() + b"\n"
    return head + counts.tobytes() + sent[:, 0].tobytes() + sent[:, 1].tobytes()


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([], "not recorded"),
        ([[(0, 0)], [(0, 0)]], "what is not there"),  # twice
        ([[(1, 0)], [(0, 0)]], "what is not there"),  # before it has arrived
        ([[(0, 7)]], "what is not there"),
        ([[(0, -1)]], "what is not there"),
        ([[(-1, 0)]], "what is not there"),
        ([[], [], [], []], "for ever|not recorded"),
    ],
)
@pytest.mark.parametrize("staleness", [0.0, 0.5])
def test_a_forged_recording_is_refused(
    calls: list[list[tuple[int, int]]], message: str, staleness: float
) -> None:
    """Decisions that no router could have made end the replay; they never reach the kernel's memory."""
    cluster = Cluster(replicas=2, staleness=staleness)
    workload = Workload.from_arrays(arrival=[0.0, 0.0], prompt_tokens=[5, 5], output_tokens=[3, 3])
    with pytest.raises((NotRecorded, PolicyError), match=message):
        cluster.run(workload, recording(forged(calls)))


class _ByCalls:
    """A recording as any router: the run asks it call by call, and checks what it decides."""

    def __init__(self, recorded: Any) -> None:
        self.route = recorded.route


def _told(cluster: Cluster, workload: Workload, log: bytes, wrap: Any) -> Run | None:
    """The run with these decisions; None if it refuses them."""
    replayed = recording(log)
    try:
        run = cluster.run(workload, wrap(replayed))
    except (NotRecorded, PolicyError):
        return None
    return None if replayed.unused else run


@checked
@given(
    scenario=st.one_of(scenarios(), vllm_scenarios()),
    forging=st.sampled_from(["replica", "request", "replicas", "calls", "merge"]),
    random=st.randoms(use_true_random=False),
)
def test_a_forged_recording_gives_what_such_a_router_would(
    scenario: tuple[Cluster, Workload], forging: str, random: Any
) -> None:
    """Whatever is changed in a log: compiled or call by call it is refused, or it is the same run."""
    cluster, workload = scenario
    recorder = record(LeastLoadedQueue())
    assert recorder is not None
    cluster.run(workload, recorder.policy)
    head, _, body = recorder.log().partition(b"\n")
    calls, sent, *_ = json.loads(head)
    numbers = np.frombuffer(body, np.int32).copy()
    counts, requests, replicas = np.split(numbers, [calls, calls + sent])
    one, other = random.randrange(max(sent, 1)), random.randrange(max(calls, 1))
    if forging == "replica" and sent:
        replicas[one] = random.randint(-1, cluster.replicas)
    elif forging == "request" and sent:
        requests[one] = random.randint(-2, len(workload) + 1)
    elif forging == "replicas":
        replicas[:] = [random.randrange(cluster.replicas) for _ in replicas]
    elif forging == "calls":
        counts[:] = random.sample(counts.tolist(), calls)
    elif forging == "merge" and other:
        counts[other] += counts[0]
        counts[0] = 0
    log = head + b"\n" + numbers.tobytes()
    compiled = _told(cluster, workload, log, lambda recorded: recorded)
    by_calls = _told(cluster, workload, log, _ByCalls)
    assert (compiled is None) == (by_calls is None)
    if compiled is not None and by_calls is not None:
        assert equal(compiled, by_calls)


def test_replicas_that_are_not_there_cannot_be_named() -> None:
    """Replicas that an autoscaler might have started take nothing from a recording."""
    cluster = Cluster(replicas=1, autoscaling=Autoscaling(max_replicas=4))
    workload = Workload.from_arrays(arrival=[0.0], prompt_tokens=[5], output_tokens=[3])
    with pytest.raises(NotRecorded, match="what is not there"):
        cluster.run(workload, recording(forged([[(0, 3)]])))


@checked
@given(log=st.binary(max_size=60), cut=st.integers(0, 40), flip=st.integers(0, 400))
def test_what_is_no_log_is_refused(log: bytes, cut: int, flip: int) -> None:
    """Any other bytes, and any damaged log, are a ValueError or a log; never anything worse."""
    recorder = record(HeadRoomAdmission())
    assert recorder is not None
    Cluster(replicas=2).run(workloads.sharegpt_bursty(rate=2.0, duration=5, seed=0), recorder.policy)
    good = recorder.log()
    for bad in (log, good[: len(good) - 1 - cut], good + b"x", good[:3] + bytes([flip % 256]) + good[4:]):
        with contextlib.suppress(ValueError):
            assert recording(bad).asked == 0


def test_where_two_recordings_part() -> None:
    """The first call in which another log decides otherwise is found; calls beyond the bound do not count."""
    one = forged([[(0, 0)], [(1, 0)], [(2, 0)]])
    other = forged([[(0, 0)], [(1, 0)], [(2, 1)]])
    assert recording(one).differs(other, 3) == 2
    assert recording(one).differs(other, 2) is None
    assert recording(one).differs(forged([[(0, 0)]]), 3) == 1
    assert recording(one).calls == 3


def test_one_without_decisions_says_that_it_was_asked() -> None:
    """What stands in for any policy counts the decision that it could not give."""
    nothing = recording(b"")
    with pytest.raises(NotRecorded, match="not recorded"):
        Cluster(replicas=1).run(workloads.sharegpt_bursty(rate=2.0, duration=5, seed=0), nothing.policy)
    assert nothing.asked == 1


@pytest.mark.parametrize(
    "head",
    [
        b"[Infinity, 0, 0, 0, 1]",
        b"[0.0, 0, 0, 0, 1]",
        b"[4611686018427387905, 0, 0, 0, 1]",
        b"[true, 0, 0, 0, 1]",
        b"[" * 9**5,
        b"[0, 0, 0, 0, 1" + b" " * 9**5 + b"]",
    ],
)
def test_lengths_that_are_none_are_refused(head: bytes) -> None:
    """Nothing that overflows, is no whole number, or nests for ever gets past the reader."""
    with pytest.raises(ValueError, match="log of decisions"):
        recording(head + b"\n" + bytes(4))


def test_what_is_left_is_told() -> None:
    """A recording that a run has used up says so, and one with calls to spare, too."""
    cluster, workload = Cluster(replicas=2), workloads.sharegpt_bursty(rate=2.0, duration=5, seed=0)
    recorder = record(HeadRoomAdmission())
    assert recorder is not None
    cluster.run(workload, recorder.policy)
    used, long = recording(recorder.log()), recording(recorder.log())
    long.ends = np.append(long.ends, long.ends[-1])
    for each in (used, long):
        cluster.run(workload, each.policy)
    assert not used.unused
    assert long.unused
