"""The designer glia in a planted domain: only what its agents measure and compute leads to the goal."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from tests.project import Project, Result
from tests.pytest_glia.pumps import BUDGET, Team, experiments, played, pumps, record
from tests.scripted_model import Says

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result]:
    """A plant whose specs the team has met, and what the search has printed."""
    project = pumps(tmp_path_factory.mktemp("agents") / "project", seed=1)
    return project, played(project, Team())


def test_it_passes_by_what_it_has_measured_and_computed(passed: tuple[Project, Result]) -> None:
    """A sweep gives one figure and an analysis the other; the winner passes on sealed seeds."""
    project, ran = passed
    assert ran.code == 0, ran.out
    assert project.best()


def test_a_claim_names_its_experiment_and_its_ablation(passed: tuple[Project, Result]) -> None:
    """The note's ids are on record, predicted sizes stand beside what was measured, no line is unclaimed."""
    project, _ = passed
    note = project.show(project.best(), "candidates/pump.md")
    known = experiments(project)
    [sweep] = [name for name, each in known.items() if each["purpose"] == "sweep of the pressure"]
    assert f"- Experiment: `{sweep}`: waste of 'pressure " in note
    [commit] = re.findall(r"- Experiment: `commit (\w+)`: better, loss -", note)
    assert "measured setting" in project.git("log", "-1", "--format=%B", commit)
    assert "- Predicted: waste falls by 20 %." in note
    assert note.count("**shown**") == 2
    assert "unverified" not in note
    assert "no claim covers" not in note


def test_a_finding_is_tested_again(passed: tuple[Project, Result]) -> None:
    """The code of the analysis runs on tables of sealed seeds, of the start and of the design."""
    project, _ = passed
    note = project.show(project.best(), "candidates/pump.md")
    [valve] = re.findall(r"In the search: valve = (\d)\.", note)
    assert f"- Again: **as before**: the start: valve = {valve}; the design: valve = {valve}." in note


def test_the_conversation_is_kept_as_one_file(passed: tuple[Project, Result]) -> None:
    """All roles that spoke are in it, and the design is not in what the Experimenter was first asked."""
    project, _ = passed
    [file] = (project.folder / ".glia/runs").glob("*/conversation.md")
    text = file.read_text()
    for role in ("researcher", "experimenter", "analyst"):
        assert re.search(rf"^### \d+\. {role}", text, re.MULTILINE)


def test_a_run_repeats_without_its_model(passed: tuple[Project, Result]) -> None:
    """From the record alone the same commits come, byte for byte; the user's checkout is not touched."""
    project, _ = passed
    before, [(run,)] = project.fingerprint(), record(project, "SELECT run FROM runs")
    again = project.command("replay", run)
    assert again.code == 0, again.out
    assert f"The run {run} repeats: 2 branches, the same commits." in again.text
    assert project.fingerprint() == before


def test_its_claims_are_verified(passed: tuple[Project, Result]) -> None:
    """On fresh seeds the specs pass, claims are shown and the finding is as it was; nothing is touched."""
    project, _ = passed
    before, branches = project.fingerprint(), project.branches()
    [(run,)] = record(project, "SELECT run FROM runs")
    verified = project.command("verify", run)
    assert verified.code == 0, verified.out
    told = [line.partition(";")[0] for line in verified.lines("as before: ")]
    assert told[:-1] == [
        "as before: the specs pass",
        "as before: the claim 'pressure': shown",
        "as before: the claim 'valve': shown",
    ]
    assert told[-1].startswith("as before: the finding 'One valve leaks least.': the start: valve = ")
    assert re.search(r"waste falls by 20 %, it said: [\d.]+ to 1\.\d+, as predicted", verified.text)
    assert (project.fingerprint(), project.branches()) == (before, branches)
    assert record(project, "SELECT run FROM runs") == [(run,)]


