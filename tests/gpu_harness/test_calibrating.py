"""Calibration: shapes that fit, a known profile found again, and what is said of a wrong setting."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("aiohttp", reason='the harness needs it: pip install "pytest-glia[harness]"')

from gpu_harness import Launch, Testbed
from gpu_harness.__main__ import main
from gpu_harness.calibrating import fitted, seconds_of
from gpu_harness.load import LoadError, Target
from gpu_harness.shaping import OUTPUT, Room, drive, shapes
from sim.costs import Batch, DecodeRow, Prefill, Profile, toml
from sim.costs.sources.steps import COLUMNS
from tests.gpu_harness.test_testbed import trivial
from tests.gpu_harness.upstream import Upstream, play

TRUE = Profile(
    gpu="cpu",
    model="tiny",
    linear_points=((1, 0.010), (64, 0.040), (512, 0.300)),
    head_points=((1, 0.0005), (32, 0.016)),
    decode_rows=(DecodeRow(1, 0.0, (2e-6,)), DecodeRow(32, 0.0, (1e-6,))),
    prefill_terms=Prefill(per_pair=3e-7, fixed=0.001),
    cuda_graphs=False,
)


def steps(count: int, noise: float, seed: int) -> NDArray[np.float64]:
    """Of the true profile, as small servers have them; of the noise half the steps have none, and the others
    take longer, as on a machine that others use."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        decodes = int(rng.integers(0, 32))
        requests = [(1, int(rng.integers(1, 400)), True) for _ in range(decodes)]
        if not decodes or rng.random() < 0.4:
            requests.append((int(np.exp(rng.uniform(0, 6))) + 1, 0, False))
        rows.append([*Batch.of(requests), 1.0])
    found = np.array(rows)
    found[:, -1] = seconds_of(TRUE, found) * (
        1 + noise * rng.exponential(1, count) * rng.integers(0, 2, count)
    )
    return found


@pytest.mark.slow
def test_a_known_profile_is_found_again() -> None:
    """From 1,000 steps without noise others of them are told within 1.5 % on the mean, and in sum."""
    profile, lines = fitted(steps(1000, 0.0, 1), gpu="cpu", model="tiny", eager=True, source="test")
    others = steps(500, 0.0, 2)
    told = seconds_of(profile, others)
    assert np.abs(told / others[:, -1] - 1).mean() < 0.015
    assert told.sum() == pytest.approx(others[:, -1].sum(), rel=0.005)
    assert [line.split()[0] for line in lines] == ["all", "decodes", "prefills", "both"]
    assert not profile.cuda_graphs
    assert profile.marks() == ""


@pytest.mark.slow
def test_the_sum_of_steps_is_right_where_some_take_longer() -> None:
    """Half of the steps take 40 % longer on the mean: a profile near their median would be 20 % short in sum;
    that of each half is not more than 3 % off for the other half, and says so."""
    profile, lines = fitted(steps(1500, 0.4, 1), gpu="cpu", model="tiny", eager=True, source="test")
    others = steps(1500, 0.4, 2)
    assert seconds_of(profile, others).sum() == pytest.approx(others[:, -1].sum(), rel=0.03)
    assert abs(float(lines[0].split()[-1].rstrip("%"))) < 3


def test_a_fitted_profile_is_the_same_in_its_file(tmp_path: Path) -> None:
    """Scaling changes every part, so what is read again says the same of the steps."""
    profile, _ = fitted(steps(400, 0.4, 1), gpu="cpu", model="tiny", eager=True, source="test")
    path = tmp_path / "cpu.toml"
    path.write_text(toml.text(profile), "utf-8")
    others = steps(100, 0.0, 2)
    assert seconds_of(toml.read(path), others) == pytest.approx(seconds_of(profile, others), rel=1e-3)


