"""One agent's conversation with its model: turns, tools, and a context that is kept within its limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files

from pytest_glia.agents.skills import Said, Skill, ToolFailed, arguments
from pytest_glia.models import Call, Message, Model, Reply, Request

# Of the model's context, what a conversation may fill before old results of tools are cut down to their gist.
_FULL = 0.6

# The last messages stay as they are, whatever they hold.
_RECENT = 6

# Characters that make a token, about; fewer than are usual, so that the limit holds.
_CHARACTERS = 3


class Conversation:
    """Messages between one role and its model.

    Args:
        model: That answers.
        role: Whose conversation it is: names its prompt, and its requests on record.
        opening: The first message, which is never cut.
        skills: What it may use.
        context: Tokens that the model can take.
        max_tokens: Of one reply.
        notebook: What must never be forgotten, asked for when the context was cut.
    """

    def __init__(
        self,
        model: Model,
        role: str,
        opening: str,
        skills: Sequence[Skill] = (),
        *,
        context: int,
        max_tokens: int,
        notebook: Callable[[], str] | None = None,
    ) -> None:
        self._model = model
        self._role = role
        self._skills = {skill.tool.name: skill for skill in skills}
        self._limit = int(_FULL * (context - max_tokens)) * _CHARACTERS
        self._max_tokens = max_tokens
        self._notebook = notebook
        self._messages = [Message("system", prompt(role)), Message("user", opening)]
        self._gists: dict[int, str] = {}

    def say(self, text: str) -> None:
        """Add a message to it."""
        self._messages.append(Message("user", text))

    def ask(self) -> Reply:
        """The next reply, which joins the conversation; raises as `Model.complete` does."""
        self._shorten()
        tools = tuple(skill.tool for skill in self._skills.values())
        reply = self._model.complete(Request(tuple(self._messages), tools, self._max_tokens, self._role))
        self._messages.append(Message("assistant", reply.text, reply.calls))
        return reply

    def use(self, call: Call) -> Said:
        """Do what a reply has asked for; the answer, or why there is none, joins the conversation."""
        try:
            said = self._used(call)
        except ToolFailed as failed:
            said = Said(f"error: {failed}", f"error: {str(failed)[:100]}")
        told = Message("tool", said.text or "(nothing)", call_id=call.id)
        self._messages.append(told)
        # By the message: some servers begin with the same ids in each reply.
        self._gists[id(told)] = said.gist or _first_line(said.text)
        return said

    def _used(self, call: Call) -> Said:
        skill = self._skills.get(call.name)
        if skill is None:
            raise ToolFailed(f"there is no tool {call.name!r}: there are {', '.join(self._skills)}")
        return skill.use(**arguments(call, skill.tool.parameters))

    def _shorten(self) -> None:
        """Cut old results of tools down to their gist; if that is not enough, leave the oldest turns out."""
        if self._size() <= self._limit:
            return
        for place, message in enumerate(self._messages[:-_RECENT]):
            if message.role == "tool" and id(message) in self._gists:
                gist = f"(cut; it said: {self._gists.pop(id(message))})"
                if len(gist) < len(message.text):
                    self._messages[place] = replace(message, text=gist)
            if self._size() <= self._limit:
                return
        # A result may not stand without the turn that asked for it: cut before a turn of the assistant.
        turns = [at for at, each in enumerate(self._messages) if each.role == "assistant" and at > 2]
        for at in turns:
            rest = [*self._messages[:2], *self._messages[at:]]
            if self._size(rest) <= self._limit or at == turns[-1]:
                left_out = "Earlier turns are left out here."
                told = f"{left_out}\n\n{self._notebook()}" if self._notebook else left_out
                self._messages = [*self._messages[:2], Message("user", told), *self._messages[at:]]
                return

    def _size(self, messages: Sequence[Message] | None = None) -> int:
        """In characters."""
        return sum(
            len(each.text) + sum(len(call.arguments) for call in each.calls)
            for each in (self._messages if messages is None else messages)
        )


def prompt(role: str) -> str:
    """What a role is told about itself: a file of the folder ``prompts``."""
    return (files("pytest_glia.agents") / "prompts" / f"{role}.md").read_text("utf-8")


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:120]
