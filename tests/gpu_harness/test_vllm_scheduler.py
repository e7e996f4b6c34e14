"""Batch schedulers on vLLM's own scheduler: they plan what they plan in the simulator, and cannot stop it."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_harness.modelless import Modelless
from gpu_harness.referee import play, random_scenario
from sim import Cluster, Plan, Workload
from sim.schedulers import FirstComeFirstServed, Sarathi, ShortestPromptFirst
from tests.gpu_harness.serving import serve, served
from tests.sim.test_scheduling import Juggler

pytestmark = pytest.mark.vllm
PLANNED = "gpu_harness.vllm_scheduler.PlannedScheduler"


class Timeless(Juggler):
    """Does everything that a plan can say, at random, whatever the time."""

    def __init__(self) -> None:
        super().__init__(3)

    def plan(self, engine: Any, now: float) -> Plan:
        return super().plan(engine, 0.0)


class AtEveryStep(FirstComeFirstServed):
    """Asked for steps of decodes alone, too."""

    plans_decodes = True


def kind(make: Callable[[], Any], made: list[Any] | None = None, **settings: Any) -> Callable[..., Any]:
    """The class that `make` plans, with other settings if given; its objects are put into `made`."""
    from gpu_harness.vllm_scheduler import planned_by

    planned = type("Planned", (planned_by(make),), settings)

    def build(**arguments: Any) -> Any:
        scheduler = planned(**arguments)
        if made is not None:
            made.append(scheduler)
        return scheduler

    return build


def agree(ours: Callable[[], Any] | None, theirs: Callable[[], Any], scenarios: range) -> int:
    """The steps in which both agreed; every one was planned, and none fell back."""
    made: list[Any] = []
    steps = sum(play(random_scenario(seed), ours=ours, theirs=kind(theirs, made)).steps for seed in scenarios)
    assert sum((one.fallbacks for one in made), Counter()) == Counter()
    planned = sum(one.steps_planned for one in made)
    if all(getattr(one.candidate, "plans_decodes", True) for one in made):
        assert planned == steps
    else:
        assert 0 < planned < steps
    return steps


@pytest.mark.parametrize("scheduler", [FirstComeFirstServed, AtEveryStep])
def test_first_come_first_served_is_vllms_own_rule(scheduler: Callable[[], Any]) -> None:
    """Planned by it, vLLM's scheduler takes the steps that it takes by itself: those of the simulator."""
    assert agree(None, scheduler, range(12)) > 2000


@pytest.mark.parametrize("scheduler", [ShortestPromptFirst, Sarathi, Timeless])
def test_a_plan_is_the_same_here_and_there(scheduler: Callable[[], Any]) -> None:
    """Admissions in any order, evictions and token counts take vLLM through the steps of the simulator."""
    assert agree(scheduler, scheduler, range(12)) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [FirstComeFirstServed, ShortestPromptFirst, Sarathi, Timeless])
def test_a_plan_is_the_same_in_all_settings(scheduler: Callable[[], Any]) -> None:
    """The same in 200 configurations."""
    assert agree(None if scheduler is FirstComeFirstServed else scheduler, scheduler, range(200)) > 50_000


@pytest.mark.slow
def test_a_real_engine_takes_the_same_steps() -> None:
    """A model that runs, with preemptions: first come first served plans each step as vLLM does."""
    own, planned = served(), served(PLANNED, GLIA_BATCH_SCHEDULER="fcfs")
    assert planned["steps"] == own["steps"]
    assert planned["preemptions"] == own["preemptions"] > 10
    assert 0 < planned["steps_planned"] < len(own["steps"])  # it leaves those of decodes alone to vLLM
    assert planned["fallbacks"] == {}


@pytest.mark.slow
def test_a_real_engine_runs_a_file(tmp_path: Path) -> None:
    """A candidate's file plans the steps of a model that runs; one that raises changes but the count."""
    file = tmp_path / "scheduler.py"
    file.write_text("class Scheduler:\n    def plan(self, engine, now):\n        return engine.nothing\n")
    told = served(PLANNED, GLIA_BATCH_SCHEDULER=str(file))
    assert told["fallbacks"] == {"raised": len(told["steps"])}
    assert told["steps"] == served()["steps"]
    assert "GLIA_BATCH_SCHEDULER=''; expected FILE.py" in serve(PLANNED, GLIA_BATCH_SCHEDULER="").stderr


SMALL = Workload.from_arrays(
    arrival=np.arange(6) * 0.01, prompt_tokens=[40, 30, 20, 10, 5, 60], output_tokens=[9, 8, 7, 6, 5, 4]
)


def run_small(folder: Path, plan: Callable[..., Any], **settings: Any) -> tuple[Any, int]:
    """Serve six requests to their end under this plan; the scheduler, and the steps it took."""
    made: list[Any] = []

    class Candidate:
        def plan(self, engine: Any, now: float) -> Any:
            return plan(engine, now)

    cluster = Cluster(replicas=1, engine="vllm", kv_blocks=20, max_num_seqs=8, max_num_batched_tokens=64)
    vllm = Modelless(cluster, SMALL, folder, scheduler=kind(Candidate, made, **settings))
    for request in range(len(SMALL)):
        vllm.arrive(request)
    completed = steps = 0
    while completed < len(SMALL):
        steps += 1
        assert steps < 1000, made[0].fallbacks
        if vllm.start():
            completed += len(vllm.end())
    return made[0], steps