def test_the_statement_is_what_agents_are_told(passed: tuple[Project, Result]) -> None:
    """The command prints it word for word as the Researcher's model got it; no branch or run comes of it."""
    project, _ = passed
    [(request,)] = record(project, "SELECT request FROM exchanges WHERE role = 'researcher' AND ordinal = 0")
    branches = project.branches()
    options = ["-p", "no:hypothesispytest", "-p", "no:xdist", "-o", "glia_replications=4"]
    told = project.command("prompt", f"--glia-budget={BUDGET}", *options)
    assert told.code == 0, told.out
    assert json.loads(request)["messages"][1]["text"] in told.out
    assert project.branches() == branches
    assert record(project, "SELECT outcome FROM runs WHERE designer = 'prompt'") == [("not met",)]
    assert record(project, "SELECT count(*) FROM attempts") == [(1,)]


def test_another_record_is_told(passed: tuple[Project, Result]) -> None:
    """A run that is not there is named, and those that are."""
    project, _ = passed
    again = project.command("replay", "19990101-000000-abcd")
    assert again.code == 4
    assert "there is no run '19990101-000000-abcd'" in again.text


@pytest.mark.parametrize("role", ["experimenter", "analyst"])
def test_without_one_of_them_it_fails(tmp_path: Path, role: str) -> None:
    """No figure, no pass: the others go on with what they have, and the run ends in words."""
    ran = played(pumps(tmp_path / "project", seed=2), Team(role))
    assert ran.code == 1, ran.out
    assert "Context 1 ended" in ran.out
    assert "Traceback" not in ran.out


def test_an_unverified_claim_is_not_met(tmp_path: Path) -> None:
    """While the winner has a claim that no experiment shows, its run has not met the specs, and says so."""
    project = pumps(tmp_path / "project", seed=3)
    ran = played(project, Team(shown=False))
    assert ran.code == 1, ran.out
    assert "the claim 'valve' is unverified: no experiment of this run shows it" in ran.text
    note = project.show(project.best(), "candidates/pump.md")
    assert "- Experiment: **unverified**: no experiment of the run shows it." in note


@pytest.mark.parametrize("contexts", ["seq", "4"])
def test_several_contexts_pass_too(tmp_path: Path, contexts: str) -> None:
    """MCG-Seq goes on to a second context if the first ends without a design; MCG-Par has a branch each."""
    project = pumps(tmp_path / "project", seed=4)
    team, count = Team(), itertools.count()

    def replies(body: dict[str, object]) -> Says:
        return Says("END\nLet us begin anew.") if contexts == "seq" and next(count) < 2 else team(body)

    ran = played(project, replies, f"--glia-contexts={contexts}", budget="400 sims, 200 s, 2M tokens")
    assert ran.code == 0, ran.out
    names = {branch.rpartition("/")[2] for branch in project.branches("glia/")}
    assert names == ({"2", "best"} if contexts == "seq" else {"1", "2", "3", "4", "best"})


REPLIES = {
    "babble": Says("colorless green ideas sleep furiously"),
    "refusal": Says(refusal="I am sorry, I cannot help with that."),
    "no such tool": Says("", [("fly", {"to": "the moon"})]),
    "no JSON": Says("", [("evaluate", '{"name": "broken')]),
    "of the wrong type": Says("", [("read_file", {"path": 7})]),
    "nothing": Says(""),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_what_is_no_help_ends_in_time_and_in_words(tmp_path: Path, kind: str) -> None:
    """Whatever a model says, the run ends within its budget, with a sentence; there is no best branch."""
    project = pumps(tmp_path / "project", seed=5)
    ran = played(project, [REPLIES[kind]])
    assert ran.code == 1, ran.out
    assert "Context 1 ended" in ran.out
    assert record(project, "SELECT count(*) FROM exchanges WHERE role = 'researcher'")[0][0] <= 15
    assert "no better candidate than the present one was found" in ran.text
    assert project.branches("/best") == []
    assert "Traceback" not in ran.out


def test_a_budget_of_tokens_ends_the_run(tmp_path: Path) -> None:
    """It is named as the reason, no call goes beyond it, and the best so far is confirmed."""
    ran = played(pumps(tmp_path / "project", seed=6), Team(), budget="200 sims, 120 s, 11k tokens")
    assert ran.code in (0, 1), ran.out
    assert "the budget of 11000 tokens is spent" in ran.text
