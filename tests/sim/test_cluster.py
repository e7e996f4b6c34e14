"""The cluster: its settings are checked, it pickles, and an idle one gives the times that the profile
says."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from sim import Autoscaling, Cluster, Failure, Replica, Workload, costs, workloads
from sim.baselines import RoundRobin
from tests.sim.test_fleet import Scripted


def one(prompt: int, output: int) -> Workload:
    """A workload of one request."""
    return Workload.from_arrays(arrival=[1.0], prompt_tokens=[prompt], output_tokens=[output])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"replicas": 0}, "replicas=0; expected a whole number from 1 to 10000 replicas"),
        ({"replicas": 2.0}, "replicas=2.0; expected a whole number"),
        ({"kv_blocks": 1}, "kv_blocks=1; expected a whole number from 2 to 1e\\+09 blocks per replica"),
        ({"block_size": -16}, "block_size=-16; .* tokens per block"),
        ({"max_num_seqs": True}, "max_num_seqs=True; .* requests per batch"),
        ({"max_num_batched_tokens": "8k"}, "max_num_batched_tokens='8k'; .* tokens per step"),
        ({"watermark": 0.9}, "watermark=0.9; expected a number from 0 to 0.5 as a fraction of the blocks"),
        ({"time_scale": float("nan")}, "time_scale=nan; .* times the profile's GPU time"),
        ({"tensor_parallel": 0}, "tensor_parallel=0; expected a whole number from 1 .* GPUs per replica"),
        (
            {"gpu": "h100", "model": "llama-3-70b", "tensor_parallel": 2},
            "model='llama-3-70b' and tensor_parallel=2; there is .*'llama-3-70b' and tensor_parallel=4",
        ),
        ({"each": (Replica(tensor_parallel=4),) * 4}, "gpu='a10' with .* and tensor_parallel=4; there is"),
        ({"gpu": 10}, "gpu=10; expected a name"),
        ({"model": ["llama-3-8b"]}, r"model=\['llama-3-8b'\]; expected a name"),
        ({"failures": [Failure(0, 1.0)]}, r"failures=\[Failure.*expected a tuple of sim.Failure"),
        ({"gpu": "a11"}, "no cost profile for gpu='a11' with model='llama-3-8b'; there is gpu='a10'"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, Any], message: str) -> None:
    """Each field is validated, with value, range and unit in the message."""
    with pytest.raises(ValueError, match=message):
        Cluster(**setting)


def test_a_cluster_pickles() -> None:
    """Clusters travel between processes."""
    assert pickle.loads(pickle.dumps(Cluster(replicas=3))) == Cluster(replicas=3)


def test_a_request_that_can_never_run_is_rejected() -> None:
    """A request that does not fit an empty cache is rejected and counted, and the largest that fits runs."""
    cluster = Cluster(kv_blocks=100)
    rejected = cluster.run(one(1585, 1), RoundRobin())
    assert rejected.metrics["rejected_fraction"] == rejected.metrics["unfinished_fraction"] == 1
    assert rejected.metrics["router_calls"] == 0
    assert np.isnan(rejected.requests["finish"]).all()
    assert all(np.isfinite(value) for value in rejected.metrics.values())
    assert cluster.run(one(1584, 1), RoundRobin()).metrics["unfinished_fraction"] == 0


def test_one_request_too_long_does_not_stop_the_others() -> None:
    """As a server answers it with an error and serves the rest."""
    workload = Workload.from_arrays(arrival=[0, 0, 0], prompt_tokens=[10, 4000, 10], output_tokens=[5, 5, 5])
    run = Cluster(replicas=1, kv_blocks=100).run(workload, RoundRobin())
    assert run.requests["rejected"].tolist() == [0, 1, 0]
    assert np.isfinite(run.requests["finish"]).tolist() == [True, False, True]


def test_replicas_may_differ() -> None:
    """A replica with a larger cache takes what the others reject; one with a slower GPU takes longer."""
    cluster = Cluster(replicas=2, kv_blocks=100, each=(Replica(), Replica(kv_blocks=200, time_scale=2.0)))
    long = Workload.from_arrays(arrival=[0, 0], prompt_tokens=[2000, 2000], output_tokens=[5, 5])
    assert cluster.run(long, RoundRobin()).requests["rejected"].tolist() == [1, 0]
    short = Workload.from_arrays(arrival=[0, 0], prompt_tokens=[200, 200], output_tokens=[5, 5])
    finish = cluster.run(short, RoundRobin()).requests["finish"]
    assert finish[1] == pytest.approx(2 * finish[0])


LARGE: dict[str, Any] = {"gpu": "h100", "model": "llama-3-70b", "tensor_parallel": 4}


def test_a_tensor_parallel_replica_costs_its_gpus() -> None:
    """It has the profile of so many GPUs; a replica's time and its GPUs' are both told."""
    run = Cluster(replicas=2, **LARGE).run(one(500, 20), RoundRobin())
    assert run.marks.keys() == {"h100 x 4 with llama-3-70b"}
    duration = run.metrics["duration"]
    assert run.totals["replica_time"] == pytest.approx(2 * duration)
    assert run.totals["gpu_time"] == pytest.approx(8 * duration)
    assert run.metrics["replica_hours"] * 3600 == pytest.approx(2 * duration)
    assert run.metrics["gpu_hours"] * 3600 == pytest.approx(8 * duration)


def test_replicas_of_different_gpus_cost_each_its_own() -> None:
    """Also where they come and go: GPU time is the sum over replicas of time x GPUs."""
    scaling = Autoscaling(max_replicas=3, interval=2.0, provisioning_time=1.0, load_time=1.0)
    each = (Replica(), Replica(**LARGE), Replica(gpu="h100"))
    cluster = Cluster(replicas=1, each=each, autoscaling=scaling)
    workload = workloads.sharegpt_bursty(3.0, 60, seed=1)
    run = cluster.run(workload, RoundRobin(), autoscaler=Scripted(1, 3, 2, 1, 3))
    paid = run.replicas["paid"]
    assert run.replicas["gpus"].tolist() == [1, 4, 1]
    assert 0 < paid[1] < paid[0]
    assert run.totals["replica_time"] == pytest.approx(paid.sum())
    assert run.metrics["gpu_hours"] * 3600 == pytest.approx(paid[0] + 4 * paid[1] + paid[2])
    assert list(run.marks) == ["a10 with llama-3-8b", "h100 x 4 with llama-3-70b", "h100 with llama-3-8b"]


def test_no_requests() -> None:
    """An empty workload gives an empty run with finite metrics."""
    run = Cluster().run(Workload.from_arrays(arrival=[], prompt_tokens=[], output_tokens=[]), RoundRobin())
    assert len(run.to_pandas()) == 0
    assert all(np.isfinite(value) for value in run.metrics.values())


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (5, 2), (64, 300), (2000, 40)])
def test_alone_a_request_takes_what_the_profile_says(prompt: int, output: int) -> None:
    """One step for the prompt, then one a token, each of linear part, LM head and attention; slowdown is
    one."""
    profile = costs.profile("a10", "llama-3-8b")
    points = dict(profile.linear_points)
    tokens = np.array(sorted(points))
    linear = np.interp([prompt, 1], tokens, [points[token] for token in tokens])
    expected = linear[0] + profile.head + profile.prefill * prompt * (prompt + 1) / 2
    for made in range(1, output):
        expected += linear[1] + profile.head + profile.decode * (prompt + made)
    run = Cluster(replicas=2, time_scale=2.0).run(one(prompt, output), RoundRobin())
    assert run.metrics["mean_response_time"] == pytest.approx(2 * profile.time_scale * expected)
    assert run.metrics["mean_slowdown"] == pytest.approx(1)


class AllToOne:
    """Everything to the first replica."""

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        return [(request, replicas[0]) for request in queue]


@pytest.mark.parametrize("engine", ["sarathi", "vllm"])
@pytest.mark.parametrize("named", costs.available(), ids=str)
def test_alone_nothing_is_slowed_down(named: tuple[str, str, int], engine: str) -> None:
    """On every profile, whatever the engine's parts of a step: the slowdown of a request alone is one."""
    gpu, model, gpus = named
    cluster = Cluster(
        replicas=1, gpu=gpu, model=model, tensor_parallel=gpus, engine=engine, step_overhead=0.001
    )
    for prompt, output in [(7000, 1000), (1, 1), (8193, 2), (20_000, 30), (40, 700)]:
        run = cluster.run(one(prompt, output), RoundRobin())
        assert run.metrics["mean_slowdown"] == pytest.approx(1, rel=1e-9)


