"""Requests and replies as JSON: as the record keeps them, and as OpenAI's chat completions have them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pytest_glia.models import Call, Message, Reply, Request, Tool


def request_json(request: Request) -> str:
    """A request as the record keeps it; equal requests give equal texts."""
    return json.dumps(asdict(request), sort_keys=True)


def request_of(text: str) -> Request:
    """The request that `request_json` has written."""
    data = json.loads(text)
    messages = tuple(
        Message(**{**each, "calls": tuple(Call(**call) for call in each["calls"])})
        for each in data["messages"]
    )
    return Request(**{**data, "messages": messages, "tools": tuple(Tool(**tool) for tool in data["tools"])})


def reply_json(reply: Reply) -> str:
    """A reply as the record keeps it."""
    return json.dumps(asdict(reply), sort_keys=True)


def reply_of(text: str) -> Reply:
    """The reply that `reply_json` has written."""
    data = json.loads(text)
    return Reply(**{**data, "calls": tuple(Call(**call) for call in data["calls"])})


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as a chat completion is asked for."""
    return [_chat_message(message) for message in messages]


def _sendable(text: str) -> str:
    """Without lone surrogates, which JSON may have and UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()


def _chat_message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": _sendable(message.text)}
    if not message.calls:
        return {"role": message.role, "content": _sendable(message.text)}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": _sendable(call.arguments)},
        }
        for call in message.calls
    ]
    return {"role": message.role, "content": _sendable(message.text) or None, "tool_calls": calls}


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as a chat completion is given them."""
    return [{"type": "function", "function": asdict(tool)} for tool in tools]


def from_chat(body: Mapping[str, Any]) -> Request:
    """The request that a chat completion was asked for; raises ValueError if `body` is none."""
    try:
        return Request(
            tuple(_message(each) for each in body["messages"]),
            tuple(
                Tool(
                    each["function"]["name"],
                    each["function"].get("description") or "",
                    each["function"].get("parameters") or {},
                )
                for each in body.get("tools") or ()
            ),
            int(body.get("max_completion_tokens") or body.get("max_tokens") or Request.max_tokens),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no request for a chat completion ({type(error).__name__}: {error})") from None


def _message(data: Mapping[str, Any]) -> Message:
    content = data.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    calls = tuple(
        Call(each["id"], each["function"]["name"], each["function"]["arguments"])
        for each in data.get("tool_calls") or ()
    )
    return Message(data["role"], content, calls, data.get("tool_call_id") or "")


def chat_completion(reply: Reply, model: str) -> dict[str, Any]:
    """A reply as the answer to a chat completion that is not streamed."""
    message = _chat_message(Message("assistant", reply.text, reply.calls))
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    return _head(model, "chat.completion") | {"choices": [choice], "usage": _usage(reply)}


def chat_chunks(reply: Reply, model: str) -> list[dict[str, Any]]:
    """A reply as the events of a chat completion that is streamed, the last with its usage."""
    delta = _chat_message(Message("assistant", reply.text, reply.calls))
    for index, call in enumerate(delta.get("tool_calls", ())):
        call["index"] = index
    head = _head(model, "chat.completion.chunk")
    return [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        head | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(reply)}]},
        head | {"choices": [], "usage": _usage(reply)},
    ]


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-glia", "object": kind, "created": 0, "model": model}


def _finish(reply: Reply) -> str:
    return "length" if reply.cut else "tool_calls" if reply.calls else "stop"


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
