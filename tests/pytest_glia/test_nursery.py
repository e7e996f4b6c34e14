"""Candidates in processes that have never known a seed: what they decide, and what becomes of them."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pytest_glia.arms import Arm, source_arm
from pytest_glia.calling import told
from pytest_glia.candidate import Candidate
from pytest_glia.context import Context, MemoryStore
from pytest_glia.decisions import Objects, Recorded
from pytest_glia.glia import Glia
from pytest_glia.nursery import Nursery
from pytest_glia.replication import Confine, Failure, Metrics, Outcome, Replication, ReplicationError
from pytest_glia.running import run_all
from pytest_glia.sandbox import confining, unavailable
from pytest_glia.seeds import policy_seed
from sim import warm_up
from sim.baselines import RoundRobin
from sim.glia import glia_audits
from tests.adversarial import worlds
from tests.living import alive, until

AUDIT: Any = glia_audits()
ROUTER = Candidate("candidates/router.py", "Router")

LEAST = """
class Router:
    def __init__(self, rng):
        self.rng = rng

    def route(self, queue, replicas, now):
        for request in queue:
            yield request, min(replicas, key=lambda each: (each.waiting + each.running, self.rng.random()))
"""


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    warm_up(replays=True)
    made = Nursery({"sim": AUDIT}, [])
    yield made
    os.close(made.descriptor)
    until(lambda: not alive(made.pid))
    os.waitpid(made.pid, 0)


@dataclass(frozen=True)
class Case:
    """A candidate's text in the small world."""

    root: Path
    source: str
    confine: Confine | None = None
    timeout: float = 30.0

    @property
    def arm(self) -> Arm:
        return source_arm("it", (ROUTER,), {ROUTER.path: self.source.encode()}, self.root, is_candidate=True)

    def context(self, seed: int) -> Context:
        nothing: Any = None
        return Context(
            self.root,
            *(nothing, nothing),
            (seed,),
            0.95,
            self.timeout,
            1,
            samples=MemoryStore(),
            harness="",
            confine=self.confine,
        )


def candidates(nursery: Nursery, case: Case, seed: int = 1) -> Any:
    return nursery.candidates("sim", case.arm, seed, case.context(seed))


def replication(nursery: Nursery, case: Case, seed: int) -> Replication:
    """One of the small world's, with the candidate apart."""

    def ran(objects: Objects) -> Metrics:
        with told(case.arm.files):
            return run(objects[None], seed)

    recorded = Recorded((AUDIT,), (None,), dict, ran)

    def apart() -> Metrics | bytes:
        with candidates(nursery, case, seed) as ask:
            return recorded.apart("sim", ask)

    return Replication(apart, keeps=(nursery.descriptor,), patient=False)


def run(router: Any, seed: int) -> Metrics:
    return dict(worlds.serve(router, seed).metrics)


def outcome(nursery: Nursery, case: Case, seed: int = 1, timeout: float = 60) -> Outcome:
    private = (nursery.descriptor,)
    [(_, found)] = run_all([replication(nursery, case, seed)], workers=1, timeout=timeout, private=private)
    return found


def children(nursery: Nursery) -> list[int]:
    """The processes that it has forked and that live."""
    told = Path(f"/proc/{nursery.pid}/task/{nursery.pid}/children").read_text()
    return [pid for pid in map(int, told.split()) if alive(pid)]


@pytest.mark.parametrize("confined", [False, True])
def test_a_candidate_apart_decides_as_in_the_replication(
    nursery: Nursery, tmp_path: Path, confined: bool
) -> None:
    """Its own random stream included; confined or not, and nothing is left of it."""
    if confined and unavailable():
        pytest.skip(str(unavailable()))
    confine = confining(tmp_path, seconds=30, workers=2) if confined else None
    names: dict[str, Any] = {}
    exec(LEAST, names)
    for seed in (1, 2):
        here = run(names["Router"](Random(policy_seed(seed))), seed)
        assert outcome(nursery, Case(tmp_path, LEAST, confine), seed) == pytest.approx(
            here, rel=1e-12, nan_ok=True
        )
    until(lambda: children(nursery) == [])


