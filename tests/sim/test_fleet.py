"""Replicas that come, go and fail, views that are stale, and runs that end before their requests do."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Autoscaling, Cluster, Failure, PolicyError, Replica, Workload, workloads
from sim.baselines import LeastLoadedQueue, RoundRobin
from tests.sim.reference import simulate_fleet
from tests.sim.reference_vllm import VllmReplica
from tests.sim.strategies import Learner, scenarios, scenarios_of_both
from tests.sim.test_core import digest, rows
from tests.sim.test_routing import told

checked = settings(max_examples=100, deadline=None, derandomize=True, database=None)


class Scripted:
    """Asks for these numbers of replicas, one a call, the last for ever."""

    def __init__(self, *targets: Any) -> None:
        self.targets, self.views = list(targets), list[Any]()

    def target(self, cluster: Any, now: float) -> Any:
        self.views.append((now, len(cluster.replicas), cluster.starting, cluster.draining, cluster.queued))
        return self.targets.pop(0) if len(self.targets) > 1 else self.targets[0]


def steady(count: int, gap: float, output: int = 40) -> Workload:
    """One request every `gap` seconds."""
    return Workload.from_arrays(
        arrival=np.arange(count) * gap, prompt_tokens=[50] * count, output_tokens=[output] * count
    )


def test_a_new_replica_takes_its_time_and_costs_from_the_start() -> None:
    """Provisioning and loading pass before it is offered; it is paid for from the moment it is asked for."""
    scaling = Autoscaling(max_replicas=2, interval=10, provisioning_time=7, load_time=5)
    offered: list[tuple[float, int]] = []

    class Watcher(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            offered.append((now, len(replicas)))
            return super().route(queue, replicas, now)

    run = Cluster(replicas=1, autoscaling=scaling).run(steady(60, 1.0), Watcher(), autoscaler=Scripted(2))
    assert {number for now, number in offered if now < 22} == {1}
    assert min(now for now, number in offered if number == 2) == 22
    end = run.totals["end"]
    assert run.metrics["gpu_hours"] * 3600 == pytest.approx(end + end - 10)


def test_a_replica_drains_before_it_stops() -> None:
    """It gets no new requests, finishes those it has, and is paid for until then."""
    scaling = Autoscaling(max_replicas=2, interval=2)
    scaler = Scripted(2, 1)
    run = Cluster(replicas=2, autoscaling=scaling).run(steady(40, 0.5, 150), RoundRobin(), autoscaler=scaler)
    assert np.isfinite(run.requests["finish"]).all()
    on_second = run.requests["replica"] == 1
    assert on_second.any()
    assert run.requests["arrival"][on_second].max() < 4
    last = run.requests["finish"][on_second].max()
    assert last > 4
    assert run.metrics["gpu_hours"] * 3600 == pytest.approx(run.totals["end"] + last)
    assert [view[1:4] for view in scaler.views[:3]] == [(2, 0, 0), (2, 0, 0), (1, 0, 1)]


def test_starting_replicas_are_given_up_first_and_draining_ones_kept() -> None:
    """What is not ready yet goes before what serves; what still drains comes back at once."""
    scaling = Autoscaling(max_replicas=3, interval=1, provisioning_time=100, load_time=0)
    scaler = Scripted(3, 2, 1, 2, 2)
    Cluster(replicas=2, autoscaling=scaling).run(steady(20, 0.5, 200), RoundRobin(), autoscaler=scaler)
    assert [view[1:4] for view in scaler.views[:5]] == [(2, 0, 0), (2, 1, 0), (2, 0, 0), (1, 0, 1), (2, 0, 0)]


@pytest.mark.parametrize("duration", [120.0, math.inf])
def test_a_failed_replica_is_given_up_before_one_that_serves(duration: float) -> None:
    """Asked for one of two of which one has failed, the autoscaler's cluster keeps the one that works, and
    pays for the other no longer; what was given up does not come back by itself."""
    failed = Cluster(replicas=2, autoscaling=Autoscaling(), failures=(Failure(0, 10.0, duration),))
    run = failed.run(steady(200, 1.0), RoundRobin(), autoscaler=Scripted(1))
    assert np.isfinite(run.requests["finish"]).all()
    assert run.metrics["p99_response_time"] < 5
    assert run.replicas["paid"][0] == (10 if duration == math.inf else 15)
    assert run.replicas["paid"][1] == run.totals["end"]
    assert run.series["active"].min() == 1


def test_another_is_started_for_one_that_is_gone() -> None:
    """A failure without an end leaves a place that the autoscaler fills."""
    scaling = Autoscaling(max_replicas=1, interval=5, provisioning_time=3, load_time=4)
    gone = Cluster(replicas=1, autoscaling=scaling, failures=(Failure(0, 8.0, math.inf),))
    run = gone.run(steady(20, 1.0), RoundRobin(), autoscaler=Scripted(1))
    assert np.isfinite(run.requests["finish"]).all()
    assert run.replicas["paid"][0] == pytest.approx(run.totals["end"] - 2)
    down = (run.requests["arrival"] > 8) & (run.requests["arrival"] <= 17)
    assert (run.requests["routed"][down] == 17).all()


@checked
@given(
    scenario=scenarios(), targets=st.lists(st.integers(0, 5), min_size=1, max_size=8), seed=st.integers(0, 9)
)
def test_no_request_is_lost(scenario: tuple[Cluster, Workload], targets: list[int], seed: int) -> None:
    """Whatever comes, goes and fails: every request finishes once, in the same way each time."""
    cluster, workload = scenario
    scaling = Autoscaling(max_replicas=5, interval=0.3, provisioning_time=0.2, load_time=0.1 * seed)
    cluster = replace(cluster, autoscaling=scaling)
    runs = [cluster.run(workload, LeastLoadedQueue(), autoscaler=Scripted(*targets)) for _ in range(2)]
    assert np.isfinite(runs[0].requests["finish"]).all()
    assert (runs[0].requests["tokens_made"] == workload.output_tokens).all()
    assert digest(runs[0]) == digest(runs[1])
    assert all(np.isfinite(value) for value in runs[0].metrics.values())
    end, begin = runs[0].totals["end"], float(workload.arrival[0])
    assert (end - begin) * 0.999 <= runs[0].metrics["gpu_hours"] * 3600 <= (end - begin) * 5.001


class Curious:
    """Targets by chance, from everything that its view shows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def target(self, cluster: Any, now: float) -> int:
        digest = self.seed
        for replica in cluster.replicas:
            for seen in (replica.index, replica.waiting, replica.running, replica.blocks_used):
                digest = (digest * 31 + seen) % 100_003
        for seen in cluster[1:]:
            digest = (digest * 31 + seen) % 100_003
        return int(np.random.default_rng(digest).integers(0, 7))


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    scenario=scenarios_of_both(),
    seed=st.integers(0, 1000),
    interval=st.sampled_from([0.1, 0.3, 1.0]),
    times=st.tuples(st.sampled_from([0.0, 0.2]), st.sampled_from([0.0, 0.1, 1.0])),
    least=st.integers(1, 3),
)
def test_equals_the_reference(
    scenario: tuple[Cluster, Workload], seed: int, interval: float, times: tuple[float, float], least: int
) -> None:
    """Under targets by chance, with failures and stale views, on both engines: every time, replica and
    restart is the one that the plain stepper gives, and so is what is paid for."""
    scaling = Autoscaling(5, least, interval, provisioning_time=times[0], load_time=times[1])
    cluster, workload = replace(scenario[0], autoscaling=scaling), scenario[1]
    ended = [replace(one, duration=math.inf) if one.duration == 4.0 else one for one in cluster.failures]
    cluster = replace(cluster, failures=tuple(ended))
    run = cluster.run(workload, Learner(), autoscaler=Curious(seed))
    kind = VllmReplica if cluster.engine == "vllm" else None
    expected, paid = simulate_fleet(cluster, workload, Learner(), Curious(seed), replica=kind)
    assert rows(run) == [
        (r.routed, r.admitted, r.first_token, r.finish, r.replica, r.restarts, r.recompute_time)
        for r in expected
    ]
    assert run.totals["replica_time"] == pytest.approx(paid, rel=1e-12)


