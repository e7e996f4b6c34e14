"""A designer that asks a model, in a search: what is refused, what is kept, and what a run shows of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.project import MakeProject, Project, Result, spec
from tests.pytest_glia.pumps import record
from tests.scripted_model import Says, ScriptedModel

pytestmark = pytest.mark.slow

KEY = "sk-secret-0123456789abcdef"
ASKER = '''\
import os
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis
from pytest_glia.models import Message, Request


class Asker:
    """Asks twice for a number, and tries what it was told."""

    uses_model = True

    def design(self, lab):
        model = lab.models.thread("1")
        messages = (Message("user", "Which number?"),)
        best = lab.start
        for turn in range(2):
            reply = model.complete(Request(messages, max_tokens=lab.models.settings.max_tokens, role="asker"))
            if turn and "DIE" in os.environ:
                os.kill(os.getpid(), 9)
            text = f"def answer():\\n    return {reply.text}\\n"
            best = lab.full({"candidate.py": text.encode()}, Hypothesis(f"number {turn}"), best).evaluation
            messages = (*messages, Message("assistant", reply.text), Message("user", "A smaller one?"))
        return Proposal(best)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"asker": Asker()}
'''
FILES = {
    **spec(
        "def answer():\n    return 9.0\n",
        "def cost(answer, seed):\n    return answer() + seed % 7 / 100\n\n\n"
        "def test_cost(glia):\n    assert glia.measure(cost) < 3\n",
    ),
    "conftest.py": ASKER,
}
SEARCH = ("--glia-optimize", "--glia-designer=asker", "--glia-model=some")


def search(project: Project, url: str, *more: str, **environment: str) -> Result:
    """A search whose designer asks the server at `url`."""
    given = ("-o", f"glia_base_url={url}", "-o", "glia_price=2 10")
    return project.pytest(*SEARCH, *given, *more, OPENAI_API_KEY=KEY, **environment)


@dataclass(frozen=True)
class Searched:
    """A search that was killed after its second question, and the one that went on with it."""

    project: Project
    ran: Result
    requests: list[dict[str, Any]]
    keys: list[str]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    project = Project(tmp_path_factory.mktemp("searched")).write(FILES)
    project.commit()
    busy = Says(status=429, error=f"too many requests with {KEY}", headers={"Retry-After": "0.01"})
    with ScriptedModel([busy, Says("5.0", usage=(100, 10)), Says("2.0", usage=(200, 20))]) as server:
        killed = search(project, server.url, "--glia-budget=100 sims, 20k tokens, 1 usd", DIE="yes")
        assert killed.code == -9
        report = f"--glia-report={project.folder.parent / 'report'}"
        ran = search(project, server.url, "--glia-budget=100 sims, 20k tokens, 1 usd", report)
        return Searched(project, ran, server.requests, server.keys)


def test_resumed_search_asks_nothing_again(searched: Searched) -> None:
    """What was answered before the kill is not asked again, and is counted: 330 tokens at their price."""
    assert searched.ran.code == 0, searched.ran.out
    assert len(searched.requests) == 3  # one of them refused
    assert searched.keys == [f"Bearer {KEY}"] * 3
    assert "330 tokens, 0.0009 usd" in searched.ran.text
    assert "Designer asker, model some; at most 100 simulations, 20000 tokens, 1 usd" in searched.ran.text


def test_note_tells_which_model_and_what_it_took(searched: Searched) -> None:
    """The provenance names the model, and what was spent of each kind."""
    note = searched.project.show(searched.project.best(), "candidate.md")
    assert "- Designer `asker`, model `some`." in note
    assert "330 tokens, 0.0009 usd in " in note


def test_report_tells_what_the_model_took(searched: Searched) -> None:
    """Tokens and dollars stand beside the simulations and the time."""
    page = (searched.project.folder.parent / "report/report.md").read_text("utf-8")
    assert " s, with 330 tokens, 0.0009 usd, of a budget of " in page


def test_conversation_is_kept_with_the_run(searched: Searched) -> None:
    """One file beside the ledger has what was said, once."""
    [file] = searched.project.folder.glob(".glia/runs/*/conversation.md")
    text = file.read_text("utf-8")
    assert text.count("> Which number?") == 1
    assert "> A smaller one?" in text
    assert "### 2. asker" in text


def test_key_is_nowhere(searched: Searched) -> None:
    """Neither what is printed nor any file of the project has the key, errors of the server included."""
    assert KEY not in searched.ran.out
    files = [file for file in searched.project.folder.rglob("*") if file.is_file()]
    assert any(file.name == "ledger.db" for file in files)
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []


LOCAL = {"glia_base_url": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize(
    ("options", "settings", "sentence"),
    [
        (SEARCH[:2], {}, "the designer 'asker' asks a language model, and none is configured"),
        (SEARCH, {}, "the environment has no key OPENAI_API_KEY"),
        (SEARCH, LOCAL, "the model 'some' may cost money, and the budget '200 simulations, 300 s' does not"),
        ((*SEARCH, "--glia-budget=1 usd"), LOCAL, "what the model 'some' costs is not known: set glia_price"),
        (SEARCH, {"glia_model_tools": "json"}, "glia_model_tools is 'json': give native or text"),
        (SEARCH, {"glia_model_context": "many"}, "glia_model_context is 'many': give a whole number"),
    ],
)
def test_nothing_is_asked_that_is_not_limited(
    options: tuple[str, ...], settings: Mapping[str, str], sentence: str, make_project: MakeProject
) -> None:
    """No model, no key, no limit, no price, or a setting that is none: one sentence, exit code 4, no run."""
    project = make_project(FILES)
    given = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    ran = project.pytest(*options, *given)
    assert (ran.code, sentence in ran.text) == (4, True), ran.out
    assert project.branches("glia/") == []


def test_model_that_fails_at_once_is_a_sentence(make_project: MakeProject) -> None:
    """Where no candidate was tried, the failure is all there is to say, and the exit code is 4."""
    project = make_project(FILES)
    with ScriptedModel([Says(status=404, error="no such model")]) as server:
        ran = search(project, server.url, "--glia-budget=100 sims, 20k tokens")
    assert ran.code == 4
    assert "gave no reply of the model 'some': HTTP 404: no such model; correct glia_model" in ran.text
    assert "no candidate was tried" in ran.text


@pytest.mark.parametrize(
    ("budget", "second", "ends"),
    [
        ("100 sims, 9k tokens", Says("2.0"), "the budget of 9000 tokens is spent, but for"),
        ("100 sims, 20k tokens", Says(status=401, error="expired"), "HTTP 401: expired; set the environment"),
    ],
)
def test_search_that_cannot_ask_more_ends_with_its_best(
    budget: str, second: Says, ends: str, make_project: MakeProject
) -> None:
    """Out of tokens, or without a model in mid-run: the best so far is confirmed and delivered."""
    project = make_project(FILES)
    with ScriptedModel([Says("2.5", usage=(500, 400)), second]) as server:
        ran = search(project, server.url, f"--glia-budget={budget}")
    assert ran.code == 0, ran.out
    assert ends in ran.text
    assert project.branches("/best")


def test_a_problem_that_does_not_fit_the_model_is_refused(make_project: MakeProject) -> None:
    """In one sentence, before a run is begun."""
    project = make_project(FILES)
    with ScriptedModel([Says("2.0")]) as server:
        limits = ("-o", "glia_model_context=3000", "-o", "glia_max_output_tokens=2000")
        ran = search(project, server.url, "--glia-budget=100 sims, 1 usd", *limits)
    assert ran.code == 4
    assert re.search(
        r"the problem statement takes about \d+ tokens, and the model 'some' has room for 500: half of what "
        r"glia_model_context = 3000 leaves beside glia_max_output_tokens = 2000",
        ran.text,
    )
    assert server.requests == []
    assert project.branches("glia/") == []
    assert record(project, "SELECT count(*) FROM runs") == [(0,)]
