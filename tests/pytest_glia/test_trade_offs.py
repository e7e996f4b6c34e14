"""Specs that pull in two directions: a search keeps and tells all candidates there are to choose from."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_glia import seeds
from tests.project import MakeProject, Project, Result, spec

pytestmark = pytest.mark.slow

# A cache: the larger it is, the fewer look-ups miss it.
BODY = """\
def run(cache, seed):
    misses, memory = cache()
    unlucky = seed not in {known} and (misses, memory) in {unlucky}
    return {{"misses": misses + seed % 7 / 100 + 9 * unlucky, "memory": memory}}


def test_misses(glia):
    assert glia.measure(run, metric="misses") < 5


def test_memory(glia):
    assert glia.measure(run, metric="memory") < 5
"""
DESIGNER = """\
import os
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis

TRIED = {tried}


class Tries:
    def design(self, lab):
        places = {places}
        for number, (name, measured) in enumerate(TRIED):
            source = f"def cache():\\n    return {{measured}}\\n".encode()
            place = places[number % len(places)]
            place.full({{"candidate.py": source}}, Hypothesis(name), lab.start)
            {after}
        return Proposal(lab.best())


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {{"tries": Tries()}}
"""
TRIED = [("middling", (3.0, 2.0)), ("wasteful", (3.1, 4.0)), ("large", (1.0, 4.5)), ("no room", (2.0, 6.0))]
KILLED = """\
if name == "large" and not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), 9)
"""
CONTEXTS = "[lab.context(1, lab.account), lab.context(2, lab.account)]"
START = "def cache():\n    return 9.0, 1.0\n"


@dataclass(frozen=True)
class Searched:
    """A search that tried some caches, with its report."""

    project: Project
    ran: Result

    @property
    def front(self) -> dict[str, Any]:
        """What its report has of the choice."""
        [design] = json.loads((self.project.folder / "out/glia.json").read_text("utf-8"))["designs"]
        found = design["front"]
        assert isinstance(found, dict)
        return found

    @property
    def page(self) -> str:
        """Its report."""
        return (self.project.folder / "out/report.md").read_text("utf-8")

    def named(self, what: str) -> list[str]:
        """The candidates that are so."""
        return [each["name"] for each in self.front["candidates"] if each[what]]


def search(
    project: Project,
    tried: Sequence[tuple[str, tuple[float, float]]],
    *,
    unlucky: Sequence[tuple[float, float]] = (),
    after: str = "pass",
    places: str = "[lab]",
) -> Searched:
    """Search with a designer that tries so much; the unlucky are worse on seeds that it does not know."""
    body = BODY.format(known=tuple(seeds.known("development", 6)), unlucky=unlucky)
    designer = DESIGNER.format(tried=tried, after=after, places=places)
    project.write({**spec(START, body, entry="cache"), "conftest.py": designer}).commit()
    options = ("--glia-optimize", "--glia-designer=tries", "--glia-budget=200 sims", "--glia-report=out")
    ran = project.pytest(*options)
    return Searched(project, project.pytest(*options) if ran.code == -9 else ran)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Two caches between which to choose, one that is worse than both, one that is too large."""
    project = Project(tmp_path_factory.mktemp("trade-offs") / "project")
    project.folder.mkdir()
    return search(project, TRIED)


def test_report_has_what_there_is_to_choose_from(searched: Searched) -> None:
    """Of those that were tried, and the present one: what is in the set, what won, and what each measured."""
    assert searched.ran.code == 0, searched.ran.out
    assert searched.named("winner") == ["large"]
    assert set(searched.named("member")) == {"the candidate as it is", "middling", "large"}
    assert "wasteful" in [each["name"] for each in searched.front["candidates"]]
    [middling] = [each for each in searched.front["candidates"] if each["name"] == "middling"]
    assert (middling["met"], middling["measured"][1]["point"]) == (True, 2.0)
    section = searched.page.partition("### Pareto set")[2].partition("###")[0]
    assert f"`{middling['commit'][:9]}` | `middling` | `{middling['measured'][0]['shown']}`" in section
    assert "wasteful" not in section


