"""A run's command, repeated: as it was given, at the commit with which it began."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.project import Project, spec

pytestmark = pytest.mark.slow

# One candidate is tried, and delivered.
ONE = """\
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class One:
    def design(self, lab):
        sources = {"candidate.py": b"def answer():\\n    return 2.0\\n"}
        return Proposal(lab.full(sources, Hypothesis("two"), lab.start).evaluation)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"one": One()}
"""
BODY = """\
def cost(answer, seed):
    return answer() + seed % 7 / 100


def test_cost(glia):
    assert glia.measure(cost) < 3
"""
ADDOPTS = "-o glia_replications=5 --glia-designer=one --glia-report='../a report'"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project with a run whose designer and number of replications PYTEST_ADDOPTS gave."""
    folder = tmp_path_factory.mktemp("repeating") / "project"
    folder.mkdir()
    project = Project(folder).write({**spec("def answer():\n    return 9.0\n", BODY), "conftest.py": ONE})
    project.commit()
    result = project.pytest("--glia-optimize", PYTEST_ADDOPTS=ADDOPTS)
    assert result.code == 0, result.out
    return project, project.best().split("/")[2]


@pytest.mark.parametrize("now", ["", "-o glia_replications=4"])
def test_replay_repeats_what_pytest_addopts_gave(ran: tuple[Project, str], now: str) -> None:
    """The same commits, whatever the variable is by now; the report that it named is not written again."""
    project, run = ran
    shutil.rmtree(project.folder.parent / "a report", ignore_errors=True)
    again = replace(project, environment={"PYTEST_ADDOPTS": now}).command("replay", run)
    assert again.code == 0, again.out
    assert not (project.folder.parent / "a report").exists()


@pytest.mark.parametrize("command", ["replay", "verify"])
def test_base_that_git_has_deleted_is_a_sentence(
    ran: tuple[Project, str], command: str, tmp_path: Path
) -> None:
    """When nothing leads to it any more: which commit, of which repository, and what to do."""
    project, run = ran
    gone = Project(tmp_path / "gone")
    shutil.copytree(project.folder, gone.folder)
    base = gone.git("rev-parse", "--short=9", "HEAD")
    gone.git("checkout", "-q", "--orphan", "other")
    gone.commit()
    gone.git("branch", "-q", "-D", *(each for each in gone.branches() if each != "other"))
    gone.git("reflog", "expire", "--expire=now", "--all")
    gone.git("gc", "-q", "--prune=now")
    said = gone.command(command, run)
    assert said.code == 4, said.out
    assert f"the commit {base}, with which the run began, is not in the repository {gone.folder}" in said.text
    assert "fetch it from where it was pushed, or begin a new run" in said.text
