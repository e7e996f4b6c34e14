"""The ledger: what was paid for stays, one search at a time, nothing left of killed ones."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_glia.ledger import Command, Ledger
from pytest_glia.misuse import Misuse

COMMAND = Command(("--glia-optimize",), ".")


def test_samples_outlive_the_process(tmp_path: Path) -> None:
    """What one ledger keeps, the next one knows, bit for bit; other keys it does not."""
    first = Ledger(tmp_path)
    first.keep("a", {"rt": 1 / 3})
    first.close()
    second = Ledger(tmp_path)
    assert second.known(["a", "b"]) == {"a": {"rt": 1 / 3}}
    second.close()


def test_samples_survive_sigkill(tmp_path: Path) -> None:
    """A process that is killed the moment after it has kept a sample has kept it."""
    code = (
        "import os, pathlib, signal\nfrom pytest_glia.ledger import Command, Ledger\n"
        f"Ledger(pathlib.Path({str(tmp_path)!r})).keep('a', {{'rt': 2.0}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    ledger = Ledger(tmp_path)
    assert ledger.known(["a"]) == {"a": {"rt": 2.0}}
    ledger.close()


def test_second_search_for_a_candidate_is_refused(tmp_path: Path) -> None:
    """The lock names the process that holds it; another candidate's is free; it ends with its ledger."""
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.lock("a/router.py")
    with pytest.raises(Misuse, match=r"another --glia-optimize is at work on a/router\.py \(process \d+\)"):
        second.lock("a/router.py")
    second.lock("a/other.py")
    second.lock("a-router.py")
    first.close()
    second.lock("a/router.py")
    second.close()


def test_many_begin_at_once(tmp_path: Path) -> None:
    """Who makes the database has the others wait."""
    code = (
        "import pathlib, sys, time\nfrom pytest_glia.ledger import Ledger\n"
        "time.sleep(max(0.0, float(sys.argv[1]) - time.time()))\n"
        f"Ledger(pathlib.Path({str(tmp_path)!r})).close()\n"
    )
    start = str(time.time() + 2)
    begun = [subprocess.Popen([sys.executable, "-c", code, start]) for _ in range(8)]
    assert [each.wait() for each in begun] == [0] * 8


def test_runs_that_never_ended_are_told(tmp_path: Path) -> None:
    """Only this candidate's, and only those without an outcome."""
    ledger = Ledger(tmp_path)
    runs = [ledger.begin(name, "base", "offline", COMMAND) for name in ("a.py", "a.py", "b.py")]
    assert ledger.killed("a.py") == runs[1::-1]
    ledger.end(runs[0].id, "passed")
    assert ledger.killed("a.py") == [runs[1]]
    ledger.close()


def test_runs_have_their_own_name_and_secret(tmp_path: Path) -> None:
    """Two runs in the same second do not share a branch or a seal."""
    ledger = Ledger(tmp_path)
    runs = [ledger.begin("a.py", "base", "offline", COMMAND) for _ in range(8)]
    assert len({run.id for run in runs}) == len({run.secret for run in runs}) == 8
    assert all(len(run.secret) >= 32 for run in runs)
    ledger.close()


def test_command_of_a_run_is_the_last_it_went_on_by(tmp_path: Path) -> None:
    """With its arguments, its folder, and what PYTEST_ADDOPTS was."""
    ledger = Ledger(tmp_path)
    run = ledger.begin("a.py", "base", "offline", COMMAND)
    assert ledger.begun(run.id) == (run, COMMAND)
    other = Command(("--glia-optimize", "--glia-budget=9 sims"), "sub", "-q")
    ledger.goes_on(run.id, other)
    assert ledger.begun(run.id) == (run, other)
    ledger.close()


def test_attempts_of_earlier_runs_are_told(tmp_path: Path) -> None:
    """A run that goes on, or is repeated, is told of those before it only, as it was at its beginning."""
    ledger = Ledger(tmp_path)
    first = ledger.begin("a.py", "base", "offline", COMMAND)
    ledger.attempt("a.py", "base", first.id, "blob")
    second = ledger.begin("a.py", "base", "offline", COMMAND)
    ledger.attempt("a.py", "base", second.id, "blob")
    assert [ledger.attempts("a.py", each) for each in (first, second)] == [0, 1]
    ledger.close()


def test_attempts_are_counted_over_runs(tmp_path: Path) -> None:
    """From one base commit, for one candidate; a run that goes on with the same design is at the same one."""
    ledger = Ledger(tmp_path)
    assert ledger.attempt("a.py", "base", "run 1", "blob") == 1
    assert ledger.attempt("a.py", "base", "run 2", "blob") == 2
    assert ledger.attempt("a.py", "other", "run 3", "blob") == 1
    assert ledger.attempt("b.py", "base", "run 4", "blob") == 1
    ledger.close()
    later = Ledger(tmp_path)
    assert later.attempt("a.py", "base", "run 1", "blob") == 1
    assert later.attempt("a.py", "base", "run 1", "other blob") == 3
    assert len(later.confirmations("a.py", "base")) == 3
    later.close()


def test_folders_of_dead_processes_are_deleted(tmp_path: Path) -> None:
    """A killed search's tree goes with the next search, whoever has its process's number by now."""
    code = (
        "import os, pathlib, signal\nfrom pytest_glia.ledger import Command, Ledger\n"
        f"(Ledger(pathlib.Path({str(tmp_path)!r})).scratch() / 'inner').mkdir()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    [left] = (tmp_path / ".glia").glob("tree-*")
    ledger = Ledger(tmp_path)
    mine = ledger.scratch()
    assert (left.exists(), mine.is_dir()) == (False, True)
    ledger.close()


def test_folder_of_a_search_at_work_stays(tmp_path: Path) -> None:
    """However many others start meanwhile; when its ledger is closed it is no one's."""
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)
    mine = ledger.scratch()
    assert other.scratch() != mine
    assert mine.is_dir()
    ledger.close()
    other.scratch()
    assert not mine.exists()
    other.close()


def test_git_ignores_the_folder(tmp_path: Path) -> None:
    """The ledger never shows up in the user's git status."""
    Ledger(tmp_path).close()
    assert (tmp_path / ".glia/.gitignore").read_text() == "*\n"


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the folder and what it is for (a file in its place stops root too)."""
    (tmp_path / ".glia").touch()
    with pytest.raises(Misuse, match=rf"{tmp_path}/\.glia cannot be written.*make it writable"):
        Ledger(tmp_path)


def test_ledger_that_is_no_database(tmp_path: Path) -> None:
    """A damaged file is told as such, with what deleting it costs, instead of a traceback."""
    (tmp_path / ".glia").mkdir()
    (tmp_path / ".glia/ledger.db").write_text("no database " * 100)
    with pytest.raises(Misuse, match=r"ledger\.db|\.glia"):
        Ledger(tmp_path)
