"""What a model has answered is on record, is told again for nothing, and is counted all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_glia.budget import Account, Budget, BudgetExhausted
from pytest_glia.ledger import Ledger
from pytest_glia.models import Call, Message, Model, ModelFailed, Reply, Request, Tool
from pytest_glia.models.recorded import RecordedModel, RecordEnded
from pytest_glia.models.settings import Price
from pytest_glia.models.transcript import write_conversation
from pytest_glia.models.wire import reply_json, reply_of, request_json, request_of

PRICE = Price(1000, 2000)  # a tenth of a cent a prompt token, two tenths a completion token
TOOL = Tool("look", "Looks.", {"type": "object"})


class Echo:
    """Says what it was told last, in 10 + 5 tokens; or fails."""

    name = "echo"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failures: list[ModelFailed] = []

    def complete(self, request: Request) -> Reply:
        self.asked.append(request.messages[-1].text)
        if self.failures:
            raise self.failures.pop(0)
        return Reply(f"You said {request.messages[-1].text}.", (), 10, 5)


def said(*texts: str, role: str = "researcher") -> Request:
    """A conversation in which these texts were said in turn."""
    return Request(tuple(Message("user", text) for text in texts), max_tokens=20, role=role)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


Begin = Callable[..., tuple[RecordedModel, Account]]


@pytest.fixture
def begin(ledger: Ledger) -> Begin:
    """Makes a process's part of the run: a recorded model and an account that begins at zero."""

    def begin(
        model: Model | None, thread: str = "1", budget: Budget | None = None
    ) -> tuple[RecordedModel, Account]:
        account = Account(budget or Budget())
        return RecordedModel(model, ledger, account, "run", thread, PRICE), account

    return begin


def test_what_was_answered_is_not_asked_again(begin: Begin) -> None:
    """A later process gets the same replies from the record, goes on, and comes to the same account."""
    echo = Echo()
    recorded, account = begin(echo)
    replies = [recorded.complete(said("a")), recorded.complete(said("a", "b", role="analyst"))]
    assert account.spent == {"tokens": 30, "dollars": pytest.approx(0.04)}
    again, resumed = begin(echo)
    assert [again.complete(said("a")), again.complete(said("a", "b", role="analyst"))] == replies
    assert resumed.spent == account.spent
    assert again.complete(said("c")).text == "You said c."
    assert echo.asked == ["a", "b", "c"]


def test_replay_needs_no_model(begin: Begin) -> None:
    """Without a model the record answers, under the model's name, up to its end, which it names."""
    recorded, _ = begin(Echo())
    reply = recorded.complete(said("a"))
    replay, account = begin(None)
    assert (replay.name, replay.complete(said("a"))) == ("echo", reply)
    assert account.spent["tokens"] == 15
    with pytest.raises(RecordEnded, match="run run ends before request 2 of researcher in thread '1'"):
        replay.complete(said("b"))


def test_replay_of_something_else_names_the_first_difference(begin: Begin) -> None:
    """A request that is not the one on record says which one and from which message on."""
    recorded, _ = begin(Echo())
    recorded.complete(said("a"))
    recorded.complete(said("a", "b", "c"))
    replay, _ = begin(None)
    replay.complete(said("a"))
    with pytest.raises(RecordEnded, match=r"request 2 of researcher in thread '1' differs from message 3 on"):
        replay.complete(said("a", "b", "x"))


def test_new_turn_discards_the_rest_of_its_thread(begin: Begin, ledger: Ledger) -> None:
    """Another request than on record is asked, and what followed there is gone; other threads stay."""
    echo = Echo()
    for thread in ("1", "2"):
        recorded, _ = begin(echo, thread)
        for text in "abc":
            recorded.complete(said(text))
    other, _ = begin(echo)
    other.complete(said("a"))
    assert other.complete(said("x")).text == "You said x."
    assert [(each.thread, reply_of(each.reply).text[-2]) for each in ledger.exchanges("run")] == [
        *(("1", "a"), ("2", "a"), ("2", "b"), ("2", "c"), ("1", "x"))
    ]


def test_the_most_that_a_call_may_cost_is_reserved(begin: Begin) -> None:
    """The model is not asked where its longest reply would not fit, though its real one would."""
    echo = Echo()
    request = said("word " * 100)
    bound = len(request_json(request)) // 2 + 20
    recorded, _ = begin(echo, "1", Budget(tokens=bound - 1))
    with pytest.raises(BudgetExhausted, match="tokens is spent"):
        recorded.complete(request)
    assert echo.asked == []
    enough, account = begin(echo, "1", Budget(tokens=bound))
    enough.complete(request)
    assert account.left("tokens") == bound - 15


def test_dollars_are_reserved_at_their_price(begin: Begin) -> None:
    """A budget in dollars stops the call that could exceed it, and says so."""
    recorded, _ = begin(Echo(), "1", Budget(dollars=0.05))
    with pytest.raises(BudgetExhausted, match=r"the budget of 0\.05 dollars is spent"):
        recorded.complete(said("a"))


def test_failed_call_costs_what_it_is_known_to_have_cost(begin: Begin) -> None:
    """What a broken reply took is booked, by whoever resumes, too; the rest of its reserve is free again."""
    echo = Echo()
    echo.failures = [ModelFailed("broken", prompt_tokens=10, completion_tokens=3), ModelFailed("no")]
    recorded, account = begin(echo, "1", Budget(tokens=1000))
    for _ in range(2):
        with pytest.raises(ModelFailed):
            recorded.complete(said("a"))
    assert account.left("tokens") == 1000 - 13
    recorded.complete(said("a"))
    assert account.spent["tokens"] == 28
    resumed, later = begin(echo)
    resumed.complete(said("a"))
    assert later.spent == {"tokens": 28, "dollars": pytest.approx(account.spent["dollars"])}


