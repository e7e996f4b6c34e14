"""A hostile language model in a search: it reads, writes, claims and says what it may not."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.agents.skills import ToolFailed, arguments
from pytest_glia.agents.supervisor import holds_code
from pytest_glia.designers import Retested
from pytest_glia.estimate import Check
from pytest_glia.experiments import Experiment, Variant, effects
from pytest_glia.merit import Evaluation
from pytest_glia.models import Call
from pytest_glia.retesting import ExperimentAgain
from pytest_glia.workbench import Analysis
from tests.project import Project, Result
from tests.pytest_glia.pumps import Team, call, edit, played, pumps, role_of, texts
from tests.rendered import headings
from tests.scripted_model import Says

CLEARS = "\x1b[2J"
FORGED = f"{CLEARS}\n\n## Measured\n\n| metric | start |\n|---|---|\n| waste | 0 |\n\n<h1>It is proven</h1>\n"
PUMP = "candidates/pump.py"
HIDDEN = [
    "test_pump.py",
    "./plant.py",
    "../project/test_pump.py",
    "candidates/../test_pump.py",
    "tried/1/../../test_pump.py",
    "tried/1/test_pump.py",
    "tried/0/candidates/pump.py",
    "/etc/passwd",
    ".git/config",
    ".glia/ledger.db",
    "plant.py\x00",
    "",
]


def removes(edits: list[dict[str, str]]) -> dict[str, Any]:
    """Of a claim."""
    return {"edits_that_remove_it": edits}


class Hostile(Team):
    """Knows the best setting already; what it does besides is to cheat."""

    def __init__(self, best: tuple[int, int]) -> None:
        super().__init__()
        pressure, valve = map(str, best)
        edits = [edit("50", pressure), edit("0", valve)]
        undo = [edit(pressure, "50"), edit(valve, "0")]
        claim = {"name": f"it{FORGED}", "claim": FORGED, "reason": FORGED, "edits_that_remove_it": undo}
        breaks = [{"path": PUMP, "old": "    def pressure", "new": "    def other"}]
        shown = {**claim, "experiment": "candidate 1"}
        evaluate = {"name": f"good{FORGED}", "hypothesis": FORGED, "reason": FORGED, "refuted_by": "x"}
        self._steps = [
            Says(" \n "),
            Says(FORGED),
            call("write_file", path=PUMP, text="x = '\ud800'"),
            call("write_file", path="test_pump.py", text="def test_it(): pass"),
            call("edit_files", edits=[{"path": "../x.py", "old": "a", "new": "b"}]),
            # Something that can be done: a model that only goes astray is not heard to the end.
            call("list_files"),
            *(call("read_file", path=path) for path in HIDDEN),
            call("search_files", text="BEST_PRESSURE"),
            call("ask_experimenter", question="twins"),
            call("ask_experimenter", question="blank"),
            call("ask_analyst", question="x", experiment="../1.E1"),
            call("edit_files", edits=edits),
            call("evaluate", **evaluate, predicts={"waste": -50}),
            call("record_finding", finding=FORGED, source="2.E1"),
            call("record_finding", finding=FORGED, source="1.E1"),
            call("record_finding", finding=FORGED, source="1.E1"),
            *(
                call("conclude", claims=[{**claim, "experiment": named}])
                for named in ("2.E1", "1.E1", "candidate 7", ".", "commit 000000000")
            ),
            call("conclude", claims=[{**claim, **removes([])}]),
            call("conclude", claims=[claim, claim]),
            # What follows in one reply would change what the claims are about.
            Says(
                "",
                [
                    ("conclude", {"claims": [shown, {**claim, "name": "breaks", **removes(breaks)}]}),
                    ("write_file", {"path": PUMP, "text": "def other(): pass\n"}),
                    ("conclude", {"claims": [{**shown, **removes([])}]}),
                ],
            ),
        ]
        self.answered: list[str] = []

    def researcher(self, body: dict[str, Any]) -> Says:
        self.answered = texts(body)
        said = sum(each["role"] == "assistant" for each in body["messages"])
        return self._steps[said] if said < len(self._steps) else Says("I have nothing more.")

    def experimenter(self, body: dict[str, Any]) -> Says:
        if "blank" in texts(body)[1] or any(each["role"] == "tool" for each in body["messages"]):
            return Says(" \n ")
        twins = [{"label": f"one{FORGED}"}, {"label": "other"}]
        return call("run", purpose=FORGED, variants=twins, replications=2)

    def supervisor(self, body: dict[str, Any]) -> Says:
        assert role_of(body) == "supervisor"
        return Says(f"Go on.{FORGED}")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result, list[str]]:
    """A project, what its search has printed, and what the model was answered."""
    project = pumps(tmp_path_factory.mktemp("hostile") / "project", seed=8)
    spec = (project.folder / "test_pump.py").read_text()
    [pressure], [valve] = (re.findall(rf"{name} = (\d+)", spec) for name in ("PRESSURE", "RIGHT_VALVE"))
    model, before = Hostile((int(pressure), int(valve))), project.fingerprint()
    ran = played(project, model)
    assert project.fingerprint() == before
    return project, ran, model.answered


@pytest.mark.slow
def test_it_is_answered_and_its_run_ends_in_words(searched: tuple[Project, Result, list[str]]) -> None:
    """Whatever it says is answered; its design is confirmed, and a claim that nothing shows fails it."""
    _, ran, _ = searched
    assert ran.code == 1, ran.out
    assert "the claim 'breaks' is unverified" in ran.text
    assert "Traceback" not in ran.out
    assert "INTERNALERROR" not in ran.out


@pytest.mark.slow
def test_it_reads_and_writes_what_it_may(searched: tuple[Project, Result, list[str]]) -> None:
    """No other path leads to a file, and the search finds nothing that is not exposed."""
    _, _, answered = searched
    told = "\n".join(answered)
    assert told.count("error: there is no file") == len(HIDDEN)
    assert told.count("is no candidate file") == 2
    assert "nothing contains 'BEST_PRESSURE'" in told
    assert "half a character" in told


@pytest.mark.slow
def test_what_shows_nothing_verifies_nothing(searched: tuple[Project, Result, list[str]]) -> None:
    """Twins, other contexts' experiments and candidates that are not there are no evidence for a claim."""
    _, _, answered = searched
    told = "\n".join(answered)
    assert "'1.E1' shows no difference" in told
    for named in ("2.E1", "candidate 7", ".", "commit 000000000"):
        assert f"there is no experiment {named!r} that shows a claim" in told
    assert "there is no experiment or analysis '2.E1'" in told
    assert "there is no experiment '../1.E1'" in told
    assert "change nothing: give those that take it out" in told
    assert "two claims are called" in told
    assert "is kept already" in told


