"""A policy in another process sees what it would see here, decides the same, and is believed only numbers."""

from __future__ import annotations

import importlib
import itertools
import json
import marshal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from sim import Autoscaling, Cluster, Plan, Replica, Workload, workloads
from sim.apart import answering, asking
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue, RoundRobin
from sim.policies import PolicyError, RequestView
from sim.schedulers import ShortestPromptFirst, StallFree
from tests.sim.strategies import ROUTERS, scenarios_of_both, vllm_scenarios
from tests.sim.test_recording import equal

checked = settings(max_examples=12, deadline=None, derandomize=True, database=None)

_REQUEST = ("id", "arrival", "prompt_tokens", "priority", "session", "prefix", "ttft_slo", "tpot_slo")
_REPLICA = ("index", "waiting", "running", "waiting_prompt_tokens", "blocks_used", "preemptions")
_IN_ENGINE = ("computed_tokens", "tokens_to_compute", "prefilling", "blocks", "preemptions")


asking_side: Any = importlib.import_module("sim.apart.asking")


def apart(policy: Any) -> Any:
    return asking(answering(policy))


class Watcher:
    """Notes all that it can see, of whatever it was ever shown, before and after each of its decisions."""

    def __init__(self) -> None:
        self.requests: dict[Any, Any] = {}
        self.replicas: dict[int, Any] = {}
        self.seen: list[Any] = []

    def look(self, *given: Any) -> None:
        requests = [
            [getattr(each, name, None) for name in (*_REQUEST, "tokens_done", "state", *_IN_ENGINE)]
            for each in self.requests.values()
        ]
        replicas = [
            [*(getattr(each, name) for name in _REPLICA), [inside.id for inside in each.requests]]
            for each in self.replicas.values()
        ]
        self.seen.append((given, requests, replicas))


class WatchfulRouter(Watcher):
    """Sends one at a time and looks in between; holds what is too much."""

    def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
        self.requests |= {each.id: each for each in queue}
        self.replicas |= {each.index: each for each in replicas}
        self.look(now, [each.id for each in queue], [each.index for each in replicas])
        for request in queue[:3]:
            chosen = min(replicas, key=lambda each: (each.blocks_used + each.waiting, each.index))
            if chosen.waiting < 4:
                yield request, chosen
                self.look(now, request.state, repr(chosen))

    def completed(self, request: Any, now: float) -> None:
        self.look(now, request.id, request.state, request.tokens_done)


class WatchfulScheduler(Watcher):
    """Evicts now and then, gives tokens, and admits by the prompt."""

    def plan(self, engine: Any, now: float) -> Plan:
        running, waiting = engine.running, list(engine.waiting)
        self.requests |= {each.id: each for each in (*running, *waiting)}
        gauges = (
            engine.index,
            engine.blocks_free,
            engine.blocks_used,
            engine.token_budget,
            len(engine.waiting),
        )
        self.look(now, gauges, [each.id for each in running], [each.id for each in waiting])
        turn = len(self.seen) % 7
        evict = running[-1:] if turn == 3 and len(running) > 1 else ()
        tokens = {running[0]: min(1, running[0].tokens_to_compute)} if turn == 5 and len(running) > 1 else {}
        admit = sorted(waiting, key=lambda each: (each.prompt_tokens, each.id)) if turn % 2 else None
        return Plan(admit and (each for each in admit), evict, tokens)


class WatchfulAutoscaler(Watcher):
    """Up and down."""

    def target(self, cluster: Any, now: float) -> Any:
        self.replicas |= {each.index: each for each in cluster.replicas}
        self.look(now, *cluster[1:])
        return np.int64(1 + len(self.seen) % 3)


def both(make: Callable[[], Any], run: Callable[[Any], Any]) -> Any:
    """The run with the policy here, which must be that with it apart, like all that it saw."""
    here, there = make(), make()
    first, second = run(here), run(apart(there))
    assert equal(first, second)
    assert getattr(here, "seen", None) == getattr(there, "seen", None)
    return first


