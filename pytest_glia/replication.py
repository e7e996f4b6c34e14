"""Runs replications, each in a forked process of its own, several at once, with a deadline.

The fork takes the interpreter as it is (domain and spec loaded, kernels compiled), so it costs
milliseconds; what a replication changes in its process is gone with it and cannot reach the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

Metrics = dict[str, float]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Failure:
    """Why a replication gave no metrics: one sentence, and details such as a traceback."""

    message: str
    details: str = ""

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}".rstrip()


class ReplicationError(Exception):
    """Raised inside a replication for a failure whose message is already a sentence for the user."""


@dataclass
class _Running:
    index: int
    pid: int
    deadline: float
    answer: bytes = b""

    def complete(self) -> bool:
        return len(self.answer) >= 8 + int.from_bytes(self.answer[:8], "big") if self.answer[8:] else False


def run_all(
    replications: Sequence[Callable[[], Metrics]],
    *,
    workers: int,
    timeout: float,
    private: Sequence[int] = (),
    confine: Callable[[Collection[int]], None] | None = None,
    untrusted: Collection[int] = (),
) -> Iterator[tuple[int, Metrics | Failure]]:
    """Run each replication in a fork; yields its index and outcome as soon as it is known.

    At most `workers` run at once. One that has not answered after `timeout` seconds is killed with
    everything it started. The forks do not inherit the file descriptors `private`. Those of the
    replications with indices `untrusted` call `confine` first, with the descriptors that it must leave open.
    Leaving the iterator early kills what is still running.
    """
    waiting = list(enumerate(replications))[::-1]
    running: dict[int, _Running] = {}
    selector = selectors.DefaultSelector()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, replication = waiting.pop()
                within = confine if index in untrusted else None
                descriptor, pid = _fork(replication, [*private, *running], within)
                running[descriptor] = _Running(index, pid, time.monotonic() + timeout)
                selector.register(descriptor, selectors.EVENT_READ)
            next_deadline = min(run.deadline for run in running.values())
            for key, _ in selector.select(max(0.0, next_deadline - time.monotonic())):
                run = running[key.fd]
                part = os.read(key.fd, 1 << 16)
                run.answer += part
                # What a replication has started may hold the pipe open: the length says when it is all.
                if part and not run.complete():
                    continue
                selector.unregister(key.fd)
                del running[key.fd]
                yield run.index, _outcome(run.answer, _reap(key.fd, run.pid))
            for descriptor, run in list(running.items()):
                if time.monotonic() >= run.deadline:
                    selector.unregister(descriptor)
                    del running[descriptor]
                    _reap(descriptor, run.pid)
                    yield (
                        run.index,
                        Failure(
                            f"the replication did not finish within {timeout:g} s and was killed: it may "
                            "never return; raise glia_timeout if it is only slow"
                        ),
                    )
    finally:
        for descriptor, run in running.items():
            _reap(descriptor, run.pid)
        selector.close()


def _fork(
    replication: Callable[[], Metrics],
    private: Sequence[int],
    confine: Callable[[Collection[int]], None] | None,
) -> tuple[int, int]:
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Threads of the host process are not needed in the fork, which only computes and exits.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(writer)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return reader, pid
    status = 1
    try:
        for descriptor in (reader, *private):
            os.close(descriptor)
        # What the parent has left to be collected must not be finalized here: its finalizers may do anything.
        gc.freeze()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        die_with(parent)
        answer = _answer(replication if confine is None else lambda: _confined(replication, confine, writer))
        with os.fdopen(writer, "wb") as stream:
            stream.write(len(answer).to_bytes(8, "big") + answer)
        status = 0
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def die_with(parent: int) -> None:
    """In a fork: take signals as usual again, and let the kernel end this process with `parent`'s."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _confined(
    replication: Callable[[], Metrics], confine: Callable[[Collection[int]], None], keep: int
) -> Metrics:
    """Run a replication after `confine`, or not at all."""
    confine([keep])
    try:
        return replication()
    except ReplicationError as error:
        if isinstance(error.__cause__, PermissionError):
            hint = "The sandbox refuses what a replication does not need; glia_sandbox = off runs without it."
            raise ReplicationError(f"{error}\n{hint}") from error
        raise


def _answer(replication: Callable[[], Metrics]) -> bytes:
    try:
        return json.dumps({"metrics": replication()}).encode()
    except ReplicationError as error:
        return json.dumps({"failure": str(error)}).encode()
    except BaseException as error:
        name = type(error).__name__
        text = str(error).strip() or name
        details = "".join(traceback.format_exception(error, limit=-6))
        sentence = f"the replication raised {name}: {text}"
        return json.dumps({"failure": sentence, "details": details}).encode()


def _reap(descriptor: int, pid: int) -> int:
    """Kill what is left of the replication's process group; returns its wait status."""
    os.close(descriptor)
    # A fork that has answered ends by itself; anything it started, or a hung one, does not.
    done, status = os.waitpid(pid, os.WNOHANG)
    deadline = time.monotonic() + 0.05
    while not done and time.monotonic() < deadline:
        time.sleep(0.001)
        done, status = os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    if not done:
        _, status = os.waitpid(pid, 0)
    return status


def _outcome(answer: bytes, status: int) -> Metrics | Failure:
    try:
        data = json.loads(answer[8:])
        if "metrics" in data:
            return {str(name): float(value) for name, value in data["metrics"].items()}
        return Failure(str(data["failure"]), str(data.get("details", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure(f"the replication's process ended ({_ending(status)}) without a result")


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
