"""A model's server that says what a test has written: OpenAI's chat completions over real sockets."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Says:
    """One reply.

    Attributes:
        text: Sent word by word where it is streamed.
        calls: Tools that it asks for, each a name and its arguments (a mapping, or text as it is).
        status: Of HTTP; another than 200 sends `error`.
        usage: Prompt and completion tokens; None tells none.
        finish: Why it ends; None breaks the stream off.
        raw: Sent in place of the events.
        drip: Seconds between the bytes of what is sent, without end.
        refusal: Said in place of text.
        reasoning: Thought aloud before that.
    """

    text: str = ""
    calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()
    status: int = 200
    error: str = "scripted"
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: tuple[int, int] | None = (100, 10)
    finish: str | None = "stop"
    raw: str = ""
    drip: float = 0.0
    refusal: str = ""
    reasoning: str = ""


Replies = Sequence[Says] | Callable[[dict[str, Any]], Says]


class ScriptedModel:
    """The server, alive inside its ``with``; processes that a test starts can ask it, too.

    Args:
        replies: In order, of which the last is given to whoever asks more; or a function of the request's
            body (its ``messages``, ``tools``, ``model`` ...), called by one thread at a time.

    Attributes:
        url: To which ``/chat/completions`` is added.
        requests: The bodies received so far.
        keys: The Authorization headers that came with them.
    """

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._one_at_a_time = threading.Lock()
        self._closing = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> ScriptedModel:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _says(self, body: dict[str, Any], key: str) -> Says:
        with self._one_at_a_time:
            self.requests.append(body)
            self.keys.append(key)
            if callable(self._replies):
                return self._replies(body)
            return self._replies[min(len(self.requests), len(self._replies)) - 1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = scripted._says(body, self.headers.get("Authorization", ""))
                if not self.path.endswith("/chat/completions"):
                    said = Says(status=404, error=f"no {self.path}")
                with contextlib.suppress(ConnectionError):
                    scripted._send(self, said, body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _send(self, handler: BaseHTTPRequestHandler, said: Says, body: Mapping[str, Any]) -> None:
        handler.send_response(said.status)
        streamed = said.status == 200 and body.get("stream")
        handler.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
        for name, value in said.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if said.status != 200:
            answer = json.dumps({"error": {"message": said.error, "code": said.status}})
        elif said.raw:
            answer = said.raw
        else:
            answer = _events(said) if streamed else json.dumps(_whole(said))
        while said.drip and not self._closing.wait(said.drip):
            handler.wfile.write(b": ")
            handler.wfile.flush()
        handler.wfile.write(answer.encode())


def _message(said: Says) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    if said.refusal:
        message["refusal"] = said.refusal
    calls = [
        {
            "index": index,
            "id": f"call_{time.monotonic_ns()}_{index}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
            },
        }
        for index, (name, arguments) in enumerate(said.calls)
    ]
    return message | ({"tool_calls": calls} if calls else {})


def _usage(said: Says) -> dict[str, int] | None:
    if said.usage is None:
        return None
    prompt, completion = said.usage
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _whole(said: Says) -> dict[str, Any]:
    choice = {"index": 0, "message": _message(said), "finish_reason": said.finish}
    return {"id": "scripted", "object": "chat.completion", "choices": [choice], "usage": _usage(said)}


def _events(said: Says) -> str:
    """Text word by word, calls in halves of their arguments, then the end and the usage."""
    deltas: list[dict[str, Any]] = []
    if said.reasoning:
        deltas.append({"reasoning_content": said.reasoning})
    words = said.text.split(" ")
    deltas += [
        {"content": word if place == len(words) - 1 else f"{word} "} for place, word in enumerate(words)
    ]
    if said.refusal:
        deltas.append({"refusal": said.refusal})
    for call in _message(said).get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        first = {**call, "function": {**call["function"], "arguments": arguments[:half]}}
        rest = {"index": call["index"], "function": {"arguments": arguments[half:]}}
        deltas += [{"tool_calls": [first]}, {"tool_calls": [rest]}]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    if said.finish is not None:
        finish = "tool_calls" if said.calls and said.finish == "stop" else said.finish
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if said.usage is not None:
            chunks.append({"choices": [], "usage": _usage(said)})
    head = {"id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": "scripted"}
    events = [f"data: {json.dumps(head | chunk)}\n\n" for chunk in chunks]
    return "".join(events) + ("data: [DONE]\n\n" if said.finish is not None else "")