@pytest.mark.parametrize("router", ROUTERS)
@checked
@given(scenario=scenarios_of_both())
def test_routers_see_and_decide_as_here(router: str, scenario: tuple[Cluster, Workload]) -> None:
    """On both engines, with priorities, prefixes, failures and views that are stale."""
    cluster, workload = scenario
    both(ROUTERS[router], lambda policy: cluster.run(workload, policy))


@settings(checked, max_examples=60)
@given(scenario=scenarios_of_both())
def test_nothing_that_a_router_may_look_at_is_another(scenario: tuple[Cluster, Workload]) -> None:
    """Also what it was shown long ago, between two pairs of a call, and of what has ended."""
    cluster, workload = scenario
    both(WatchfulRouter, lambda policy: cluster.run(workload, policy))


@settings(checked, max_examples=60)
@given(scenario=vllm_scenarios())
def test_nothing_that_a_scheduler_may_look_at_is_another(scenario: tuple[Cluster, Workload]) -> None:
    """Evictions, token counts and lazy admissions included."""
    cluster, workload = scenario
    both(WatchfulScheduler, lambda policy: cluster.run(workload, RoundRobin(), scheduler=policy))


def test_a_scheduler_that_plans_no_decodes_is_asked_as_seldom() -> None:
    """What it says of itself is known apart, too."""
    cluster = Cluster(replicas=2, engine="vllm", max_num_batched_tokens=512)
    workload = workloads.sharegpt_bursty(rate=4.0, duration=60, seed=1)
    for make in (ShortestPromptFirst, StallFree):
        assert both(make, lambda policy: cluster.run(workload, RoundRobin(), scheduler=policy)).totals[
            "scheduler_calls"
        ]


@pytest.mark.parametrize("staleness", [0.0, 2.0])
def test_three_layers_in_one_object(staleness: float) -> None:
    """A design that plays all of them sees with each what it would see here; replicas come and go."""

    class All(WatchfulRouter, WatchfulScheduler, WatchfulAutoscaler):
        """All three."""

    cluster = Cluster(
        replicas=1,
        engine="vllm",
        kv_blocks=1200,
        staleness=staleness,
        autoscaling=Autoscaling(max_replicas=4, interval=5, provisioning_time=5, load_time=5),
    )
    workload = workloads.sharegpt_bursty(rate=2.0, duration=25, seed=1)
    run = both(All, lambda policy: cluster.run(workload, policy, policy, policy))
    assert run.totals["autoscaler_calls"] > 3


def test_several_runs_and_a_closed_loop() -> None:
    """Each run of a replication is told from its beginning; the policy remembers."""
    cluster = Cluster(replicas=2, kv_blocks=600)
    loads = [workloads.sharegpt_bursty(rate=4.0, duration=20, seed=seed) for seed in range(2)]
    closed = workloads.ClosedLoop(users=8, requests=60, lengths=workloads.SHAREGPT).workload(3)
    here, there = WatchfulRouter(), WatchfulRouter()
    policy = apart(there)
    mixed: tuple[Any, ...] = (*loads, closed, loads[0])
    for load in mixed:
        assert equal(cluster.run(load, here), cluster.run(load, policy))
    assert here.seen == there.seen


def test_requests_that_fit_nowhere_or_not_everywhere() -> None:
    """What is rejected as it comes is not told of; what is rejected where it is sent is seen to be."""
    cluster = Cluster(replicas=2, each=(Replica(kv_blocks=40), Replica(kv_blocks=90)), watermark=0.0)
    workload = Workload.from_arrays(
        arrival=np.arange(60) * 0.1, prompt_tokens=np.full(60, 300), output_tokens=1 + np.arange(60) * 40
    )
    run = both(WatchfulRouter, lambda policy: cluster.run(workload, policy))
    assert run.metrics["rejected_fraction"] > 0.1


