"""A stand-in for the forge's REST API: real HTTP on this machine, the pull requests of one repository."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class StandIn:
    """What the forge holds and has been asked.

    Attributes:
        url: Of its API.
        token: The one that it accepts.
        pulls: The pull requests, in order; their numbers begin at 1.
        failures: Taken from the front for the next requests: status, headers and message.
        requests: Method and path of each.
        late: Whether what is open is listed only after an attempt to open another.
    """

    token: str
    url: str = ""
    pulls: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    late: bool = False

    def answer(self, method: str, path: str, content: Mapping[str, str]) -> tuple[int, Any]:
        """What the forge says to a request that it accepts."""
        parts = urlsplit(path)
        if not parts.path.startswith("/repos/ada/packing/pulls"):
            return 404, {"message": "Not Found"}
        if method == "GET":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            return 200, [
                each
                for each in self.pulls
                if not self.late
                and f"ada:{each['head']['ref']}" == asked["head"]
                and each["state"] == asked["state"]
            ]
        if len(content.get("body", "")) > 65_536:
            return 422, {"message": "Validation Failed", "errors": [{"message": "body is too long"}]}
        if method == "POST" and self.late:
            self.late = False
            return 422, {"message": "A pull request already exists"}
        if method == "POST":
            number = len(self.pulls) + 1
            address = f"https://forge.example/ada/packing/pull/{number}"
            here = {"number": number, "html_url": address, "state": "open", "head": {"ref": content["head"]}}
            self.pulls.append({**content, **here})
            return 201, self.pulls[-1]
        pull = self.pulls[int(parts.path.rpartition("/")[2]) - 1]
        pull.update(content)
        return 200, pull


@contextmanager
def forge(token: str) -> Iterator[StandIn]:
    """Serve one on a free port of this machine."""
    standin = StandIn(token)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            standin.requests.append(f"{self.command} {self.path}")
            headers: dict[str, str] = {}
            if standin.failures:
                status, headers, message = standin.failures.pop(0)
                answer: Any = {"message": message}
            elif self.headers["Authorization"] != f"Bearer {standin.token}":
                status, answer = 401, {"message": "Bad credentials"}
            else:
                status, answer = standin.answer(self.command, self.path, json.loads(body or "{}"))
            text = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        standin.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield standin
        finally:
            server.shutdown()
            thread.join()