def test_a_failed_replicas_requests_start_again_elsewhere() -> None:
    """They go back to the queue in order of arrival, keep what has streamed, and nothing is lost."""
    cluster = Cluster(replicas=2, failures=(Failure(0, at=5.0, duration=20.0),))
    run = cluster.run(steady(30, 0.2, 100), RoundRobin())
    assert run.metrics["requeued"] > 0
    assert np.isfinite(run.requests["finish"]).all()
    assert (run.requests["first_token"] <= run.requests["finish"]).all()
    during = (run.requests["arrival"] >= 5) & (run.requests["arrival"] < 25)
    assert (run.requests["replica"][during] == 1).all()
    assert run.metrics["recompute_share"] > 0


def test_if_all_fail_for_ever_requests_are_unfinished_not_forgotten() -> None:
    """They are in the table and in the metrics, and no router is blamed."""
    run = Cluster(replicas=1, failures=(Failure(0, at=5.0, duration=math.inf),)).run(
        steady(10, 1.0), RoundRobin()
    )
    assert 0 < run.metrics["unfinished_fraction"] < 1
    assert len(run.requests["finish"]) == 10


def test_at_the_horizon_what_is_unfinished_counts_with_the_time_so_far() -> None:
    """Requests that arrived are in the table and the metrics; those of later are not."""
    cluster, workload = Cluster(replicas=1), workloads.sharegpt_bursty(8.0, 100, seed=1)
    run, whole = cluster.run(workload, RoundRobin(), horizon=30.0), cluster.run(workload, RoundRobin())
    table = run.requests
    arrived = int((workload.arrival <= 30).sum())
    assert len(table["arrival"]) == arrived
    finished = whole.requests["finish"][:arrived] <= 30
    assert (np.isfinite(table["finish"]) == finished).all()
    assert (table["finish"][finished] == whole.requests["finish"][:arrived][finished]).all()
    waited = np.where(finished, table["finish"], 30.0) - table["arrival"]
    assert run.metrics["mean_response_time"] == pytest.approx(waited.mean())
    assert run.metrics["unfinished_fraction"] == 1 - finished.mean() > 0
    assert run.metrics["duration"] == 30


