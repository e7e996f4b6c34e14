"""What a model gives a tool is checked, and what is wrong with it is told with what was expected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_glia.agents.skills import Said, ToolFailed, arguments, skill
from pytest_glia.models import Call

EDITS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"old": {"type": "string"}, "new": {"type": "string"}},
        "required": ["old"],
    },
}
TOOL = skill(
    "change",
    "Changes something.",
    lambda **given: Said(str(given)),
    ["path"],
    path={"type": "string"},
    count={"type": "integer"},
    share={"type": "number"},
    all={"type": "boolean"},
    kind={"type": "string", "enum": ["fast", "slow"]},
    edits=EDITS,
    predicts={"type": "object", "additionalProperties": {"type": "number"}},
).tool

FORM = "change takes a JSON object with path, count, share, all, kind, edits, predicts"


def given(text: str) -> dict[str, Any]:
    """The arguments of a call of that text."""
    return arguments(Call("1", "change", text), TOOL.parameters)


def test_what_is_right_is_taken() -> None:
    """Every kind of value, as it is."""
    right = {
        "path": "a.py",
        "count": 3,
        "share": 0.5,
        "all": True,
        "kind": "slow",
        "edits": [{"old": "x", "new": "y"}, {"old": "z"}],
        "predicts": {"bins": -20, "share": 1.5},
    }
    assert given(json.dumps(right)) == right


def test_no_arguments_are_an_empty_object() -> None:
    """Some models send nothing at all for a tool without parameters."""
    assert arguments(Call("1", "list", ""), skill("list", "", lambda: Said("")).tool.parameters) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"path": ', f"the arguments are not JSON (Expecting value: line 1 column 10 (char 9)): {FORM}"),
        ("[" * 100_000, "the arguments are not JSON ("),
        ('["a.py"]', f"the arguments are list: {FORM}"),
        ('{"path": "a", "speed": 1}', f"change has no parameter 'speed': {FORM}"),
        ('{"count": 1}', f"change lacks 'path': {FORM}"),
        ('{"path": 7}', "path is 7: give a string"),
        ('{"path": "a", "count": 1.5}', "count is 1.5: give an integer"),
        ('{"path": "a", "count": true}', "count is True: give an integer"),
        ('{"path": "a", "share": "half"}', "share is 'half': give a number"),
        ('{"path": "a", "all": 1}', "all is 1: give a boolean"),
        ('{"path": "a", "kind": "calm"}', "kind is 'calm': give one of fast, slow"),
        ('{"path": "a", "edits": {}}', "edits is {}: give an array"),
        ('{"path": "a", "edits": [1]}', "edits, item 1 is 1: give an object"),
        ('{"path": "a", "edits": [{"old": "x"}, {"new": "y"}]}', "edits, item 2 lacks 'old': give old, new"),
        ('{"path": "a", "edits": [{"old": "x", "then": "y"}]}', "edits, item 1 has 'then': give old, new"),
        ('{"path": "a", "edits": [{"old": null}]}', "edits, item 1, old is None: give a string"),
        ('{"path": "a", "predicts": {"bins": "less"}}', "predicts, bins is 'less': give a number"),
    ],
)
def test_what_is_wrong_is_told(text: str, says: str) -> None:
    """Which argument it is, what it was, and what to give instead."""
    with pytest.raises(ToolFailed) as failed:
        given(text)
    assert str(failed.value).startswith(says)


def test_a_long_value_is_cut_in_its_message() -> None:
    """A whole file in the wrong place does not come back as a whole."""
    with pytest.raises(ToolFailed) as failed:
        given(json.dumps({"path": ["line"] * 10_000}))
    assert len(str(failed.value)) < 120
