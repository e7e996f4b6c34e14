"""The stopwatch: what it counts, and that code which wants to look fast has to be fast."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.output import encode
from pytest_glia.replication import READY
from pytest_glia.timing import Code, Stopwatch, TimingFailed, Timings, noise

SEED = 7
WORK = 0.25
"""Seconds: many times the floor of a busy machine."""


def data_of(seed: int) -> list[int]:
    return random.Random(seed).sample(range(10**6), 10)


def honest(data: list[int]) -> list[int]:
    """Sorts, and takes its time for it."""
    time.sleep(WORK)
    return sorted(data)


def code(
    function: Callable[[list[int]], Any], data: Callable[[int], list[int]] = data_of, name: str = "it"
) -> Code:
    """Code whose timed call is the function of a seed's data."""

    def prepare(seed: int) -> Callable[[], Any]:
        made = data(seed)
        return lambda: function(made)

    return Code(name, lambda: prepare)


RIGHT = code(sorted, name="sorted")


def measured(candidate: Code, *seeds: int, timeout: float = 60.0) -> list[Timings]:
    watch = Stopwatch(timeout, (), None, lambda: None)
    return watch.time(seeds or [SEED], candidate, RIGHT, paired=False)


def failure(candidate: Code, *seeds: int, timeout: float = 60.0) -> str:
    with pytest.raises(TimingFailed) as raised:
        measured(candidate, *seeds, timeout=timeout)
    return " ".join(str(raised.value).split())


@pytest.mark.slow
def test_only_the_call_is_timed() -> None:
    """Loading, preparing and warming up do not count, however long they take."""

    def load() -> Callable[[int], Callable[[], Any]]:
        time.sleep(2.0)
        return lambda seed: lambda: honest(data_of(seed))

    [timings] = measured(Code("it", load))
    assert all(WORK <= seconds < 1.5 for seconds in timings.candidate)


@pytest.mark.slow
def test_order_cancels_a_drift(tmp_path: Path) -> None:
    """With every seed the order is candidate, baseline, baseline, candidate: each in a process of its own."""
    log = tmp_path / "log"

    def logged(name: str) -> Code:
        def load() -> Callable[[int], Callable[[], Any]]:
            with log.open("a") as file:
                file.write(f"{name} {os.getpid()}\n")
            return lambda seed: lambda: honest(data_of(seed))

        return Code(name, load)

    counted: list[None] = []
    watch = Stopwatch(60.0, (), None, lambda: counted.append(None))
    [one, two] = watch.time([1, 2], logged("c"), logged("b"), paired=True)
    runs = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, _ in runs] == list("cbbc") * 2
    assert len({pid for _, pid in runs}) == 8 == len(counted)
    assert len(one.candidate) == len(one.baseline) == len(two.baseline) == 2


@pytest.mark.slow
def test_its_clocks_do_not_matter() -> None:
    """A candidate that stops every clock of its process is timed by another one."""

    def stopped(data: list[int]) -> list[int]:
        sleep = time.sleep
        for clock in ("perf_counter", "perf_counter_ns", "monotonic", "time", "process_time"):
            setattr(time, clock, lambda: 0)
        sleep(WORK)
        return sorted(data)

    [timings] = measured(code(stopped))
    assert min(timings.candidate) >= WORK


@pytest.mark.slow
def test_answering_first_and_computing_later_is_a_wrong_answer() -> None:
    """A list that a thread fills after the call has returned is compared as it was then."""

    def later(data: list[int]) -> list[int]:
        found: list[int] = []

        def fill() -> None:
            time.sleep(WORK)
            found.extend(sorted(data))

        time.sleep(WORK)
        if data == data_of(SEED):
            threading.Thread(target=fill).start()
        return found

    assert "the output is not that of sorted: 0 items, not 10" in failure(code(later))


def test_a_lazy_output_is_refused() -> None:
    """An object that would compute when it is looked at is none of the types that may come back."""

    def lazily(data: list[int]) -> Iterator[int]:
        return (each for each in sorted(data))

    assert "returned an object of builtins.generator: return numbers" in failure(code(lazily))


def test_computing_ahead_is_refused() -> None:
    """A thread that the warm-up leaves behind could take the input and compute before the clock starts."""

    def ahead(data: list[int]) -> list[int]:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return honest(data)

    assert "a thread of the candidate runs on when its call is over" in failure(code(ahead))


@pytest.mark.slow
def test_threads_that_end_are_welcome() -> None:
    """A candidate may use threads within its call."""

    def threaded(data: list[int]) -> list[int]:
        thread = threading.Thread(target=time.sleep, args=(WORK,))
        thread.start()
        thread.join()
        return sorted(data)

    [timings] = measured(code(threaded))
    assert min(timings.candidate) >= WORK


