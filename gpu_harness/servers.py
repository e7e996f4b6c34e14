"""Server processes of a testbed: started, waited for, watched, and ended on every way out."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ServerError", "ServerProcess", "check_versions", "free_port", "started"]

_LINES = 15
_CAUSES = 5
_ERROR = re.compile(r"(?:^|\] )[\w.]*(?:Error|Exception): ")
"""What ends a traceback, with or without the beginning of a log's line."""
_GRACE = 15.0
_KILLED = 128 + signal.SIGKILL
"""The exit code of a keeper whose server was killed."""


class ServerError(RuntimeError):
    """A server that does not start, dies, hangs, or is not what was asked for."""


def free_port(port: int = 0) -> int:
    """This port if it is free, or any; ServerError if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(
                f"port {port} is taken ({error.strerror}); choose others with ports=..."
            ) from None
        found: int = probe.getsockname()[1]
        return found


class ServerProcess:
    """One server under a keeper, which ends it when this process ends, however that happens."""

    def __init__(self, command: Sequence[str], url: str, environment: Mapping[str, str]) -> None:
        """Starts the command; its output goes to a temporary file."""
        self.url, self.command = url, tuple(command)
        self._log = tempfile.NamedTemporaryFile("w+b", prefix="gpu-harness-", suffix=".log")  # noqa: SIM115
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpu_harness.keeper", *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONPATH": path},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the keeper."""
        return self._process.pid

    def log(self, lines: int = _LINES) -> str:
        """The last lines that it wrote, and above them the last of those before that name an error: vLLM ends
        with "see root cause above", after a hundred lines of traceback."""
        written = Path(self._log.name).read_text("utf-8", "replace").splitlines()
        before = dict.fromkeys(line for line in written[:-lines] if _ERROR.search(line))
        causes = list(before)[-_CAUSES:]
        return "\n".join([*causes, *(["..."] if causes else []), *written[-lines:]])

    def check(self) -> None:
        """ServerError, with its last lines, if it has ended."""
        code = self._process.poll()
        if code is not None:
            log = self.log()
            raise ServerError(
                f"the server at {self.url} ended with exit code {code}{_memory(code, log)}; its last "
                f"lines:\n{log}"
            )

    def wait_healthy(self, seconds: float) -> None:
        """Until /health is answered with 200; ServerError if it ends before, or takes longer."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() > end:
                raise ServerError(
                    f"the server at {self.url} is not healthy after {seconds:g} s (start_timeout); its last "
                    f"lines:\n{self.log()}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End it and all that it started."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its server goes with it
            self._process.wait()
        self._log.close()


def _memory(code: int, log: str) -> str:
    """If it seems to have run out of memory: that, and what to do."""
    if code == _KILLED:
        return " (killed, as the kernel does where memory ends: have fewer replicas, or fewer blocks)"
    if re.search("out of ?memory|MemoryError|can't allocate memory", log, re.IGNORECASE):
        return " (out of memory: lower kv_blocks, max_num_seqs or --gpu-memory-utilization)"
    return ""


def started(
    commands: Sequence[tuple[Sequence[str], str, Mapping[str, str]]], seconds: float
) -> list[ServerProcess]:
    """Servers of these commands, URLs and environments, all healthy; if one is not, none is left."""
    servers: list[ServerProcess] = []
    try:
        for command, url, environment in commands:
            servers.append(ServerProcess(command, url, environment))
        for server in servers:
            server.wait_healthy(seconds)
    except BaseException:
        for server in servers:
            server.stop()
        raise
    return servers


def check_versions(urls: Sequence[str]) -> None:
    """ServerError if the servers at these URLs are not all of one version."""
    found = {}
    for url in urls:
        try:
            with urllib.request.urlopen(url + "/version", timeout=30) as answer:
                found[url] = str(json.load(answer).get("version"))
        except (OSError, ValueError, AttributeError) as error:
            raise ServerError(f"the server at {url} does not say its version: {error}") from error
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{url} has {version}" for url, version in found.items())
        raise ServerError(f"the replicas are of different versions: {listed}; expected one version")
