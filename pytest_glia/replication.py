"""One replication in a forked process of its own, or one process for many that run no candidate.

A fork takes the interpreter as it is (domain and spec loaded, kernels compiled), so it costs
milliseconds; what a replication changes in its process is gone with it and cannot reach the next one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
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
from pytest_glia.visible import abridged, visible

Metrics = dict[str, float]

Run = Callable[[], Metrics | bytes | Callable[[], bytes]]
"""The work of a fork; a function that it gives is called when the fork is asked to."""

Again = Callable[[bytes], Metrics | bytes]
"""A replication that needs no candidate, only bytes."""

Confine = Callable[[Collection[int]], None]
"""Confines the process in which it is called, but for the file descriptors given."""

# An answer of more bytes than this is none: it would only fill the memory of whoever reads it.
_LARGEST = 1 << 28

# Of an answer in JSON, which takes many times its bytes when it is read: metrics, or why there are none.
_LARGEST_JSON = 1 << 20

# Of why there are none, in characters: it is printed, kept, committed and told to designers.
_LONGEST_MESSAGE, _LONGEST_DETAILS = 4_000, 20_000

# Of what a confined fork prints no more bytes are shown.
_SHOWN = 1 << 20

_PART = 1 << 16
"""Bytes read at once: for more of them memory is mapped, which takes longer than to read again."""

READY = b"\1"
"""What a fork says when it has a function to be asked for; no answer begins with it."""


@dataclass(frozen=True)
class Failure:
    """Why a replication gave no metrics: one sentence, and details such as a traceback.

    Both may be a candidate's words, so their control characters are kept as escapes, and of long ones the
    beginning and the end.
    """

    message: str
    details: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", visible(abridged(self.message, _LONGEST_MESSAGE)))
        object.__setattr__(self, "details", visible(abridged(self.details, _LONGEST_DETAILS)))

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
        keeps: Of the private descriptors those that its fork has.
        patient: Whether it has more time where a busy machine has kept it from the processors.
        then: Makes of its answer (not of a failure) what counts instead: an outcome, or what to run next.
        again: Runs it again without the candidate, given raw bytes. Replications that are run together share
            processes for that: it must not depend on what it was called with before.
    """

    run: Run
    confined: bool = False
    quiet: bool = False
    keeps: tuple[int, ...] = ()
    patient: bool = True
    then: Then | None = None
    again: Again | None = None


@dataclass(frozen=True)
class Rerun:
    """What follows a replication that can be run `again`.

    Attributes:
        given: The bytes for it.
        then: As that of a replication.
        new: Whether in a process that has served nothing before.
    """

    given: bytes
    then: Then | None = None
    new: bool = False


Outcome = Metrics | bytes | Failure

Next = Replication | Rerun | Metrics | Failure
"""What counts, or what is to be run to know it."""

Then = Callable[[Metrics | bytes], Next]
"""Makes of an answer what is next."""


@dataclass
class Fork:
    """A replication's process, the socket's end that leads to it, and what it has answered so far.

    ``printed`` is the file that a confined one prints to, ``largest`` how many bytes its answer has at most;
    it is ``gone`` once it was ended.
    """

    pid: int
    descriptor: int
    printed: int | None = None
    largest: int = _LARGEST
    answer: bytearray = field(default_factory=bytearray)
    gone: bool = False

    def receive(self) -> bool:
        """Read what there is, or wait for it; whether the answer is whole, or no more will come."""
        try:
            part = os.read(self.descriptor, _PART)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            part = b""
        self.answer += part
        if len(self.answer) > self.largest:
            part, self.answer = b"", bytearray()
        # What a replication has started may hold the socket open: the length says when it is all.
        return not part or self.whole()

    def ask(self) -> None:
        """Have a fork that is `READY` call its function."""
        with contextlib.suppress(OSError):
            os.write(self.descriptor, b"?")

    def give(self, number: int, given: bytes, wait: Callable[[], bool] = lambda: True) -> None:
        """Have one that serves (see `serve`) call its function of that number with these bytes.

        Where the descriptor does not block, `wait` says whether it takes more.
        """
        left = memoryview(number.to_bytes(8, "big") + len(given).to_bytes(8, "big") + given)
        # One that has gone answers nothing.
        with contextlib.suppress(OSError):
            while left:
                try:
                    left = left[os.write(self.descriptor, left) :]
                except BlockingIOError:
                    if not wait():
                        return

    def take(self) -> Outcome:
        """The answer of one that serves. It goes on, unless that is a failure."""
        outcome = self.taken() if self.whole() else self.end()
        if isinstance(outcome, Failure) and not self.gone:
            self.stop()
        return outcome

    def taken(self) -> Outcome:
        """A whole answer, and room for the next."""
        answer, self.answer = bytes(self.answer), bytearray()
        return _outcome(answer, 0)

    def stop(self) -> None:
        """Kill one that serves."""
        self.gone = True
        os.close(self.descriptor)
        kill(self.pid)
        os.waitpid(self.pid, 0)

    def end(self, leaving: list[int] | None = None) -> Outcome:
        """Kill what is left of it, and show what it has printed; its answer.

        With `leaving`, one that has answered is not waited for: its process joins those to be waited for.
        """
        self.gone = True
        os.close(self.descriptor)
        status = 0
        if leaving is not None and self.whole():
            # What it says is said: the next one need not wait until its process is gone.
            kill(self.pid)
            leaving.append(self.pid)
        else:
            status = _reap(self.pid)
        if self.printed is not None:
            _show(self.printed)
        return _outcome(bytes(self.answer), status)

    def whole(self) -> bool:
        """Whether the answer is all there."""
        return len(self.answer) >= 8 + max(1, int.from_bytes(self.answer[:8], "big"))


