"""What is run again without a candidate shares processes, in which none can spoil another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from pytest_glia.replication import Confine, Failure, Metrics, Outcome, Replication, ReplicationError, Rerun
from pytest_glia.running import run_all
from pytest_glia.sandbox import confining, unavailable
from tests.confined import ROOT


def rerun(
    again: Callable[[bytes], Metrics],
    given: list[bytes],
    workers: int = 1,
    timeout: float = 30.0,
    confine: Confine | None = None,
) -> list[Outcome]:
    """The outcomes of replications that answer these bytes and are run again with them."""

    def then(answer: Metrics | bytes) -> Rerun:
        assert isinstance(answer, bytes)
        return Rerun(answer)

    replications = [Replication(partial(bytes, each), then=then, again=again) for each in given]
    found = dict(run_all(replications, workers=workers, timeout=timeout, confine=confine))
    return [found[index] for index in range(len(given))]


def process(given: bytes) -> Metrics:
    return {"process": float(os.getpid()), "length": float(len(given))}


def never() -> Metrics:
    while True:
        signal.pause()


def test_no_more_processes_serve_than_workers() -> None:
    """One process serves many, each with its own bytes, and it is neither this one nor its replication's."""
    given = [bytes(length) for length in (0, 1, 200_000, 7, 3_000_000, 9)]
    for workers in (1, 2):
        found = rerun(process, given, workers)
        assert [each["length"] for each in found if isinstance(each, dict)] == [*map(float, map(len, given))]
        served = {each["process"] for each in found if isinstance(each, dict)}
        assert 1 <= len(served) <= workers
        assert os.getpid() not in served


def test_what_ends_the_serving_process_fails_alone() -> None:
    """It is killed, exits or raises: its own replication fails with the reason, and no other does."""

    def again(given: bytes) -> Metrics:
        if given == b"dies":
            os.kill(os.getpid(), signal.SIGTERM)
        if given == b"exits":
            os._exit(3)
        if given == b"raises":
            raise ReplicationError("no decisions")
        return process(given)

    found = rerun(again, [b"", b"dies", b"", b"exits", b"raises", b""])
    ended = "the replication's process ended ({}) without a result"
    assert found[1] == Failure(ended.format("killed by SIGTERM"))
    assert found[3] == Failure(ended.format("exit code 3"))
    assert found[4] == Failure("no decisions")
    assert all(isinstance(found[place], dict) for place in (0, 2, 5))


def test_what_hangs_is_late_alone() -> None:
    """Each has its own deadline, after which its process is killed; the next ones are served by another."""

    def again(given: bytes) -> Metrics:
        while given == b"hangs":
            signal.pause()
        return process(given)

    began = time.monotonic()
    found = rerun(again, [b"", b"hangs", b""], timeout=1.0)
    assert isinstance(found[1], Failure)
    assert "did not finish within 1 s" in found[1].message
    assert time.monotonic() - began < 15
    assert all(isinstance(found[place], dict) for place in (0, 2))


def test_a_failure_may_be_its_predecessors_fault() -> None:
    """What fails where others have been served is run in a new process before it counts as failed."""
    calls = count(1)

    def again(given: bytes) -> Metrics:
        if next(calls) > 1:
            raise ReplicationError("called before")
        return process(given)

    found = rerun(again, [b"1", b"2", b"3"])
    assert len({each["process"] for each in found if isinstance(each, dict)}) == 3


@pytest.mark.skipif(unavailable() is not None, reason=f"no sandbox here: {unavailable()}")
def test_what_is_run_again_is_confined() -> None:
    """What a log brings the process to is bounded as the candidate was: memory, files; it fails alone."""

    def again(given: bytes) -> Metrics:
        if given == b"memory":
            bytearray(1 << 50)
        if given == b"file":
            open("/etc/passwd").close()
        return process(given)

    confine = confining(ROOT, seconds=30, workers=1)
    found = rerun(again, [b"", b"memory", b"", b"file", b""], confine=confine)
    assert [type(each) for each in found] == [dict, Failure, dict, Failure, dict]
    assert "MemoryError" in str(found[1])
    assert "PermissionError" in str(found[3])


def test_nothing_stays() -> None:
    """When all is done, or nobody waits any more, no process and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    [first] = rerun(process, [b""])
    assert isinstance(first, dict)
    replications = [
        Replication(lambda: b"", then=lambda answer: Rerun(b""), again=process),
        Replication(never),
    ]
    outcomes = run_all(replications, workers=2, timeout=30)
    _, second = next(outcomes)
    assert isinstance(second, dict)
    outcomes.close()  # type: ignore[attr-defined]
    for served in (first, second):
        assert not os.path.exists(f"/proc/{served['process']:.0f}")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_busy_machine_gives_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others keep from the processors is not late yet; what has had its share, or does nothing, is."""
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 1000.0, 1000.0))

    def work(seconds: float) -> Replication:
        def run() -> dict[str, float]:
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass
            return {"done": 1.0}

        return Replication(run)

    rivals = [work(0.35) for _ in range(6)]
    outcomes = dict(run_all(rivals, workers=6, timeout=0.8))
    assert all(outcome == {"done": 1.0} for outcome in outcomes.values())
    [(_, never)] = run_all([work(60.0)], workers=1, timeout=0.3)
    assert isinstance(never, Failure)
