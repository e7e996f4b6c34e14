"""A role's conversation: whatever is said in it, it fits the model, hangs together, and forgets nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_glia.agents.conversation import Conversation, prompt
from pytest_glia.agents.skills import Said, ToolFailed, skill
from pytest_glia.models import Call, Message, Reply, Request
from pytest_glia.models.settings import ModelSettings
from pytest_glia.models.wire import request_json
from tests.pytest_glia.actor import Actor, call

checked = settings(max_examples=200, deadline=None, derandomize=True, database=None)

JSON = 120
"""Characters around a message and its call in a request's JSON."""

OPENING, NOTEBOOK = "What is asked.", "Notebook of this run."
TURNS = st.lists(st.tuples(st.integers(0, 800), st.lists(st.integers(0, 3000), max_size=4)), max_size=25)
"""Of each turn the length of what is said, and of each result of a tool."""


def conversation(model: Actor, context: int = 100_000) -> Conversation:
    """With tools that say something long, and nothing, and one that fails."""

    def fail() -> Said:
        raise ToolFailed("that cannot be done: do another thing")

    skills = [
        skill("say", "", lambda length: Said("x" * length, f"{length} letters"), length={"type": "integer"}),
        skill("quiet", "", lambda: Said("")),
        skill("fail", "", fail),
    ]
    return Conversation(
        model, "researcher", OPENING, skills, limits=limits(context), notebook=lambda: NOTEBOOK
    )


def limits(context: int) -> ModelSettings:
    """Of a model that takes so many tokens."""
    return ModelSettings(name="actor", context=context, max_tokens=1000)


def played(turns: Sequence[tuple[int, list[int]]], context: int) -> list[Request]:
    """What the model is asked in a conversation of these turns, and of a last one."""
    replies = [
        Reply(
            "y" * said,
            tuple(
                Call(f"{turn}.{at}", "say", f'{{"length": {length}}}') for at, length in enumerate(results)
            ),
        )
        for turn, (said, results) in enumerate(turns)
    ]
    model = Actor(*replies, "the end")
    talk = conversation(model, context)
    for number in range(len(turns)):
        reply = talk.ask()
        for each in reply.calls:
            talk.use(each)
        if not reply.calls:
            talk.say(f"question {number}")
    talk.ask()
    return model.requests


@checked
@given(turns=TURNS, context=st.sampled_from([4_000, 8_000, 100_000]))
def test_it_hangs_together(turns: list[tuple[int, list[int]]], context: int) -> None:
    """The opening stays; each result follows the turn that asked for it, and each call has its result."""
    for request in played(turns, context):
        first, second, *rest = request.messages
        assert (first, second) == (Message("system", prompt("researcher")), Message("user", OPENING))
        open_calls: list[str] = []
        for message in rest:
            if message.role == "tool":
                assert open_calls.pop(0) == message.call_id
                continue
            assert open_calls == []
            open_calls = [each.id for each in message.calls]
        assert open_calls == []


@checked
@given(turns=TURNS, context=st.sampled_from([4_000, 8_000]))
def test_it_fits_and_the_notebook_is_in_it(turns: list[tuple[int, list[int]]], context: int) -> None:
    """With tools and all, three characters a token; the notebook stands once for turns that are left out."""
    for request in played(turns, context):
        assert len(request_json(request)) <= 3 * (context - 1000) + JSON * len(request.messages)
        spoken = sum(each.role == "assistant" for each in request.messages)
        left_out = [each for each in request.messages if each.text.startswith("Earlier turns are left out")]
        assert len(left_out) <= 1
        assert all(each is request.messages[2] and NOTEBOOK in each.text for each in left_out)
        asked = len(request.messages) - len(left_out)
        assert left_out or asked == 2 + sum(max(1, len(results)) + 1 for _, results in turns[:spoken])


def test_a_huge_result_is_cut_in_its_middle() -> None:
    """As soon as it comes; the model is told how much of it is left out."""
    *_, request = played([(10, [1_000_000])], context=8_000)
    [result] = [each.text for each in request.messages if each.role == "tool"]
    assert re.fullmatch(r"x+\n\.\.\. \(9\d{5} of 1000000 characters are left out here\) \.\.\.\nx+", result)
    assert len(result) < 3 * 7_000 / 4


def test_a_huge_notebook_fits() -> None:
    """What must never be forgotten is cut, too, rather than what the model was asked."""
    replies = [Reply("", (Call(str(at), "say", '{"length": 3000}'),)) for at in range(20)]
    model = Actor(*replies, "the end")
    talk = Conversation(
        model,
        "researcher",
        OPENING,
        [skill("say", "", lambda length: Said("x" * length), length={"type": "integer"})],
        limits=limits(8_000),
        notebook=lambda: "n" * 1_000_000,
    )
    for _ in replies:
        for each in talk.ask().calls:
            talk.use(each)
    talk.ask()
    assert "characters are left out here" in model.heard[2]
    assert len(request_json(model.requests[-1])) <= 3 * 7_000 + JSON * len(model.heard)


def test_a_huge_opening_leaves_room() -> None:
    """Its middle is left out, and its end, where the question stands, is there."""
    model = Actor("Yes.")
    Conversation(model, "analyst", "x" * 1_000_000 + "Why?", limits=limits(8_000)).ask()
    assert model.heard[1].endswith("xWhy?")
    assert len(request_json(model.requests[0])) < 0.9 * 3 * 7_000


def test_old_results_are_cut_to_their_gist() -> None:
    """First what tools have said, the oldest first; the turns stay, and what is recent is whole."""
    *_, request = played([(10, [2500])] * 5, context=8_000)
    results = [each.text for each in request.messages if each.role == "tool"]
    assert results[0] == "(cut; it said: 2500 letters)"
    assert results[-1] == "x" * 2500
    assert len(results) == 5


def test_a_short_conversation_is_whole() -> None:
    """As long as there is room nothing is cut."""
    *_, request = played([(10, [2500])] * 5, context=100_000)
    assert [each.text for each in request.messages if each.role == "tool"] == ["x" * 2500] * 5


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (call("fly"), "error: there is no tool 'fly': there are say, quiet, fail"),
        (call("fail"), "error: that cannot be done: do another thing"),
        (call("say", length="long"), "error: length is 'long': give an integer"),
        (call("quiet"), "(nothing)"),
    ],
)
def test_a_call_is_always_answered(reply: Reply, says: str) -> None:
    """What cannot be done is told to the model in a sentence, and so is an answer that is empty."""
    model = Actor(reply, "I see.")
    talk = conversation(model)
    talk.use(talk.ask().calls[0])
    talk.ask()
    assert model.heard[-1] == says


def test_the_role_is_on_the_request() -> None:
    """Its prompt, its name for the record, its tools and the tokens of a reply."""
    model = Actor("Yes.")
    assert conversation(model).ask().text == "Yes."
    [request] = model.requests
    assert (request.role, request.max_tokens) == ("researcher", 1000)
    assert [tool.name for tool in request.tools] == ["say", "quiet", "fail"]