def late(timeout: float) -> Failure:
    """What is said of a replication that was killed at its deadline."""
    return Failure(
        f"the replication did not finish within {timeout:g} s and was killed: it may never return, or need a "
        "larger glia_timeout (in a search it has at most 20 times as long as the present candidate)"
    )


def fork(replication: Replication, private: Sequence[int], confine: Confine | None) -> Fork:
    """Start a replication in a process of its own; `private` and `confine` are those of `running.run_all`."""
    reader, writer = (end.detach() for end in socket.socketpair())
    run, printed = replication.run, None
    if confine is not None and replication.confined:
        # In a file that it shares with this process it could overwrite what others have reported.
        printed = os.open(os.devnull, os.O_RDWR) if replication.quiet else os.memfd_create("printed")
        run = partial(_confined, replication.run, confine, writer, printed)
    others = [each for each in private if each not in replication.keeps]
    pid = fork_off(lambda: iter([_answer(run, writer)]), writer, [reader, *others], quiet=replication.quiet)
    return Fork(pid, reader, printed)


def serve(functions: Sequence[Again | None], private: Sequence[int], confine: Confine | None) -> Fork:
    """Start a process that calls one of these functions whenever it is given a number and bytes, quietly.

    It runs no candidate, but what one has written: so it is confined, too, and has no more memory.
    """
    reader, writer = (end.detach() for end in socket.socketpair())
    pid = fork_off(lambda: served(functions, writer, confine), writer, [reader, *private], quiet=True)
    return Fork(pid, reader)


def served(
    functions: Sequence[Again | None], descriptor: int, confine: Confine | None = None
) -> Iterator[bytes]:
    """What functions answer to whoever asks at a descriptor, after `confine`."""

    def run(function: Again, given: bytes, first: bool) -> Metrics | bytes:
        if confine is not None and first:
            confine([descriptor, *outputs()])
        return function(given)

    first = True
    with open(descriptor, "rb", closefd=False) as asked:
        while head := asked.read(16):
            function, given = (
                functions[int.from_bytes(head[:8], "big")],
                asked.read(int.from_bytes(head[8:], "big")),
            )
            assert function is not None
            yield _answer(partial(run, function, given, first), descriptor)
            first = False


def fork_off(
    answers: Callable[[], Iterator[bytes]], writer: int, private: Sequence[int], *, quiet: bool
) -> int:
    """Fork; the child closes what is `private`, writes its answers to `writer`, and ends. Returns its
    process."""
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
        return pid
    status = 1
    try:
        for descriptor in private:
            os.close(descriptor)
        # What the parent has left to be collected must not be finalized here: its finalizers may do anything.
        gc.freeze()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        die_with(parent)
        if quiet:
            # Whatever captures the output of the host process has replaced these objects.
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
        for answer in answers():
            # Before the answer, after which this process may be ended at any moment.
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            left = memoryview(len(answer).to_bytes(8, "big") + answer)
            while left:
                left = left[os.write(writer, left) :]
        status = 0
    finally:
        os._exit(status)


def _confined(run: Run, confine: Confine, keep: int, printed: int) -> Metrics | bytes | Callable[[], bytes]:
    """Run a replication after `confine`, or not at all; what it prints goes to the file `printed`."""
    printing = {1, 2, *outputs()}
    for output in printing:
        os.dup2(printed, output)
    confine([keep, *printing])
    try:
        return run()
    except ReplicationError as error:
        if isinstance(error.__cause__, PermissionError):
            hint = "The sandbox refuses what a replication does not need; glia_sandbox = off runs without it."
            raise ReplicationError(f"{error}\n{hint}") from error
        raise


def outputs() -> Iterator[int]:
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
        return _failed(str(error))
    except BaseException as error:
        name = type(error).__name__
        text = str(error).strip() or name
        details = "".join(traceback.format_exception(error, limit=-6))
        return _failed(f"the replication raised {name}: {text}", details)


def _failed(message: str, details: str = "") -> bytes:
    """As JSON; cut here too, for a long answer is refused."""
    failure = Failure(message, details)
    return json.dumps({"failure": failure.message, "details": failure.details}).encode()


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
    kill(pid)
    return os.waitpid(pid, 0)[1]


def kill(pid: int) -> None:
    """Kill a fork that nobody has waited for, and its group, which it may have left."""
    _kill_group(pid)
    os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _outcome(answer: bytes, status: int) -> Outcome:
    if len(answer) != 8 + int.from_bytes(answer[:8], "big"):
        return _without_result(status)
    if answer[8:9] == b"\0":
        return answer[9:]
    if len(answer) > _LARGEST_JSON:
        return Failure(
            f"the replication's metrics take {len(answer):,} bytes, and the most are {_LARGEST_JSON:,}: "
            "return fewer, or figures that sum many up"
        )
    try:
        data = json.loads(answer[8:])
        if "metrics" in data:
            return {visible(str(name), line=True): float(value) for name, value in data["metrics"].items()}
        return Failure(str(data["failure"]), str(data.get("details", "")))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return _without_result(status)


def _without_result(status: int) -> Failure:
    return Failure(f"the replication's process ended ({_ending(status)}) without a result")


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        known = number in signal.valid_signals() and not signal.SIGRTMIN < number < signal.SIGRTMAX
        return f"killed by {signal.Signals(number).name if known else f'signal {number}'}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
