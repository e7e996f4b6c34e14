"""Bounds: no run of any policy is below them, and where a closed form is known they reach it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import (
    Autoscaling,
    Cluster,
    Failure,
    Replica,
    Run,
    Workload,
    bounds,
    costs,
    schedulers,
    workloads,
)
from sim.balancing import OracleLeastWork
from sim.baselines import LeastLoadedQueue, RoundRobin
from tests.sim.strategies import ROUTERS, begin_alike, scenarios_of_both
from tests.sim.test_scheduling import Juggler

checked = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def runs(cluster: Cluster, workload: Workload, seed: int) -> Iterator[Run]:
    """One of each router and of each batch scheduler."""
    for router in ROUTERS.values():
        yield cluster.run(workload, router())
    yield cluster.run(workload, OracleLeastWork(workload))
    if cluster.engine == "vllm":
        for scheduler in (
            schedulers.ShortestPromptFirst(),
            schedulers.OracleShortestRemaining(workload),
            Juggler(seed),
        ):
            for oracle in (OracleLeastWork(workload), LeastLoadedQueue()):
                yield cluster.run(workload, oracle, scheduler)


@checked
@given(
    scenario=scenarios_of_both(),
    each=st.lists(
        st.builds(
            Replica,
            gpu=st.sampled_from([None, "h100", "rtx-4090"]),
            kv_blocks=st.sampled_from([None, 40, 200]),
            max_num_seqs=st.sampled_from([None, 3]),
            max_num_batched_tokens=st.sampled_from([None, 40]),
            time_scale=st.sampled_from([None, 3.0]),
        ),
        min_size=4,
        max_size=4,
    ),
    alike=st.booleans(),
    seed=st.integers(0, 100),
)
@pytest.mark.slow
def test_no_policy_is_below_the_bounds(
    scenario: tuple[Cluster, Workload], each: list[Replica], alike: bool, seed: int
) -> None:
    """On either engine, with small caches, prefixes and replicas that differ: not oracles either."""
    cluster, workload = replace(scenario[0], failures=()), scenario[1]
    if not alike:
        cluster = replace(cluster, each=tuple(each[: cluster.replicas]))
    response, ttft = bounds.mean_response_time(cluster, workload), bounds.mean_ttft(cluster, workload)
    assert 0 < ttft.seconds <= response.seconds or not alike
    for run in runs(cluster, workload, seed):
        assert run.metrics["mean_response_time"] >= response.seconds * (1 - 1e-9)
        assert run.metrics["mean_ttft"] >= ttft.seconds * (1 - 1e-9)


@pytest.mark.parametrize("engine", ["sarathi", "vllm"])
def test_alone_the_bound_is_reached(engine: str) -> None:
    """Requests that never meet take what the bound says."""
    workload = Workload.from_arrays(
        arrival=[0, 100, 200], prompt_tokens=[50, 400, 9], output_tokens=[90, 1, 9]
    )
    cluster = Cluster(replicas=2, engine=engine, each=(Replica(time_scale=3.0), Replica()))

    class ToTheFast:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return [(request, replicas[1]) for request in queue]

    found = bounds.mean_response_time(cluster, workload)
    assert found.relaxation == "alone"
    reached = cluster.run(workload, ToTheFast()).metrics["mean_response_time"]
    assert found.seconds == pytest.approx(reached, rel=2e-3)


def test_replicas_that_differ_in_their_gpus_alone_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound knows that a replica of two GPUs is faster than one of one."""
    one = costs.profile("a10", "llama-3-8b")
    two = replace(one, tensor_parallel=2, time_scale=one.time_scale / 2)
    monkeypatch.setattr(costs, "profile", lambda gpu, model, gpus=1: two if gpus == 2 else one)
    cluster = Cluster(replicas=2, each=(Replica(), Replica(tensor_parallel=2)))
    workload = Workload.from_arrays(arrival=[0], prompt_tokens=[400], output_tokens=[90])
    fast = Cluster(replicas=1, tensor_parallel=2)
    assert bounds.mean_ttft(cluster, workload).seconds == bounds.mean_ttft(fast, workload).seconds
    assert bounds.mean_response_time(cluster, workload) == bounds.mean_response_time(fast, workload)


