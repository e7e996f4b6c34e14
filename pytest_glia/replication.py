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
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pytest_glia.processes import die_with

Metrics = dict[str, float]

# An answer of more bytes than this is none: it would only fill the memory of whoever reads it.
_LARGEST = 1 << 28


@dataclass(frozen=True)
class Failure:
    """Why a replication gave no metrics: one sentence, and details such as a traceback."""

    message: str
    details: str = ""

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}".rstrip()


class ReplicationError(Exception):
    """Raised inside a replication for a failure whose message is already a sentence for the user."""


@dataclass(frozen=True)
class Replication:
    """What one fork does.

    Attributes:
        run: Its work: metrics, or raw bytes, come back.
        confined: Whether it runs candidate code, and so in the sandbox.
        quiet: Whether what it prints is thrown away.
        then: Makes of its answer (not of a failure) what counts instead: an outcome, or a replication to
            run next.
    """

    run: Callable[[], Metrics | bytes]
    confined: bool = False
    quiet: bool = False
    then: Callable[[Metrics | bytes], Replication | Metrics | Failure] | None = None


Outcome = Metrics | bytes | Failure


@dataclass
class _Running:
    index: int
    replication: Replication
    pid: int
    deadline: float
    answer: bytearray = field(default_factory=bytearray)

    def complete(self) -> bool:
        return len(self.answer) >= 8 + int.from_bytes(self.answer[:8], "big") if self.answer[8:] else False


def run_all(
    replications: Sequence[Replication],
    *,
    workers: int,
    timeout: float,
    private: Sequence[int] = (),
    confine: Callable[[Collection[int]], None] | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Run each replication in a fork; yields its index and outcome as soon as it is known.

    At most `workers` run at once. One that has not answered after `timeout` seconds is killed with
    everything it started. The forks do not inherit the file descriptors `private`. Those that are to be
    confined call `confine` first, with the descriptors that it must leave open. Leaving the iterator early
    kills what is still running.
    """
    waiting = list(enumerate(replications))[::-1]
    running: dict[int, _Running] = {}
    answered: list[int] = []
    selector = selectors.DefaultSelector()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, replication = waiting.pop()
                within = confine if replication.confined else None
                descriptor, pid = _fork(replication, [*private, *running], within)
                running[descriptor] = _Running(index, replication, pid, time.monotonic() + timeout)
                selector.register(descriptor, selectors.EVENT_READ)
            answered = [pid for pid in answered if not os.waitpid(pid, os.WNOHANG)[0]]
            next_deadline = min(run.deadline for run in running.values())
            for key, _ in selector.select(max(0.0, next_deadline - time.monotonic())):
                run = running[key.fd]
                part = os.read(key.fd, 1 << 20)
                run.answer += part
                if len(run.answer) > _LARGEST:
                    part, run.answer = b"", bytearray()
                # What a replication has started may hold the pipe open: the length says when it is all.
                if part and not run.complete():
                    continue
                selector.unregister(key.fd)
                del running[key.fd]
                if run.complete():
                    # What it says is said: the next one need not wait until its process is gone.
                    os.close(key.fd)
                    _kill_group(run.pid)
                    os.kill(run.pid, signal.SIGKILL)
                    answered.append(run.pid)
                    outcome = _outcome(bytes(run.answer), 0)
                else:
                    outcome = _outcome(bytes(run.answer), _reap(key.fd, run.pid))
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
        for pid in answered:
            os.waitpid(pid, 0)
        selector.close()


def _fork(
    replication: Replication,
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
        if replication.quiet:
            # Whatever captures the output of the host process has replaced these objects.
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
        run = replication.run
        answer = _answer(run if confine is None else lambda: _confined(run, confine, writer))
        # Before the answer, after which this process may be ended at any moment.
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(writer, "wb") as stream:
            stream.write(len(answer).to_bytes(8, "big") + answer)
        status = 0
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _confined(
    run: Callable[[], Metrics | bytes], confine: Callable[[Collection[int]], None], keep: int
) -> Metrics | bytes:
    """Run a replication after `confine`, or not at all."""
    confine([keep, *_outputs()])
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


def _answer(run: Callable[[], Metrics | bytes]) -> bytes:
    """JSON, or raw bytes behind a zero; never a pickle, which could do anything where it is read."""
    try:
        found = run()
        return b"\0" + found if isinstance(found, bytes) else json.dumps({"metrics": found}).encode()
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
    # A fork that has closed its end is about to exit, and its status is wanted; a hung one does not.
    done, status = os.waitpid(pid, os.WNOHANG)
    deadline = time.monotonic() + 0.05
    while not done and time.monotonic() < deadline:
        time.sleep(0.001)
        done, status = os.waitpid(pid, os.WNOHANG)
    _kill_group(pid)
    if not done:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return status


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _outcome(answer: bytes, status: int) -> Outcome:
    if answer[8:9] == b"\0" and len(answer) == 8 + int.from_bytes(answer[:8], "big"):
        return answer[9:]
    try:
        data = json.loads(answer[8:])
        if "metrics" in data:
            return {str(name): float(value) for name, value in data["metrics"].items()}
        return Failure(str(data["failure"]), str(data.get("details", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Failure(f"the replication's process ended ({_ending(status)}) without a result")


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
