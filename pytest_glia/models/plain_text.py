"""Tools for models that cannot call any: explained in words, asked for in fenced blocks of the text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from pytest_glia.models import Call, Message, Model, Reply, Request, Tool

_BLOCK = re.compile(r"^[ \t]*```tool[ \t]*\n(.*?)(?:^[ \t]*```[ \t]*$\n?|\Z)", re.MULTILINE | re.DOTALL)

_EXPLANATION = """\
You can use tools. To use one, write a block like this, with its name and its arguments as one JSON object:

```tool
{"name": "NAME", "arguments": {"argument": "value"}}
```

Write as many blocks as you need, then stop: the next message has their results. The tools:
"""


class PlainText:
    """Asks a model that knows no tools as if it did."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """Of the model that is asked."""
        return self._model.name

    def complete(self, request: Request) -> Reply:
        """The model's reply, its blocks taken for calls; raises what the model raises."""
        messages = in_words(request)
        reply = self._model.complete(replace(request, messages=messages, tools=()))
        before = sum(len(message.calls) for message in request.messages)
        text, calls = parsed(reply.text, before + 1) if request.tools else (reply.text, ())
        # Such as a server makes of text that looks like a call.
        return replace(reply, text=text, calls=(*reply.calls, *calls))


def in_words(request: Request) -> tuple[Message, ...]:
    """The conversation as a model without tools is told it: system, user and assistant in turn."""
    told: list[Message] = []
    names = {call.id: call.name for message in request.messages for call in message.calls}
    for message in request.messages:
        if message.role == "tool":
            name = names.get(message.call_id) or "a tool"
            message = Message("user", f"Result of {name}:\n{message.text}")
        elif message.calls:
            blocks = [block(call) for call in message.calls]
            message = Message(message.role, "\n\n".join(filter(None, [message.text, *blocks])))
        if told and told[-1].role == message.role == "user":
            message = Message("user", f"{told.pop().text}\n\n{message.text}")
        told.append(message)
    if request.tools:
        explained = explanation(request.tools)
        if told and told[0].role == "system":
            told[0] = Message("system", f"{told[0].text}\n\n{explained}")
        else:
            told.insert(0, Message("system", explained))
    return tuple(told)


def explanation(tools: Sequence[Tool]) -> str:
    """How to use the tools, and what they are."""
    each = (
        f"- {tool.name}: {tool.description}\n  arguments: {json.dumps(tool.parameters)}" for tool in tools
    )
    return _EXPLANATION + "\n".join(each)


def parsed(text: str, first: int = 1) -> tuple[str, tuple[Call, ...]]:
    """A text without its blocks, and the calls in them.

    A block that is no call is one all the same, its arguments as they are written, so that whoever carries it
    out can say what is wrong with it. `first` is the number in the first call's id.
    """
    calls = tuple(_call(block, f"call_{number}") for number, block in enumerate(_BLOCK.findall(text), first))
    return _BLOCK.sub("", text).strip(), calls


def _call(block: str, identity: str) -> Call:
    try:
        data = json.loads(block)
    except (ValueError, RecursionError):
        return Call(identity, "", block.strip())
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return Call(identity, "", block.strip())
    arguments = data.get("arguments", {})
    # Some write the arguments as a text of JSON, as the servers' own calls have them.
    return Call(identity, data["name"], arguments if isinstance(arguments, str) else json.dumps(arguments))


def block(call: Call) -> str:
    """A call as the block that asks for it."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        # As it was written, so that it is seen what was wrong.
        return f"```tool\n{call.arguments}\n```"
    return f"```tool\n{json.dumps({'name': call.name, 'arguments': arguments})}\n```"