def test_a_closed_loop_has_no_bound() -> None:
    """When its requests arrive is the policies' doing; the error names what has one."""
    lengths = workloads.Independent(workloads.LogNormal(100, 1.0), workloads.LogNormal(100, 1.0))
    loop: Any = workloads.ClosedLoop(users=8, requests=10, lengths=lengths).workload(1)
    for bound in (bounds.mean_response_time, bounds.mean_ttft):
        with pytest.raises(ValueError, match=r"workload=ClosedWorkload; .* only for a sim\.Workload"):
            bound(Cluster(), loop)


@pytest.mark.slow
def test_under_overload_the_pool_binds() -> None:
    """Far beyond capacity the work decides, and is within a factor of two of an oracle."""
    workload = workloads.sharegpt_bursty(40.0, 100, seed=1)
    cluster = Cluster(replicas=1)
    found = bounds.mean_response_time(cluster, workload)
    oracle = cluster.run(workload, OracleLeastWork(workload)).metrics["mean_response_time"]
    assert found.relaxation == "pool"
    assert oracle / 2 < found.seconds < oracle


def test_what_may_be_found_in_a_cache_costs_nothing() -> None:
    """A prompt that another request has too may be found; its last token is computed."""
    session, tokens = np.array([0, 0, -1]), np.array([330, 330, 330])
    columns: dict[str, Any] = {"arrival": [0, 50, 90], "prompt_tokens": [320] * 3, "output_tokens": [10] * 3}
    workload = Workload.from_arrays(**columns, prefixes=begin_alike(session, tokens))
    cluster = Cluster(engine="vllm", replicas=1)
    assert bounds._shared_tokens(cluster, workload).tolist() == [320, 320, 0]
    without = replace(cluster, prefix_caching=False)
    assert bounds._shared_tokens(without, workload).tolist() == [0, 0, 0]
    below, above = (bounds.mean_ttft(one, workload).seconds for one in (cluster, without))
    assert below < above
    assert cluster.run(workload, RoundRobin()).metrics["mean_ttft"] >= below


def test_the_pool_works_on_the_least_first() -> None:
    """One of 4 s, the last of it not there before 2, gives way at 1 to one of 2 s."""
    comes, work = np.array([[0.0, 1.0], [2.0, 9.0]]), np.array([[6.0, 4.0], [2.0, 0.0]])
    assert bounds._mean_moments(comes, work, 2.0).tolist() == [(0.5 * 1 + 4.5 * 3) / 4, 2.0]


def test_lines_below_a_curve_touch_it_and_stay_below() -> None:
    """Each side of the hull is below all of the curve; the flat line is the least step."""
    steps = np.array([0.0, 3, 3, 3, 9, 8, 8, 20, 21])
    least = np.minimum.accumulate(steps[::-1])[::-1]
    lines = bounds._lines_below(least)
    at = np.arange(1, 9)
    assert lines[0] == (3.0, 0.0)
    for a, b in lines:
        assert (a + b * at <= least[1:] + 1e-12).all()
        assert np.isclose(a + b * at, least[1:]).sum() >= 2


def test_nothing_to_serve() -> None:
    """Nothing takes no time; nor does what every replica rejects."""
    nothing = Workload.from_arrays(arrival=[], prompt_tokens=[], output_tokens=[])
    assert bounds.mean_ttft(Cluster(), nothing) == bounds.Bound(0.0, "alone")
    long = Workload.from_arrays(arrival=[0.0], prompt_tokens=[5000], output_tokens=[1])
    assert bounds.mean_response_time(Cluster(kv_blocks=100), long).seconds == 0.0


def test_it_is_fast() -> None:
    """Ten thousand requests in well under the time of a run."""
    workload = workloads.sharegpt_bursty(10.0, 1000, seed=1)
    began = time.process_time()
    bounds.mean_response_time(Cluster(), workload)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("setting", [{"autoscaling": Autoscaling()}, {"failures": (Failure(0, 1.0),)}])
def test_what_is_not_covered_is_said(setting: dict[str, Any]) -> None:
    """Replicas that come, go or fail."""
    with pytest.raises(ValueError, match="a bound is known only for a cluster with neither"):
        bounds.mean_response_time(Cluster(**setting), workloads.sharegpt_bursty(8.0, 10, seed=1))
