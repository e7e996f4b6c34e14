"""Searches that are interrupted, killed, or started twice: nothing that was paid for is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.blocking import COMMAND, Blocked, blocked, until
from tests.project import Result

pytestmark = pytest.mark.slow


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