def test_the_questions_hold_no_future() -> None:
    """Two workloads that differ in output lengths and later arrivals ask the same bytes up to there.

    How many requests there will be is not told either, nor how long the longest is.
    """
    first = Workload.from_arrays(
        arrival=[0.0, 1.0, 50.0], prompt_tokens=[9, 9, 9], output_tokens=[400, 500, 3]
    )
    second = Workload.from_arrays(
        arrival=[0.0, 1.0, *np.linspace(40, 60, 500)],
        prompt_tokens=np.full(502, 9),
        output_tokens=[4000, 5000, *range(1, 501)],
    )
    asked: list[list[bytes]] = []
    for workload in (first, second):
        questions: list[bytes] = []
        answer = answering(LeastLoadedQueue())

        def ask(question: bytes, questions: list[bytes] = questions, answer: Any = answer) -> bytes:
            questions.append(question)
            return bytes(answer(question))

        Cluster(replicas=2).run(workload, asking(ask))
        asked.append(questions)
    # Which methods it has, and the first two arrivals; what follows is already another past.
    first_three, others = ([marshal.loads(each) for each in questions[:3]] for questions in asked)
    assert first_three == others
    assert first_three[2][6] == 1.0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b'[[["a", 0]], false]', r"names no request and replica that are there"),
        (b"[[[99, 0]], false]", r"names no request and replica that are there"),
        (b"[[[0, 7]], false]", r"names no request and replica that are there"),
        (b"[[[0, -1]], false]", r"names no request and replica that are there"),
        (b"[[[0, 0], [0, 0]], false]", r"send each request once"),
        (b"[[5], false]", r"names no request and replica that are there"),
        (b'{"metrics": 1}', r"is not a list of pairs"),
        (b"[[], 1]", r"is not a list of pairs"),
        (b"null", r"is not a list of pairs"),
        (b"\x80", r"cannot be read"),
        (b"[" * 100_000, r"cannot be read"),
    ],
)
def test_only_what_is_there_can_be_named(answer: bytes, says: str) -> None:
    """An answer, by whomever it was written, names requests and replicas that are there or ends the run."""
    said = json.dumps({"name": "Router", "methods": ["route"], "plans_decodes": True, "lazy": False}).encode()

    def ask(question: bytes) -> bytes:
        return said if b"methods" in question else answer

    with pytest.raises(PolicyError, match=says.replace(" ", r"\s+")):
        Cluster(replicas=2).run(workloads.sharegpt_bursty(rate=4.0, duration=20, seed=1), asking(ask))


@pytest.mark.parametrize(
    ("method", "answer", "says"),
    [
        ("plan", b"1234", "not a plan"),
        ("plan", np.array([0, 5, 0], np.int64).tobytes(), "not a plan"),
        ("plan", np.array([-1, 0, 0], np.int64).tobytes(), "not a plan"),
        ("plan", np.array([0, -2, 0], np.int64).tobytes(), "not a plan"),
        ("plan", np.array([0, 1, 0, 77], np.int64).tobytes(), "not waiting on this replica"),
        ("plan", np.array([0, -1, 1, 77, 3], np.int64).tobytes(), "neither running nor"),
        ("target", b"true", "expected a whole number of replicas"),
        ("target", b"2.5", "expected a whole number of replicas"),
        ("target", b"-3", "a whole number of replicas"),
    ],
)
def test_forged_plans_and_targets_end_the_run(method: str, answer: bytes, says: str) -> None:
    """Also of the other layers nothing is believed but what a run can follow."""
    said = json.dumps({"name": "Forger", "methods": [method], "plans_decodes": True, "lazy": False}).encode()
    policy = asking(lambda question: said if b"methods" in question else answer)
    cluster = Cluster(engine="vllm", autoscaling=Autoscaling(max_replicas=4, interval=2))
    layers = {"plan": {"scheduler": policy}, "target": {"autoscaler": policy}}[method]
    with pytest.raises(PolicyError, match=says.replace(" ", r"\s+")):
        cluster.run(workloads.sharegpt_bursty(rate=4.0, duration=20, seed=1), RoundRobin(), **layers)


