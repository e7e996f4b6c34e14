"""What an agent can do: tools with their arguments checked, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_glia.models import Call, Tool


class ToolFailed(Exception):
    """What a tool was asked cannot be done; the message tells the model why, and what to do instead."""


@dataclass(frozen=True)
class Said:
    """What a tool answers, and the one line that stays of it when the context is full.

    Attributes:
        failed: Whether nothing was done, and this says why.
    """

    text: str
    gist: str = ""
    failed: bool = False


Use = Callable[..., Said]


@dataclass(frozen=True)
class Skill:
    """A tool together with what it does; ``use`` takes the arguments by name and raises `ToolFailed`."""

    tool: Tool
    use: Use


def tool(name: str, description: str, required: Sequence[str] = (), /, **parameters: Any) -> Tool:
    """A tool: each parameter is a JSON schema; those `required` must be given."""
    return Tool(name, description, {"type": "object", "properties": parameters, "required": list(required)})


def skill(name: str, description: str, use: Use, required: Sequence[str] = (), /, **parameters: Any) -> Skill:
    """A `tool` together with what it does."""
    return Skill(tool(name, description, required, **parameters), use)


def arguments(call: Call, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments, checked against the schema; raises `ToolFailed` with what was expected."""
    form = f"{call.name} takes a JSON object with {', '.join(schema['properties']) or 'nothing'}"
    try:
        given = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise ToolFailed(f"the arguments are not JSON ({error}): {form}") from None
    if not isinstance(given, dict):
        raise ToolFailed(f"the arguments are {type(given).__name__}: {form}")
    if unknown := sorted(set(given) - set(schema["properties"])):
        raise ToolFailed(f"{call.name} has no parameter {unknown[0]!r}: {form}")
    if missing := [name for name in schema["required"] if name not in given]:
        raise ToolFailed(f"{call.name} lacks {missing[0]!r}: {form}")
    for name, value in given.items():
        _check(value, schema["properties"][name], name)
    return given


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


# No number that a tool takes is larger; JSON's may be too large for any arithmetic.
_MOST = 10**15


def _is_text(value: str) -> bool:
    """Whether it can be written: JSON has strings that cannot."""
    return not any("\ud800" <= each <= "\udfff" for each in value)


def _check(value: Any, schema: Any, name: str) -> None:
    """Raise `ToolFailed` for a value that its schema, of the kinds used here, does not allow."""
    kind: str = schema["type"]
    if type(value) not in _TYPES[kind]:
        raise ToolFailed(f"{name} is {value!r:.80}: give {'an' if kind[0] in 'aeio' else 'a'} {kind}")
    if kind == "string" and not _is_text(value):
        raise ToolFailed(f"{name} holds half a character (a surrogate), as no text does: write it whole")
    if kind in ("integer", "number") and not abs(value) <= _MOST:
        raise ToolFailed(f"{name} is {value!r:.80}: give a finite number, between -{_MOST:g} and {_MOST:g}")
    if "enum" in schema and value not in schema["enum"]:
        raise ToolFailed(f"{name} is {value!r:.80}: give one of {', '.join(map(str, schema['enum']))}")
    if kind == "array":
        for place, each in enumerate(value, start=1):
            _check(each, schema["items"], f"{name}, item {place}")
    if kind == "object":
        for key in schema.get("required", ()):
            if key not in value:
                raise ToolFailed(f"{name} lacks {key!r}: give {', '.join(schema['properties'])}")
        for key, each in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if not inner or not _is_text(key):
                raise ToolFailed(f"{name} has {key!r}: give {', '.join(schema.get('properties', {}))}")
            _check(each, inner, f"{name}, {key}")