def test_several_at_once(nursery: Nursery, tmp_path: Path) -> None:
    """Each has a process of its own."""
    its = Case(tmp_path, LEAST)
    found = dict(
        run_all(
            [replication(nursery, its, 3) for _ in range(6)],
            workers=3,
            timeout=60,
            private=(nursery.descriptor,),
        )
    )
    assert len({str(each) for each in found.values()}) == 1
    assert isinstance(found[0], dict)


def memory_has(pid: int, needle: bytes) -> bool:
    """Whether the memory of a process has these bytes somewhere."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            begin, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]
            if rights[0] == "r" and "[v" not in line:
                memory.seek(int(begin, 16))
                try:
                    if needle in memory.read(int(end, 16) - int(begin, 16)):
                        return True
                except OSError:
                    pass
    return False


def test_nothing_that_came_later_is_in_its_memory(nursery: Nursery, tmp_path: Path) -> None:
    """A secret of this process, made after the nursery, is in a fork of this process and not in one of the
    nursery's."""
    secret = secrets.token_bytes(24)
    assert memory_has(os.getpid(), secret)
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        assert memory_has(pid, secret)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with candidates(nursery, Case(tmp_path, LEAST)):
        [lent] = children(nursery)
        assert not memory_has(lent, secret)
        assert memory_has(lent, b"min(replicas, key=lambda each: (each.waiting")