def broken(value: Any) -> Callable[..., Any]:
    """A plan that is always this."""
    return lambda engine, now: value


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (lambda engine, now: 1 / 0, "ZeroDivisionError: division by zero"),
        (broken(None), "the scheduler returned None where a Plan is expected"),
        (broken(Plan(admit=7)), "the plan's admit is 7 where an iterable"),  # type: ignore[arg-type]
        (broken(Plan(evict=["x"])), "the plan's evict holds 'x' where a request of"),  # type: ignore[list-item]
        (broken(Plan(tokens=[])), r"the plan's tokens is \[\] where a mapping"),  # type: ignore[arg-type]
        (
            lambda e, now: Plan(evict=[*e.running, *e.waiting][-1:] * 2),
            "the plan evicts request [0-5], which",
        ),
        (
            lambda e, now: Plan(admit=[*e.waiting, *e.running][:1] * 2),
            "the plan admits request [0-5], which is",
        ),
        (lambda e, now: Plan(tokens=dict.fromkeys((*e.waiting, *e.running), 99)), "the plan gives "),
        (
            lambda e, now: Plan(tokens=dict.fromkeys(e.running, 2), admit=e.waiting),
            "2 tokens; expected a whole",
        ),
        (
            lambda e, now: Plan(e.waiting, (), {r: r.tokens_to_compute for r in e.waiting}),
            "where the budget of a step is 64",
        ),
    ],
)
def test_what_cannot_be_followed_falls_back(
    plan: Callable[..., Any], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """vLLM's own rule decides that step, all requests are served, and it is counted and logged."""
    logger = logging.getLogger("vllm.gpu_harness")
    logger.addHandler(caplog.handler)
    try:
        scheduler, _ = run_small(tmp_path, plan)
    finally:
        logger.removeHandler(caplog.handler)
    assert scheduler.fallbacks["raised"] > 0
    assert scheduler.fallbacks["stalled"] == 0
    logged = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert logged[0].startswith("Candidate raised (time 1); vLLM's own rule decides: ")
    assert any(re.search(told, message) for message in logged), logged


def test_a_stall_falls_back(tmp_path: Path) -> None:
    """Plans that admit nobody are overruled after the patience, until a request has got a token."""
    ticks = iter(range(10_000))
    scheduler, steps = run_small(
        tmp_path, broken(Plan(admit=())), clock=lambda self: float(next(ticks)), patience=3.0
    )
    assert scheduler.fallbacks["stalled"] > 0
    assert steps > scheduler.fallbacks["stalled"] * 3


def test_evicting_for_ever_falls_back(tmp_path: Path) -> None:
    """So are plans that evict whatever has been admitted, before it has its first token."""

    def plan(engine: Any, now: float) -> Plan:
        tokens = dict.fromkeys(islice(engine.waiting, 1), 1)
        return Plan(admit=list(tokens), evict=engine.running, tokens=tokens)

    scheduler, _ = run_small(tmp_path, plan, barren=5)
    assert scheduler.fallbacks["stalled"] > 0


def test_what_a_scheduler_sees(tmp_path: Path) -> None:
    """The engine's and the requests' attributes are those of the simulator's views, with vLLM's values."""
    seen: list[dict[str, Any]] = []

    def plan(engine: Any, now: float) -> Plan:
        seen.extend(
            {name: getattr(request, name) for name in ("id", "state", "tokens_done", "session", "prefix")}
            for request in (*engine.running, *engine.waiting)
        )
        assert engine.blocks_used == sum(request.blocks for request in engine.running)
        assert engine.blocks_used + engine.blocks_free == engine.blocks_total == 19
        assert (engine.token_budget, engine.max_num_seqs, engine.block_size, engine.index) == (64, 8, 16, 0)
        assert repr(engine).startswith("<engine 0: ")
        with pytest.raises(AttributeError, match="a view is read-only"):
            engine.block_size = 1
        return Plan()

    scheduler, _ = run_small(tmp_path, plan)
    assert scheduler.fallbacks == Counter()
    assert {each["state"] for each in seen} == {"running", "waiting"}
    assert {each["id"] for each in seen} == set(range(6))
    assert len({each["prefix"] for each in seen if each["id"] == 0}) == 1
    assert len(seen[0]["prefix"]) == 40 // 16


def test_it_plans_in_step_only(tmp_path: Path) -> None:
    """Asynchronous scheduling, where a batch is formed without the last one's tokens, is refused."""
    cluster = Cluster(replicas=1, engine="vllm")

    def asynchronous(**arguments: Any) -> Any:
        arguments["vllm_config"].scheduler_config.async_scheduling = True
        return kind(FirstComeFirstServed)(**arguments)

    with pytest.raises(ValueError, match=r"async_scheduling=True, .* --no-async-scheduling"):
        Modelless(cluster, SMALL, tmp_path, scheduler=asynchronous)


def test_an_oracle_plans_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real engine can be told the output lengths."""
    from gpu_harness.vllm_scheduler import PlannedScheduler

    monkeypatch.setenv("GLIA_BATCH_SCHEDULER", "OracleShortestRemaining")
    with pytest.raises(ValueError, match="'OracleShortestRemaining' is an oracle"):
        Modelless(Cluster(engine="vllm"), SMALL, tmp_path, scheduler=PlannedScheduler)
