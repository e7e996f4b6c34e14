"""Processes that must not outlive those they serve: forks end with their parent, sessions as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
# A process that starts others while it is looked for is found in the next round.
_ROUNDS = 10


def die_with(parent: int) -> None:
    """In a fork: take signals as usual again, and let the kernel end this process with `parent`'s."""
    _take_signals()
    _hear_of_death(parent, signal.SIGKILL)


def end_session_with(parent: int) -> None:
    """In a fork: when `parent`'s process ends, end all processes of this session, this one the last.

    That reaches what a replication without sandbox has started, which the kernel would leave alive.
    """

    def end(number: int, frame: object) -> None:
        end_session(os.getsid(0))
        os.kill(os.getpid(), signal.SIGKILL)

    _take_signals()
    signal.signal(signal.SIGTERM, end)
    _hear_of_death(parent, signal.SIGTERM)


def end_session(session: int) -> None:
    """Kill all processes of a session but this one, where the system lists them (Linux)."""
    for _ in range(_ROUNDS):
        alive = [pid for pid in _of_session(session) if pid != os.getpid()]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not alive:
            return


def _take_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _hear_of_death(parent: int, number: signal.Signals) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def _of_session(session: int) -> list[int]:
    """Its processes that have not ended (proc(5), stat: fields 3 and 6)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text("utf-8", "replace").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(status.parent.name))
    return found
