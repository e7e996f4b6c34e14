"""The Researcher's turn: what it asks for is done or told, and a model that goes astray costs little."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_glia.agents.researcher import Researcher
from pytest_glia.models import Call, Reply
from pytest_glia.models.settings import ModelSettings
from tests.pytest_glia.actor import Actor, call
from tests.pytest_glia.stand_in import playground

BROKEN = Reply("", (Call("1", "read_file", '{"path": '),))
READS = call("read_file", path="plant.py")


def researcher(folder: Path, *replies: str | Reply) -> tuple[Researcher, Actor]:
    """At the beginning of its first turn."""
    model = Actor(*replies)
    return Researcher(playground(folder)[0], model, ModelSettings(name="actor")), model


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (call("fly"), "[fly: error: there is no tool 'fly': there are list_files, read_file,"),
        (BROKEN, "[read_file: error: the arguments are not JSON (Expecting value"),
        (call("read_file", path=7), "[read_file: error: path is 7: give a string]"),
        (call("read_file", path="x"), "[read_file: error: there is no file 'x' to read: there are"),
        (call("edit_files", edits=[]), "[edit_files: 0 edits are made]"),
    ],
)
def test_what_cannot_be_done_is_told_and_ends_the_turn(tmp_path: Path, reply: Reply, says: str) -> None:
    """Each time in a sentence; after five replies in a row of that kind the turn is over."""
    role, model = researcher(tmp_path, reply)
    does = "error" not in says
    assert role.turn() is does
    assert len(model.requests) == (25 if does else 5)
    assert all(each.startswith(says) for each in role.heard)


def test_what_can_be_done_begins_the_count_anew(tmp_path: Path) -> None:
    """Four mistakes, something that works, and four mistakes are a turn of nine replies and its last word."""
    role, model = researcher(tmp_path, *[BROKEN] * 4, READS, *[BROKEN] * 4, "Here I stand.")
    assert role.turn()
    assert len(model.requests) == 10
    assert role.heard[-1] == "Here I stand."


def test_an_empty_reply_ends_the_turn(tmp_path: Path) -> None:
    """It has done nothing, and nothing of it was heard."""
    role, model = researcher(tmp_path, "")
    assert not role.turn()
    assert (len(model.requests), role.heard) == (1, [])
