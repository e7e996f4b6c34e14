"""Replications in forked processes: what comes back, and that nothing stays behind."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_glia.replication import Failure, Metrics, Outcome, Replication, ReplicationError
from pytest_glia.running import run_all


def outcomes(
    *replications: Callable[[], Metrics | bytes], workers: int = 2, timeout: float = 30.0
) -> list[Outcome]:
    found = dict(run_all([Replication(run) for run in replications], workers=workers, timeout=timeout))
    return [found[index] for index in range(len(replications))]


def failure(replication: Callable[[], Metrics], timeout: float = 30.0) -> Failure:
    [outcome] = outcomes(replication, timeout=timeout)
    assert isinstance(outcome, Failure)
    return outcome


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie that nobody has waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    """Whether a killed process has ended, given a moment for the kernel."""
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not alive(pid)


def test_each_outcome_belongs_to_its_replication() -> None:
    """Whatever order they finish in, the index says which it was, however many workers there are."""
    replications = [lambda i=i: {"value": float(i)} for i in range(20)]
    for workers in (1, 3, 50):
        assert outcomes(*replications, workers=workers) == [{"value": float(i)} for i in range(20)]


def test_replications_run_at_the_same_time(tmp_path: Path) -> None:
    """Two that wait for each other finish, so both were running."""
    os.mkfifo(tmp_path / "fifo")

    def write() -> Metrics:
        (tmp_path / "fifo").write_text("x")
        return {"value": 1}

    def read() -> Metrics:
        return {"value": len((tmp_path / "fifo").read_text())}

    assert outcomes(write, read, workers=2) == [{"value": 1}, {"value": 1}]


def test_never_more_at_once_than_workers(tmp_path: Path) -> None:
    """With one worker, no replication sees another's mark."""

    def run() -> Metrics:
        found = len(list(tmp_path.iterdir()))
        mark = tmp_path / str(os.getpid())
        mark.touch()
        sum(range(200_000))  # long enough for another to start
        mark.unlink()
        return {"others": found}

    assert outcomes(*[run] * 5, workers=1) == [{"others": 0}] * 5


def test_replication_cannot_change_the_next_one() -> None:
    """What it writes in memory is gone with its process."""
    state = {"runs": 0}

    def run() -> Metrics:
        state["runs"] += 1
        return {"runs": state["runs"]}

    assert outcomes(run, run, run, workers=1) == [{"runs": 1}] * 3
    assert state == {"runs": 0}


def test_large_answer_arrives_whole() -> None:
    """More metrics than a pipe holds are no deadlock."""
    many = {f"metric {i}": float(i) for i in range(20_000)}
    assert outcomes(lambda: many) == [many]


def test_numbers_without_a_value_pass_through() -> None:
    """NaN and infinities arrive as such: judging them is the caller's."""
    [answer] = outcomes(lambda: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf})
    assert isinstance(answer, dict)
    assert math.isnan(answer["nan"])
    assert (answer["inf"], answer["-inf"]) == (math.inf, -math.inf)


def test_floats_arrive_bit_for_bit() -> None:
    """No digit is lost on the way."""
    values = {"third": 1 / 3, "tiny": 5e-324, "huge": 1.7976931348623157e308, "zero": -0.0}
    [answer] = outcomes(lambda: values)
    assert isinstance(answer, dict)
    assert {name: value.hex() for name, value in answer.items()} == {
        name: value.hex() for name, value in values.items()
    }


def test_hung_replication_is_killed_with_its_children(tmp_path: Path) -> None:
    """One that never returns is a failure that names glia_timeout; what it started is gone too."""

    def hang() -> Metrics:
        child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        (tmp_path / "pid").write_text(str(child.pid))
        while True:
            pass

    failed = failure(hang, timeout=1.0)
    assert "did not finish within 1 s" in failed.message
    assert "glia_timeout" in failed.message
    assert gone(int((tmp_path / "pid").read_text()))


def test_replication_that_ignores_signals_is_killed() -> None:
    """Ignoring SIGTERM and SIGINT does not help against the deadline."""

    def ignore() -> Metrics:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            pass

    assert "was killed" in failure(ignore, timeout=0.3).message


def test_hung_one_does_not_hold_up_the_others() -> None:
    """The others' outcomes come while it hangs, and after it was killed."""

    def hang() -> Metrics:
        while True:
            pass

    found = outcomes(hang, *[lambda: {"value": 1.0}] * 5, timeout=0.5)
    assert isinstance(found[0], Failure)
    assert found[1:] == [{"value": 1.0}] * 5