@pytest.mark.parametrize(
    "room", [Room(32, 512, 1280, 1024), Room(1, 8, 64, 32), Room(200, 8192, 35_000, 4096)]
)
def test_shapes_fit_and_reach_the_limits(room: Room) -> None:
    """No shape needs more than the cache, no request is too long; batches go to the most requests that fit,
    prompts to the longest, alone and beside decodes."""
    found = shapes(room, np.random.default_rng(1))
    for shape in found:
        load = shape.workload(0.1)
        tokens = load.prompt_tokens + load.output_tokens
        assert load.prompt_tokens.min() >= 1
        assert tokens.max() <= room.longest
        assert (tokens.max() if shape.batch == 0 else tokens.sum()) <= room.kv_tokens
        assert len(load) == shape.batch + len(shape.prompts)
    fits = int(0.9 * room.kv_tokens) // (1 + 2 * OUTPUT)
    batches = {shape.batch for shape in found}
    assert {batch for batch in (1, 2, 4, 8, 16) if batch <= min(room.sequences, fits)} < batches | {64}
    longest = max(max(shape.prompts) for shape in found if shape.batch == 0)
    assert longest >= 0.85 * min(room.longest, room.kv_tokens)
    assert room.sequences == 1 or any(shape.batch and shape.prompts for shape in found)


@pytest.mark.parametrize("name", ["sequences", "budget", "kv_tokens", "longest"])
def test_no_room_for_any_step(name: str) -> None:
    """Which limit leaves none."""
    limits = {"sequences": 4, "budget": 64, "kv_tokens": 512, "longest": 128} | {name: 0}
    with pytest.raises(ValueError, match=rf"{name}=0; expected at least \d"):
        Room(**limits)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that logs no steps."""
    with Testbed(trivial(replicas=1)) as testbed:
        testbed.start()
        yield testbed.urls[0]


LIMITS = ["--max-num-seqs", "2", "--max-num-batched-tokens", "64", "--max-model-len", "64"]
LIMITS += ["--seconds", "0", "--gpu", "cpu"]


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command, which must fail, says on one line."""
    assert main(["calibrate", *LIMITS, *arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_which_servers_must_be_clear(capsys: pytest.CaptureFixture[str]) -> None:
    """A model or URLs, a step log for each URL, and a name of a profile."""
    out = ["--out", "p.toml"]
    assert "--model None and --url None; expected one of the two" in said(out, capsys)
    both = said([*out, "--model", "m", "--url", "http://h:1", "--steps", "s.csv"], capsys)
    assert "--model m and --url http://h:1; expected one of the two: a model to start servers with" in both
    none = said([*out, "--url", "http://h:1"], capsys)
    assert "0 --steps with 1 --url; expected the step log of each running server" in none
    early = said([*out, "--url", "http://h:1", "--steps", "s.csv"], capsys)
    assert "the step log of the server at http://h:1 is not at 's.csv'" in early
    short = said([*out, "--model", "m", "--seconds", "-1"], capsys)
    assert "--seconds -1; expected a number of at least 0" in short
    name = said(["--model", "m", "--out", "p.txt"], capsys)
    assert "--out p.txt; expected a name that ends in .toml" in name


@pytest.mark.slow
def test_a_server_must_log_its_steps(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No log, or the log of another server: both are told, with what to do."""
    log = tmp_path / "steps.csv"
    arguments = ["--out", str(tmp_path / "p.toml"), "--url", server, "--steps", str(log), "--name", "tiny"]
    missing = said(arguments, capsys)
    assert f"the step log of the server at {server} is not at" in missing
    assert "start it with GLIA_STEP_LOG=FILE and --scheduler-cls gpu_harness.step_log" in missing
    with log.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *[[*map(int, row[:-1]), row[-1]] for row in steps(40, 0.0, 1)]])
    other = said(arguments, capsys)
    assert f"has got 0 steps of the server at {server} while it was driven; expected at least 20" in other
    assert not (tmp_path / "p.toml").exists()


def test_a_request_that_fails_ends_it() -> None:
    """With what the server said."""

    async def scenario() -> None:
        upstream = Upstream()
        await upstream.start()
        upstream.error = 500
        try:
            with pytest.raises(LoadError, match=r"a request of the calibration failed: 500: .*so"):
                await drive([Target(upstream.url, "tiny")], Room(2, 64, 512, 64), 0.0, rounds=1)
        finally:
            await upstream.stop()

    play(scenario)


def test_steps_are_logged_by_vllm_alone() -> None:
    """Neither another command nor a batch scheduler logs them."""
    with pytest.raises(ValueError, match="step_log=True with a scheduler or command="):
        trivial(step_log=True).commands(None, Path())
    with pytest.raises(ValueError, match="step_log=True with a scheduler or command="):
        Launch(model="m", step_log=True).commands("fcfs", Path())
