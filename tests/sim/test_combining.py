"""`python -m sim combine`: every combination of policies on the same workloads, beside the first."""

from __future__ import annotations

import pytest

from sim import Cluster, workloads
from sim.__main__ import main
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue

LOAD = ["--workload", "sharegpt_bursty", "--rate", "8.5", "--duration", "60", "--seeds", "2", "--seed", "3"]


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["combine", *arguments, *LOAD]) == 0
    return capsys.readouterr().out.splitlines()


def test_all_combinations_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Two routers by two schedulers are four bars, and a figure is that of `Cluster.run`."""
    routers, schedulers = ["--router", "llq", "hra"], ["--scheduler", "fcfs", "spf"]
    told = lines(capsys, *routers, *schedulers, "--engine", "vllm", "--metric", "mean_response_time")
    bars = told[told.index("r s  mean_response_time") + 1 :]
    assert max(map(len, bars)) <= 80
    assert [bar[:3] for bar in bars] == ["a a", "a b", "b a", "b b"]
    assert bars[0].endswith("#" * 20)
    loads = [workloads.sharegpt_bursty(rate=8.5, duration=60, seed=seed) for seed in (3, 4)]
    cluster = Cluster(engine="vllm")
    for router, bar in ((LeastLoadedQueue, bars[0]), (HeadRoomAdmission, bars[2])):
        mean = sum(cluster.run(load, router()).metrics["mean_response_time"] for load in loads) / 2
        assert bar.split()[2] == f"{mean:.3f}"


def test_bars_of_gpu_hours_and_columns_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Under an autoscaler bars are of GPU-hours; other metrics make columns."""
    scaled = [
        "--autoscaler",
        "ConcurrencyTarget(target=4)",
        "ConcurrencyTarget(target=40)",
        "--max-replicas",
        "9",
    ]
    told = lines(capsys, *scaled)
    bars = told[told.index("a  gpu_hours") + 1 :]
    assert [bar.split()[0] for bar in bars] == ["a", "b"]
    assert bars[1].count("#") < bars[0].count("#") == 20
    assert "router       LeastLoadedQueue" in told
    more = lines(capsys, *scaled, "--metric", "gpu_hours", "--metric", "p99_ttft")
    assert "a  gpu_hours, p99_ttft" in more
    assert len(more[-1].split()) == len(told[-1].split()) + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--router", "llq"], "one policy a layer makes one combination; expected two of a layer"),
        ([], "one policy a layer makes one combination; expected two of a layer"),
        (["--router", "llq", "hra", "llq"], "a router is given twice; expected different ones"),
        (["--router", "llq", "hra", "--metric", "speed"], "speed"),
        (["--router", "llq", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_combined(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said what was given and what is expected."""
    assert main(["combine", *arguments, *LOAD]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
