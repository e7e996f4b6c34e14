"""One agent's conversation with its model: turns, tools, and a context that is kept within its limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files

from pytest_glia.agents.skills import Said, Skill, ToolFailed, arguments
from pytest_glia.models import Call, Message, Model, Reply, Request
from pytest_glia.models.settings import ModelSettings
from pytest_glia.models.wire import request_json
from pytest_glia.visible import abridged

# Of what the model takes, all that an opening may fill.
_OPENING = 0.8

# Of what is left beside its opening, what a conversation may fill before old results of tools are cut down to
# their gist, and any single message of it.
_FULL, _MESSAGE = 0.6, 0.25

# Characters of a result that are left of it in any case.
_LEAST = 100

# The last messages stay as they are, whatever they hold.
_RECENT = 6


class Conversation:
    """Messages between one role and its model.

    Args:
        model: That answers.
        role: Whose conversation it is: names its prompt, and its requests on record.
        opening: The first message, which is never forgotten.
        skills: What it may use.
        limits: Of the model. All counts: the prompt, the tools, the opening, the notebook, what is said.
        notebook: What must never be forgotten, asked for when the context was cut.
    """

    def __init__(
        self,
        model: Model,
        role: str,
        opening: str,
        skills: Sequence[Skill] = (),
        *,
        limits: ModelSettings,
        notebook: Callable[[], str] | None = None,
    ) -> None:
        self._model = model
        self._role = role
        self._skills = {skill.tool.name: skill for skill in skills}
        self._max_tokens = limits.max_tokens
        self._notebook = notebook
        tools = request_json(Request((), tuple(skill.tool for skill in skills)))
        fixed = len(prompt(role)) + len(tools)
        opening = abridged(opening, int(_OPENING * limits.room) - fixed)
        self._messages = [Message("system", prompt(role)), Message("user", opening)]
        left = max(0, limits.room - fixed - len(opening))
        self._most = int(_MESSAGE * left)
        self._limit = self._size() + int(_FULL * left)
        self._gists: dict[int, str] = {}

    def say(self, text: str) -> None:
        """Add a message to it."""
        self._messages.append(Message("user", abridged(text, self._most)))

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
            said = Said(f"error: {failed}", f"error: {str(failed)[:100]}", failed=True)
        told = Message("tool", abridged(said.text, self._most) or "(nothing)", call_id=call.id)
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
        told = "Earlier turns are left out here."
        if self._notebook and turns:
            told += f"\n\n{abridged(self._notebook(), self._most)}"
        for at in turns:
            rest = [*self._messages[:2], Message("user", told), *self._messages[at:]]
            if self._size(rest) <= self._limit or at == turns[-1]:
                self._messages = rest
                break
        self._shorten_results()

    def _shorten_results(self) -> None:
        """If a single turn is too long, each of its results gets an equal part of what there is."""
        results = [at for at, each in enumerate(self._messages) if each.role == "tool"]
        over = self._size() - self._limit
        if over <= 0 or not results:
            return
        part = (sum(len(self._messages[at].text) for at in results) - over) // len(results)
        for at in results:
            message = self._messages[at]
            self._messages[at] = replace(message, text=abridged(message.text, max(_LEAST, part)))
            # The gist is known by the message.
            self._gists[id(self._messages[at])] = self._gists.pop(id(message), "")

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
