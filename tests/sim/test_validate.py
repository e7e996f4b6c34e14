"""The simulator against measured runs: how they are read, what the report says, the errors promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import validate
from sim.__main__ import main
from sim.ground_truth import RUNS, Times, read_cases

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_runs = pytest.mark.skipif(
    not (DATA / RUNS).is_dir(), reason=f"the measured vLLM runs are not at {DATA / RUNS}"
)


def write_run(data: Path, name: str = "RTX4090__Llama-3.1-8B", **engine: Any) -> None:
    """A run of three requests that had their first token after 1 s and one a second after that, on a clock of
    its own."""
    trace = [
        {"input_toks": 20, "output_toks": 3, "arrival_time_ns": row * 10**9, "input_tok_ids": list(range(20))}
        for row in range(3)
    ]
    rows = [
        {
            "input_toks": 20,
            "output_toks": 3,
            "arrival_time": 1e9 + row,
            "queued_ts": 500.0 + row,
            "first_token_ts": 501.0 + row,
            "last_token_ts": 503.0 + row,
        }
        for row in range(3)
    ]
    meta = {
        "model": "meta-llama/Llama-3.1-8B",
        "dataset_path": "workloads/small.jsonl",
        "engine_kwargs": {
            "tensor_parallel_size": 1,
            "data_parallel_size": 1,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 64,
            **engine,
        },
    }
    folder = data / RUNS / name / "vllm"
    folder.mkdir(parents=True)
    (data / "traces").mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    for path, lines in ((folder / "requests.jsonl", rows), (data / "traces" / "small.jsonl", trace)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_is_read(tmp_path: Path) -> None:
    """Two clocks become one; settings that meta.json lacks are vLLM's defaults and say so."""
    write_run(tmp_path)
    (case,), refused = read_cases(tmp_path)
    assert refused == []
    assert case.measured.ttft == pytest.approx([1.0] * 3)
    assert case.measured.tpot == pytest.approx([1.0] * 3)
    assert case.measured.response == pytest.approx([3.0] * 3)
    assert (case.settings.kv_blocks, case.settings.max_num_seqs) == (2588, 8)
    assert case.settings.async_scheduling
    assert "2,588 KV blocks from the GPU's memory" in case.assumed
    assert case.prefix_keys[0] == case.prefix_keys[1]
    assert [len(keys) for keys in case.prefix_keys] == [1, 1, 1]


def test_what_cannot_be_simulated_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without a profile, or of several servers, does not stop the others."""
    write_run(tmp_path)
    write_run(tmp_path, "B200__Llama-3.1-8B")
    write_run(tmp_path, "H100__Llama-3.1-8B", data_parallel_size=2)
    assert main(["validate", "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "RTX4090__Llama-3.1-8B: profile rtx-4090 llama-3-8b, assumed: cpu" in shown
    assert "NOT within 5%" in shown
    assert "not simulated: B200__Llama-3.1-8B: no cost profile for gpu='b200'" in shown
    assert "not simulated: H100__Llama-3.1-8B: data_parallel_size=2" in shown


def test_the_report_shows_each_error(tmp_path: Path) -> None:
    """A simulated run of half the measured times is 50 % off everywhere; ablations are one line each."""
    write_run(tmp_path)
    (case,), _ = read_cases(tmp_path)
    served = replace(validate.simulate(case), times=Times(*(times / 2 for times in case.measured)))
    table = list(validate._table(case, served))
    assert all(line.count("-50.0%") == 4 for line in table[1:4])
    assert "the worst is 50.0%" in table[-1]
    assert len(list(validate._ablations(case))) == 12


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence says where they should be."""
    assert main(["validate", "--data", str(tmp_path)]) == 1
    assert f"no measured runs at '{tmp_path}" in " ".join(capsys.readouterr().err.split())


def test_one_output_token_has_no_time_between_tokens() -> None:
    """It does not count for TPOT."""
    times = Times.of(np.zeros(2), np.ones(2), np.array([1.0, 3.0]), np.array([1, 3]))
    assert np.isnan(times.tpot[0])
    assert times.tpot[1] == 1.0


RUNS_READ = ["RTX4090__Llama-3.1-8B", "RTXPRO6000__Llama-3.1-8B"]


@needs_runs
@pytest.mark.parametrize("engine", validate.ENGINES)
@pytest.mark.parametrize("run", RUNS_READ)
def test_within_five_percent_of_vllm(run: str, engine: str) -> None:
    """Mean and P90 of TTFT, TPOT and response time, profile fitted to operator times only."""
    case = next(case for case in read_cases(DATA)[0] if case.name == run)
    errors = validate._errors(case, validate.ENGINES[engine](case))
    for (metric, statistic), (measured, simulated) in errors.items():
        if statistic in validate.PROMISED:
            assert simulated == pytest.approx(measured, rel=validate.WITHIN), (metric, statistic)


@needs_runs
@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("run", RUNS_READ)
def test_both_engines_give_the_same_run(run: str, caching: bool) -> None:
    """Without asynchronous scheduling the plain engine and the compiled one agree on every bit."""
    case = next(case for case in read_cases(DATA)[0] if case.name == run)
    in_step = replace(case.settings, async_scheduling=False, enable_prefix_caching=caching)
    case = replace(case, settings=in_step)
    plain, compiled = validate.simulate(case, hide_cpu=True), validate.ENGINES["cluster"](case)
    for one, other in zip(plain.times, compiled.times, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (plain.steps, plain.preemptions) == (compiled.steps, compiled.preemptions)
    assert plain.cached_tokens == compiled.cached_tokens
