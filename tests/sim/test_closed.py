"""Closed loops in the cluster: who sends when, how many are there at once, and what a run says of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Autoscaling, Cluster, Failure, Plan, Replica
from sim import workloads as w
from sim.__main__ import main
from sim.balancing import OracleLeastWork
from sim.baselines import LeastLoadedQueue, RoundRobin
from tests.sim.reference import simulate
from tests.sim.reference_vllm import VllmReplica
from tests.sim.strategies import ROUTERS, Learner, scenarios, vllm_scenarios
from tests.sim.test_core import digest, printed_afresh, rows
from tests.sim.test_fleet import Scripted
from tests.sim.test_scheduling import Juggler

checked = settings(max_examples=60, deadline=None, derandomize=True, database=None)
users = st.integers(1, 12)
pauses = st.sampled_from([0.0, 0.05, 2.0])


def closed(
    scenario: tuple[Cluster, w.Workload], users: int, pause: float
) -> tuple[Cluster, w.ClosedWorkload]:
    """The scenario's cluster and lengths, sent by so many users, half of them at once."""
    cluster, workload = scenario
    rng = np.random.default_rng(len(workload))
    return cluster, w.ClosedWorkload(
        starts=np.sort(rng.choice([0.0, 0.3, 1.0], users)),
        think=rng.exponential(1.0, len(workload)) * pause,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
    )


@pytest.mark.slow
@pytest.mark.parametrize("router", ["LeastLoadedQueue", "Hoarder", "Learner"])
@checked
@given(scenario=scenarios(), users=users, pause=pauses)
def test_equals_the_reference(router: str, scenario: Any, users: int, pause: float) -> None:
    """Every arrival and all that follows is what the plain stepper gives, with failures and stale views."""
    cluster, loop = closed(scenario, max(users, 3 if router == "Hoarder" else 1), pause)
    run = cluster.run(loop, ROUTERS[router]())
    expected = simulate(cluster, loop, ROUTERS[router]())
    assert run.requests["arrival"].tolist() == [request.arrival for request in expected]
    assert rows(run) == [
        (r.routed, r.admitted, r.first_token, r.finish, r.replica, r.restarts, r.recompute_time)
        for r in expected
    ]


@pytest.mark.slow
@checked
@given(scenario=vllm_scenarios(), users=users, pause=pauses, seed=st.integers(0, 1000))
def test_equals_the_reference_on_vllms_engine(scenario: Any, users: int, pause: float, seed: int) -> None:
    """The same under a batch scheduler that does everything a plan can say."""
    cluster, loop = closed(scenario, users, pause)
    run = cluster.run(loop, Learner(), Juggler(seed))
    expected = simulate(cluster, loop, Learner(), replica=partial(VllmReplica, scheduler=Juggler(seed)))
    assert run.requests["arrival"].tolist() == [request.arrival for request in expected]
    assert run.requests["finish"].tolist() == [request.finish for request in expected]


class Counting(LeastLoadedQueue):
    """Notes the most requests that it ever saw in the system."""

    most = 0

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        here = len(queue) + sum(replica.waiting + replica.running for replica in replicas)
        self.most = max(self.most, here)
        return super().route(queue, replicas, now)


@pytest.mark.slow
@checked
@given(
    scenario=st.one_of(scenarios(), vllm_scenarios()),
    users=users,
    pause=pauses,
    targets=st.lists(st.integers(0, 5), min_size=1, max_size=6),
)
def test_never_more_than_the_users_are_in_the_system(
    scenario: Any, users: int, pause: float, targets: list[int]
) -> None:
    """Whatever comes, goes and fails: every request arrives and finishes once, and users wait for replies."""
    cluster, loop = closed(scenario, users, pause)
    scaling = Autoscaling(max_replicas=5, interval=0.3, provisioning_time=0.2, load_time=0.1)
    cluster, router = replace(cluster, autoscaling=scaling), Counting()
    run = cluster.run(loop, router, autoscaler=Scripted(*targets))
    assert cluster.staleness > 0 or router.most <= users
    table = run.requests
    assert len(table["arrival"]) == len(loop)
    assert (np.diff(table["arrival"]) >= 0).all()
    assert (table["tokens_made"] == loop.output_tokens).all()
    left = np.sort(table["finish"])
    known = np.sort(np.concatenate([loop.starts, left + loop.think]))
    assert table["arrival"].tolist() == known[: len(loop)].tolist()
    here = np.arange(1, len(loop) + 1) - np.searchsorted(left, table["arrival"], side="right")
    assert here.max() <= users
    assert digest(run) == digest(cluster.run(loop, LeastLoadedQueue(), autoscaler=Scripted(*targets)))


