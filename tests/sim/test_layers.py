"""Policies of the three layers on the command line: by name or file, run and compared, their faults told."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from sim import Autoscaling, Cluster, Failure, workloads
from sim.__main__ import main
from sim.autoscalers import QueueLength
from sim.baselines import LeastLoadedQueue
from sim.layers import LAYERS
from tests.sim.test_seeing import drawn

SMALL = ["--duration", "40", "--rate", "9", "--kv-blocks", "600"]
SCHEDULER = """class Shortest:
    def plan(self, engine, now):
        waiting = sorted(engine.waiting, key=lambda request: request.prompt_tokens)
        return Plan(waiting)


class Plan:
    evict, tokens = (), {}

    def __init__(self, admit):
        self.admit = admit
"""
AUTOSCALER = """class Autoscaler:
    def target(self, cluster, now):
        return 1 + cluster.queued
"""
ARGUMENTS = {"Fixed": "(replicas=3)", "ThroughputThreshold": "(per_replica=2.5)"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a batch scheduler and an autoscaler."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scheduler.py").write_text(SCHEDULER)
    (tmp_path / "scaler.py").write_text(AUTOSCALER)
    return tmp_path


@pytest.mark.parametrize(
    ("layer", "name"), [(layer, name) for layer, one in LAYERS.items() for name in one.names]
)
def test_every_named_policy_runs(layer: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the package by its name, and an oracle is marked as one."""
    given = [f"--{layer}", name + ARGUMENTS.get(name, "")]
    assert main(["run", *given, *SMALL, "--duration", "20", "--engine", "vllm"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert name in first
    oracle = "workload" in inspect.signature(LAYERS[layer].names[name]).parameters
    assert oracle == name.startswith("Oracle")
    assert (f"{name} (oracle, for bounds only)" in first) == oracle


def test_all_three_layers_run_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A router by name, the others from files; how the cluster scales is said, and drawn."""
    arguments = [
        "run",
        "--router",
        "hra",
        "--scheduler",
        "scheduler.py:Shortest",
        "--autoscaler",
        "scaler.py",
    ]
    scaling = ["--max-replicas", "5", "--interval", "2", "--provisioning-time", "3", "--load-time", "1"]
    assert main([*arguments, *scaling, "--engine", "vllm", *SMALL, "--html", "run.html"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("HeadRoomAdmission + scheduler.py:Shortest + scaler.py on 1 to 5 x a10 (4 at the")
    text = drawn(Path("run.html"))
    for shown in ("Replicas", "take requests", "paid for", "GPU hours", "on 1 to 5 replicas"):
        assert shown in text


def test_schedulers_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On paired seeds under one router; the port of a rule to a file is the rule, the oracle is faster."""
    compared = ["spf", "scheduler.py", "OracleShortestRemaining"]
    arguments = ["compare", "--layer", "scheduler", *compared, "--engine", "vllm", "--router", "rr", *SMALL]
    assert main([*arguments, "--seeds", "2", "--metric", "mean_response_time", "--max-num-seqs", "8"]) == 0
    out = capsys.readouterr().out
    assert "schedulers beside RoundRobin" in out
    assert re.search(r"scheduler\.py +[\d.]+ +\+0\.0% +\[\+0\.0%, \+0\.0%\]", out)
    found = re.search(r"OracleShortestRemaining \(oracle, for bounds only\) +([\d.]+) +-[\d.]+%", out)
    bound = re.search(r"no policy can be below ([\d.]+)", out)
    assert found is not None
    assert bound is not None
    assert 0 < float(bound[1]) < float(found[1])


def test_an_oracle_takes_a_closed_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """It knows the lengths of requests whose arrivals nobody knows; so no bound is printed."""
    loop = ["--workload", "sharegpt_closed:users=24,requests=120", "--kv-blocks", "600", "--seeds", "2"]
    assert main(["compare", "llq", "OracleLeastWork", *loop]) == 0
    out = capsys.readouterr().out
    assert re.search(r"OracleLeastWork \(oracle, for bounds only\) +[\d.]+", out)
    assert "no policy can be below" not in out


def test_autoscalers_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What they cost is among the metrics, and the page shows each one's replicas."""
    compared = ["Fixed(replicas=4)", "Fixed(replicas=2)", "scaler.py"]
    assert (
        main(["compare", "--layer", "autoscaler", *compared, *SMALL, "--seeds", "2", "--html", "c.html"]) == 0
    )
    out = capsys.readouterr().out
    assert "no policy can be below" not in out  # no bound is known of a cluster that scales
    assert re.search(r"gpu_hours\n +Fixed\(replicas=4\) +[\d.]+\n +Fixed\(replicas=2\) +[\d.]+ +-", out)
    text = drawn(Path("c.html"))
    assert text.count("<h3>Replicas</h3>") == 3
    assert "3 autoscalers on 1 to 8 replicas" in text


def test_the_series_of_replicas_is_what_is_paid_for() -> None:
    """All statuses together, over time, are the replica-seconds; a failure shows as long as it lasts."""
    cluster = Cluster(
        replicas=2,
        autoscaling=Autoscaling(max_replicas=6, interval=5, provisioning_time=10, load_time=5),
        failures=(Failure(replica=0, at=20.0, duration=30.0),),
    )
    run = cluster.run(
        workloads.sharegpt_bursty(6.0, 200, 3), LeastLoadedQueue(), autoscaler=QueueLength(cooldown=20)
    )
    series = run.series
    paid = np.sum([series[name] for name in ("active", "starting", "draining", "down")], axis=0)
    assert paid.mean() * run.totals["end"] == pytest.approx(run.totals["replica_time"], rel=0.02)
    assert series["down"].sum() == 30
    assert series["starting"].max() > 0
    assert series["active"].max() > 2


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("request.prompt_tokens", "request.prompt", ["scheduler.py:3 in <lambda>", "AttributeError"]),
        (
            "return Plan(waiting)",
            "return Plan([*waiting, *waiting])",
            ["scheduler.py:2 in plan", "Shortest.plan, call 1 at", "names <request 0"],
        ),
        ("return Plan(waiting)", "return Plan(())", ["scheduler.py:2 in plan", "Shortest left", "for ever"]),
    ],
)
def test_a_fault_of_a_scheduler_is_told_by_file_and_line(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, shown: list[str]
) -> None:
    """Of its file, not of the router's."""
    Path("scheduler.py").write_text(SCHEDULER.replace(old, new))
    assert main(["run", "--scheduler", "scheduler.py", "--engine", "vllm", *SMALL]) == 1
    lines = " ".join(line.strip() for line in capsys.readouterr().err.splitlines())
    for text in shown:
        assert text in lines


