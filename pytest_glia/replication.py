"""Runs replications, each in a forked process of its own, several at once, with a deadline.

The fork takes the interpreter as it is (domain and spec loaded, kernels compiled), so it costs
milliseconds; what a replication changes in its process is gone with it and cannot reach the next one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from pytest_glia.processes import die_with
from pytest_glia.visible import visible

Metrics = dict[str, float]

Run = Callable[[], Metrics | bytes | Callable[[], bytes]]
"""The work of a fork; a function that it gives is called when the fork is asked to."""

Confine = Callable[[Collection[int]], None]
"""Confines the process in which it is called, but for the file descriptors given."""

# An answer of more bytes than this is none: it would only fill the memory of whoever reads it.
_LARGEST = 1 << 28

# Of what a confined fork prints no more bytes are shown.
_SHOWN = 1 << 20

READY = b"\1"
"""What a fork says when it has a function to be asked for; no answer begins with it."""


@dataclass(frozen=True)
class Failure:
    """Why a replication gave no metrics: one sentence, and details such as a traceback.

    Both may be a candidate's words, so their control characters are kept as escapes.
    """

    message: str
    details: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", visible(self.message))
        object.__setattr__(self, "details", visible(self.details))

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}".rstrip()


class ReplicationError(Exception):
    """Raised inside a replication for a failure whose message is already a sentence for the user."""


@dataclass(frozen=True)
class Replication:
    """What one fork does.

    Attributes:
        run: Its work: metrics, or raw bytes, come back. If it gives a function, the fork says `READY` and
            calls that for raw bytes as soon as it is asked to (`Fork.ask`).
        confined: Whether it runs candidate code, and so in the sandbox.
        quiet: Whether what it prints is thrown away.
        then: Makes of its answer (not of a failure) what counts instead: an outcome, or a replication to
            run next.
    """

    run: Run
    confined: bool = False
    quiet: bool = False
    then: Callable[[Metrics | bytes], Replication | Metrics | Failure] | None = None


Outcome = Metrics | bytes | Failure


@dataclass
class Fork:
    """A replication's process, the socket's end that leads to it, and what it has answered so far.

    ``printed`` is the file that a confined one prints to.
    """

    pid: int
    descriptor: int
    printed: int | None = None
    answer: bytearray = field(default_factory=bytearray)

    def receive(self) -> bool:
        """Read what there is, or wait for it; whether the answer is whole, or no more will come."""
        try:
            part = os.read(self.descriptor, 1 << 20)
        except ConnectionResetError:
            part = b""
        self.answer += part
        if len(self.answer) > _LARGEST:
            part, self.answer = b"", bytearray()
        # What a replication has started may hold the socket open: the length says when it is all.
        return not part or self._whole()

    def ask(self) -> None:
        """Have a fork that is `READY` call its function."""
        with contextlib.suppress(OSError):
            os.write(self.descriptor, b"?")

    def end(self, leaving: list[int] | None = None) -> Outcome:
        """Kill what is left of it, and show what it has printed; its answer.

        With `leaving`, one that has answered is not waited for: its process joins those to be waited for.
        """
        os.close(self.descriptor)
        status = 0
        if leaving is not None and self._whole():
            # What it says is said: the next one need not wait until its process is gone.
            _kill(self.pid)
            leaving.append(self.pid)
        else:
            status = _reap(self.pid)
        if self.printed is not None:
            _show(self.printed)
        return _outcome(bytes(self.answer), status)

    def _whole(self) -> bool:
        return len(self.answer) >= 8 + max(1, int.from_bytes(self.answer[:8], "big"))


@dataclass
class _Running:
    index: int
    replication: Replication
    fork: Fork
    deadline: float


def run_all(
    replications: Sequence[Replication],
    *,
    workers: int,
    timeout: float,
    private: Sequence[int] = (),
    confine: Confine | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Run each replication in a fork; yields its index and outcome as soon as it is known.

    At most `workers` run at once. One that has not answered after `timeout` seconds is killed with
    everything it started. The forks do not inherit the file descriptors `private`. Those that are to be
    confined call `confine` first, with the descriptors that it must leave open. Leaving the iterator early
    kills what is still running.
    """
    waiting = list(enumerate(replications))[::-1]
    running: dict[int, _Running] = {}
    leaving: list[int] = []
    selector = selectors.DefaultSelector()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, replication = waiting.pop()
                forked = fork(replication, [*private, *running], confine)
                deadline = time.monotonic() + timeout
                running[forked.descriptor] = _Running(index, replication, forked, deadline)
                selector.register(forked.descriptor, selectors.EVENT_READ)
            leaving = [pid for pid in leaving if not os.waitpid(pid, os.WNOHANG)[0]]
            next_deadline = min(run.deadline for run in running.values())
            for key, _ in selector.select(max(0.0, next_deadline - time.monotonic())):
                run = running[key.fd]
                if not run.fork.receive():
                    continue
                selector.unregister(key.fd)
                del running[key.fd]
                outcome = run.fork.end(leaving)
                following = run.replication.then
                if following is None or isinstance(outcome, Failure):
                    yield run.index, outcome
                    continue
                after = following(outcome)
                if isinstance(after, Replication):
                    waiting.append((run.index, after))
                else:
                    yield run.index, after
            for descriptor, run in list(running.items()):
                if time.monotonic() >= run.deadline:
                    selector.unregister(descriptor)
                    del running[descriptor]
                    run.fork.end()
                    yield run.index, late(timeout)
    finally:
        for run in running.values():
            run.fork.end()
        for pid in leaving:
            os.waitpid(pid, 0)
        selector.close()


