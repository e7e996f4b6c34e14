"""A shell command that is attended: it does not outlive its time, or the process that asked for it.

`attend` runs it; this module, run as a program, is the process between the two, which ends all that the
command has started, in whatever session.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_glia.processes import end_family, end_family_with
from pytest_glia.visible import visible

_OUTPUT = 4 << 20
"""Bytes of what a command prints that are kept."""

_TAIL = 2000
"""Characters of its end that are told."""


@dataclass(frozen=True)
class Attended:
    """How a command has ended.

    Attributes:
        code: Of its exit (128 and more: a signal's); None if its time was over.
        seconds: That it took.
        said: The end of what it has printed, without characters that steer a terminal.
    """

    code: int | None
    seconds: float
    said: str

    def describe(self) -> str:
        """In words."""
        how = "was ended, as its time was over," if self.code is None else f"ended with code {self.code}"
        return f"the command {how} after {self.seconds:.0f} s"


def attend(command: str, folder: Path, environment: Mapping[str, str], seconds: float, log: Path) -> Attended:
    """Run a command by ``sh -c`` in a folder, for so many seconds at most; what it prints goes to `log`.

    When this returns, or this process ends, however it ends, nothing that the command started is left
    (on Linux; elsewhere its process group is ended). The log has its first 4 MiB, with control characters
    as escapes.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pytest_glia.attended", str(os.getpid()), command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, timed_out = _kept(process, log, started + seconds)
    finally:
        _stop(process)
    code = None if timed_out else process.returncode
    return Attended(code, time.monotonic() - started, said[-_TAIL:])


def _kept(process: subprocess.Popen[bytes], log: Path, deadline: float) -> tuple[str, bool]:
    """Write what is printed to the log until that ends or the time is over; gives its end, and which."""
    assert process.stdout is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    left, tail = _OUTPUT, ""
    with log.open("w", encoding="utf-8") as file, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (time_left := deadline - time.monotonic()) > 0:
            if not selector.select(time_left):
                continue
            part = os.read(process.stdout.fileno(), 1 << 16)
            text = visible(decoder.decode(part, final=not part))
            if left > 0:
                file.write(text)
                file.flush()
            left -= len(part)
            tail = (tail + text)[-_TAIL:]
            if not part:
                return tail, False
    return tail, True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process between and all that it attends to, if that has not happened; take its leave."""
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
    # What is left where the system lists no processes.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2]
    end_family_with(parent)
    code = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL).wait()
    end_family()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _main()
