"""Times a candidate's code: in forks, one at a time, by this process's clock, its output checked.

Whatever a candidate does to its own process, it cannot stop this clock but by answering, nor gain by an
answer that is not the reference's.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytest_glia.output import decode, difference, encode
from pytest_glia.replication import READY, Confine, Failure, Replication, ReplicationError, Run, fork, late

Prepare = Callable[[int], Callable[[], Any]]
"""Makes the input of a seed; what it gives is the function to time."""

# A run must take this many times as long as one of a function that does nothing: an error below 5 %.
_ABOVE_FLOOR = 20
_FLOOR_RUNS = 7


class TimingFailed(Exception):
    """Code could not be timed, or its output is wrong; the message says which and why."""


@dataclass(frozen=True)
class Code:
    """One side of a comparison: a name for people, and what loads it, which is only called in forks."""

    name: str
    load: Callable[[], Prepare]


@dataclass(frozen=True)
class Timings:
    """Seconds of both runs of the candidate with one seed, and of both of its baseline (none without one)."""

    candidate: tuple[float, float]
    baseline: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Of the candidate: the mean of both runs.

        On a busy machine the minimum is no steadier (docs/specs.md), and one lucky run would decide it; in
        means the order of the runs cancels a drift.
        """
        return statistics.fmean(self.candidate)

    @property
    def baseline_seconds(self) -> float:
        """Of the baseline."""
        return statistics.fmean(self.baseline)


def noise(timings: Sequence[Timings]) -> float:
    """The median relative difference between two runs of the same code on the same seed."""
    return apart([pair for each in timings for pair in (each.candidate, each.baseline) if pair])


def apart(pairs: Iterable[Sequence[float]]) -> float:
    """The median relative difference within pairs of figures; those that are equal differ by nothing."""
    return statistics.median(0.0 if a == b else abs(a - b) / abs(statistics.fmean((a, b))) for a, b in pairs)


@dataclass(frozen=True)
class Stopwatch:
    """Times code.

    Attributes:
        timeout: Seconds for one run: loading, preparing and warming up included.
        private: File descriptors that no run may inherit.
        confine: As for `pytest_glia.replication.run_all`.
        ran: Called after each run.
    """

    timeout: float
    private: tuple[int, ...]
    confine: Confine | None
    ran: Callable[[], None]

    def time(self, seeds: Sequence[int], candidate: Code, reference: Code, *, paired: bool) -> list[Timings]:
        """Time a candidate with every seed, in the order candidate, reference, reference, candidate.

        If not `paired` the reference runs once, for its output, and its time does not matter.

        Raises:
            TimingFailed: a run failed, was too short to be timed, or gave another output than the reference.
        """
        order = [candidate, reference, reference, candidate] if paired else [reference, candidate, candidate]
        floor, timings, outputs = self._floor(), [], set()
        for seed in seeds:
            runs = []
            with alone() as lock:
                for code in order:
                    runs.append((code, *self._run(code, seed, lock)))
                    self.ran()
            expected = next(output for code, _, output in runs if code is reference)
            outputs.add(expected)
            for code, _, output in runs:
                if output != expected and (parted := _difference(output, expected)):
                    raise _failed(code, seed, f"the output is not that of {reference.name}: {parted}")
            for code, seconds, _ in runs:
                if seconds < _ABOVE_FLOOR * floor and (paired or code is candidate):
                    raise _failed(
                        code,
                        seed,
                        f"the timed call took {_ms(seconds)}, and a call that does nothing takes "
                        f"{_ms(floor)}: do more work in one call, {_ms(_ABOVE_FLOOR * floor)} of it or more",
                    )
            baseline = tuple(seconds for code, seconds, _ in runs if paired and code is reference)
            first, second = (seconds for code, seconds, _ in runs if code is candidate)
            timings.append(Timings((first, second), baseline))
        if len(outputs) == 1 < len(seeds):
            shown = _shown(outputs.pop())
            raise _failed(
                reference,
                seeds[-1],
                f"the output is the same as with every other seed ({shown}), so an answer without any work "
                "would pass: return from the timed function what the work has found",
            )
        return timings

    def _floor(self) -> float:
        """Seconds that a run takes whose function does nothing.

        The least of some, for what a busy machine adds now and then is noise, of which the interval tells.
        """
        nothing = Code("a function that does nothing", lambda: lambda seed: lambda: None)
        with alone() as lock:
            return min(self._run(nothing, 0, lock)[0] for _ in range(_FLOOR_RUNS))

    def _run(self, code: Code, seed: int, lock: int) -> tuple[float, bytes]:
        outcome = self._round_trip(partial(_prepared, code.load, seed), lock)
        if isinstance(outcome, Failure):
            raise _failed(code, seed, outcome.message, outcome.details)
        return outcome

    def _round_trip(self, run: Run, lock: int) -> tuple[float, bytes] | Failure:
        """Seconds from the question until the whole answer is here, and the answer."""
        # A baseline, too, is confined: conditions are the same for all.
        running = fork(Replication(run, confined=True), [*self.private, lock], self.confine)
        deadline = time.monotonic() + self.timeout
        began: float | None = None
        whole = False
        try:
            while not whole:
                if not readable(running.descriptor, deadline - time.monotonic()):
                    return late(self.timeout)
                whole = running.receive()
                if began is None and running.answer[:1] == READY:
                    del running.answer[:1]
                    if running.answer or readable(running.descriptor, 0):
                        return Failure("the candidate's process answered before it was asked")
                    began, whole = time.perf_counter(), False
                    running.ask()
            ended = time.perf_counter()
        finally:
            outcome = running.end()
        if isinstance(outcome, Failure):
            return outcome
        if began is None or not isinstance(outcome, bytes):
            return Failure("the candidate's process answered before it was asked")
        return ended - began, outcome


def _prepared(load: Callable[[], Prepare], seed: int) -> Callable[[], bytes]:
    """In a fork: code that is warm, with its input ready.

    The warm-up is that of another seed, so that its answers are of no use, and it is over before the input
    exists: what the candidate has started in it could take the input and compute ahead.
    """
    # Taken before the candidate is loaded.
    threads = sys._current_frames
    prepare = load()
    encode(prepare((seed + 1) % 2**32)())
    started = len(threads()) > 1
    function = prepare(seed)
    gc.collect()
    gc.freeze()
    if started or len(threads()) > 1:
        raise ReplicationError(
            "a thread of the candidate runs on when its call is over: the clock would not see its work; end "
            "all threads before returning"
        )
    return lambda: encode(function())


def _failed(code: Code, seed: int, message: str, details: str = "") -> TimingFailed:
    wrap = textwrap.TextWrapper(78, break_long_words=False, break_on_hyphens=False)
    lines = [line for each in message.splitlines() for line in wrap.wrap(each)]
    return TimingFailed("\n".join([f"{code.name}, seed {seed}:", *lines, details]).rstrip())


def _difference(output: bytes, expected: bytes) -> str | None:
    try:
        return difference(decode(output), decode(expected))
    except ValueError as error:
        return str(error)


def _shown(output: bytes) -> str:
    try:
        return repr(decode(output))[:40]
    except ValueError as error:
        return str(error)


@contextlib.contextmanager
def alone() -> Iterator[int]:
    """Wait until no other process of this machine measures time; gives the lock's descriptor.

    It is a lock of the temporary folder itself, which takes no file that somebody else may not write.
    """
    lock = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, which is waited for so long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * max(0.0, seconds)))


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