def late(timeout: float) -> Failure:
    """What is said of a replication that was killed at its deadline."""
    return Failure(
        f"the replication did not finish within {timeout:g} s and was killed: it may never return; it has "
        "the time of glia_timeout, in a search at most 20 times that of the present candidate (10 s at least)"
    )


def fork(replication: Replication, private: Sequence[int], confine: Confine | None) -> Fork:
    """Start a replication in a process of its own; `private` and `confine` are those of `run_all`."""
    reader, writer = (end.detach() for end in socket.socketpair())
    run, printed = replication.run, None
    if confine is not None and replication.confined:
        # In a file that it shares with this process it could overwrite what others have reported.
        printed = os.open(os.devnull, os.O_RDWR) if replication.quiet else os.memfd_create("printed")
        run = partial(_confined, replication.run, confine, writer, printed)
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
        return Fork(pid, reader, printed)
    status = 1
    try:
        for descriptor in (reader, *private):
            os.close(descriptor)
        # What the parent has left to be collected must not be finalized here: its finalizers may do anything.
        gc.freeze()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        die_with(parent)
        if replication.quiet:
            # Whatever captures the output of the host process has replaced these objects.
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
        answer = _answer(run, writer)
        # Before the answer, after which this process may be ended at any moment.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with os.fdopen(writer, "wb") as stream:
            stream.write(len(answer).to_bytes(8, "big") + answer)
        status = 0
    finally:
        os._exit(status)


def _confined(run: Run, confine: Confine, keep: int, printed: int) -> Metrics | bytes | Callable[[], bytes]:
    """Run a replication after `confine`, or not at all; what it prints goes to the file `printed`."""
    outputs = {1, 2, *_outputs()}
    for output in outputs:
        os.dup2(printed, output)
    confine([keep, *outputs])
    try:
        return run()
    except ReplicationError as error:
        if isinstance(error.__cause__, PermissionError):
            hint = "The sandbox refuses what a replication does not need; glia_sandbox = off runs without it."
            raise ReplicationError(f"{error}\n{hint}") from error
        raise


def _outputs() -> Iterator[int]:
    """Where this process prints: whatever captures it may have put other files there than 1 and 2."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError, ValueError):
            yield stream.fileno()


def _show(printed: int) -> None:
    """Print the beginning of what a fork has printed, in which nothing steers a terminal; close its file."""
    with os.fdopen(printed, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), _SHOWN + 1, 0)
    text = visible(data[:_SHOWN].decode("utf-8", "backslashreplace"))
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    if len(data) > _SHOWN:
        sys.stdout.write(f"\n(of what a replication printed, no more than {_SHOWN} bytes are shown)\n")


def _answer(run: Run, descriptor: int) -> bytes:
    """JSON, or raw bytes behind a zero; never a pickle, which could do anything where it is read."""
    try:
        found = run()
        if callable(found):
            os.write(descriptor, READY)
            os.read(descriptor, 1)
            found = found()
        return b"\0" + found if isinstance(found, bytes) else json.dumps({"metrics": found}).encode()
    except ReplicationError as error:
        return json.dumps({"failure": str(error)}).encode()
    except BaseException as error:
        name = type(error).__name__
        text = str(error).strip() or name
        details = "".join(traceback.format_exception(error, limit=-6))
        sentence = f"the replication raised {name}: {text}"
        return json.dumps({"failure": sentence, "details": details}).encode()


def _reap(pid: int) -> int:
    """Kill what is left of the replication's process group; returns its wait status."""
    # A fork that has closed its end is about to exit, and its status is wanted; a hung one does not.
    done, status = os.waitpid(pid, os.WNOHANG)
    deadline = time.monotonic() + 0.05
    while not done and time.monotonic() < deadline:
        time.sleep(0.001)
        done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        _kill_group(pid)
        return status
    _kill(pid)
    return os.waitpid(pid, 0)[1]


def _kill(pid: int) -> None:
    """Kill a fork that nobody has waited for, and its group, which it may have left."""
    _kill_group(pid)
    os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _outcome(answer: bytes, status: int) -> Outcome:
    if answer[8:9] == b"\0" and len(answer) == 8 + int.from_bytes(answer[:8], "big"):
        return answer[9:]
    try:
        data = json.loads(answer[8:])
        if "metrics" in data:
            return {visible(str(name), line=True): float(value) for name, value in data["metrics"].items()}
        return Failure(str(data["failure"]), str(data.get("details", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Failure(f"the replication's process ended ({_ending(status)}) without a result")


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
