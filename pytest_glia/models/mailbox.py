"""A model played by hand: a server with OpenAI's API whose requests and replies are files.

``NNNN.request.md`` is for reading, ``NNNN.request.json`` is the body as it came. The answer is the text in
``NNNN.reply.md``, with blocks for calls as `plain_text` has them; or ``NNNN.reply.json``, an object with
``text`` and ``calls``, each of a ``name`` and ``arguments``.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_glia.models import Call, Reply, Request
from pytest_glia.models.plain_text import block, parsed
from pytest_glia.models.wire import chat_chunks, chat_completion, from_chat
from pytest_glia.visible import visible

# Seconds between looks for a reply. A file is taken once two looks have found it the same.
_PAUSE = 0.1


class Mailbox:
    """The server, alive inside its ``with``; at 127.0.0.1 only.

    Args:
        folder: For the files; made if it is not there. Numbers go on after those in it.
        port: 0 is any free one.
        say: Is told what has come and what is wrong with a reply.

    Attributes:
        url: The base URL of its API.

    Raises:
        OSError: the folder cannot be written, or the port is not free.
    """

    def __init__(self, folder: Path, port: int, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._say = say
        self._lock = threading.Lock()
        numbers = [int(file.name[:4]) for file in folder.iterdir() if re.match(r"\d{4}\.request", file.name)]
        self._number = max(numbers, default=0)
        # Whose asker has gone before the answer came, by their text: who asks the same again gets that one.
        self._unanswered: dict[str, list[int]] = {}
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_PAUSE,), daemon=True)

    def __enter__(self) -> Mailbox:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        mailbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with suppress(ConnectionError):
                    mailbox._answer(self, text.decode("utf-8", "replace"))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler, text: str) -> None:
        try:
            body = json.loads(text)
            request = from_chat(body)
        except (ValueError, RecursionError) as error:
            return _send(handler, 400, json.dumps({"error": {"message": str(error)}}))
        number = self._received(text, request, str(body.get("model")))
        reply = self._reply(number, request, handler.connection)
        if reply is None:
            with self._lock:
                self._unanswered.setdefault(text, []).append(number)
            self._say(f"{number:04}: whoever asked has gone; the same asked again gets this reply")
            return None
        model = str(body.get("model"))
        if not body.get("stream"):
            return _send(handler, 200, json.dumps(chat_completion(reply, model)))
        events = [json.dumps(chunk) for chunk in chat_chunks(reply, model)]
        return _send(
            handler, 200, "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]), "event-stream"
        )

    def _received(self, text: str, request: Request, model: str) -> int:
        """The number of a request, whose files are there."""
        with self._lock:
            if self._unanswered.get(text):
                return self._unanswered[text].pop(0)
            self._number += 1
            number = self._number
        (self._folder / f"{number:04}.request.json").write_text(text, "utf-8")
        readable = self._folder / f"{number:04}.request.md"
        readable.write_text(_readable(number, request, model), "utf-8")
        self._say(f"{readable}: write {number:04}.reply.md")
        return number

    def _reply(self, number: int, request: Request, asker: socket.socket) -> Reply | None:
        """What was written in answer; None once whoever asks, or the server, is gone."""
        before: tuple[Path, bytes] | None = None
        refused: tuple[Path, bytes] | None = None
        while not self._closing.wait(_PAUSE) and not _gone(asker):
            now = self._written(number)
            if now is not None and now == before and now != refused:
                try:
                    return _reply_of(*now, request)
                except ValueError as error:
                    self._say(f"{now[0]} is no reply ({error}): correct it")
                    refused = now
            before = now
        return None

    def _written(self, number: int) -> tuple[Path, bytes] | None:
        for ending in ("md", "json"):
            file = self._folder / f"{number:04}.reply.{ending}"
            with suppress(FileNotFoundError):
                if content := file.read_bytes():
                    return file, content
        return None


def _reply_of(file: Path, content: bytes, request: Request) -> Reply:
    text = content.decode("utf-8")
    before = sum(len(message.calls) for message in request.messages)
    if file.suffix == ".md":
        said, calls = parsed(text, before + 1)
    else:
        said, calls = _from_json(text, before + 1)
    characters = sum(len(message.text) for message in request.messages)
    return Reply(said, calls, characters // 3, len(text) // 3)


def _from_json(text: str, first: int) -> tuple[str, tuple[Call, ...]]:
    data = json.loads(text)
    try:
        calls = tuple(
            Call(f"call_{number}", each["name"], json.dumps(each["arguments"]))
            for number, each in enumerate(data.get("calls", ()), first)
        )
        return str(data.get("text", "")), calls
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'expected {{"text": ..., "calls": [...]}}, {type(error).__name__}: {error}'
        ) from None


def _gone(asker: socket.socket) -> bool:
    """Whether the other end has closed the connection; it sends nothing more while it waits."""
    try:
        return asker.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _readable(number: int, request: Request, model: str) -> str:
    parts = [f"# Request {number} to {visible(model, line=True)}, at most {request.max_tokens} tokens"]
    parts += [
        f"## Tool {tool.name}\n\n{tool.description}\n\n    {json.dumps(tool.parameters)}"
        for tool in request.tools
    ]
    for message in request.messages:
        of = f" ({message.call_id})" if message.call_id else ""
        said = [message.text, *map(block, message.calls)]
        parts.append("\n\n".join([f"## {message.role}{of}", *filter(None, said)]))
    return visible("\n\n".join(parts)) + "\n"


def _send(handler: BaseHTTPRequestHandler, status: int, text: str, kind: str = "json") -> None:
    data = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "text/event-stream" if kind == "event-stream" else "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