def test_threads_share_ledger_and_account(begin: Begin, ledger: Ledger) -> None:
    """Contexts that ask at once are all on record, and all are counted."""
    account = Account(Budget())

    def talk(thread: str) -> None:
        recorded = RecordedModel(Echo(), ledger, account, "run", thread, None)
        for number in range(20):
            recorded.complete(said(str(number)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(talk, "abcd"))
    assert account.spent == {"tokens": 4 * 20 * 15}
    found = ledger.exchanges("run")
    assert sorted((each.thread, each.ordinal) for each in found) == [
        (t, n) for t in "abcd" for n in range(20)
    ]


def test_record_keeps_every_part() -> None:
    """A request and a reply come back from their JSON as they were, lone surrogates included."""
    call = Call("1", "look", '{"at": "\ud800"}')
    messages = (Message("system", "é"), Message("assistant", "", (call,)), Message("tool", "x", (), "1"))
    request, reply = Request(messages, (TOOL,), 5, "analyst"), Reply("\udfff", (call,), 1, 2, True)
    assert request_of(request_json(request)) == request
    assert reply_of(reply_json(reply)) == reply
    assert request_json(request).isascii()


class Scripted:
    """Gives prepared replies."""

    name = "scripted"

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)

    def complete(self, request: Request) -> Reply:
        return self._replies.pop(0)


def test_conversation_tells_each_thing_once(begin: Begin, ledger: Ledger) -> None:
    """The file has every message, call and result once, in order, by thread; long results are cut."""
    call = Call("c1", "look", '{"at": "queue", "lines": [1, 2]}')
    recorded, _ = begin(Scripted(Reply("Let me look.", (call,), 10, 5), Reply("It is empty.", (), 30, 4)))
    task = (Message("system", "You are a researcher."), Message("user", "Why?"))
    recorded.complete(Request(task, role="researcher"))
    result = "\n".join(f"row {n}" for n in range(100)) + "\n````\n\x1b[31m"
    answered = (*task, Message("assistant", "Let me look.", (call,)), Message("tool", result, (), "c1"))
    recorded.complete(Request(answered, role="researcher"))
    second, _ = begin(Scripted(Reply("Are you sure?")), "2")
    second.complete(Request((Message("user", "It is empty."),), role="supervisor"))
    file = write_conversation(ledger, "run")
    assert file is not None
    assert file == ledger.folder / "runs" / "run" / "conversation.md"
    text = file.read_text("utf-8")
    order = ["# Conversation of run run", "3 requests to `scripted`: 49 tokens", "## Thread 1"]
    order += ["### 1. researcher (10 + 5 tokens)", "> You are a researcher.", "> Why?", "> Let me look."]
    order += [
        "Asks for `look` (c1)",
        "at: queue\nlines: [1, 2]",
        "### 2. researcher",
        "Result of c1",
        "row 11",
    ]
    order += ["characters more", "> It is empty.", "## Thread 2", "### 1. supervisor", "> Are you sure?"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert text.count("You are a researcher.") == text.count("Let me look.") == 1
    assert "row 12" not in text


def test_conversation_tells_the_problem_once(begin: Begin, ledger: Ledger) -> None:
    """A message that begins like another, in whatever thread, refers to it, and shows what is its own."""
    problem = "\n\n".join(f"Paragraph {n} of the problem, which is long." for n in range(20))
    for thread, question in (("1", "How many?"), ("2", "Why?"), ("3", "Where?")):
        recorded, _ = begin(Scripted(Reply("I see.")), thread)
        recorded.complete(said(f"{problem}\n\n{question}"))
    file = write_conversation(ledger, "run")
    assert file is not None
    text = file.read_text("utf-8")
    assert text.count("Paragraph 7 of the problem") == 1
    same = f"the same {len(problem) + 2} characters as a message in request 1 of thread 1, and goes on:*"
    assert text.count(same) == 2
    assert [text.count(f"> {each}") for each in ("How many?", "Why?", "Where?")] == [1, 1, 1]


def test_conversation_cannot_break_out_of_its_page(begin: Begin, ledger: Ledger) -> None:
    """Fences in a tool's result stay inside a longer one, control characters are shown as escapes."""
    recorded, _ = begin(Scripted(Reply("ok", (Call("1", "look", "```\n# no heading\n\x1b[31m"),))))
    recorded.complete(said("# no\x07 heading either"))
    file = write_conversation(ledger, "run")
    assert file is not None
    text = file.read_text("utf-8")
    assert "````text\n```\n# no heading\n\\x1b[31m\n````" in text
    assert "> # no\\x07 heading either" in text


def test_conversation_says_what_a_context_has_lost(begin: Begin, ledger: Ledger) -> None:
    """Where a role is no longer told something, the file says so instead of telling all again."""
    recorded, _ = begin(Echo())
    recorded.complete(said("task", "a long table"))
    recorded.complete(said("task", "a finding", "go on"))
    file = write_conversation(ledger, "run")
    assert file is not None
    text = file.read_text("utf-8")
    assert "*2 earlier messages left out of its context from here on.*" in text
    assert text.count("> task") == 1


def test_run_without_a_model_has_no_conversation(ledger: Ledger) -> None:
    """No file is made where nothing was said."""
    assert write_conversation(ledger, "run") is None
    assert not (ledger.folder / "runs").exists()