@pytest.mark.parametrize("engine", ["sarathi", "vllm"])
def test_one_user_without_a_pause_is_always_served_alone(engine: str) -> None:
    """The run lasts as long as all requests alone, one after another."""
    loop = w.ClosedLoop(users=1, requests=60, lengths=w.Clipped(w.SHAREGPT, 500, 200)).workload(1)
    run = Cluster(engine=engine, prefix_caching=False if engine == "vllm" else None).run(loop, RoundRobin())
    table = run.requests
    assert table["arrival"][1:].tolist() == table["finish"][:-1].tolist()
    np.testing.assert_allclose(table["finish"] - table["arrival"], table["alone"], rtol=1e-9)
    assert run.metrics["duration"] == pytest.approx(table["alone"].sum(), rel=1e-9)


@pytest.mark.parametrize("engine", ["sarathi", "vllm"])
def test_littles_law(engine: str) -> None:
    """Users are as many as throughput x (response time + think time) says, and the series shows it."""
    loop = w.ClosedLoop(users=30, requests=3000, lengths=w.Clipped(w.SHAREGPT, 800, 400), think=4.0)
    run = Cluster(engine=engine, replicas=2).run(loop.workload(1), LeastLoadedQueue())
    metrics = run.metrics
    assert metrics["throughput"] * (metrics["mean_response_time"] + 4.0) == pytest.approx(30, rel=0.02)
    here = (run.series["running"] + run.series["waiting"]).sum(axis=1)
    assert here.max() <= 30
    assert here.mean() == pytest.approx(metrics["throughput"] * metrics["mean_response_time"], rel=0.02)


def test_a_rejected_request_has_finished() -> None:
    """Its user goes on, also where it is rejected by the replica that it was sent to."""
    columns = {"starts": [0.0], "think": [1.0] * 3, "prompt_tokens": [10, 4000, 10], "output_tokens": [5] * 3}
    loop = w.ClosedWorkload(**{name: np.array(column) for name, column in columns.items()})
    for cluster in (
        Cluster(replicas=1, kv_blocks=100),
        Cluster(replicas=2, each=(Replica(kv_blocks=100), Replica(kv_blocks=300))),
    ):
        table = cluster.run(loop, First()).requests
        assert table["rejected"].tolist() == [0, 1, 0]
        assert table["arrival"][1] == table["finish"][0] + 1.0
        assert table["arrival"][2] == table["arrival"][1] + 1.0


class First:
    """Everything to the first replica."""

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        return [(request, replicas[0]) for request in queue]


def test_at_the_horizon_who_has_not_arrived_is_not_in_the_run() -> None:
    """Requests that arrived are there, finished or not, as in the run without one."""
    loop = w.ClosedLoop(users=20, requests=2000, lengths=w.SHAREGPT, think=3.0).workload(1)
    short, whole = (Cluster().run(loop, RoundRobin(), horizon=end) for end in (50.0, None))
    count = len(short.requests["arrival"])
    assert 20 < count < 2000
    assert short.requests["arrival"].tolist() == whole.requests["arrival"][:count].tolist()
    assert whole.requests["arrival"][count] > 50
    assert short.metrics["unfinished_fraction"] == (whole.requests["finish"][:count] > 50).mean() > 0
    none = Cluster().run(replace(loop, starts=loop.starts + 60.0), RoundRobin(), horizon=50.0)
    assert len(none.requests["arrival"]) == 0
    assert all(np.isfinite(value) for value in none.metrics.values())


def test_if_all_replicas_fail_for_ever_nobody_comes_any_more() -> None:
    """Users wait for replies that never come; what arrived is unfinished."""
    loop = w.ClosedLoop(users=5, requests=100, lengths=w.SHAREGPT).workload(1)
    cluster = Cluster(replicas=1, failures=(Failure(0, at=20.0, duration=float("inf")),))
    run = cluster.run(loop, RoundRobin())
    assert 5 <= len(run.requests["arrival"]) < 100
    assert np.isnan(run.requests["finish"]).sum() == 5


def test_a_long_pause_is_no_livelock() -> None:
    """An autoscaler that is called often while every user thinks is not blamed for it."""
    loop = w.ClosedWorkload(
        starts=np.array([0.0]),
        think=np.array([3000.0, 3000.0]),
        prompt_tokens=np.array([10, 10]),
        output_tokens=np.array([5, 5]),
    )
    cluster = Cluster(replicas=1, autoscaling=Autoscaling(interval=1.0))
    run = cluster.run(loop, RoundRobin(), autoscaler=Scripted(1))
    assert run.metrics["unfinished_fraction"] == 0
    assert run.totals["autoscaler_calls"] > 2900