def test_a_fault_of_an_autoscaler_is_told_by_file_and_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what the cluster refuses of it."""
    Path("scaler.py").write_text(AUTOSCALER.replace("1 + cluster.queued", "-1"))
    assert main(["run", "--autoscaler", "scaler.py", *SMALL]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scaler.py:2 in target"
    assert lines[-1] == "Autoscaler.target, call 1 at 15.000 s"
    assert "the autoscaler returned -1" in " ".join(lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no policy is given; expected --router, --scheduler or --autoscaler"),
        (["run", "--scheduler", "best"], "no scheduler is called 'best'; expected a file (scheduler.py"),
        (["run", "--scheduler", "best"], "or one of FirstComeFirstServed (fcfs), OracleShortestRemaining"),
        (["run", "--autoscaler", "llq"], "no autoscaler is called 'llq'; expected a file (autoscaler.py"),
        (
            ["run", "--autoscaler", "scheduler.py"],
            "has none; expected a class Autoscaler with a method target",
        ),
        (["run", "--scheduler", "fcfs"], "a batch scheduler with engine='sarathi'; expected engine='vllm'"),
        (
            ["run", "--autoscaler", "Fixed"],
            "missing a required argument: 'replicas'; expected Fixed(replicas",
        ),
        (["run", "--autoscaler", "Fixed(2)"], "cannot be made: expected keywords"),
        (["run", "--autoscaler", "Fixed(replicas="], "the autoscaler 'Fixed(replicas=' cannot be made"),
        (["run", "--autoscaler", "Fixed(replicas=0)"], "replicas=0; expected a whole number from 1"),
        (
            ["run", "--router", "llq", "--max-replicas", "3", "--load-time", "2"],
            "--max-replicas 3, --load-time 2.0 without an autoscaler; expected --autoscaler",
        ),
        (
            ["run", "--autoscaler", "QueueLength", "--interval", "-1"],
            "interval=-1.0; expected a number from 0.001",
        ),
        (["compare", "--layer", "scheduler", "fcfs", "fcfs"], "a scheduler is given twice"),
        (
            ["compare", "llq", "rr", "--router", "hra"],
            "--router HeadRoomAdmission where routers are compared",
        ),
    ],
)
def test_a_wrong_argument_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """In one sentence, with what would be right."""
    assert main([*arguments, *SMALL]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
