"""Profiles fitted to measured engine steps: found again, from checked tables, gaps filled and marked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sim import costs
from sim.__main__ import main
from sim.costs import toml
from sim.costs.recipes import Recipe, make
from sim.costs.sources.steps import COLUMNS, read

Floats = NDArray[np.float64]


def steps_of(profile: costs.Profile, count: int, noise: float, seed: int) -> list[list[float]]:
    """Steps as a server has them, up to 200 decodes and three prefill chunks, with noise on their times."""
    rng = np.random.default_rng(seed)
    tables = profile.tables(2048, 256)
    rows = []
    for _ in range(count):
        decodes = int(rng.integers(1, 200)) if rng.random() < 0.9 else 0
        contexts = np.exp(rng.normal(6.5, 0.8, decodes)).astype(int) + 1
        requests = [(1, int(context) - 1, True) for context in contexts]
        left = 2048 - decodes
        if not decodes or rng.random() < 0.4:
            for _ in range(rng.integers(1, 4)):
                chunk = min(left, int(np.exp(rng.normal(5.8, 1))) + 1)
                if chunk:
                    requests.append((chunk, int(rng.choice([0, 0, 512, 2048])), False))
                left -= chunk
        batch = costs.Batch.of(requests)
        rows.append([*batch, costs.step_seconds(tables, *batch) * rng.lognormal(0, noise)])
    return rows


def write(path: Path, rows: Sequence[Sequence[float]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def misses(profile: costs.Profile, rows: Sequence[Sequence[float]]) -> Floats:
    """Relative errors of a profile's times of those steps."""
    tables = profile.tables(2048, 256)
    return np.array([costs.step_seconds(tables, *map(int, row[:-1])) / row[-1] - 1 for row in rows])


def test_a_step_is_described_by_what_it_computes() -> None:
    """Two decodes after 9 and 19 tokens, and chunks of 4 after 0 and of 3 after 8."""
    batch = costs.Batch.of([(1, 9, True), (4, 0, False), (1, 19, True), (3, 8, False)])
    assert batch == costs.Batch(
        tokens=9, sequences=4, decodes=2, context=30, deepest=20, pairs=4 * 5 + 3 * 20, depth=11, longest=4
    )
    assert costs.Batch.of([]) == costs.Batch(0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("gpu", ["a100-80g", "h100", "rtx-4090"])
def test_a_profile_is_found_again(gpu: str, tmp_path: Path) -> None:
    """From 800 steps with 5 % of noise, other steps of the same profile are told within 3 % on the mean."""
    profile = costs.profile(gpu, "llama-3-8b")
    write(tmp_path / "steps.csv", steps_of(profile, 800, 0.05, 1))
    fitted = make(Recipe(gpu, "llama-3-8b", "steps", "steps.csv"), tmp_path)
    assert fitted.profile.marks() == ""
    assert abs(fitted.errors["step"].bias) < 0.01
    errors = misses(fitted.profile, steps_of(profile, 500, 0.0, 2))
    assert np.abs(errors).mean() < 0.03
    assert abs(errors.mean()) < 0.01


def test_what_no_step_shows_is_from_the_data_sheet(tmp_path: Path) -> None:
    """Prefills where all steps decode, decodes where all prefill; marked. Without a sheet: refused."""
    rows = steps_of(costs.profile("h100", "llama-3-8b"), 400, 0.0, 1)
    write(tmp_path / "decodes.csv", [row for row in rows if not row[7]])
    write(tmp_path / "prefills.csv", [row for row in rows if not row[2]])
    write(tmp_path / "mixed.csv", [row for row in rows if row[2] and row[7]])
    roofline = make(Recipe("h100", "llama-3-8b", "roofline", ""), tmp_path).profile
    decodes, prefills, mixed = (
        make(Recipe("h100", "llama-3-8b", "steps", f"{name}.csv"), tmp_path).profile
        for name in ("decodes", "prefills", "mixed")
    )
    assert decodes.marks() == "roofline: prefill; assumed: mixed"
    assert decodes.prefill_terms == roofline.prefill_terms
    assert prefills.marks() == "roofline: decode; assumed: mixed, straggler"
    assert prefills.decode_rows == roofline.decode_rows
    assert mixed.marks() == "assumed: decode"
    assert mixed.decode_rows == mixed.mixed_rows
    with pytest.raises(ValueError, match="no step has prefills, and gpu='cpu' with model='tiny' has no data"):
        make(Recipe("cpu", "tiny", "steps", "decodes.csv"), tmp_path)


def test_eager_steps_are_not_padded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not while they are fitted, nor by the profile, whose file says so."""
    write(tmp_path / "steps.csv", steps_of(costs.profile("h100", "llama-3-8b"), 100, 0.0, 1))
    arguments = ["fit", "--source", "steps", "--gpu", "cpu", "--model", "tiny", "--folder", "steps.csv"]
    assert main([*arguments, "--data", str(tmp_path), "--eager", "--out", str(tmp_path)]) == 0
    assert "step of decode" in capsys.readouterr().out
    profile = toml.read(tmp_path / "cpu__tiny__tp1.toml")
    assert not profile.cuda_graphs
    assert toml.text(profile) == (tmp_path / "cpu__tiny__tp1.toml").read_text()
    assert main(["fit", "--eager"]) == 1
    assert "--eager with --source shipped; expected --source steps" in " ".join(
        capsys.readouterr().err.split()
    )


GOOD = {
    "tokens": 13,
    "sequences": 4,
    "decodes": 2,
    "context": 30,
    "deepest": 20,
    "pairs": 200,
    "depth": 14,
    "longest": 7,
    "seconds": 0.01,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens is '0'; expected a whole number from 1"),
        ({"tokens": "many"}, "tokens is 'many'; expected a whole number from 1"),
        ({"sequences": 14}, "sequences is '14'; expected a whole number from 1 to 13"),
        ({"decodes": 5}, "decodes is '5'; expected a whole number from 0 to 4"),
        ({"decodes": 4}, "tokens, sequences and decodes are 13, 4 and 4; expected a token for each decode"),
        ({"context": 1}, "context is '1'; expected a whole number from 2"),
        ({"deepest": 14}, "deepest is '14'; expected a whole number from 15 to 30"),
        ({"longest": 5}, "longest is '5'; expected a whole number from 6 to 11"),
        ({"depth": 6}, "depth is '6'; expected a whole number from 7"),
        ({"pairs": 400}, "pairs is '400'; expected a whole number from 22 to 319"),
        ({"seconds": 0}, "seconds is '0'; expected seconds above 0"),
        ({"seconds": "nan"}, "seconds is 'nan'; expected seconds above 0"),
        ({"seconds": "inf"}, "seconds is 'inf'; expected seconds above 0"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    """With file, line and range."""
    path = write(tmp_path / "steps.csv", [list(GOOD.values())] * 30)
    assert len(read(path)) == 30
    bad = list((GOOD | change).values())
    write(path, [list(GOOD.values()), bad])  # type: ignore[list-item]
    with pytest.raises(ValueError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3: {message}")


def test_a_table_that_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    """Not there, without a column, or too short."""
    with pytest.raises(FileNotFoundError, match="the table of engine steps is not at"):
        read(tmp_path / "none.csv")
    path = write(tmp_path / "steps.csv", [list(GOOD.values())] * 3)
    with pytest.raises(ValueError, match=r"steps\.csv has 3 steps; expected at least 20"):
        read(path)
    path.write_text("tokens,seconds\n1,2\n")
    with pytest.raises(ValueError, match=r"has no column sequences, decodes, .* expected a CSV table with"):
        read(path)