@pytest.mark.slow
def test_memory_of_the_warm_up_is_of_no_use() -> None:
    """The warm-up has another seed's input: who keeps its answers computes again, or is wrong."""

    def remembering(key: Callable[[list[int]], Any]) -> Code:
        known: dict[Any, list[int]] = {}

        def function(data: list[int]) -> list[int]:
            if key(data) not in known:
                known[key(data)] = honest(data)
            return known[key(data)]

        return code(function)

    [timings] = measured(remembering(tuple))
    assert min(timings.candidate) >= WORK
    assert "the output is not that of sorted" in failure(remembering(len))


@pytest.mark.slow
def test_an_input_that_is_always_the_same_is_refused() -> None:
    """Where the output does not depend on the seed, the warm-up's answer would do."""
    with pytest.raises(TimingFailed, match="the same as with every other seed") as raised:
        Stopwatch(60.0, (), None, lambda: None).time(
            [1, 2], code(honest, lambda seed: [2, 1]), code(sorted, lambda seed: [2, 1]), paired=False
        )
    assert "([1, 2]), so an answer without any work" in " ".join(str(raised.value).split())


def sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))):
            found.append(int(name))
    return found


@pytest.mark.parametrize("ready", [True, False], ids=["once ready", "never ready"])
def test_an_answer_before_the_question_is_refused(ready: bool) -> None:
    """A candidate that finds the socket and sends the right answer before the clock starts is caught."""
    inherited = sockets()

    def data(seed: int) -> list[int]:
        made = data_of(seed)
        if seed == SEED:
            answer = b"\0" + encode(sorted(made))
            message = (READY if ready else b"") + len(answer).to_bytes(8, "big") + answer
            for descriptor in set(sockets()) - set(inherited):
                os.write(descriptor, message)
            time.sleep(60)
        return made

    assert "answered before it was asked" in failure(code(honest, data))


@pytest.mark.slow
def test_forged_answers_are_wrong_answers() -> None:
    """Whatever a candidate writes itself when it is asked is compared with the right output, as data."""
    inherited = sockets()

    def forging(data: list[int]) -> list[int]:
        if data == data_of(SEED):
            for descriptor in set(sockets()) - set(inherited):
                os.write(descriptor, (6).to_bytes(8, "big") + b"\0ready")
        return honest(data)

    assert "the output is not that of sorted: b'ready' is no output" in failure(code(forging))


@pytest.mark.slow
def test_a_candidate_that_sleeps_is_killed() -> None:
    """At the deadline the run ends, and the sentence says how long that was."""
    told = failure(code(lambda data: time.sleep(600)), timeout=2.0)
    assert "it, seed 7: the replication did not finish within 2 s and was killed" in told


@pytest.mark.slow
@pytest.mark.parametrize("when", ["warm-up", "call"])
def test_a_candidate_that_ends_its_process_fails(when: str) -> None:
    """A process that ends before or while it is asked gives no time."""

    def ending(data: list[int]) -> None:
        if when == "warm-up" or data == data_of(SEED):
            os._exit(3)

    assert "the replication's process ended (exit code 3) without a result" in failure(code(ending))


def test_too_short_a_call_is_refused() -> None:
    """A call that is not far longer than one that does nothing says what it took and what to do."""
    told = failure(code(sorted))
    assert told.startswith("it, seed 7: the timed call took ")
    assert " ms, and a call that does nothing takes " in told
    assert "do more work in one call, " in told


def test_noise_is_that_of_the_same_code() -> None:
    """It is the median relative difference of two runs of one side, whatever the sides differ by."""
    timings = [Timings((1.0, 1.0), (8.0, 8.0)), Timings((0.9, 1.1), (9.0, 11.0)), Timings((1.0, 3.0), ())]
    assert noise(timings) == pytest.approx(0.2)


@pytest.mark.slow
def test_no_process_inherits_the_lock() -> None:
    """A run cannot keep others from timing: it has neither the lock nor anything else of the stopwatch."""
    inherited = set(os.listdir("/proc/self/fd"))

    def looking(data: list[int]) -> list[int]:
        # Its own end of the socket, and the listing.
        assert len(set(os.listdir("/proc/self/fd")) - inherited) <= 2
        return honest(data)

    assert measured(code(looking))


def test_threads_are_counted_by_the_interpreter_that_was_there_first() -> None:
    """A candidate that replaces the count of threads hides none."""

    def hiding(data: list[int]) -> list[int]:
        sys._current_frames = dict
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return honest(data)

    assert "a thread of the candidate runs on" in failure(code(hiding))
