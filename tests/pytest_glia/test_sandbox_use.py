"""Life in the sandbox: honest code runs, limits hold; and where there is none, it says why."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_glia import sandbox
from pytest_glia.sandbox import NotConfined, kernel, seccomp
from tests.confined import confinement, in_fork

pytestmark = pytest.mark.skipif(
    sandbox.unavailable() is not None, reason=f"no sandbox here: {sandbox.unavailable()}"
)


def test_output_that_keeps_nothing_is_allowed() -> None:
    """Redirecting into /dev/null, as libraries do, works."""

    def run() -> int:
        with open(os.devnull, "w") as nothing:
            return nothing.write("away")

    assert in_fork(run, None, confinement())[0] == 4


def test_numeric_code_runs() -> None:
    """Linear algebra on threads, compiled functions, time zones and threads of Python's own."""
    numba = pytest.importorskip("numba")
    pandas = pytest.importorskip("pandas")

    def run() -> list[Any]:
        matrix = numpy.arange(90_000.0).reshape(300, 300) / 90_000
        total = numba.njit(lambda values: values.sum())(matrix[0])
        times = pandas.date_range("2026-03-28", periods=2, freq="D", tz="Europe/Berlin")
        done: list[int] = []
        threads = [threading.Thread(target=done.append, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [(matrix @ matrix).shape, round(total, 9), str(times[1].utcoffset()), sorted(done)]

    found, _ = in_fork(run, None, confinement())
    assert found == [[300, 300], round(sum(range(300)) / 90_000, 9), "1:00:00", list(range(8))]


def test_memory_is_limited() -> None:
    """More than the limit is a MemoryError; what is below it can be had."""

    def run() -> list[str]:
        said = [str(len(bytearray(64 << 20)))]
        try:
            said.append(str(len(bytearray(512 << 20))))
        except MemoryError:
            said.append("MemoryError")
        return said

    found, _ = in_fork(run, None, confinement(memory=256 << 20))
    assert found == [str(64 << 20), "MemoryError"]


def test_processor_time_is_limited() -> None:
    """An endless loop ends, even if nobody waits for it."""

    def loop() -> None:
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            pass

    _, status = in_fork(loop, None, confinement(cpu_seconds=1))
    assert os.WIFSIGNALED(status)


def test_output_file_is_limited(tmp_path: Path) -> None:
    """A file behind standard output grows by no more than it may, whatever its size was."""
    file = tmp_path / "out"
    file.write_bytes(bytes(5000))

    def run() -> int:
        os.lseek(1, 0, os.SEEK_END)
        while True:
            try:
                os.write(1, bytes(1000))
            except OSError as error:
                return error.errno or -1

    saved = os.dup(1)
    with file.open("r+b") as stream:
        os.dup2(stream.fileno(), 1)
        try:
            found, _ = in_fork(run, None, confinement(output=10_000))
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert found == errno.EFBIG
    assert file.stat().st_size == 15_000


def test_own_process_may_signal_itself() -> None:
    """A crash is told by its own signal."""
    _, status = in_fork(lambda: os.kill(os.getpid(), signal.SIGSEGV), None, confinement())
    assert os.WTERMSIG(status) == signal.SIGSEGV


def test_process_with_threads_is_not_confined() -> None:
    """One that could have a thread outside the sandbox is refused."""

    def run() -> str:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            sandbox.confine(confinement())
        except NotConfined as error:
            return str(error)
        finally:
            stop.set()
            thread.join()
        return ""

    found, _ = in_fork(run, None, None)
    assert "a process with 2 threads cannot be confined" in found


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("landlock_create_ruleset", "the kernel has no Landlock"),
        ("landlock_restrict_self", "cannot restrict its files (Landlock) here"),
        ("seccomp", "cannot filter its system calls (seccomp) here"),
    ],
)
def test_where_it_is_refused_it_is_unavailable(call: str, reason: str) -> None:
    """A container whose own filter forbids one of the calls gets a sentence that says which."""

    def run() -> str | None:
        here = kernel.architecture()
        assert here is not None
        kernel.prctl(38, 1)
        refusing = [(0x20, 0, 0, 0), (0x15, 0, 1, here.confining[call]), (0x06, 0, 0, 0x50000 | errno.EPERM)]
        seccomp.install(here, seccomp.packed([*refusing, (0x06, 0, 0, 0x7FFF0000)]))
        return sandbox.unavailable.__wrapped__()

    assert reason in in_fork(run, None, None)[0]


def test_other_processors_are_not_known() -> None:
    """There, the numbers of the calls would be others."""
    assert kernel.architecture("riscv64") is None


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    """Every call has the number that the kernel's header gives it."""
    if not HEADERS[machine].exists():
        pytest.skip(f"the kernel's headers are not installed: no {HEADERS[machine]}")
    defined = dict(re.findall(r"#define __(NR\w+) (\w+)", HEADERS[machine].read_text()))
    here = kernel.architecture(machine)
    assert here is not None
    for name, number in {**here.permitted, **here.confining}.items():
        value = defined[f"NR_{name}"]
        while not value.isdigit():
            value = defined[value.removeprefix("__")]
        assert (name, int(value)) == (name, number)


def test_confining_costs_little() -> None:
    """Milliseconds would be felt: most replications of a small domain take no longer. (CPU time, median.)"""
    confined = confinement()

    costs = []
    for _ in range(15):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_fork(lambda: None, None, None)
        between = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_fork(lambda: None, None, confined)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        bare, whole = (
            later.ru_utime + later.ru_stime - earlier.ru_utime - earlier.ru_stime
            for earlier, later in ((before, between), (between, after))
        )
        costs.append(whole - bare)
    assert sorted(costs)[7] < 0.01
