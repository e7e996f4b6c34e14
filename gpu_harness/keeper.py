"""Runs a server that must not outlive the process that wants it: `python -m gpu_harness.keeper COMMAND...`.

Its standard input is a pipe that the parent holds open. When the pipe ends - the parent closed it, or died in
whatever way - or on SIGTERM, the server and all that it has started are ended: asked, then killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_GRACE = 5.0
"""Seconds between asking and killing."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command until it ends or is to end; its exit code, negative for a signal."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the server's processes leave behind becomes ours
    me = os.getpid()

    def with_us() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != me:
                os._exit(1)

    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda got, frame: _write(waker, bytes([got])))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=with_us, close_fds=True
    )
    while server.poll() is None:
        ready, _, _ = select.select([0, wake], [], [], 1.0)
        if 0 in ready and not os.read(0, 1):
            break
        if wake in ready and signal.SIGTERM in os.read(wake, 64):
            break
    _end(server)
    return server.wait()


def _end(server: subprocess.Popen[bytes]) -> None:
    """End its session and all that is left of its family."""
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        for pid in _family():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        end = time.monotonic() + seconds
        while time.monotonic() < end and (server.poll() is None or _family()):
            with contextlib.suppress(ChildProcessError):
                while server.poll() is not None and os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.02)


def _family() -> list[int]:
    """All living descendants of this process, where the system lists them (Linux)."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text("utf-8", "replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                parents[int(status.parent.name)] = int(fields[1])
    found = [os.getpid()]
    for member in found:
        found += [pid for pid, parent in parents.items() if parent == member]
    return found[1:]


def _write(pipe: int, data: bytes) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(pipe, data)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)
