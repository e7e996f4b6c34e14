"""OpenEvolve: the real library in a process of its own, whose model and whose evaluator are those of the run.

That process asks for both over HTTP on this machine. Here each request is answered in turn: what it asks a
model is recorded and paid for as for any designer, and a program is tried by the lab, which confines it.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_glia.childprocess import without_secrets
from pytest_glia.designers import Proposal
from pytest_glia.designers.programs import scored
from pytest_glia.lab import Lab
from pytest_glia.misuse import Misuse
from pytest_glia.models import Message, Model, Request
from pytest_glia.settings import Settings
from pytest_glia.trials import Hypothesis

ITERATIONS = 120

_POLL = 0.1  # seconds


class Endpoint:
    """A server on this machine with which the library's process reaches the run's model and lab.

    It answers one request at a time, inside `serve`.

    Attributes:
        url: To which the paths of OpenAI's API, and ``/evaluate``, are added.
        token: That a request must bring: other processes of the machine are not served.
    """

    def __init__(self, lab: Lab, model: Model) -> None:
        self._lab = lab
        self._model = model
        self._error: Exception | None = None
        self.token = secrets.token_hex(16)
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self._server.timeout = _POLL
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()

    def serve(self, process: subprocess.Popen[bytes]) -> None:
        """Answer until the process ends; raises what answering has raised, such as `BudgetExhausted`."""
        while process.poll() is None:
            self._server.handle_request()
            if self._error is not None:
                raise self._error

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the library is told: a completion, or the score of a program."""
        if path.endswith("/evaluate"):
            return self._evaluated(str(body["program"]).encode())
        messages = tuple(Message(each["role"], each["content"]) for each in body["messages"])
        assert self._lab.models is not None
        tokens = self._lab.models.settings.max_tokens
        reply = self._model.complete(Request(messages, max_tokens=tokens, role="openevolve"))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": "length" if reply.cut else "stop",
        }
        usage = {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        }
        head = {"id": "glia", "object": "chat.completion", "created": 0, "model": self._model.name}
        return {**head, "choices": [choice], "usage": usage}

    def _evaluated(self, text: bytes) -> dict[str, Any]:
        """The score of a program, and why it failed if it did, which the library shows in its prompts."""
        [path] = self._lab.start.sources
        if text == self._lab.start.sources[path]:
            return {"score": 1.0, "failures": {}}
        number = len(self._lab.trials) + 1
        trial = self._lab.full({path: text}, Hypothesis(f"program {number}"), self._lab.start)
        failures = {f"failure {n}": reason for n, reason in enumerate(trial.evaluation.reasons, start=1)}
        return {"score": scored(self._lab, trial).score, "failures": failures}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given = self.headers.get("Authorization", "")
                if not hmac.compare_digest(given.encode(), f"Bearer {endpoint.token}".encode()):
                    self.send_error(401)
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    answer = json.dumps(endpoint.answer(self.path, body)).encode()
                except Exception as error:
                    endpoint._error = error
                    self.send_error(500)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


class OpenEvolveDesigner:
    """See the module; the settings are in `pytest_glia.designers.openevolve_process`."""

    uses_model = True

    def check(self, settings: Settings) -> None:
        """Raise `Misuse` where the library is missing."""
        if importlib.util.find_spec("openevolve") is None:
            raise Misuse(
                "the designer 'openevolve' is the library of that name, which is not installed: pip install "
                '"pytest-glia[openevolve]"'
            )

    def design(self, lab: Lab) -> Proposal:
        """Evolve for 120 iterations, or until the budget is spent; raises `Misuse` if that cannot be done."""
        paths = list(lab.start.sources)
        if len(paths) > 1:
            raise Misuse(
                f"OpenEvolve evolves one file, and the specs name {', '.join(paths)}: take another "
                "--glia-designer"
            )
        assert lab.models is not None
        with (
            tempfile.TemporaryDirectory(prefix="glia-openevolve-") as folder,
            Endpoint(lab, lab.models.thread(lab.name)) as endpoint,
        ):
            process = _start(lab, endpoint, Path(folder))
            try:
                endpoint.serve(process)
            finally:
                _end(process)
            if process.returncode and lab.trials:
                lab.say("OpenEvolve ended early; the best of what it has tried is taken.")
            elif process.returncode:
                log = (Path(folder) / "log").read_text("utf-8", "replace").strip()
                said = (log.splitlines() or ["without a word"])[-1][:200]
                raise Misuse(
                    f"OpenEvolve ended with exit code {process.returncode} ({said}): try "
                    "another version of it, or another --glia-designer"
                )
        return Proposal(lab.best(), remark=f"The search ended after {ITERATIONS} iterations of OpenEvolve.")


def _start(lab: Lab, endpoint: Endpoint, folder: Path) -> subprocess.Popen[bytes]:
    """The library's process, which finds its task in a folder and leaves a log there."""
    [source] = lab.start.sources.values()
    (folder / "program.py").write_bytes(source)
    task = {
        "statement": lab.statement,
        "iterations": ITERATIONS,
        "seed": zlib.crc32(f"openevolve {lab.name}".encode()),
    }
    (folder / "task.json").write_text(json.dumps(task), "utf-8")
    environment = {
        **without_secrets(os.environ),
        "GLIA_ENDPOINT": endpoint.url,
        "GLIA_ENDPOINT_TOKEN": endpoint.token,
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(folder),
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest_glia.designers.openevolve_process", str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """With its workers, wherever it is."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