@pytest.mark.parametrize(
    "said", [b"3", b"{}", b'{"name": 1, "methods": [], "plans_decodes": true, "lazy": false}', b"\xff"]
)
def test_who_does_not_say_its_methods_is_refused(said: bytes) -> None:
    """Nothing can be asked of it."""
    with pytest.raises(ValueError, match=r"which methods the policy has|cannot be read"):
        asking(lambda question: said)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "returned 3 where an iterable of pairs"),
        ([5], "gave 5 where a pair"),
        (iter([(1, 2)]), r"gave \(1, 2\) where a pair"),
    ],
)
def test_what_is_no_pair_is_told_there(given: Any, says: str) -> None:
    """What a router gives wrongly is told by the process that has it, in the words of a run."""

    class Wrong:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return given

    with pytest.raises(PolicyError, match=says.replace(" ", r"\s+")):
        Cluster().run(workloads.sharegpt_bursty(rate=4.0, duration=20, seed=1), apart(Wrong()))


def test_errors_name_the_policy() -> None:
    """By its class, as where it is here, whatever else it calls itself."""

    class Keeper:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return []

    with pytest.raises(PolicyError, match="Keeper held"):
        Cluster().run(workloads.sharegpt_bursty(rate=4.0, duration=20, seed=1), apart(Keeper()))


def test_views_that_are_not_the_runs_own_cannot_be_shown() -> None:
    """A spec that hands a policy views that it made itself is told so; outside of a run there are none."""
    policy = apart(HeadRoomAdmission())

    class Copying:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            none: Any = [0] * 1000
            mine = tuple(RequestView(each.id, each.arrival, 1, 0, None, none, none) for each in queue)
            return policy.route(mine, replicas, now)

    with pytest.raises(PolicyError, match=r"not\s+the\s+run's\s+own"):
        Cluster().run(workloads.sharegpt_bursty(rate=4.0, duration=20, seed=1), Copying())
    with pytest.raises(ValueError, match="outside of a run"):
        policy.route((), (), 0.0)


def test_a_policy_that_a_spec_wraps_is_asked_all_the_same() -> None:
    """Shown some of the queue and of the replicas."""

    class Half:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            yield from self.inner.route(queue[:2], replicas[1:], now)

    workload = workloads.sharegpt_bursty(rate=4.0, duration=20, seed=1)
    cluster = replace(Cluster(), replicas=3)
    both(WatchfulRouter, lambda policy: cluster.run(workload, Half(policy)))


class Cycling:
    """Starts anew whenever it is handed another tuple of replicas."""

    def __init__(self) -> None:
        self.shown: Any = None
        self.turns: Any = None

    def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
        if replicas is not self.shown:
            self.shown, self.turns = replicas, itertools.cycle(replicas)
        for request in queue:
            yield request, next(self.turns)


class Remembering(Watcher):
    """Keeps the views of a run, and looks at them in the next ones."""

    def plan(self, engine: Any, now: float) -> Plan:
        self.requests |= {(len(self.seen), each.id): each for each in engine.waiting}
        total = sum(each.tokens_done + each.preemptions for each in self.requests.values())
        self.seen.append((now, total))
        return Plan(sorted(engine.waiting, key=lambda each: (each.id * total) % 7))


@pytest.mark.parametrize("make", [Cycling, Remembering])
def test_what_a_policy_keeps(make: Any) -> None:
    """A tuple of replicas is the same as long as it is here; views show the end of their run in the next."""
    cluster = Cluster(replicas=3, engine="vllm", kv_blocks=600)
    here, there = make(), make()
    policy = apart(there)
    for seed in (1, 2, 1):
        load = workloads.sharegpt_bursty(rate=4.0, duration=15, seed=seed)
        first, second = (
            cluster.run(load, each) if make is Cycling else cluster.run(load, RoundRobin(), scheduler=each)
            for each in (here, policy)
        )
        assert equal(first, second)
    assert getattr(here, "seen", None) == getattr(there, "seen", None)


