"""The Supervisor: asks and ends, and gives no code whatever its model says."""

from __future__ import annotations

import pytest

from pytest_glia.agents.supervisor import Remark, Supervisor, holds_code
from pytest_glia.models.settings import ModelSettings
from tests.pytest_glia.actor import Actor

CODE = "Try this:\n```python\nreturn min(replicas)\n```"


def supervisor(model: Actor) -> Supervisor:
    """Of the task of packing bins."""
    return Supervisor("Pack into few bins.", model, ModelSettings(name="actor"))


def test_a_question_is_passed_on() -> None:
    """It sees the task, then what the Researcher has said, and has no tools."""
    model = Actor("Why did waste rise?")
    assert supervisor(model).remark("I tried first fit.") == Remark("Why did waste rise?")
    [request] = model.requests
    assert request.tools == ()
    assert request.role == "supervisor"
    assert model.heard[1].startswith("Pack into few bins.")
    assert model.heard[2] == "I tried first fit."


def test_code_is_rejected_and_asked_for_again() -> None:
    """The model is told why; the words that come then are what the Researcher hears."""
    model = Actor(CODE, "What would show that?")
    assert supervisor(model).remark("I am stuck.") == Remark("What would show that?")
    assert len(model.requests) == 2
    assert model.heard[-1].startswith("That holds code or a ready policy, which is not yours to give.")


@pytest.mark.parametrize("said", [CODE, "", "   \n"])
def test_a_fair_question_takes_its_place(said: str) -> None:
    """After three replies with code, or without a word, it is the question that is always fair."""
    model = Actor(said)
    remark = supervisor(model).remark("I am stuck.")
    assert len(model.requests) == 3
    assert remark.text.startswith("What have you measured that you did not expect")
    assert not remark.ends


@pytest.mark.parametrize(
    "said",
    [
        "END\nThe same constant again.",
        "end.\n\nThe same constant again.\n",
        "**END**\nThe same constant again.",
        "END: The same constant again.",
        "**END:** The same constant again.",
        "END. The same constant again.",
        "END - The same constant again.",
        "END — The same constant again.",
        "The same constant again.\n\nEND",
    ],
)
def test_it_may_end_the_context(said: str) -> None:
    """By the word on a line, or at the beginning before a stop; the rest says why."""
    assert supervisor(Actor(said)).remark("0.31, then 0.32") == Remark("The same constant again.", ends=True)


@pytest.mark.parametrize(
    "said",
    [
        "END of the queue: who waits there?",
        "END-to-end times rose: why?",
        "In the end: why?",
        "What is at the end?\nend\nof the queue?",
    ],
)
def test_the_word_in_a_sentence_ends_nothing(said: str) -> None:
    """Only a line of its own does, or a stop after it."""
    assert supervisor(Actor(said)).remark("...") == Remark(said)


def test_of_a_long_turn_it_sees_the_end() -> None:
    """And of one without words, that there were none."""
    model = Actor("Why?")
    talk = supervisor(model)
    talk.remark("a" * 20_000 + "the last word")
    assert len(model.heard[2]) == 12_000
    assert model.heard[2].endswith("the last word")
    talk.remark("")
    assert model.heard[-1] == "(the Researcher said nothing)"


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        "~~~\nx\n~~~",
        "def route(queue):",
        "Like so:\n    for each in queue: pass\n    return min(loads, key=len)",
        "class Router:",
        "from math import (inf)",
        "limit = 0.3",
        "limit += 1",
        "Use\nsorted(items, reverse=True)",
        "> limit = 0.3",
        "`limit = 0.3`",
        "limit: float = 0.3",
        "import heapq",
        "Then\n    return loads[0] + 1",
        "if load > 3: limit = 1",
        "Use\nmin(\n    replicas,\n    key=by_load,\n)",
        "Would `min(queue, key=lambda each: each.tokens)` help?",
        "Write def route(queue) so that it waits.",
        "Try this:\n- score = queue + 2 * tokens",
        "1. score = queue + 2 * tokens\n2. return min(a, key=b)",
        "Would `score = queue + 1` help?",
    ],
)
def test_code_is_known(text: str) -> None:
    """Blocks, definitions, assignments and calls on lines of their own."""
    assert holds_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "Which experiment would tell the two apart?",
        "You found (in 1.E2) that waste falls by 20 %: is that so for long prompts, too?",
        "Why is waste 1.2 = 20 % above the volume?",
        "From what you measured, while load was low, return to the question: why?",
        "Explain it (again).",
        "Explain (again).",
        "from what you measured: why?",
        "Which do you believe,\nfrom what you measured (in 1.E2): the first?",
        "while load is low: why does it wait?",
        "if so: explain",
        "if so:\n- which experiment shows it?",
        "for each: what would refute it?",
        "Why do they\nreturn home",
        "return to the question: why (again)?",
        "class of request: which one?",
        "import this idea from 1.E2 (the sweep)?",
        "Surprise: waste",
        "Recall what was found:\n- waste = 1.2 with pressure 50\n- why (in 1.E2)?",
        "The arrival rate lambda grows: why?",
        "You measured:\n- waste = 1.2\n- load = 3",
        "Is `waste = 0.2` a surprise?",
        "",
    ],
)
def test_words_are_no_code(text: str) -> None:
    """Sentences with figures, brackets or the words of a language are none."""
    assert not holds_code(text)
