"""Processes that must not outlive those they serve: forks end with their parent, sessions as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
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
    _end(lambda: [pid for pid, (_, its) in _alive().items() if its == session and pid != os.getpid()])


def end_family_with(parent: int) -> None:
    """In a process of its own: when `parent` ends, or on SIGTERM, end all that this one has started, and it.

    Those that what it started has left behind, in whatever session, become its children (Linux).
    """

    def end(number: int, frame: object) -> None:
        end_family()
        os._exit(1)

    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, end)
    _hear_of_death(parent, signal.SIGTERM)


def end_family() -> None:
    """Kill all descendants of this process, where the system lists them (Linux)."""
    _end(_family)


def _family() -> list[int]:
    """All descendants of this process that are alive."""
    alive, found = _alive(), [os.getpid()]
    for member in found:
        found += [pid for pid, (parent, _) in alive.items() if parent == member]
    return found[1:]


def _end(left: Callable[[], list[int]]) -> None:
    """Kill those that there are, until there are none."""
    for _ in range(_ROUNDS):
        pids = left()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            return


def _take_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _hear_of_death(parent: int, number: signal.Signals) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def _alive() -> dict[int, tuple[int, int]]:
    """Parent and session of each process that has not ended (proc(5), stat: fields 3, 4 and 6)."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text("utf-8", "replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(status.parent.name)] = (int(fields[1]), int(fields[3]))
    return found


def processor_seconds(pid: int) -> float:
    """That a process has used, its ended children included; 0 where the system does not tell (Linux does)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
