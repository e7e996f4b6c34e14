"""Searches that are interrupted, killed, or started twice: nothing that was paid for is lost."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import INI, Project, Result

# The third setting of SIZE that is tried blocks until the file GATE exists.
BLOCKING = {
    "pytest.ini": INI.replace("glia_replications = 5", "glia_replications = 3"),
    "tunable.py": "import math\n\nSIZE = 10\n\n\ndef cost():\n    return abs(math.log(SIZE / 35))\n",
    "test_tunable.py": """\
import os

import pytest

pytestmark = pytest.mark.glia(candidate="tunable.py", entry="cost")


def say(*words):
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(" ".join(map(str, words)) + "\\n")


def run(cost, seed):
    size = cost.__globals__["SIZE"]
    say("begin", size, seed)
    tried = {line.split()[1] for line in open(os.environ["RUNS"])}
    while len(tried) > 2 and not os.path.exists(os.environ["GATE"]):
        say("blocked", size, seed) if "blocked" not in tried else None
        tried.add("blocked")
    say("end", size, seed)
    return cost() + (seed % 10) / 1000


def test_cost(glia):
    assert glia.measure(run) < 1
""",
}
COMMAND = ("--glia-optimize", "--glia-budget=30 sims")


@dataclass
class Blocked:
    """A search that has come to its third candidate and stands there."""

    project: Project
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """Where the replications write, and what they wait for."""
        folder = self.project.folder.parent
        return {"RUNS": str(folder / "runs"), "GATE": str(folder / "gate")}

    def runs(self, kind: str) -> Counter[tuple[str, str]]:
        """Setting and seed of the replications that have begun, or ended."""
        lines = [line.split() for line in Path(self.environment["RUNS"]).read_text().splitlines()]
        return Counter((size, seed) for what, size, seed in lines if what == kind)

    def signalled(self, number: signal.Signals) -> Result:
        """Send a signal to the search; what it has said until it ended."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return Result(self.process.returncode, out)


def blocked(folder: Path) -> Blocked:
    """Start a search and wait until it blocks."""
    (folder / "project").mkdir()
    project = Project(folder / "project").write(BLOCKING)
    project.commit()
    environment = {"RUNS": str(folder / "runs"), "GATE": str(folder / "gate")}
    found = Blocked(project, project.start(*COMMAND, **environment))
    until(lambda: "blocked" in _text(folder / "runs") or found.process.poll() is not None)
    return found


def until(condition: object, seconds: float = 30.0) -> None:
    """Look again and again until something is so."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@dataclass(frozen=True)
class Interrupted:
    """What a second search has said while the first was at work, and the first when it got Ctrl-C."""

    search: Blocked
    before: dict[str, str]
    second: Result
    first: Result


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    """A search, a second one beside it, and then Ctrl-C for the first."""
    search = blocked(tmp_path_factory.mktemp("interrupted"))
    try:
        before = search.project.fingerprint()
        second = search.project.pytest(*COMMAND, **search.environment)
        yield Interrupted(search, before, second, search.signalled(signal.SIGINT))
    finally:
        search.process.kill()
        search.process.wait()


def test_second_search_at_once_is_refused(interrupted: Interrupted) -> None:
    """It says who is at work, exits 4 and does not disturb the first."""
    assert interrupted.second.code == 4
    process = interrupted.search.process.pid
    said = f"another --glia-optimize is at work on tunable.py (process {process})"
    assert said in interrupted.second.text


def test_interruption_is_exit_code_2(interrupted: Interrupted) -> None:
    """Ctrl-C is pytest's own interruption; there is no traceback of the plugin."""
    assert interrupted.first.code == 2, interrupted.first.out
    assert "KeyboardInterrupt" in interrupted.first.out
    assert "Traceback (most recent call last)" not in interrupted.first.out


def test_interruption_names_and_keeps_the_candidates(interrupted: Interrupted) -> None:
    """The branch that the last lines name holds those that were evaluated."""
    [branch] = interrupted.search.project.branches("glia/tunable/")
    assert f"the candidates so far are on {branch}" in interrupted.first.text
    assert interrupted.search.project.git("rev-list", f"main..{branch}") != ""


def test_interruption_leaves_nothing(interrupted: Interrupted) -> None:
    """No process, no composed tree, and the checkout as it was."""
    project = interrupted.search.project
    until(lambda: not project.processes())
    assert list((project.folder / ".glia").glob("tree-*")) == []
    assert project.fingerprint() == interrupted.before


@dataclass(frozen=True)
class Killed:
    """A search that was killed, and the same command afterwards."""

    search: Blocked
    left: list[int]
    branches: list[str]
    again: Result


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """SIGKILL in the middle of a replication, then the same command, which nothing blocks."""
    search = blocked(tmp_path_factory.mktemp("killed"))
    try:
        search.signalled(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while search.project.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        left = search.project.processes()
        branches = search.project.branches("glia/")
        Path(search.environment["GATE"]).touch()
        yield Killed(search, left, branches, search.project.pytest(*COMMAND, **search.environment))
    finally:
        search.process.kill()
        search.process.wait()


def test_killed_search_leaves_no_process(killed: Killed) -> None:
    """The kernel ends what it had started, down to a replication that never returns."""
    assert killed.left == []


def test_command_after_a_kill_comes_to_its_end(killed: Killed) -> None:
    """It goes on with the killed run, whose candidates are still there, and passes."""
    assert killed.again.code == 0, killed.again.out
    [branch] = killed.branches
    run = branch.split("/")[2]
    assert f"Run {run} was killed. It goes on: what it paid for is not paid again" in killed.again.text
    assert set(killed.search.project.branches("glia/")) == {branch, f"glia/tunable/{run}/best"}


def test_nothing_is_paid_for_twice_after_a_kill(killed: Killed) -> None:
    """Every replication that had ended is reused; only the one that was under way is run again."""
    assert set(killed.search.runs("end").values()) == {1}
    twice = [each for each, times in killed.search.runs("begin").items() if times > 1]
    assert 1 <= len(twice) <= 2


def test_tree_of_a_killed_search_is_cleared_away(killed: Killed) -> None:
    """The next search deletes what the killed one could not."""
    assert list((killed.search.project.folder / ".glia").glob("tree-*")) == []
