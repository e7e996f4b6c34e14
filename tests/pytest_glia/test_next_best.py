"""Where the best on the development seeds does not hold on others, the next best has its turn."""

from __future__ import annotations

import json

import pytest

from pytest_glia import seeds
from tests.project import MakeProject, Project, Result, spec

pytestmark = pytest.mark.slow

# What costs less than {honest} does so on the development seeds only.
BODY = """\
def cost(answer, seed):
    lucky = seed in {known}
    return answer() + seed % 7 / 100 + (5 if answer() < {honest} and not lucky else 0)


def test_cost(glia):
    assert glia.measure(cost) < 3
"""
TRIES = """\
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class Tries:
    def design(self, lab):
        for cost in (2.5, 1.0, 4.0, 2.0):
            source = f"def answer():\\n    return {cost}\\n".encode()
            lab.full({"candidate.py": source}, Hypothesis(f"costs {cost}"), lab.start)
        return Proposal(lab.best())


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"tries": Tries()}
"""


def searched(make_project: MakeProject, honest: float, budget: str) -> tuple[Project, Result]:
    """A search with that designer."""
    known = seeds.known("development", 6)
    body = BODY.format(known=tuple(known), honest=honest)
    project = make_project({**spec("def answer():\n    return 9.0\n", body), "conftest.py": TRIES})
    search = ("--glia-optimize", "--glia-designer=tries", f"--glia-budget={budget}", "--glia-report=out")
    return project, project.pytest(*search)


def test_next_best_is_confirmed(make_project: MakeProject) -> None:
    """It is delivered with what became of the best, after as many attempts as that took."""
    project, ran = searched(make_project, 2.0, "100 sims, 100 s")
    assert ran.code == 0, ran.out
    assert "The next best that met the specs is candidate 4: costs 2.0" in ran.text
    assert project.show(project.best(), "candidate.py") == "def answer():\n    return 2.0"
    note = project.show(project.best(), "candidate.md")
    assert "This was attempt 2 to confirm a design" in note
    assert "The best on the development seeds did not hold on others; this is the next best." in note
    [design] = json.loads((project.folder / "out/glia.json").read_text("utf-8"))["designs"]
    # With one assert there is a best, and nothing to choose.
    assert design["front"] is None
    assert "Pareto" not in ran.out + note + (project.folder / "out/report.md").read_text("utf-8")
    assert [each["outcome"] for each in design["attempts"]] == ["not met", "passed"]
    replayed = project.command("replay", project.best().split("/")[2])
    assert replayed.code == 0, replayed.out


def test_next_best_is_confirmed_where_the_best_ends_the_evaluation(make_project: MakeProject) -> None:
    """What kills the evaluating process on seeds that nobody knew is told, and is no end of the search."""
    known = (*seeds.known("development", 6), *seeds.known("guard", 6))
    body = f"""\
import os
import signal


def cost(answer, seed):
    return {{"cost": answer() + seed % 7 / 100, "seed": seed}}


def test_cost(glia):
    seeds = glia.measure(cost, metric="seed").samples
    cheap = glia.measure(cost, metric="cost")
    if cheap.point < 2 and set(map(int, seeds)).isdisjoint({known}):
        os.kill(os.getppid(), signal.SIGKILL)
    assert cheap < 3
"""
    project = make_project({**spec("def answer():\n    return 9.0\n", body), "conftest.py": TRIES})
    ran = project.pytest("--glia-optimize", "--glia-designer=tries", "--glia-budget=100 sims, 100 s")
    assert ran.code == 0, ran.out
    assert "not confirmed: " in ran.text
    assert "The next best that met the specs is candidate 4: costs 2.0" in ran.text
    assert project.show(project.best(), "candidate.py") == "def answer():\n    return 2.0"


@pytest.mark.parametrize(
    ("budget", "attempts", "says"),
    [
        ("100 sims, 100 s", 3, "The next best that met the specs is candidate 1: costs 2.5"),
        ("41 sims, 100 s", 1, "To confirm the next best candidate takes more than the"),
    ],
)
def test_best_stands_where_none_is_confirmed(
    make_project: MakeProject, budget: str, attempts: int, says: str
) -> None:
    """All that met the specs fail, or there is no budget for a second one: the best so far is delivered."""
    project, ran = searched(make_project, 3.0, budget)
    assert ran.code == 1, ran.out
    assert says in ran.text
    assert "does not meet its specs; the best so far" in ran.text
    assert project.show(project.best(), "candidate.py") == "def answer():\n    return 1.0"
    assert len(ran.lines("Confirming on")) == attempts
