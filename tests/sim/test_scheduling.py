"""Batch schedulers: their plans do what they say, ports of both engines give the same runs, and what one gets
wrong is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Cluster, Plan, PolicyError, Workload, schedulers, workloads
from sim.baselines import LeastLoadedQueue, RoundRobin
from tests.sim.reference import simulate
from tests.sim.reference_vllm import VllmReplica
from tests.sim.strategies import Learner, scenarios, vllm_scenarios
from tests.sim.test_core import rows
from tests.sim.test_routing import told

checked = settings(max_examples=80, deadline=None, derandomize=True, database=None)


class Juggler:
    """Evicts, reorders and portions by everything that its views show, as chance has it, but not for ever."""

    def __init__(self, seed: int) -> None:
        self.seed, self.calls = seed, 0

    def plan(self, engine: Any, now: float) -> Plan:
        self.calls += 1
        digest = self.seed + engine.blocks_used + 31 * engine.blocks_free + int(now * 1000)
        for request in (*engine.running, *engine.waiting):
            for seen in (
                request.id,
                request.computed_tokens,
                request.tokens_to_compute,
                request.prefilling,
                request.blocks,
                request.preemptions,
                request.tokens_done,
                request.priority,
            ):
                digest = (digest * 31 + seen) % 100_003
        rng = np.random.default_rng(digest)
        if self.calls > 300 or rng.random() < 0.3:
            return Plan()
        running = list(engine.running)
        evict = [running.pop(int(rng.integers(len(running))))] if running and rng.random() < 0.2 else []
        admit = [*engine.waiting, *(evict if rng.random() < 0.5 else [])]
        rng.shuffle(admit)
        admit = admit[: int(rng.integers(min(len(admit), engine.max_num_seqs) + 1))]
        if not running and not admit:
            return Plan()
        tokens: dict[Any, int] = {}
        budget = engine.token_budget - 1
        for request in (*running, *admit):
            most = min(request.tokens_to_compute, budget)
            if most and rng.random() < 0.4:
                tokens[request] = int(rng.integers(request not in running, most + 1))
                budget -= tokens[request]
        if not any(tokens.get(request, 1) for request in running):
            tokens = {}
        return Plan(
            admit=None if rng.random() < 0.2 and not any(each in tokens for each in admit) else admit,
            evict=evict,
            tokens=tokens,
        )


class VllmPort:
    """vLLM's rule, decided entirely here: who is preempted, how many tokens each gets, who is admitted."""

    def __init__(self, cluster: Cluster) -> None:
        self.watermark_blocks = cluster.watermark_of(cluster.kv_blocks)
        self.by_priority = cluster.scheduling_policy == "priority"
        self.full_fit, self.chunked = cluster.full_prompt_must_fit, cluster.chunked_prefill
        self.threshold = cluster.long_prefill_token_threshold

    def plan(self, engine: Any, now: float) -> Plan:
        budget, free, size = engine.token_budget, engine.blocks_free, engine.block_size
        beside = self.threshold and len(engine.running) + len(engine.waiting) > 1
        most = self.threshold if beside else budget
        running, evict, tokens = list(engine.running), [], dict[Any, int]()
        index = 0
        while index < len(running) and budget > 0:
            request = running[index]
            chunk = min(request.tokens_to_compute, budget, most)
            need = -(-(request.computed_tokens + chunk) // size) - request.blocks
            victim = None
            while need > free and victim is not request:
                victim = running[-1]
                if self.by_priority:
                    victim = max(running, key=lambda one: (one.priority, one.id))
                if victim in tokens:
                    index -= 1
                    spent = tokens.pop(victim)
                    budget += spent
                    free += max(-(-(victim.computed_tokens + spent) // size) - victim.blocks, 0)
                running.remove(victim)
                evict.append(victim)
                free += victim.blocks
            if victim is request:
                break
            tokens[request] = chunk
            budget -= chunk
            free -= max(need, 0)
            index += 1
        for request in running[index:]:
            tokens[request] = 0
        admit: list[Any] = []
        for request in () if evict else engine.waiting:
            whole = request.tokens_to_compute
            chunk = min(whole, most)
            if chunk > budget:
                chunk = budget if self.chunked else 0
            reach = -(-(whole if self.full_fit else chunk) // size)
            if running or admit:
                reach += self.watermark_blocks
            if chunk == 0 or len(running) + len(admit) == engine.max_num_seqs or reach > free:
                break
            admit.append(request)
            tokens[request] = chunk
            budget -= chunk
            free -= -(-chunk // size)
        return Plan(admit=admit, evict=evict, tokens=tokens)


@checked
@given(scenario=vllm_scenarios(), seed=st.integers(0, 1000))
def test_plans_do_what_the_reference_does(scenario: tuple[Cluster, Workload], seed: int) -> None:
    """Under a scheduler that does everything a plan can say, at random, both give the same run."""
    cluster, workload = scenario
    run = cluster.run(workload, Learner(), Juggler(seed))
    expected = simulate(cluster, workload, Learner(), replica=partial(VllmReplica, scheduler=Juggler(seed)))
    assert rows(run) == [
        (r.routed, r.admitted, r.first_token, r.finish, r.replica, r.restarts, r.recompute_time)
        for r in expected
    ]
    assert np.isfinite(run.requests["finish"]).all()


@checked
@given(scenario=vllm_scenarios())
def test_steps_of_decodes_alone_may_be_left_to_vllm(scenario: tuple[Cluster, Workload]) -> None:
    """Who says so is asked for all other steps, and no more; the run is that of empty plans for these."""
    cluster, workload = scenario

    class Shortest:
        def __init__(self) -> None:
            self.asked = self.alone = 0

        def plan(self, engine: Any, now: float) -> Plan:
            self.asked += 1
            if not engine.waiting and not any(request.prefilling for request in engine.running):
                self.alone += 1
                return Plan()
            return Plan(admit=sorted(engine.waiting, key=lambda request: request.prompt_tokens))

    class LeavesDecodes(Shortest):
        plans_decodes = False

    every, some = Shortest(), LeavesDecodes()
    assert rows(cluster.run(workload, Learner(), some)) == rows(cluster.run(workload, Learner(), every))
    assert (some.asked, some.alone) == (every.asked - every.alone, 0)


def test_a_scheduler_says_plainly_whether_it_plans_decodes() -> None:
    """Anything but True and False is refused, with the name of the class."""

    class Odd(schedulers.FirstComeFirstServed):
        plans_decodes = "no"  # type: ignore[assignment]

    with pytest.raises(PolicyError, match=r"Odd\.plans_decodes is 'no';\s+expected True, or False"):
        Cluster(engine="vllm").run(workloads.sharegpt_bursty(rate=2.0, duration=5, seed=0), Learner(), Odd())


@checked
@given(scenario=vllm_scenarios())
def test_the_empty_plan_is_vllms_rule(scenario: tuple[Cluster, Workload]) -> None:
    """A plan states differences only."""
    cluster, workload = scenario

    class Nothing:
        def plan(self, engine: Any, now: float) -> Plan:
            return Plan()

    own = cluster.run(workload, Learner())
    for scheduler in (Nothing(), schedulers.FirstComeFirstServed()):
        assert rows(cluster.run(workload, Learner(), scheduler)) == rows(own)


@checked
@given(scenario=vllm_scenarios(prefix_caching=False))
def test_a_port_of_vllm_gives_the_same_run(scenario: tuple[Cluster, Workload]) -> None:
    """A Python scheduler can do all that the built-in one does."""
    cluster, workload = scenario
    assert rows(cluster.run(workload, Learner(), VllmPort(cluster))) == rows(cluster.run(workload, Learner()))


@checked
@given(scenario=scenarios())
def test_a_port_of_sarathi_gives_the_same_run(scenario: tuple[Cluster, Workload]) -> None:
    """Sarathi's rule as a plan for vLLM's engine is the Sarathi engine."""
    cluster, workload = scenario
    names = (
        "replicas",
        "block_size",
        "max_num_seqs",
        "max_num_batched_tokens",
        "time_scale",
        "failures",
        "staleness",
    )
    vllm = Cluster(
        engine="vllm",
        kv_blocks=cluster.kv_blocks + 1,
        watermark=0.0,
        prefix_caching=False,
        **{name: getattr(cluster, name) for name in names},
    )
    ported = vllm.run(workload, RoundRobin(), schedulers.Sarathi(cluster.watermark or 0.0))
    assert rows(ported) == rows(cluster.run(workload, RoundRobin()))


def test_what_baselines_are_for() -> None:
    """Short prompts first shorten the mean TTFT, and the oracle bounds the mean response time."""
    workload = workloads.sharegpt_bursty(rate=9.0, duration=120, seed=1)
    cluster = Cluster(engine="vllm", kv_blocks=1500)
    fcfs, shortest, oracle = (
        cluster.run(workload, LeastLoadedQueue(), scheduler).metrics
        for scheduler in (
            schedulers.FirstComeFirstServed(),
            schedulers.ShortestPromptFirst(),
            schedulers.OracleShortestRemaining(workload),
        )
    )
    assert shortest["mean_ttft"] < fcfs["mean_ttft"]
    assert oracle["mean_response_time"] < min(shortest["mean_response_time"], fcfs["mean_response_time"])


TWO = Workload.from_arrays(arrival=[0.0, 0.0], prompt_tokens=[50, 60], output_tokens=[3, 3])


def run_plan(plan: Callable[..., Any], **settings: Any) -> Any:
    """Two requests on one replica under this method."""
    scheduler: Any = type("Mine", (), {"plan": staticmethod(plan)})()
    return Cluster(replicas=1, engine="vllm", **settings).run(TWO, RoundRobin(), scheduler)


def junk(value: Any) -> Any:
    return value


def raises(engine: Any, now: float) -> Any:
    raise KeyError("my bug")


def writes(engine: Any, now: float) -> Any:
    engine.token_budget = 10**6


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (raises, r"test_scheduling.py:\d+: KeyError: 'my bug' in Mine.plan, call 1 at 0.000 s"),
        (
            writes,
            r"scheduling.py:\d+: AttributeError: .*read-only: EngineView.token_budget cannot",
        ),
        (lambda engine, now: None, r"test_scheduling.py:\d+: the scheduler returned None where a Plan"),
        (
            lambda engine, now: Plan(admit=junk([3])),
            r"test_scheduling.py:\d+: the plan's admit holds 3 where a request",
        ),
        (lambda engine, now: Plan(admit=junk(3)), "the plan's admit is 3 where an iterable of requests"),
        (
            lambda engine, now: Plan(evict=junk(True)),
            "the plan's evict is True where an iterable",
        ),
        (
            lambda engine, now: Plan(tokens=junk([3])),
            r"the plan's tokens is \[3\] where a mapping",
        ),
        (
            lambda engine, now: "junk" * 999,
            r"the scheduler returned 'junk.* \.\.\. where a Plan",
        ),
        (lambda engine, now: Plan(evict=engine.waiting), r"evicts <request 0.* not running on this replica"),
        (lambda engine, now: Plan(admit=[*engine.running, *engine.waiting] * 2), "admits <request|twice"),
        (
            lambda engine, now: Plan(admit=engine.waiting, tokens=dict.fromkeys(engine.waiting, 9000)),
            "gives <request 0.* 9000 tokens, which are not between",
        ),
        (
            lambda engine, now: (
                Plan(tokens=dict.fromkeys(engine.running, 1))
                if engine.running
                else Plan(admit=engine.waiting, tokens={r: r.prompt_tokens for r in engine.waiting})
            ),
            r"test_scheduling.py:\d+: the plan has 110 tokens where the budget of a step is 100",
        ),
        (lambda engine, now: Plan((), (), dict.fromkeys(engine.waiting, 5)), "neither running nor admitted"),
        (
            lambda engine, now: Plan(admit=engine.waiting, tokens=dict.fromkeys(engine.waiting, junk("x"))),
            "holds <request 0.*: 'x' where a request and a whole number of tokens is expected",
        ),
        (lambda engine, now: Plan(admit=()), "Mine left 2 requests at their replicas for ever: after call 1"),
        (
            lambda engine, now: Plan(tokens=dict.fromkeys(engine.running, 0)),
            "Mine left 2 requests at their replicas for ever",
        ),
    ],
)
def test_a_broken_scheduler_is_told_what_it_did(plan: Callable[..., Any], message: str) -> None:
    """Every breach ends in a PolicyError that shows the call, never in a wrong result or a hang."""
    with pytest.raises(PolicyError) as caught:
        run_plan(plan, max_num_batched_tokens=100)
    assert re.search(message, told(caught.value))


def test_a_livelock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is evicted before its prompt is computed, for ever, ends the run."""

    def evicts(engine: Any, now: float) -> Plan:
        return Plan(evict=engine.running, admit=(*engine.waiting, *engine.running)[:1])

    with pytest.raises(PolicyError) as caught:
        run_plan(evicts, max_num_batched_tokens=8)
    said = r"test_scheduling.py:\d+: livelock at .* has worked \d+ steps"
    assert re.search(said, told(caught.value))


@pytest.mark.parametrize("thing", [schedulers.Sarathi, object(), lambda: None])
def test_what_is_no_scheduler_is_refused(thing: Any) -> None:
    """A class in place of an object, or anything without `plan`, is named."""
    with pytest.raises(PolicyError) as caught:
        Cluster(engine="vllm").run(TWO, RoundRobin(), thing)
    assert "a batch scheduler is an object with a method plan(engine, now)" in told(caught.value)


def test_sarathis_engine_takes_no_plans() -> None:
    """The error says which engine does."""
    with pytest.raises(ValueError, match="engine='sarathi'; expected engine='vllm'"):
        Cluster().run(TWO, RoundRobin(), schedulers.FirstComeFirstServed())


def test_views_show_nothing_hidden() -> None:
    """From a view of an engine no memory is reached that holds output lengths or future prompts."""
    workload = Workload.from_arrays(arrival=[0, 0, 900], prompt_tokens=[5, 6, 777], output_tokens=[3, 555, 2])
    reached: set[int] = set()

    class Prober:
        def plan(self, engine: Any, now: float) -> Plan:
            for view in (engine, *engine.running, *engine.waiting):
                for name in (slot for kind in type(view).__mro__ for slot in getattr(kind, "__slots__", ())):
                    value = getattr(view, name)
                    if isinstance(value, memoryview):
                        assert value.readonly
                        owner: Any = value.obj
                        while owner.base is not None:
                            owner = owner.base
                        if now < 5:
                            reached.update(owner.ravel().tolist())
            return Plan()

    Cluster(replicas=1, engine="vllm").run(workload, RoundRobin(), Prober())
    assert reached
    assert not reached & {555, 777}
