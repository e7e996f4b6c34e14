"""Recorded runs that somebody has played by hand stay readable (tests/data/played)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pytest_glia.agents.skills import arguments
from pytest_glia.agents.toolbox import CONCLUDING, DESIGNING
from pytest_glia.ledger import Exchange
from pytest_glia.models.transcript import conversation
from pytest_glia.models.wire import reply_of, request_of

FOLDER = Path(__file__).parents[1] / "data/played"
ROLES = {"routing": {"researcher", "experimenter", "analyst"}, "cache": {"researcher", "experimenter"}}


def exchanges(name: str) -> list[Exchange]:
    with gzip.open(FOLDER / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [Exchange(**json.loads(line)) for line in file]


@pytest.mark.parametrize("name", ROLES)
def test_conversation_of_a_played_run(name: str) -> None:
    """All roles that spoke are in it, and what each was answered."""
    found = exchanges(name)
    text = conversation("played", found)
    assert {each.role for each in found} == ROLES[name]
    assert sum(line.startswith("### ") for line in text.splitlines()) == len(found)
    assert all(reply_of(each.reply).calls or reply_of(each.reply).text for each in found)


@pytest.mark.parametrize("name", ROLES)
def test_what_was_asked_of_tools_is_understood(name: str) -> None:
    """Each call names a tool that its request offered, with arguments that fit it then and now."""
    now = {tool.name: tool for tool in (*DESIGNING, *CONCLUDING)}
    calls = 0
    for each in exchanges(name):
        offered = {tool.name: tool for tool in request_of(each.request).tools}
        for call in reply_of(each.reply).calls:
            calls += 1
            assert arguments(call, offered[call.name].parameters) is not None
            if call.name in now:
                arguments(call, now[call.name].parameters)
    assert calls > 10
