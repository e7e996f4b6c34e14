"""A metric that is the same in every replication: by necessity, or as far as one has seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.project import Project, spec

BODY = """
def deterministic(answer, seed):
    return {"steps": answer(), "lost": 0}


def rare(answer, seed):
    return {"steps": answer(), "lost": 0, "load": answer() * (10 + seed % 97)}


def slow():
    return 20


def test_deterministic(glia):
    assert glia.measure(deterministic, metric="lost") < 0.1


def test_deterministic_ratio(glia):
    assert glia.compare(deterministic, against=slow, metric="steps").reduction > 0.4


def test_not_seen(glia):
    assert glia.measure(rare, metric="lost") < 0.1


def test_not_seen_ratio(glia):
    assert glia.compare(rare, against=slow, metric="steps").reduction > 0.4


def test_ratio_that_holds(glia):
    assert glia.compare(rare, against=slow, metric="load").reduction > 0.4


def test_no_difference(glia):
    assert glia.compare(rare, against=lambda: 10, metric="steps").increase < 0.02
"""


def outcomes(folder: Path, replications: int) -> dict[str, str]:
    """What the verdict of each spec is."""
    project = Project(folder).write(spec("def answer():\n    return 10\n", BODY))
    ran = project.pytest("--glia-json=verdicts.json", "-o", f"glia_replications={replications}")
    tests = json.loads((folder / "verdicts.json").read_text())["tests"]
    assert len(tests) == 6, ran.out
    return {test["nodeid"].rpartition("::")[2]: test["checks"][0]["outcome"] for test in tests}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Five replications: too few for equal values to show anything by themselves."""
    return outcomes(tmp_path_factory.mktemp("few"), 5)


def test_deterministic_specs_are_shown_by_a_few_replications(few: dict[str, str]) -> None:
    """Where no metric depends on the seed, the replications are all one run."""
    assert few["test_deterministic"] == few["test_deterministic_ratio"] == "shown"


def test_event_that_was_not_seen_is_not_excluded(few: dict[str, str]) -> None:
    """Where other metrics vary, five equal values may be luck, alone or as a ratio."""
    assert few["test_not_seen"] == few["test_not_seen_ratio"] == "not shown"


def test_ratio_that_holds_while_its_parts_vary_is_shown(few: dict[str, str]) -> None:
    """Half in every pair of different loads, or the same as the baseline in each, is no luck."""
    assert few["test_ratio_that_holds"] == few["test_no_difference"] == "shown"


def test_enough_equal_values_are_shown(tmp_path: Path) -> None:
    """Six replications at 95 %: half of all, at least, measure the same."""
    assert set(outcomes(tmp_path, 6).values()) == {"shown"}