@pytest.mark.slow
def test_its_words_steer_nothing(searched: tuple[Project, Result, list[str]]) -> None:
    """Neither the terminal, nor commits, nor the files that are kept; the note has its own headings only."""
    project, ran, _ = searched
    note = project.show(project.best(), "candidates/pump.md")
    assert CLEARS not in ran.out + note + project.git("log", "--all", "--format=%B")
    assert note.count("| metric | start |") == 1
    assert "\n## Measured\n" in note.partition("\n## What was wrong\n")[0]
    assert note.count("\n## Measured\n") == 1
    assert "<h1>" not in note
    [kept] = (project.folder / ".glia/runs").glob("*/conversation.md")
    assert CLEARS not in kept.read_text()


@pytest.mark.slow
def test_an_idea_whose_removal_breaks_the_design_is_not_shown(
    searched: tuple[Project, Result, list[str]],
) -> None:
    """The note says that nothing works without it, and why, which is no evidence for the idea."""
    project, _, _ = searched
    note = project.show(project.best(), "candidates/pump.md")
    broken = note.partition("### breaks\n")[2]
    assert "**not shown: what is left of the design does not work**" in broken
    assert "AttributeError" in broken


@pytest.mark.slow
def test_the_note_has_its_own_headings(searched: tuple[Project, Result, list[str]]) -> None:
    """As a parser of Markdown reads it."""
    project, _, _ = searched
    found = headings(project.show(project.best(), "candidates/pump.md"))
    assert found.count("Measured") == 1
    assert "It is proven" not in found


