"""Tools in plain text: what the model is told, and what is read from its answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_glia.models import Call, Message, Reply, Request, Tool
from pytest_glia.models.plain_text import PlainText, in_words, parsed

LOOK = Tool("look", "Looks at a file.", {"type": "object", "properties": {"at": {"type": "string"}}})
TASK = Request((Message("system", "Be brief."), Message("user", "Why?")), (LOOK,))


class Says:
    """Says one text, and keeps what it was asked."""

    name = "says"

    def __init__(self, text: str) -> None:
        self._text = text
        self.asked: list[Request] = []

    def complete(self, request: Request) -> Reply:
        self.asked.append(request)
        return Reply(self._text, (), 10, 5)


def test_tools_are_explained_in_the_system_message() -> None:
    """A model without tools is told their names, what they do, their arguments and how to ask."""
    model = Says("fine")
    PlainText(model).complete(TASK)
    [request] = model.asked
    system, user = request.messages
    assert request.tools == ()
    assert system.text.startswith("Be brief.\n\nYou can use tools.")
    assert "- look: Looks at a file.\n  arguments: " + json.dumps(LOOK.parameters) in system.text
    assert user == Message("user", "Why?")


def test_explanation_needs_no_system_message() -> None:
    """Where there is none, one is put first."""
    first, second = in_words(replace(TASK, messages=TASK.messages[1:]))
    assert (first.role, second.role) == ("system", "user")


def test_without_tools_nothing_is_explained_or_read() -> None:
    """A request without tools goes as it is, and a block in its reply is text."""
    text = 'So:\n```tool\n{"name": "look"}\n```'
    model = Says(text)
    reply = PlainText(model).complete(replace(TASK, tools=()))
    assert (reply.text, reply.calls) == (text, ())
    assert model.asked[0].messages == TASK.messages


def test_blocks_are_calls() -> None:
    """Text around blocks stays text; each block is a call, in order; the tokens are the model's."""
    look, end = '{"name": "look", "arguments": {"at": "a"}}', '{"name": "end"}'
    text = f"First.\n```tool\n{look}\n```\nThen\n```tool\n{end}\n```\n"
    reply = PlainText(Says(text)).complete(TASK)
    assert reply == Reply(
        "First.\nThen", (Call("call_1", "look", '{"at": "a"}'), Call("call_2", "end", "{}")), 10, 5
    )


def test_calls_of_later_turns_have_ids_of_their_own() -> None:
    """The numbers go on where those of the conversation end."""
    before = Message("assistant", "", (Call("call_1", "look", "{}"),))
    result = Message("tool", "empty", (), "call_1")
    request = replace(TASK, messages=(*TASK.messages, before, result))
    reply = PlainText(Says('```tool\n{"name": "look"}\n```')).complete(request)
    assert [call.id for call in reply.calls] == ["call_2"]


def test_results_are_the_users_words() -> None:
    """Calls are told as the blocks that made them, results as what a user says, in one message."""
    calls = (Call("1", "look", '{"at": "a"}'), Call("2", "", '{"name": oh'))
    messages = (
        Message("user", "Why?"),
        Message("assistant", "Let me see.", calls),
        Message("tool", "empty", (), "1"),
        Message("tool", "no JSON", (), "2"),
        Message("user", "Go on."),
    )
    told = in_words(Request(messages))
    assert [message.role for message in told] == ["user", "assistant", "user"]
    first, second = parsed(told[1].text)[1]
    assert (first.name, first.arguments, second.arguments) == ("look", '{"at": "a"}', '{"name": oh')
    assert told[1].text.startswith("Let me see.")
    assert told[2].text == "Result of look:\nempty\n\nResult of a tool:\nno JSON\n\nGo on."


@pytest.mark.parametrize(
    "block",
    [
        '{"name": "look", "arguments": {',
        "look at a",
        "[1, 2]",
        '{"name": 3}',
        '{"arguments": {}}',
        "[" * 10_000,
    ],
)
def test_malformed_block_is_a_call_as_it_is_written(block: str) -> None:
    """What is no call of a tool is handed on as it is, under no name, for its caller to refuse."""
    assert parsed(f"```tool\n{block}\n```") == ("", (Call("call_1", "", block),))


def test_block_may_be_cut() -> None:
    """A block that never ends, as a reply that was cut has it, is what there is of it."""
    assert parsed('So:\n```tool\n{"name": "lo') == ("So:", (Call("call_1", "", '{"name": "lo'),))


def test_arguments_may_be_text() -> None:
    """Arguments that are a text of JSON are taken as that text."""
    [call] = parsed('```tool\n{"name": "look", "arguments": "{\\"at\\": 1}"}\n```')[1]
    assert call.arguments == '{"at": 1}'


def test_other_fences_are_text() -> None:
    """Code that is shown is no call."""
    text = "```python\nprint(1)\n```"
    assert parsed(text) == (text, ())


@given(st.text(alphabet=st.sampled_from('`tol{}":name[]\n aé\ud800')))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever a model says is text and calls."""
    left, calls = parsed(text)
    assert len(left) <= len(text)
    assert all(len(call.arguments) <= max(2, 6 * len(text)) for call in calls)