class OwnPairFirst:
    """A spec's router that sends a request itself before it lets the policy decide, and asks it twice."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
        later = self.inner.route(queue[1:2], replicas, now)
        soon = self.inner.route(queue[2:], replicas, now)
        for request in queue[:1]:
            yield request, replicas[-1]
        yield from soon
        yield from later


class Returning(WatchfulRouter):
    """The same by a method that is no generator itself."""

    def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
        self.look(now, "called")
        return iter(super().route(queue, replicas, now))


@pytest.mark.parametrize("make", [WatchfulRouter, Returning, Cycling, LeastLoadedQueue])
def test_generators_start_when_they_are_asked(make: Any) -> None:
    """Also where a spec has sent something before, and two of them are open at once."""
    workload = workloads.sharegpt_bursty(rate=6.0, duration=20, seed=1)
    both(make, lambda policy: Cluster(replicas=3).run(workload, OwnPairFirst(policy)))


def test_a_run_within_a_run() -> None:
    """A spec's router that tries something out in another run does not mix up what its policy knows."""
    workload = workloads.sharegpt_bursty(rate=6.0, duration=10, seed=1)

    class Trying:
        def __init__(self, inner: Any) -> None:
            self.inner, self.tried = inner, 0

        def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
            self.tried += 1
            if self.tried % 20 == 0:
                Cluster(replicas=2).run(workloads.sharegpt_bursty(rate=2.0, duration=3, seed=2), self.inner)
            yield from self.inner.route(queue, replicas, now)

    for make in (LeastLoadedQueue, HeadRoomAdmission):
        both(make, lambda policy: Cluster(replicas=3).run(workload, Trying(policy)))


def test_a_policy_that_has_failed_goes_on() -> None:
    """A spec may catch the error of a run and make another with the same object."""

    class Nervous:
        def __init__(self) -> None:
            self.calls = 0

        def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
            self.calls += 1
            for request in queue:
                if self.calls == 40:
                    raise ValueError("too much")
                yield request, replicas[0]

    workload = workloads.sharegpt_bursty(rate=4.0, duration=30, seed=1)
    here, policy = Nervous(), apart(Nervous())
    for each in (here, policy):
        with pytest.raises(PolicyError, match="too much"):
            Cluster().run(workload, each)
    assert equal(Cluster().run(workload, policy), Cluster().run(workload, here))


def test_a_request_that_is_held_costs_no_more_than_others() -> None:
    """What is compared for a question is what is open, not all that came since the oldest of it."""

    class Holding:
        def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
            for request in queue:
                if request.id or request.arrival < now - 3500:
                    yield request, replicas[request.id % 4]

    cluster = Cluster(replicas=4)
    load = Workload.from_arrays(
        arrival=np.arange(4000) * 0.9, prompt_tokens=np.full(4000, 9), output_tokens=np.full(4000, 2)
    )
    sizes: list[int] = []
    compared = asking_side._compare

    def counting(now: Any, told: Any, rows: Any, places: Any, values: Any) -> int:
        sizes.append(len(rows))
        return int(compared(now, told, rows, places, values))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking_side, "_compare", counting)
        both(Holding, lambda policy: cluster.run(load, policy))
    assert max(sizes) < 100


def test_a_request_is_sent_once() -> None:
    """Who sends it twice in a call is told so, as here, and does not look at a queue that has no end."""

    class Twice:
        def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
            for _ in range(2):
                for request in queue:
                    yield request, replicas[0]
                    len(replicas[0].requests)

    workload = workloads.sharegpt_bursty(rate=4.0, duration=3, seed=1)
    for policy in (Twice(), apart(Twice())):
        with pytest.raises(PolicyError, match=r"send\s+each\s+request\s+once"):
            Cluster().run(workload, policy)


def test_views_of_another_run_are_no_pair() -> None:
    """As where it is here."""

    class Keeping:
        def __init__(self) -> None:
            self.kept: Any = None

        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            self.kept = self.kept or queue
            return [(self.kept[0], replicas[0])]

    workload = workloads.sharegpt_bursty(rate=4.0, duration=3, seed=1)
    policy = apart(Keeping())
    for says in ("which is not in the queue", "not of the requests and replicas of this run"):
        with pytest.raises(PolicyError, match=says.replace(" ", r"\s+")):
            Cluster().run(workload, policy)