@pytest.mark.parametrize(
    "given",
    [
        '{"text": "\\ud800"}',
        '{"number": 1e999}',
        '{"number": NaN}',
        '{"number": -1%s}' % ("0" * 400),
        '{"whole": 1%s}' % ("0" * 400),
        '{"map": {"\\ud800": 1}}',
        '{"list": ["\\udfff"]}',
    ],
)
def test_what_no_code_could_use_is_refused(given: str) -> None:
    """Halves of characters and numbers beyond floats are told to the model, whatever tool they are for."""
    schema: dict[str, Any] = {
        "properties": {
            "text": {"type": "string"},
            "number": {"type": "number"},
            "whole": {"type": "integer"},
            "map": {"type": "object", "additionalProperties": {"type": "number"}},
            "list": {"type": "array", "items": {"type": "string"}},
        },
        "required": [],
    }
    with pytest.raises(ToolFailed):
        arguments(Call("1", "tool", given), schema)


def test_a_reply_that_no_parser_takes_is_no_code() -> None:
    """However deep it nests."""
    for deep in ("a=" + "-" * 10**5 + "1", "a=" + "(" * 10**5, "a=\x00"):
        assert holds_code(deep) is False


def test_a_metric_that_is_gone_on_other_seeds_is_told() -> None:
    """An experiment whose effect is no number any more, as its candidate may have it, says so."""

    def look(seeds: int, wrong: float) -> dict[bytes, Evaluation]:
        found = {}
        for text, value in {b"a": 1.0, b"b": 2.0}.items():
            samples = tuple(value * (1 + 0.01 * seed) for seed in range(seeds))
            samples = (wrong if text == b"b" and wrong else samples[0], *samples[1:])
            check = Check(
                *("waste", "mean", "<", 1.0, 1.0, 1.0, 1.0, seeds, 0.95, "refuted", None),
                excess=(0.0,) * seeds,
                metrics={"waste": samples},
            )
            found[text] = Evaluation({"x": text}, tuple(range(seeds)), {("t", 0): check})
        return found

    first = look(4, 0.0)
    variants = [Variant(text.decode(), {"x": text}) for text in first]
    shown = effects({each.label: first[each.sources["x"]] for each in variants})
    experiment = Experiment("1.E1", "?", variants, 4, {}, shown)
    assert experiment.shows(["waste"])
    assert not experiment.shows(["other"])
    later = look(4, math.nan)

    class Later:
        def __call__(self, sources: Mapping[str, bytes], **_: Any) -> Evaluation:
            return later[sources["x"]]

        def analyse(self, code: str, seen: Evaluation) -> Analysis:
            raise AssertionError("no analysis is made again")

    again = ExperimentAgain.of(experiment)(Later())
    assert again == Retested("waste of 'b' is not reported, **not** higher as before", "not as before")


@pytest.mark.slow
def test_its_record_can_be_read(searched: tuple[Project, Result, list[str]]) -> None:
    """The ledger has its experiment under the id of its context, once."""
    project, _, _ = searched
    with closing(sqlite3.connect(Path(project.folder) / ".glia/ledger.db")) as ledger:
        keys = [key for (key,) in ledger.execute("SELECT key FROM records WHERE key LIKE '%experiment %'")]
    assert keys == ["1 experiment 1.E1"]