def test_what_the_horizon_cuts_off_is_not_computed() -> None:
    """Tokens of a step count once it has ended: each decode is a token made, each prefill one more."""
    run = Cluster(replicas=2).run(workloads.sharegpt_bursty(8.0, 100, seed=1), RoundRobin(), horizon=7.0)
    made = run.requests["tokens_made"]
    assert run.metrics["restarts"] == 0
    assert run.totals["decode_tokens"] == (made - (made > 0)).sum() > 0


@pytest.mark.parametrize(
    ("second", "back"), [(Failure(0, 50.0, 100.0), 150), (Failure(0, 50.0, 5.0), 110), (None, 110)]
)
def test_a_failure_of_a_replica_that_is_down_prolongs_the_outage(second: Failure | None, back: int) -> None:
    """It comes back when the last of its failures is over."""
    failures = (Failure(0, 10.0, 100.0), *([] if second is None else [second]))
    run = Cluster(replicas=1, failures=failures).run(steady(40, 1.0), RoundRobin())
    arrival, routed = run.requests["arrival"], run.requests["routed"]
    assert (routed[arrival > 10] == back).all()


def test_a_replica_that_is_down_can_be_gone() -> None:
    """A failure without an end, of one that is down, ends what is paid for it."""
    failures = (Failure(0, 10.0, 10.0), Failure(0, 15.0, math.inf))
    run = Cluster(replicas=2, failures=failures).run(steady(40, 1.0), RoundRobin())
    assert run.replicas["paid"][0] == 15
    assert (run.requests["replica"][run.requests["arrival"] > 10] == 1).all()


def test_time_may_start_late() -> None:
    """Arrivals in Unix seconds: an autoscaler is first asked, and views are published, when something has
    come."""
    columns: dict[str, Any] = {"prompt_tokens": [50] * 9, "output_tokens": [40] * 9}
    late = Workload.from_arrays(arrival=1.7e9 + np.arange(9.0), **columns)
    cluster = Cluster(replicas=1, autoscaling=Autoscaling(interval=2), staleness=0.001)
    scaler = Scripted(1)
    run = cluster.run(late, LeastLoadedQueue(), autoscaler=scaler)
    assert np.isfinite(run.requests["finish"]).all()
    assert 1.7e9 < scaler.views[0][0] <= 1.7e9 + 2
    assert run.totals["autoscaler_calls"] < 10