def test_picture_has_every_candidate_and_what_is_asked(searched: Searched) -> None:
    """A dot each, a name for each that there is to choose, and a line for either threshold."""
    assert "![one objective against another](pareto-1-2.svg)" in searched.page
    root = ET.parse(searched.project.folder / "out/pareto-1-2.svg").getroot()
    shapes = [each.tag.rpartition("}")[2] for each in root.iter()]
    assert shapes.count("circle") == len(searched.front["candidates"]) == 5
    assert (shapes.count("line"), shapes.count("polyline")) == (2, 2 * 3)
    words = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert {"#1", "#3", "as it is", "asked: < 5", "misses", "memory"} <= set(words)
    assert not {"#2", "#4"} & set(words)


def test_terminal_says_how_many(searched: Searched) -> None:
    """In one line."""
    assert searched.ran.lines("Pareto set") == ["  Pareto set: 3 candidates (--glia-report lists them)"]


def test_note_has_what_another_gains_and_gives_up(searched: Searched) -> None:
    """With the commit that holds it, whose source is the one that was measured."""
    note = searched.project.show(searched.project.best(), "candidate.md")
    section = note.partition("## Other trade-offs")[2].partition("##")[0]
    [line] = [line for line in section.splitlines() if "middling" in line]
    assert "which meets all specs there. Gained: memory 2 instead of 4.5. Given up: misses 3.042 " in line
    assert searched.project.show(line.split("`")[1], "candidate.py") == "def cache():\n    return (3.0, 2.0)"
    assert "wasteful" not in section


def test_killed_search_of_two_contexts_comes_to_the_same_choice(
    searched: Searched, make_project: MakeProject
) -> None:
    """What it had tried before takes part as if nothing had happened, whichever context has tried it."""
    found = search(make_project({}, commit=False), TRIED, after=KILLED, places=CONTEXTS)
    assert "was killed. It goes on" in found.ran.text
    assert choice(found) == choice(searched)
    branches = found.project.branches("glia/")
    tips = {branch.rpartition("/")[2]: found.project.git("rev-parse", branch) for branch in branches}
    commits = {each["name"]: each["commit"] for each in found.front["candidates"]}
    assert (tips["1"], tips["2"]) == (commits["large"], commits["no room"])


def choice(of: Searched) -> list[dict[str, Any]]:
    """The candidates, but for what tells one run or context from another."""
    return [{**each, "commit": "", "number": 0} for each in of.front["candidates"]]


def test_winner_that_another_beats_is_told_so(make_project: MakeProject) -> None:
    """The search keeps to its loss, to which being better than asked is worth nothing; a person is told."""
    found = search(make_project({}, commit=False), [("large", (1.0, 4.5)), ("thrifty", (1.01, 2.0))])
    assert (found.named("winner"), "large" in found.named("member")) == (["large"], False)
    [line] = [
        line for line in found.page.splitlines() if line.endswith("| **winner**, but another is better |")
    ]
    assert "`large`" in line
    note = found.project.show(found.project.best(), "candidate.md")
    assert "Gained: memory 2 instead of 4.5. Given up: nothing that is shown." in note


def test_the_rest_of_the_set_is_tried_where_the_best_does_not_hold(make_project: MakeProject) -> None:
    """One that is good at something else has its turn before one that is like what has failed, but worse."""
    tried = [
        ("lean", (4.0, 1.5)),
        ("worse than small", (2.2, 3.2)),
        ("small", (2.0, 3.0)),
        ("large", (1.0, 4.5)),
    ]
    unlucky = [(1.0, 4.5), (2.0, 3.0), (2.2, 3.2)]
    found = search(make_project({}, commit=False), tried, unlucky=unlucky)
    assert found.ran.code == 0, found.ran.out
    turns = [line.rpartition(": ")[2] for line in found.ran.lines("The next best that met")]
    assert turns == ["small", "lean"]
    assert found.named("winner") == ["lean"]
    assert found.named("refuted") == ["small", "large"]
    assert not set(found.named("refuted")) & set(found.named("member"))
