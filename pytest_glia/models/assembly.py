"""A reply put together from the events of a streamed chat completion."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pytest_glia.models import Call, Reply

# No tokenizer has more characters in a token, on average over a text; fewer than a token in a hundred has.
_CHARACTERS = 16


@dataclass
class _Asked:
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Assembly:
    """What has arrived so far.

    Args:
        prompt: Characters of the request.
        max_tokens: That the reply may have: longer ones are cut, whatever their server thinks of it.

    Attributes:
        complete: Whether the server has said that this is the end.
    """

    def __init__(self, prompt: int, max_tokens: int) -> None:
        self.complete = False
        self._prompt = prompt
        self._room = max_tokens * _CHARACTERS
        self._characters = 0
        self._text: list[str] = []
        self._calls: list[_Asked] = []
        self._places: dict[int, _Asked] = {}
        self._cut = False
        self._usage: tuple[int, int] | None = None

    @property
    def full(self) -> bool:
        """Whether more has come than the reply may have: nobody needs to hear the rest."""
        return self._characters > self._room

    def add(self, chunk: Any) -> None:
        """Take in an event (the library's object, or one with the same attributes)."""
        if usage := getattr(chunk, "usage", None):
            self._usage = (int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0))
        for choice in chunk.choices or ():
            delta = choice.delta
            for part in (delta.content, getattr(delta, "refusal", None)):
                if part:
                    self._text.append(part)
                    self._characters += len(part)
            for thought in (getattr(delta, name, None) for name in ("reasoning_content", "reasoning")):
                self._characters += len(thought) if isinstance(thought, str) else 0
            for call in delta.tool_calls or ():
                self._call(call)
            if choice.finish_reason:
                self.complete = True
                self._cut = choice.finish_reason == "length"

    def _call(self, part: Any) -> None:
        """Some servers give every call the same index, and some give a call's id with each of its parts."""
        asked = self._places.get(part.index)
        name, arguments = part.function.name, part.function.arguments
        if asked is None or (name and asked.name and part.id != asked.id):
            asked = _Asked(part.id or f"call_{len(self._calls)}")
            self._places[part.index] = asked
            self._calls.append(asked)
        asked.name = asked.name or name or ""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        asked.arguments.append(text)
        self._characters += len(text) + len(name or "")

    def reply(self) -> Reply:
        """All of it; its tokens are estimated where the server has not told them."""
        room = self._room
        prompt, completion = self._usage or (self._prompt // 3, self._characters // 3)
        return Reply(
            "".join(self._text)[:room],
            tuple(Call(each.id, each.name, "".join(each.arguments)[:room]) for each in self._calls),
            prompt,
            completion,
            self._cut or self.full,
        )