WRONG = {
    "raises": (
        "class Router:\n    def route(self, queue, replicas, now):\n        return 1 / 0\n",
        r"router.py:3: ZeroDivisionError",
    ),
    "does not load": ("import nonsense_module\n", "does not import: ModuleNotFoundError"),
    "needs arguments": ("class Router:\n    def __init__(self, size): ...\n", "needs size to be made"),
    "is no policy": ("class Router:\n    pass\n", "give its class the methods of its layer"),
    "gives no pairs": (
        "class Router:\n    def route(self, queue, replicas, now):\n        return 3\n",
        "returned 3 where an iterable of pairs",
    ),
    "ends": (
        "import os\nclass Router:\n    def route(self, queue, replicas, now):\n        os._exit(0)\n",
        "the candidate's process ended without an answer",
    ),
    "holds": (
        "class Router:\n    def route(self, queue, replicas, now):\n        return []\n",
        "Router held",
    ),
    "hangs": (
        "class Router:\n    def route(self, queue, replicas, now):\n        while True: pass\n",
        "did not finish within 2 s and was killed",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_it_does_wrong_is_the_reason(nursery: Nursery, tmp_path: Path, name: str) -> None:
    """Whatever the simulator makes of having no answer; and it is gone afterwards."""
    source, says = WRONG[name]
    timeout = 2 if name == "hangs" else 60
    found = outcome(nursery, Case(tmp_path, source, timeout=timeout), timeout=60)
    assert isinstance(found, Failure)
    assert re.search(says, " ".join(str(found).split())), str(found)
    until(lambda: children(nursery) == [])
    assert isinstance(outcome(nursery, Case(tmp_path, LEAST)), dict)


def test_one_that_hangs_ends_with_its_replication(nursery: Nursery, tmp_path: Path) -> None:
    """Also where the replication is killed, which cannot end it."""
    its = Case(tmp_path, WRONG["hangs"][0], timeout=600)
    found = outcome(nursery, its, timeout=1)
    assert isinstance(found, Failure)
    assert "did not finish within 1 s" in str(found)
    until(lambda: children(nursery) == [])


@pytest.mark.skipif(unavailable() is not None, reason=f"no sandbox here: {unavailable()}")
def test_it_may_print(nursery: Nursery, tmp_path: Path) -> None:
    """As much as it likes: nothing of it is kept."""
    source = LEAST.replace("        for request", "        print('x' * 10_000)\n        for request")
    its = Case(tmp_path, source, confine=confining(tmp_path, seconds=30, workers=2))
    assert isinstance(outcome(nursery, its), dict)


@pytest.mark.skipif(unavailable() is not None, reason=f"no sandbox here: {unavailable()}")
def test_it_is_confined(nursery: Nursery, tmp_path: Path) -> None:
    """It cannot read a file that is not the project's, nor fork."""
    (tmp_path / "elsewhere").mkdir()
    for act in ("open('/etc/passwd')", "os.fork()"):
        source = f"import os\nclass Router:\n    def route(self, queue, replicas, now):\n        {act}\n"
        its = Case(tmp_path, source, confine=confining(tmp_path, seconds=30, workers=2))
        assert re.search("PermissionError|BlockingIOError|OSError", str(outcome(nursery, its)))


def test_a_nursery_that_has_ended_is_told(tmp_path: Path) -> None:
    """It cannot lend any more."""
    made = Nursery({"sim": AUDIT}, [])
    assert made.lives()
    os.kill(made.pid, signal.SIGKILL)
    os.waitpid(made.pid, 0)
    assert not made.lives()
    its = Case(tmp_path, LEAST)
    with (
        pytest.raises(ReplicationError, match="from which candidates' are forked has ended"),
        candidates(made, its),
    ):
        pass
    os.close(made.descriptor)


def test_it_ends_with_who_has_forked_it(tmp_path: Path) -> None:
    """A process that is killed leaves neither its nursery nor what that has forked."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        made = Nursery({"sim": AUDIT}, [reader])
        with candidates(made, Case(tmp_path, LEAST)):
            os.write(writer, " ".join(map(str, (made.pid, *children(made)))).encode())
            time.sleep(600)
    os.close(writer)
    with os.fdopen(reader) as told:
        started = [int(each) for each in os.read(told.fileno(), 100).split()]
        assert len(started) == 2
        assert all(map(alive, started))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    until(lambda: not any(map(alive, started)))


def test_the_small_world_is_one_that_shows_differences() -> None:
    """Else the first test could not fail."""
    assert run(RoundRobin(), 1) != run(RoundRobin(), 2)


AHEAD = """
import json
import os
import time


class Router:
    def __init__(self):
        [self.end] = [each for each in map(int, os.listdir("/proc/self/fd")) if each > 2 and is_socket(each)]

    def route(self, queue, replicas, now):
        answer = b"\\0" + json.dumps([[], False]).encode()
        while True:
            os.write(self.end, len(answer).to_bytes(8, "big") + answer)
            time.sleep(0.001)


def is_socket(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket")
    except OSError:
        return False
"""


def test_one_that_answers_without_reading_is_ended(nursery: Nursery, tmp_path: Path) -> None:
    """Questions that it does not read do not keep whoever asks: saying one has a deadline, too."""
    began = time.monotonic()
    found = outcome(nursery, Case(tmp_path, AHEAD, timeout=2), timeout=60)
    assert isinstance(found, Failure)
    assert time.monotonic() - began < 30
    until(lambda: children(nursery) == [])


def test_a_huge_answer_is_none(nursery: Nursery, tmp_path: Path) -> None:
    """It would fill the memory of whoever reads it."""
    source = (
        "import json\njson.dumps = lambda *given, **more: '[' + '[],' * 3_000_000 + '[]]'\n"
        "class Router:\n    def route(self, queue, replicas, now):\n        return []\n"
    )
    found = outcome(nursery, Case(tmp_path, source))
    assert isinstance(found, Failure)
    assert "ended without an answer" in str(found)


def test_a_nursery_killed_under_way_ends_who_evaluates(nursery: Nursery, tmp_path: Path) -> None:
    """So the candidate is not blamed: whoever is told that process was killed takes it up again."""
    samples = MemoryStore()
    pid = os.fork()
    if not pid:
        try:
            glia: Any = object.__new__(Glia)
            glia._context = replace(
                Case(tmp_path, LEAST).context(1),
                nursery=nursery,
                samples=samples,
                private=(nursery.descriptor,),
            )
            glia._fail = lambda words: os._exit(3)

            def killing() -> Metrics:
                os.kill(nursery.pid, signal.SIGKILL)
                until(lambda: not nursery.lives())
                raise ReplicationError("the candidate's process ended without an answer")

            glia._sampled({"key": Replication(killing, keeps=(nursery.descriptor,))}, str, {})
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
