"""A model behind a server with OpenAI's API: what it says, and what it does when it does not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_glia.budget import Account, Budget, BudgetExhausted
from pytest_glia.misuse import Misuse
from pytest_glia.models import Call, Message, ModelFailed, Reply, Request, Tool
from pytest_glia.models.openai_client import OpenAIModel
from pytest_glia.models.patient import PatientModel
from pytest_glia.models.settings import ModelSettings
from tests.scripted_model import Replies, Says, ScriptedModel

KEY = "sk-secret-0123456789"
ADD = Tool("add", "Adds numbers.", {"type": "object", "properties": {"a": {"type": "number"}}})
HELLO = Request((Message("system", "Be brief."), Message("user", "Hello?")), max_tokens=50)


def asked(replies: Replies, request: Request = HELLO, **settings: Any) -> tuple[Reply, ScriptedModel]:
    """What comes of a request to a server with these replies, and the server."""
    with ScriptedModel(replies) as server:
        model = OpenAIModel(ModelSettings("some", server.url, **settings), KEY)
        return model.complete(request), server


def failing(replies: Replies, **settings: Any) -> ModelFailed:
    """How a request to a server with these replies fails."""
    with pytest.raises(ModelFailed) as caught:
        asked(replies, **settings)
    return caught.value


def test_reply_is_put_together_from_its_stream() -> None:
    """Text comes whole, with the server's count of tokens."""
    reply, server = asked([Says("It is a fine day.", usage=(12, 5))])
    assert reply == Reply("It is a fine day.", (), 12, 5)
    [body] = server.requests
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    assert (body["model"], body["max_tokens"], "tools" in body) == ("some", 50, False)
    assert server.keys == [f"Bearer {KEY}"]


def test_calls_are_put_together_from_their_parts() -> None:
    """Several tool calls beside a text, their arguments as the model wrote them, JSON or not."""
    calls: list[tuple[str, dict[str, int] | str]] = [("add", {"a": 1}), ("add", {"a": 2}), ("add", '{"a": 3')]
    reply, server = asked([Says("Adding.", calls)], replace(HELLO, tools=(ADD,)))
    assert reply.text == "Adding."
    assert [(call.name, call.arguments) for call in reply.calls] == [
        ("add", '{"a": 1}'),
        ("add", '{"a": 2}'),
        ("add", '{"a": 3'),
    ]
    assert len({call.id for call in reply.calls}) == 3
    assert server.requests[0]["tools"][0]["function"]["name"] == "add"


