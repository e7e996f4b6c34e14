"""What all roles of a run have said, as one file that a person can read: ``conversation.md``."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from pytest_glia.ledger import Exchange, Ledger
from pytest_glia.markdown import fenced
from pytest_glia.models import Call, Message, Reply
from pytest_glia.models.wire import reply_of, request_of
from pytest_glia.visible import visible

# Lines and characters that are shown of a tool's arguments or result: the rest is in the ledger.
_LINES = 12
_CHARACTERS = 1000

# Characters with which a message may begin like an earlier one before that is referred to.
_BEGINNING = 500


def write_conversation(ledger: Ledger, run: str) -> Path | None:
    """Write ``runs/<run>/conversation.md`` in the ledger's folder; None if the run has asked no model."""
    exchanges = ledger.exchanges(run)
    if not exchanges:
        return None
    file = ledger.folder / "runs" / run / "conversation.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Whoever reads it meanwhile sees the one before as a whole.
    new = file.with_suffix(".new")
    new.write_text(conversation(run, exchanges), "utf-8")
    os.replace(new, file)
    return file


def conversation(run: str, exchanges: Sequence[Exchange]) -> str:
    """As Markdown: by thread in order, of each request only what its role had not been told before.

    A long beginning that several messages share, such as the problem statement, is shown once.
    """
    tokens = sum(each.prompt_tokens + each.completion_tokens for each in exchanges)
    dollars = sum(each.dollars for each in exchanges)
    cost = f", {dollars:.4g} usd" if dollars else ""
    models = ", ".join(f"`{_line(name)}`" for name in dict.fromkeys(each.model for each in exchanges))
    parts = [f"# Conversation of run {run}", f"{len(exchanges)} requests to {models}: {tokens} tokens{cost}."]
    beginnings: dict[str, list[str]] = {}
    by_thread = sorted(exchanges, key=lambda each: (each.thread, each.ordinal))
    for thread, turns in groupby(by_thread, key=lambda each: each.thread):
        parts.append(f"## Thread {_line(thread)}")
        known: dict[str, frozenset[Message]] = {}
        for turn in turns:
            parts += _turn(turn, known, beginnings)
    return "\n\n".join(parts) + "\n"


def _turn(
    turn: Exchange, known: dict[str, frozenset[Message]], beginnings: dict[str, list[str]]
) -> Iterator[str]:
    """One request and its reply.

    `known` has what each role was told last, and what it answered; `beginnings` the paragraphs of messages
    that begin as none before them, by where they stand.
    """
    messages, reply = request_of(turn.request).messages, reply_of(turn.reply)
    before = known.get(turn.role, frozenset())
    gone = len(before - set(messages))
    known[turn.role] = frozenset({*messages, Message("assistant", reply.text, reply.calls)})
    seconds = f"{turn.seconds:.0f} s, " if turn.seconds >= 1 else ""
    yield (
        f"### {turn.ordinal + 1}. {_line(turn.role) or 'request'} "
        f"({seconds}{turn.prompt_tokens} + {turn.completion_tokens} tokens)"
    )
    if gone:
        yield f"*{gone} earlier message{'s' if gone > 1 else ''} left out of its context from here on.*"
    for message in messages:
        if message not in before:
            where = f"request {turn.ordinal + 1} of thread {_line(turn.thread)}"
            yield from _message(message, where, beginnings)
    yield from _reply(reply, _line(turn.role) or "reply")


def _message(message: Message, where: str, beginnings: dict[str, list[str]]) -> Iterator[str]:
    if message.role == "tool":
        yield f"**Result of {_line(message.call_id)}:**"
        yield fenced(_short(message.text), "text")
    else:
        yield f"**To the model, as {message.role}:**"
        if message.text:
            yield from _new(message.text, where, beginnings)
        yield from map(_call, message.calls)


def _new(text: str, where: str, beginnings: dict[str, list[str]]) -> Iterator[str]:
    """What a message does not share with the beginning of one before it."""
    paragraphs = text.split("\n\n")
    for place, known in beginnings.items():
        pairs = zip(paragraphs, known, strict=False)
        shared = list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        length = sum(len(each) + 2 for each, _ in shared)
        if length >= _BEGINNING:
            yield f"*It begins with the same {length} characters as a message in {place}, and goes on:*"
            paragraphs = paragraphs[len(shared) :]
            break
    else:
        if len(text) >= _BEGINNING:
            beginnings.setdefault(where, paragraphs)
    if paragraphs:
        yield _quoted("\n\n".join(paragraphs))


def _reply(reply: Reply, who: str) -> Iterator[str]:
    yield f"**{who[:1].upper()}{who[1:]} says{' (cut)' if reply.cut else ''}:**"
    if reply.text or not reply.calls:
        yield _quoted(reply.text or "(nothing)")
    yield from map(_call, reply.calls)


def _call(call: Call) -> str:
    """Each argument in lines of its own, if they are what they should be."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if isinstance(arguments, dict):
        text = "\n".join(
            f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
            for name, value in arguments.items()
        )
    else:
        text = call.arguments
    head = f"**Asks for `{_line(call.name) or '?'}` ({_line(call.id)}):**"
    return f"{head}\n\n{fenced(_short(text), 'text')}" if text else head


def _short(text: str) -> str:
    shown = "\n".join(text.splitlines()[:_LINES])[:_CHARACTERS]
    left = len(text) - len(shown)
    return f"{shown}\n... and {left} characters more" if left > 1 else shown


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in visible(text).splitlines())


def _line(text: str) -> str:
    return visible(text, line=True)
