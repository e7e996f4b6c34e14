"""Static rules at work: in a plain run of pytest and in a search, nothing that breaks one is executed."""

from __future__ import annotations

import re

import pytest

from tests.project import MakeProject, Project, spec

MEASURE = """
def run(answer, seed):
    return answer()

def test_it(glia):
    assert glia.measure(run) < 20
"""
READS_A_FILE = "import pathlib\n\npathlib.Path('ran').touch()\n\n\ndef answer():\n    return 10\n"


def test_plain_run_fails_with_the_sentence_and_executes_nothing(make_project: MakeProject) -> None:
    """The spec fails without a traceback, within 80 columns; with the setting it passes."""
    project = make_project(spec(READS_A_FILE, MEASURE), commit=False)
    ran = project.pytest()
    assert ran.code == 1
    assert "1 failed" in ran.out
    said = "candidate.py:1 imports pathlib, which a candidate may not: list pathlib in glia_allow_imports if"
    assert said in ran.text
    failure = ran.out.partition("FAILURES")[2]
    assert max(map(len, failure.splitlines())) <= 80
    assert "pytest_glia/" not in ran.out
    assert not (project.folder / "ran").exists()
    allowed = project.pytest("-o", "glia_allow_imports=pathlib", "-o", "glia_sandbox=off")
    assert allowed.code == 0, allowed.out
    assert (project.folder / "ran").exists()


def test_search_does_not_start_from_such_a_candidate(make_project: MakeProject) -> None:
    """The committed start is judged before it runs: misuse, and no branch."""
    project = make_project(spec(READS_A_FILE, MEASURE.replace("20", "5")))
    ran = project.pytest("--glia-optimize")
    assert ran.code == 4
    assert "candidate.py:1 imports pathlib, which a candidate may not" in ran.text
    assert "correct and commit it, so that there is something to start from" in ran.text
    assert project.branches("glia") == []
    assert not (project.folder / "ran").exists()


CHEAT = """\
import pluggy


class Idea:
    predicts, numbers, defaults = {"value": -1}, {}, {}

    def __init__(self, name, claim, line):
        self.name, self.claim, self.line = name, claim, line

    def called_for(self, evidence):
        return "it is large"

    def apply(self, source, numbers):
        return None if "return 10" not in source else source.replace("    return 10", self.line)


@pluggy.HookimplMarker("glia")
def glia_mechanisms(path, entry, source):
    return [
        Idea("look up", "See who calls.", "    open('ran', 'w')\\n    return 1"),
        Idea("compute", "Fewer are enough.", "    return 2"),
    ]
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A search one of whose ideas breaks a rule, and what it says."""
    project = Project(tmp_path_factory.mktemp("searched"))
    start = "def answer():\n    return 10\n"
    project.write({**spec(start, MEASURE.replace("20", "5")), "conftest.py": CHEAT}).commit()
    ran = project.pytest("--glia-optimize")
    assert ran.code == 0, ran.out
    return project, ran.text


@pytest.mark.slow
def test_search_passes_over_a_proposal_that_breaks_a_rule(searched: tuple[Project, str]) -> None:
    """It is told in the progress, is never executed, and the next idea is delivered."""
    project, text = searched
    assert "uses open, which a candidate may not" in text
    assert list(project.folder.rglob("ran")) == []
    assert "return 2" in project.show(project.best(), "candidate.py")


@pytest.mark.slow
def test_commit_of_the_proposal_tells_the_violation(searched: tuple[Project, str]) -> None:
    """The designer, and whoever reads the branch, sees why it failed."""
    project, _ = searched
    [branch] = project.branches("/1")
    messages = project.git("log", "--format=%B", f"main..{branch}")
    assert re.search(r"\n\nFailed: candidate\.py:\d+ uses open, which a candidate may not: ", messages)
    assert "Result: broken" in messages