def test_an_oracle_knows_a_closed_loop() -> None:
    """The k-th request to arrive has the k-th lengths, so oracles work as in an open one."""
    loop = w.ClosedLoop(users=60, requests=400, lengths=w.SHAREGPT).workload(2)
    run = Cluster(kv_blocks=800).run(loop, OracleLeastWork(loop))
    assert run.metrics["unfinished_fraction"] == 0
    assert run.metrics["restarts"] < Cluster(kv_blocks=800).run(loop, RoundRobin()).metrics["restarts"]


def test_the_empty_plan_is_vllms_rule() -> None:
    """A batch scheduler that plans nothing leaves a closed loop as it is."""
    loop = w.ClosedLoop(users=20, requests=200, lengths=w.SHAREGPT, think=1.0).workload(1)

    class Nothing:
        def plan(self, engine: Any, now: float) -> Plan:
            return Plan()

    cluster = Cluster(engine="vllm")
    runs = [cluster.run(loop, RoundRobin(), scheduler) for scheduler in (None, Nothing())]
    assert rows(runs[0]) == rows(runs[1])


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_bytes() -> None:
    """Neither hash seeds nor the state of a process reach a result."""
    program = (
        "from sim import Cluster, workloads as w; from sim.baselines import Expert;"
        "from tests.sim.test_core import digest;"
        "loop = w.ClosedLoop(40, 400, w.SHAREGPT, think=2.0, spread=5.0).workload(3);"
        "print(digest(Cluster(staleness=0.5).run(loop, Expert())))"
    )
    assert len(printed_afresh(program)) == 1


SMALL = "sharegpt_closed:users=8,requests=60,think=1"


def test_the_commands_take_closed_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run, compare and describe say users and think time in place of a rate."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--router", "llq", "--workload", SMALL, "--html", "run.html"]) == 0
    assert main(["compare", "llq", "rr", "--workload", SMALL, "--seeds", "2", "--html", "c.html"]) == 0
    out = capsys.readouterr().out
    assert out.count("60 requests of 8 users, who think") == 2
    assert "60 requests of 8 users" in Path("run.html").read_text("utf-8")
    assert main(["describe", "--workload", SMALL]) == 0
    assert "60 requests of 8 users in a closed loop, who think" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--router", "llq", "--workload", SMALL, "--rate", "3"], "rate=3.0 and duration=None with"),
        (
            ["run", "--router", "llq", "--workload", "sharegpt_closed:user=3"],
            "'user=3' in sharegpt_closed:user",
        ),
        (["run", "--router", "llq", "--workload", "sharegpt_closed:users=0"], "users=0; expected a whole"),
        (["run", "--router", "llq", "--workload", "sharegpt_closed:users=1.5"], "'users=1.5' in"),
        (["describe", "--workload", SMALL, "--svg", "w.svg"], "has no arrivals to draw before a run"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence, with what would be right."""
    assert main(arguments) == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": [1.0, 0.5]}, "starts of row 1 is 0.5; which is before the row above"),
        ({"starts": []}, "starts is empty for 2 requests; expected the seconds of each user's first"),
        ({"think": [1.0, -1.0]}, "think of row 1 is -1.0; expected a finite number of at least 0 seconds"),
        ({"think": [1.0]}, r"think has the shape \(1,\); expected 2 entries"),
        ({"prompt_tokens": [5, 0]}, "prompt_tokens of row 1 is 0; expected at least 1 token"),
        ({"output_tokens": [5, float("nan")]}, "output_tokens of row 1 is nan; expected a whole number"),
    ],
)
def test_a_bad_row_is_named(change: dict[str, Any], message: str) -> None:
    """Column, row, value and what was expected."""
    good: dict[str, Any] = {
        "starts": [0.0],
        "think": [1.0, 2.0],
        "prompt_tokens": [1, 2],
        "output_tokens": [3, 4],
    }
    with pytest.raises(ValueError, match=message):
        w.ClosedWorkload(**good | change)


def test_what_is_no_workload_is_refused() -> None:
    """A description of a loop in place of what a seed makes of it is named."""
    loop: Any = w.ClosedLoop(2, 4, w.SHAREGPT)
    with pytest.raises(ValueError, match=r"workload=ClosedLoop\(.*expected sim.Workload, or what"):
        Cluster().run(loop, RoundRobin())