def test_child_left_behind_by_an_answer_is_killed(tmp_path: Path) -> None:
    """A replication that answers and leaves a process running leaves none."""

    def leave() -> Metrics:
        child = subprocess.Popen([sys.executable, "-c", "while True: pass"], close_fds=True)
        (tmp_path / "pid").write_text(str(child.pid))
        return {"value": 1}

    assert outcomes(leave) == [{"value": 1}]
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_crash_names_its_signal(number: signal.Signals) -> None:
    """A process that dies of a signal is a failure with that signal's name."""

    def crash() -> Metrics:
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)
        return {}

    assert f"killed by {number.name}" in failure(crash).message


def test_process_that_exits_without_an_answer_is_a_failure() -> None:
    """Leaving by os._exit is no way to report anything, not even with status 0."""
    assert "exit code 3" in failure(lambda: os._exit(3)).message
    assert "without a result" in failure(lambda: os._exit(0)).message


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(0), KeyboardInterrupt("stop")])
def test_exception_is_a_failure_with_its_place(error: BaseException) -> None:
    """Whatever is raised, exits included, comes back with type, text and traceback."""

    def raises() -> Metrics:
        raise error

    failed = failure(raises)
    assert f"raised {type(error).__name__}: {error}" in failed.message
    assert "in raises" in failed.details


@pytest.mark.parametrize("error", [SystemExit("x" * 20_000_000), ReplicationError("x" * 20_000_000)])
def test_a_long_error_is_cut(error: BaseException) -> None:
    """Of 20 MB the beginning and the end: it is printed, kept, committed, and told to a language model."""

    def raises() -> Metrics:
        raise error

    failed = failure(raises)
    assert "xxx" in failed.message
    assert "characters are left out here" in failed.message
    assert len(failed.message) <= 4_000
    assert len(failed.details) <= 20_000


def test_metrics_without_end_are_refused() -> None:
    """What comes back is read whole, so it has a bound."""
    many = {f"metric {i} " + "x" * 1000: 0.0 for i in range(2_000)}
    failed = failure(lambda: many)
    assert re.fullmatch(
        r"the replication's metrics take 2,0\d\d,\d+ bytes, and the most are .*", failed.message
    )


def test_sentence_for_the_user_comes_without_traceback() -> None:
    """A `ReplicationError` says everything itself."""

    def raises() -> Metrics:
        raise ReplicationError("the queue is not a queue")

    assert failure(raises) == Failure("the queue is not a queue")


def test_leaving_early_kills_what_runs(tmp_path: Path) -> None:
    """Once the caller has enough, nothing goes on behind its back."""

    def hang() -> Metrics:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), 0)
        while True:
            pass

    def first() -> Metrics:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            pass
        return {"value": 1}

    answers = run_all([Replication(first), Replication(hang)], workers=2, timeout=30.0)
    assert next(answers) == (0, {"value": 1})
    answers.close()  # type: ignore[attr-defined]
    assert gone(int((tmp_path / "pid").read_text()))


def test_no_descriptor_is_left_open() -> None:
    """Outcomes, failures and deadlines all give their pipes back."""

    def hang() -> Metrics:
        while True:
            pass

    before = len(os.listdir("/proc/self/fd"))
    outcomes(lambda: {"value": 1.0}, lambda: os._exit(1), hang, timeout=0.3)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_replications_no_outcomes() -> None:
    """An empty job is done at once."""
    assert outcomes() == []


def test_bytes_arrive_as_they_are() -> None:
    """Raw answers of any length and content come back; they are never taken for metrics."""
    answers = [b"", b'{"metrics": {"value": 1}}', bytes(range(256)) * 5000]
    assert outcomes(*(lambda answer=answer: answer for answer in answers)) == answers


def test_one_replication_may_follow_another(capfd: pytest.CaptureFixture[str]) -> None:
    """What comes next is made of the answer, runs in its own fork, and counts instead; a failure ends it."""

    def second(answer: object) -> Replication | Metrics:
        if answer == b"skip":
            return {"skipped": 1.0}

        def run() -> Metrics:
            print("not to be seen")
            return {"first": float(len(str(answer))), "process": float(os.getpid())}

        return Replication(run, quiet=True)

    def fail() -> Metrics:
        raise ReplicationError("no")

    first = {"process": float(os.getpid())}
    chained = [Replication(run, then=second) for run in (lambda: b"skip", lambda: first, fail)]
    found = dict(run_all(chained, workers=2, timeout=30))
    assert found[0] == {"skipped": 1.0}
    assert found[2] == Failure("no")
    last = found[1]
    assert isinstance(last, dict)
    assert last["first"] == len(str(first))
    assert last["process"] != os.getpid()
    assert "not to be seen" not in capfd.readouterr().out
