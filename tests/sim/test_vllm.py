"""The vLLM engine: it agrees with the plain telling of vLLM's scheduler, and does what vLLM is known for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from sim import Cluster, Workload, workloads
from sim.baselines import LeastLoadedQueue, RoundRobin
from sim.prefixes import Prefixes
from tests.sim.reference import simulate
from tests.sim.reference_vllm import VllmReplica
from tests.sim.strategies import ROUTERS, Learner, vllm_scenarios
from tests.sim.test_core import rows

checked = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def expected(cluster: Cluster, workload: Workload, router: Any) -> tuple[list[tuple[Any, ...]], list[int]]:
    """What `rows` and `cached_tokens` should be."""
    requests = simulate(cluster, workload, router, replica=VllmReplica)
    table = [
        (r.routed, r.admitted, r.first_token, r.finish, r.replica, r.restarts, r.recompute_time)
        for r in requests
    ]
    return table, [request.found for request in requests]


@pytest.mark.parametrize("router", ["Learner", "RoundRobin", "Hoarder"])
@checked
@given(scenario=vllm_scenarios())
def test_equals_the_reference(router: str, scenario: tuple[Cluster, Workload]) -> None:
    """Every time, replica, restart and cache hit of every request is the one that the plain stepper gives."""
    cluster, workload = scenario
    run = cluster.run(workload, ROUTERS[router]())
    assert (rows(run), run.requests["cached_tokens"].tolist()) == expected(
        cluster, workload, ROUTERS[router]()
    )


@pytest.mark.slow
@pytest.mark.parametrize("caching", [False, True])
def test_equals_the_reference_at_full_size(caching: bool) -> None:
    """At the size and load of the routing problem, with restarts, both agree as well."""
    workload = workloads.sharegpt_bursty(rate=9.0, duration=60, seed=3)
    cluster = Cluster(engine="vllm", kv_blocks=1100, max_num_batched_tokens=2048, prefix_caching=caching)
    run = cluster.run(workload, LeastLoadedQueue())
    assert run.metrics["restarts"] > 0.05
    assert (rows(run), run.requests["cached_tokens"].tolist()) == expected(
        cluster, workload, LeastLoadedQueue()
    )


@checked
@given(scenario=vllm_scenarios())
def test_blocks_are_conserved(scenario: tuple[Cluster, Workload]) -> None:
    """No block is used when nobody is left, never more than there are, and the free list is whole again."""
    cluster, workload = scenario
    run = cluster.run(workload, Learner())
    assert (run.series["blocks_used"] <= cluster.kv_blocks - 1).all()
    assert np.isfinite(run.requests["finish"]).all()
    assert all(np.isfinite(value) for value in run.metrics.values())
    needed = (workload.prompt_tokens + workload.output_tokens - 1).sum()
    computed = run.totals["prefill_tokens"] + run.totals["decode_tokens"] + run.totals["hit_tokens"]
    lossy = run.metrics["restarts"] or run.metrics["requeued"]
    assert computed >= needed if lossy else computed == needed


def serve(cluster: Cluster, **columns: Any) -> Any:
    """A run of these requests on one replica."""
    return cluster.run(Workload.from_arrays(**columns), RoundRobin())


def test_one_block_is_vllms_own() -> None:
    """Of N blocks a request can have N - 1."""
    cluster = Cluster(replicas=1, engine="vllm", kv_blocks=10, block_size=16)
    fits = serve(cluster, arrival=[0], prompt_tokens=[144], output_tokens=[1])
    assert fits.metrics["unfinished_fraction"] == 0
    assert (
        serve(cluster, arrival=[0], prompt_tokens=[145], output_tokens=[1]).metrics["rejected_fraction"] == 1
    )


def test_a_conversation_finds_its_beginning() -> None:
    """The second turn computes only what the first did not, and at least one token."""
    cluster = Cluster(replicas=1, engine="vllm")
    prefixes = Prefixes.from_rows([[1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4], [9]], 16)
    run = serve(
        cluster,
        arrival=[0, 10, 20, 30],
        prompt_tokens=[48, 85, 64, 64],
        output_tokens=[20, 4, 4, 4],
        prefixes=prefixes,
    )
    assert run.requests["cached_tokens"].tolist() == [0, 64, 48, 0]
    assert run.metrics["prefix_hit_share"] == pytest.approx(112 / (48 + 85 + 64 + 64))
    off = Cluster(replicas=1, engine="vllm", prefix_caching=False)
    columns = {"arrival": [0, 10], "prompt_tokens": [480, 850], "output_tokens": [2, 2]}
    rows = Prefixes.from_rows([range(30), range(30)], 16)
    hit, missed = (serve(c, **columns, prefixes=rows).requests["finish"][1] for c in (cluster, off))
    assert hit < missed


def test_the_latest_is_preempted_and_by_priority_the_least() -> None:
    """FCFS preempts the last running request; by priority the one with the highest value."""
    columns = {
        "arrival": [0.0, 0.0],
        "prompt_tokens": [30, 30],
        "output_tokens": [40, 40],
        "priority": [1, 0],
    }
    restarts = {
        policy: serve(Cluster(replicas=1, engine="vllm", kv_blocks=7, scheduling_policy=policy), **columns)
        .requests["restarts"]
        .tolist()
        for policy in ("fcfs", "priority")
    }
    assert restarts["fcfs"][0] == 0 < restarts["fcfs"][1]
    assert restarts["priority"][1] == 0 < restarts["priority"][0]


def test_a_long_prefill_leaves_room_for_others() -> None:
    """At most the threshold in a step while another request is there; alone it has the whole budget."""
    columns = {"prompt_tokens": [600, 30], "output_tokens": [1, 1]}
    settings: dict[str, Any] = {"replicas": 1, "engine": "vllm", "max_num_batched_tokens": 600}
    free, capped = (Cluster(**settings, long_prefill_token_threshold=most) for most in (0, 100))
    together = [serve(one, arrival=[0.0, 0.0], **columns).requests["first_token"] for one in (free, capped)]
    assert together[1][1] < together[0][1]
    assert together[1][0] > together[0][0]
    apart = [serve(one, arrival=[0.0, 90.0], **columns).requests["first_token"] for one in (free, capped)]
    assert apart[0].tolist() == apart[1].tolist()


def test_without_chunked_prefill_a_prompt_waits_for_a_step_of_its_own() -> None:
    """It is admitted with all its tokens or not at all; one longer than any step is rejected."""
    columns: dict[str, Any] = {"arrival": [0.0, 0.0], "prompt_tokens": [60, 60], "output_tokens": [2, 2]}
    settings: dict[str, Any] = {"replicas": 1, "engine": "vllm", "max_num_batched_tokens": 100}
    chunked, whole = (
        serve(Cluster(**settings, chunked_prefill=one), **columns).requests["admitted"]
        for one in (True, False)
    )
    assert chunked[1] == chunked[0] < whole[1]
    longer = {"arrival": [0.0], "prompt_tokens": [98], "output_tokens": [3]}
    run = serve(Cluster(**settings, chunked_prefill=False), **longer)
    assert run.metrics["rejected_fraction"] == 1


def test_step_overhead_is_paid_at_every_step() -> None:
    """CPU time of scheduling and launching comes on top of the GPU's, also in the slowdown's yardstick."""
    columns = {"arrival": [0.0], "prompt_tokens": [100], "output_tokens": [11]}
    with_it, without = (
        serve(Cluster(replicas=1, engine="vllm", step_overhead=overhead), **columns)
        for overhead in (0.01, 0.0)
    )
    difference = with_it.requests["finish"][0] - without.requests["finish"][0]
    assert difference == pytest.approx(11 * 0.01)
    assert with_it.metrics["mean_slowdown"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"engine": "orca"}, "engine='orca'; expected one of 'sarathi', 'vllm'"),
        ({"scheduling_policy": "sjf"}, "scheduling_policy='sjf'; expected one of 'fcfs', 'priority'"),
        ({"prefix_caching": True}, "engine='sarathi', which has neither prefix caching"),
        ({"scheduling_policy": "priority"}, "engine='sarathi', which has neither"),
        ({"chunked_prefill": 1}, "chunked_prefill=1; expected True or False"),
        (
            {"chunked_prefill": False},
            "chunked_prefill=False and .*=0 with engine='sarathi', which has no such",
        ),
        (
            {"long_prefill_token_threshold": 8},
            "threshold=8 with engine='sarathi', which has no such settings",
        ),
        (
            {"long_prefill_token_threshold": -1},
            "threshold=-1; expected a whole number from 0 to 1e.06 tokens",
        ),
        ({"full_prompt_must_fit": 1}, "full_prompt_must_fit=1; expected True or False"),
        ({"step_overhead": -1.0}, "step_overhead=-1.0; expected a number from 0 to 10 seconds per step"),
        ({"each": (1,)}, r"each=\(1,\); expected a tuple of sim.Replica"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, Any], message: str) -> None:
    """Each field is validated, with value, range and unit in the message."""
    with pytest.raises(ValueError, match=message):
        Cluster(**setting)