def test_of_replicas_that_differ_the_fastest_is_the_yardstick() -> None:
    """A slow replica slows down, a fast one does not."""
    cluster = Cluster(replicas=2, each=(Replica(time_scale=3.0), Replica(time_scale=0.5)))
    workload = Workload.from_arrays(arrival=[0, 500], prompt_tokens=[400, 400], output_tokens=[90, 90])
    run = cluster.run(workload, RoundRobin())
    slowdown = (run.requests["finish"] - run.requests["arrival"]) / run.requests["alone"]
    assert slowdown == pytest.approx([6.0, 1.0])


def test_cuda_graphs_are_of_the_replicas_own_size() -> None:
    """Beside a replica of larger batches a small one computes as it does among its like."""
    small, large = Replica(max_num_seqs=4, max_num_batched_tokens=300), Replica(max_num_seqs=256)
    workload = Workload.from_arrays(arrival=[0, 0], prompt_tokens=[9, 130], output_tokens=[40, 40])
    mixed, alike = (
        Cluster(replicas=2, gpu="h100", engine="vllm", each=(small, other)).run(workload, AllToOne())
        for other in (large, small)
    )
    assert mixed.requests["finish"].tolist() == alike.requests["finish"].tolist()


def test_a_long_prompt_is_chunked() -> None:
    """A prompt beyond the token budget takes several steps, and the slowdown's yardstick knows it."""
    cluster = Cluster(max_num_batched_tokens=100)
    run = cluster.run(one(250, 3), RoundRobin())
    assert run.totals["steps"] == 3 + 2
    assert run.metrics["mean_slowdown"] == pytest.approx(1)


def test_time_scale_stretches_time() -> None:
    """Twice the GPU time and half the arrival rate is the same run, twice as long."""
    workload = workloads.sharegpt_bursty(8.0, 50, seed=2)
    slow = Workload.from_arrays(
        arrival=2 * workload.arrival,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
    )
    fast_run, slow_run = (
        Cluster().run(workload, RoundRobin()),
        Cluster(time_scale=2.0).run(slow, RoundRobin()),
    )
    np.testing.assert_allclose(slow_run.requests["finish"], 2 * fast_run.requests["finish"], rtol=1e-9)
