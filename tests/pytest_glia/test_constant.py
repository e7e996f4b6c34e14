"""A metric that is the same in every replication shows nothing before there are enough of them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.project import Project, spec

BODY = """
def rare(answer, seed):
    return {"steps": answer(), "lost": 0, "load": answer() * (10 + seed % 97)}


def slow():
    return 20


def test_one_number(glia):
    assert glia.measure(lambda answer, seed: 0.0) < 0.01


def test_beside_others(glia):
    assert glia.measure(rare, metric="lost") < 0.1


def test_ratio(glia):
    assert glia.compare(rare, against=slow, metric="steps").reduction > 0.4


def test_ratio_of_what_varies(glia):
    assert glia.compare(rare, against=slow, metric="load").reduction > 0.4


def test_no_difference(glia):
    assert glia.compare(rare, against=lambda: 10, metric="load").increase < 0.02
"""


def outcomes(folder: Path, replications: int) -> dict[str, str]:
    """What the verdict of each spec is."""
    project = Project(folder).write(spec("def answer():\n    return 10\n", BODY))
    ran = project.pytest("--glia-report=verdicts", "-o", f"glia_replications={replications}")
    tests = json.loads((folder / "verdicts/glia.json").read_text())["tests"]
    assert len(tests) == 5, ran.out
    return {test["nodeid"].rpartition("::")[2]: test["checks"][0]["outcome"] for test in tests}


def test_few_equal_values_show_nothing(tmp_path: Path) -> None:
    """Five that are equal may be luck, whatever else varies or does not: the sixth may have the event."""
    assert set(outcomes(tmp_path, 5).values()) == {"not shown"}


def test_enough_equal_values_are_shown(tmp_path: Path) -> None:
    """Six replications at 95 %: half of all, at least, measure the same."""
    assert set(outcomes(tmp_path, 6).values()) == {"shown"}


AT_THE_THRESHOLD = """
def bins(answer, seed):
    return {"bins": answer(), "bins_per_volume": answer() * (7 + seed % 97) / (10 * (7 + seed % 97))}


def most():
    return 10


def test_at_least(glia):
    assert glia.compare(bins, against=most, metric="bins").reduction >= 0.1


def test_at_least_of_what_varies(glia):
    assert glia.compare(bins, against=most, metric="bins_per_volume").reduction >= 0.1


def test_more(glia):
    assert glia.compare(bins, against=most, metric="bins").reduction > 0.1


def test_less(glia):
    assert glia.compare(bins, against=most, metric="bins").ratio < 0.9


def test_a_third(glia):
    assert glia.compare(bins, against=lambda: 27, metric="bins").ratio <= 1 / 3
"""


def test_a_constant_ratio_at_its_threshold(tmp_path: Path) -> None:
    """9 of 10 are 10 % fewer, neither more nor less, whatever the last digit of a logarithm is."""
    project = Project(tmp_path).write(spec("def answer():\n    return 9\n", AT_THE_THRESHOLD))
    project.pytest("--glia-report=verdicts", "-o", "glia_replications=10")
    tests = json.loads((tmp_path / "verdicts/glia.json").read_text())["tests"]
    found = {test["nodeid"].rpartition("::")[2]: test["checks"][0]["outcome"] for test in tests}
    assert found == {
        "test_at_least": "shown",
        "test_at_least_of_what_varies": "shown",
        "test_more": "refuted",
        "test_less": "refuted",
        "test_a_third": "shown",
    }