@pytest.mark.parametrize("staleness", [0.0, 3.0])
def test_what_comes_back_to_the_queue_is_known_with_all_that_it_has_streamed(staleness: float) -> None:
    """Where views are stale, too: its user has the tokens."""
    seen: dict[int, int] = {}

    class Watcher(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            seen.update({request.id: request.tokens_done for request in queue if now == 5.0})
            return super().route(queue, replicas, now)

    cluster = Cluster(replicas=2, staleness=staleness, failures=(Failure(0, 5.0, 20.0),))
    workload = steady(8, 0.7, 400)
    run = cluster.run(workload, Watcher())
    stopped = cluster.run(workload, RoundRobin(), horizon=5.0)
    assert len(seen) == run.metrics["requeued"] > 2
    made = stopped.requests["tokens_made"]
    assert seen == {request: 50 + made[request] if made[request] else 0 for request in seen}
    assert max(seen.values()) > 100


def test_serving_nobody_has_no_time_per_token() -> None:
    """At the horizon a router that has sent nothing has not been quick: a spec cannot be met by NaN."""

    class Idle:
        def route(self, queue: Any, replicas: Any, now: float) -> tuple[()]:
            return ()

    run = Cluster().run(workloads.sharegpt_bursty(rate=2, duration=30, seed=0), Idle(), horizon=20)
    assert all(math.isnan(run.metrics[f"{kind}_tpot"]) for kind in ("mean", "p50", "p90", "p99"))
    assert run.metrics["mean_response_time"] > 1


def test_stale_views_change_only_when_they_are_published() -> None:
    """Between two publications the engine's gauges stand still, whatever happens."""
    seen: list[tuple[float, tuple[int, ...]]] = []

    class Watcher(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            seen.append((now, tuple(v for r in replicas for v in (r.waiting, r.running, r.blocks_used))))
            return super().route(queue, replicas, now)

    Cluster(staleness=2.0).run(workloads.sharegpt_bursty(8.0, 60, seed=1), Watcher())
    by_window: dict[int, set[tuple[int, ...]]] = {}
    for now, gauges in seen:
        by_window.setdefault(math.ceil(now / 2.0), set()).add(gauges)
    assert len(by_window) > 20
    assert max(map(len, by_window.values())) == 1
    assert len(set.union(*by_window.values())) > 10


def test_each_request_has_its_own_slo() -> None:
    """A request without one keeps it if it finishes."""
    columns: dict[str, Any] = {"arrival": [0.0] * 4, "prompt_tokens": [10] * 4, "output_tokens": [20] * 4}
    workload = Workload.from_arrays(**columns, ttft_slo=[1e-6, 9, np.nan, 9], tpot_slo=[9, 1e-6, np.nan, 9])
    assert Cluster(replicas=1).run(workload, RoundRobin()).metrics["slo_attainment"] == 0.5
    with pytest.raises(ValueError, match=r"ttft_slo of row 1 is 0.0; expected a positive number of seconds"):
        Workload.from_arrays(**columns, ttft_slo=[1, 0, 1, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Autoscaling(max_replicas=0),
            "max_replicas=0; expected a whole number from 1 to 10000 replicas",
        ),
        (lambda: Autoscaling(min_replicas=9), "min_replicas=9; expected a whole number from 1 to 8 replicas"),
        (lambda: Autoscaling(interval=0), "interval=0; expected a number from 0.001 .* seconds between two"),
        (lambda: Autoscaling(load_time=math.nan), "load_time=nan; expected a number .* seconds"),
        (lambda: Failure(0, at=-1), "at=-1; expected a number of at least 0 seconds"),
        (lambda: Failure(0.5, at=1), "replica=0.5; expected a whole number"),  # type: ignore[arg-type]
        (lambda: Cluster(failures=(Failure(4, 1.0),)), r"failures holds Failure\(replica=4.* from 0 to 3"),
        (lambda: Cluster(staleness=-1.0), "staleness=-1.0; expected a number from 0 to 3600 seconds between"),
        (lambda: Cluster(each=(Replica(),)), "each has 1 entries; expected one per replica, 4 in all"),
        (
            lambda: Cluster(staleness=1e-12),
            "staleness=1e-12; expected 0 for live views, or at least 0.001 seconds between two publications",
        ),
        (
            lambda: Cluster(autoscaling=Autoscaling(max_replicas=2)),
            "replicas=4 with autoscaling of max_replicas=2; expected at most so many at the start",
        ),
        (lambda: Replica(kv_blocks=0), "kv_blocks=0; expected a whole number from 2"),
        (lambda: Cluster(autoscaling=3), r"autoscaling=3; expected sim.Autoscaling"),  # type: ignore[arg-type]
        (
            lambda: Cluster().run(steady(1, 1), RoundRobin(), horizon=0),
            "horizon=0; expected a number .* seconds",
        ),
        (
            lambda: Cluster().run(steady(1, 1), RoundRobin(), autoscaler=Scripted(1)),
            "an autoscaler and autoscaling=None; expected sim.Autoscaling",
        ),
    ],
)
def test_a_setting_out_of_range_is_named(make: Any, message: str) -> None:
    """Field, value, range and unit."""
    with pytest.raises(ValueError, match=message):
        make()


class Raises:
    def target(self, cluster: Any, now: float) -> int:
        raise KeyError("my bug")


@pytest.mark.parametrize(
    ("autoscaler", "message"),
    [
        (Raises(), r"test_fleet.py:\d+: KeyError: 'my bug' in Raises.target, call 1 at 15.000 s"),
        (
            Scripted("many"),
            r"test_fleet.py:\d+: the autoscaler returned 'many' where a whole number .* in Scripted.target",
        ),
        (Scripted(-1), "the autoscaler returned -1 where a whole number of replicas"),
        (Scripted, "an autoscaler is an object with a method target"),
    ],
)
def test_a_broken_autoscaler_is_told_what_it_did(autoscaler: Any, message: str) -> None:
    """Every breach ends in a PolicyError that shows the call."""
    with pytest.raises(PolicyError) as caught:
        Cluster(autoscaling=Autoscaling()).run(steady(30, 1.0), RoundRobin(), autoscaler=autoscaler)
    assert re.search(message, told(caught.value))


def test_a_queue_that_is_never_drained_is_noticed() -> None:
    """An autoscaler's calls alone do not keep a run alive for ever."""
    holder: Any = type("Holder", (), {"route": lambda self, queue, replicas, now: []})()
    with pytest.raises(PolicyError) as caught:
        Cluster(autoscaling=Autoscaling()).run(steady(3, 1.0), holder, autoscaler=Scripted(4))
    said = r"test_fleet.py:\d+: livelock at .* nothing else has happened, and 3 requests wait"
    assert re.search(said, told(caught.value))


def test_a_replica_that_works_is_no_livelock() -> None:
    """However often an autoscaler is asked during one long request: a step that goes on is something."""
    scaling = Autoscaling(max_replicas=1, interval=0.05)
    run = Cluster(replicas=1, autoscaling=scaling).run(
        steady(1, 1.0, 2000), RoundRobin(), autoscaler=Scripted(1)
    )
    assert np.isfinite(run.requests["finish"]).all()
    assert run.totals["autoscaler_calls"] > 1000


def test_what_comes_after_a_long_silence_is_no_livelock() -> None:
    """Calls while a recovery is to come count for nothing: who holds requests until then holds them in vain
    only after as many calls more."""
    outage = Failure(0, 0.5, 100.0)
    held = Cluster(replicas=1, autoscaling=Autoscaling(max_replicas=2, interval=0.05), failures=(outage,))

    class Patient(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return super().route(queue, replicas, now) if len(replicas) == 2 else []

    scaler = type("Late", (), {"target": lambda self, cluster, now: 1 + (now > 120)})()
    run = held.run(steady(1, 1.0), Patient(), autoscaler=scaler)
    assert np.isfinite(run.requests["finish"]).all()


def test_a_replica_that_is_down_takes_no_requests() -> None:
    """A router that remembers a replica and sends to it while it is down is told so."""

    class Stubborn:
        def __init__(self) -> None:
            self.first: Any = None

        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            self.first = self.first or replicas[0]
            return [(request, self.first) for request in queue]

    with pytest.raises(PolicyError) as caught:
        Cluster(failures=(Failure(0, 2.0),)).run(steady(30, 1.0), Stubborn())
    said = r"test_fleet.py:\d+: the router sent .* takes no requests now \(down, draining or stopped\)"
    assert re.search(said, told(caught.value))