def test_calls_of_one_index_are_told_apart() -> None:
    """Some servers number every call 0, and tell their arguments whole: they are two calls."""
    parts = [
        {"index": 0, "id": name, "function": {"name": "add", "arguments": "{}"}} for name in ("one", "two")
    ]
    choices = [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": "tool_calls"} for part in parts]
    raw = "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices)
    reply, _ = asked([Says(raw=raw)])
    assert reply.calls == (Call("one", "add", "{}"), Call("two", "add", "{}"))


def test_conversation_goes_out_as_it_was() -> None:
    """A call and its result are sent with the ids that join them; a lone surrogate goes as "?"."""
    messages = (
        Message("user", "1+1?"),
        Message("assistant", "", (Call("x1", "add", '{"a": 1}'),)),
        Message("tool", "2\ud800", call_id="x1"),
    )
    _, server = asked([Says("2")], Request(messages))
    _, call, result = server.requests[0]["messages"]
    assert call["tool_calls"][0] == {
        "id": "x1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    assert result == {"role": "tool", "tool_call_id": "x1", "content": "2?"}


def test_reasoning_effort_is_passed_on_and_thoughts_are_not_the_reply() -> None:
    """What a model thinks aloud is no part of what it says, but counts where no usage is told."""
    reply, server = asked([Says("Yes.", reasoning="Hmm. " * 10, usage=None)], HELLO, reasoning_effort="low")
    assert reply.text == "Yes."
    assert reply.completion_tokens == (50 + 4) // 3
    assert server.requests[0]["reasoning_effort"] == "low"


def test_tokens_are_estimated_where_none_are_told() -> None:
    """A third of the characters, read and written."""
    reply, _ = asked([Says("a" * 300, usage=None)], Request((Message("user", "b" * 3000),)))
    assert reply.completion_tokens == 100
    assert 1000 <= reply.prompt_tokens <= 1100


def test_refusal_is_what_it_says() -> None:
    """A refusal is a reply as any other."""
    assert asked([Says(refusal="I will not.")])[0].text == "I will not."


def test_reply_may_be_cut_by_its_server() -> None:
    """One that ends because its tokens are spent says so."""
    assert asked([Says("And then", finish="length")])[0].cut


def test_huge_reply_is_cut() -> None:
    """A server that does not heed max_tokens is not listened to for ever."""
    reply, _ = asked([Says("word " * 100_000)])
    assert reply.cut
    assert len(reply.text) == 16 * HELLO.max_tokens


def test_other_name_of_the_limit_is_learnt() -> None:
    """A server that refuses max_tokens by name is asked with max_completion_tokens, then and ever after."""

    def reply(body: dict[str, Any]) -> Says:
        if "max_tokens" in body:
            return Says(status=400, error="Unsupported parameter: 'max_tokens': use 'max_completion_tokens'.")
        return Says("fine")

    with ScriptedModel(reply) as server:
        model = OpenAIModel(ModelSettings("some", server.url))
        assert [model.complete(HELLO).text for _ in range(2)] == ["fine", "fine"]
        assert [body.get("max_completion_tokens") for body in server.requests] == [None, 50, 50]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "see glia_model_tools, glia_model_context and glia_max_output_tokens"),
        (401, "set the environment variable OPENAI_API_KEY to a key of that server"),
        (403, "set the environment variable OPENAI_API_KEY to a key of that server"),
        (404, "correct glia_model or glia_base_url"),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(status: int, advice: str) -> None:
    """Whom, which model, what it said, what to do; without the key, though the server repeats it."""
    said = f"max_tokens no \x1b[31m for {KEY}" if status == 400 else f"no \x1b[31m for {KEY}"
    failed = failing([Says(status=status, error=said)])
    assert not failed.again
    sentence = str(failed)
    assert sentence.startswith("the server 127.0.0.1:")
    assert f"gave no reply of the model 'some': HTTP {status}: " in sentence
    assert "no \\x1b[31m for ..." in sentence
    assert sentence.endswith(advice)
    assert KEY not in sentence


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_waiting_may_mend_says_so(status: int) -> None:
    """Such as too many requests, or a server that is starting; with the wait that it asks for."""
    failed = failing([Says(status=status, headers={"Retry-After": "7"})])
    assert (failed.again, failed.after) == (True, 7)


@pytest.mark.parametrize("header", ["soon", "-1", "inf", "nan", "Fri, 20 Nov 2026 10:00:00 GMT"])
def test_wait_that_is_no_number_is_none(header: str) -> None:
    """A Retry-After that makes no sense is not heeded."""
    assert failing([Says(status=429, headers={"Retry-After": header})]).after == 0


CHUNK = 'data: {"choices": [{"index": 0, "delta": {"content": "abcdef"}, "finish_reason": null}]}\n\n'


@pytest.mark.parametrize(
    "said",
    [
        Says("abcdef", finish=None),
        Says(raw=CHUNK),
        Says(raw=CHUNK + "data: {oh\n\n"),
        Says(raw=CHUNK + "data: [1, 2]\n\n"),
        Says(raw=CHUNK + 'data: {"choices": "many"}\n\n'),
        Says(raw=CHUNK + 'data: {"error": {"message": "out of memory"}}\n\n'),
        Says(raw=CHUNK, headers={"Content-Length": "100000"}),
    ],
)
def test_broken_reply_may_be_asked_for_again(said: Says) -> None:
    """A stream that ends early, is no JSON or none of a completion; what had come is known to be spent."""
    failed = failing([said])
    assert failed.again
    assert failed.completion_tokens == 2
    assert failed.prompt_tokens > 0


def test_page_that_is_no_stream_is_a_failure() -> None:
    """A server that answers with a web page gave no reply."""
    assert "broke off" in str(failing([Says(raw="<html>Welcome!</html>")]))


def test_slow_drip_ends_with_the_time_of_a_call() -> None:
    """A server that sends a byte now and then keeps no one longer than glia_model_timeout."""
    started = time.monotonic()
    failed = failing([Says(drip=0.02)], timeout=0.3)
    assert time.monotonic() - started < 5
    assert "no whole reply in 0.3 s (glia_model_timeout)" in str(failed)
    assert failed.again


def test_call_ends_with_the_search() -> None:
    """A call gets no more time than the search has left."""
    with ScriptedModel([Says(drip=0.02)]) as server:
        model = OpenAIModel(ModelSettings("some", server.url), seconds_left=lambda: 0.2)
        with pytest.raises(ModelFailed, match=r"no whole reply in 0\.2 s \(the search's end\)"):
            model.complete(HELLO)


def test_nobody_there_may_be_asked_again() -> None:
    """A refused connection names the host, and what to look at."""
    with ScriptedModel([]) as server:
        url = server.url
    with pytest.raises(
        ModelFailed, match=r"no connection .* see whether it runs, and glia_base_url"
    ) as caught:
        OpenAIModel(ModelSettings("some", url)).complete(HELLO)
    assert caught.value.again


def test_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without openai the sentence says how to install it."""
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(Misuse, match=r'pip install "pytest-glia\[llm\]"'):
        OpenAIModel(ModelSettings("some"))


class Flaky:
    """Fails some times, then replies."""

    name = "flaky"

    def __init__(self, *failures: ModelFailed) -> None:
        self._failures = list(failures)
        self.asked = 0

    def complete(self, request: Request) -> Reply:
        self.asked += 1
        if self._failures:
            raise self._failures.pop(0)
        return Reply("at last")


def patiently(model: Flaky, left: float = 1e9) -> tuple[Callable[[], str], list[float]]:
    waits: list[float] = []
    patient = PatientModel(model, Account(Budget(seconds=left)), waits.append)
    return (lambda: patient.complete(HELLO).text), waits


def test_waits_grow_with_jitter() -> None:
    """Each wait is between a half and the whole of twice the one before."""
    ask, waits = patiently(Flaky(*[ModelFailed("no", again=True) for _ in range(5)]))
    assert ask() == "at last"
    assert len(waits) == 5
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(waits))


def test_wait_is_the_one_that_the_server_asks_for() -> None:
    """A Retry-After takes the place of the own wait."""
    ask, waits = patiently(Flaky(ModelFailed("no", again=True, after=12.5)))
    assert (ask(), waits) == ("at last", [12.5])


def test_patience_ends() -> None:
    """After six tries the last failure stands."""
    model = Flaky(*[ModelFailed(f"no {n}", again=True) for n in range(9)])
    ask, waits = patiently(model)
    with pytest.raises(ModelFailed, match="no 5"):
        ask()
    assert (model.asked, len(waits)) == (6, 5)


@pytest.mark.parametrize("failed", [ModelFailed("wrong"), ModelFailed("busy", again=True, after=100)])
def test_no_wait_that_is_of_no_use(failed: ModelFailed) -> None:
    """What waiting does not mend, or a wait beyond the search's end, is told at once."""
    model = Flaky(failed)
    ask, waits = patiently(model, left=100)
    with pytest.raises(ModelFailed, match=str(failed)):
        ask()
    assert (model.asked, waits) == (1, [])


def test_call_that_the_end_of_the_search_cut_off_is_the_end() -> None:
    """A failure once the time is over is told as the budget that it is, not as the model's."""
    ask, _ = patiently(Flaky(ModelFailed("no whole reply", again=True)), left=1e-9)
    with pytest.raises(BudgetExhausted, match="seconds is spent"):
        ask()
