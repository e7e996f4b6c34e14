"""Both commands, small, on real vLLM servers: steps measured and fitted, then the two testbeds compared."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason='the harness needs it: pip install "pytest-glia[harness]"')

from gpu_harness.__main__ import main
from sim.costs import Batch, step_seconds, toml
from tests.gpu_harness.tiny_model import LAUNCH, make_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def test_calibrate_then_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile of the tiny model, all of it measured, in which more tokens take longer; half of the steps
    tell the sum of the others within 25 %, on however busy a machine. With it one load under two routers,
    twice: the same requests on both testbeds, times of the same size, and a ranking."""
    model, profile, out = make_model(tmp_path / "tiny"), tmp_path / "cpu.toml", tmp_path / "runs.csv"
    servers = ["--model", str(model), "--kv-blocks", "31", "--block-size", "32", "--max-num-seqs", "8"]
    servers += ["--max-num-batched-tokens", "256", "--max-model-len", "512", f"--options={' '.join(LAUNCH)}"]
    measured = ["calibrate", *servers, "--gpu", "cpu", "--eager", "--seconds", "0", "--out", str(profile)]
    assert main(measured) == 0
    told = capsys.readouterr().out
    assert "half of them beside busy neighbours" in told
    (everything,) = (line for line in told.splitlines() if line.startswith("  all"))
    assert abs(float(everything.split()[-1].rstrip("%"))) < 25
    found = toml.read(profile)
    assert found.marks() == ""
    assert (found.model, found.cuda_graphs) == ("tiny", False)
    tables = found.tables(256, 8)
    assert 1e-4 < step_seconds(tables, *Batch.of([(1, 50, True)])) < 0.1
    assert step_seconds(tables, *Batch.of([(200, 0, False)])) > step_seconds(
        tables, *Batch.of([(4, 0, False)])
    )

    compared = [
        "validate",
        *servers,
        "--profile",
        str(profile),
        "--rate",
        "5",
        "--duration",
        "2",
        "--seeds",
        "2",
    ]
    compared += ["--workload", "sharegpt_poisson", "--shrink", "16", "--out", str(out), "rr", "llq"]
    assert main(compared) == 0
    told = capsys.readouterr().out
    assert "5 requests/s, 2 seeds" in told
    assert "the servers' steps took" in told
    assert "ranking by response: tau-b" in told
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["policy"]) for row in rows] == [
        ("1", "RoundRobin"),
        ("1", "LeastLoadedQueue"),
        ("2", "LeastLoadedQueue"),
        ("2", "RoundRobin"),
    ]
    for row in rows:
        assert 0.1 < float(row["simulator_response"]) / float(row["servers_response"]) < 5
        assert 0.1 < float(row["steps"]) < 10
