"""A storm of SIGKILLs, at random moments and on any process of a search: nothing paid is lost, nothing left.

A few kills are in the ordinary suite; `pytest -m storm -n 2` sends a thousand (GLIA_STORM says how many).
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.project import PACKING, Project

KILLS = 20
"""In one life of a project, in the great storm."""
ROLES = ("search", "child", "nursery", "job", "replication")
OFTEN = (2, 2, 1, 3, 4)
DEPTHS = (0, 1, 2, 2, 3)
"""How many parents lie between a process in that role and the search."""
COMMAND = ("--glia-optimize", "--glia-budget=90 sims")
WORKERS = 2

SPEC = '''\
"""Items fit into few bins."""

import os
import random
import time
import zlib

import pytest

pytestmark = pytest.mark.glia(candidate="candidates/packer.py", entry="pack")


def one_bin_each(items):
    return len(items)


def say(what, which):
    if "RUNS" in os.environ:
        with open(os.environ["RUNS"], "a") as runs:
            runs.write(f"{what} {which}\\n")


def waste(pack, seed):
    code, named = pack.__code__, pack.__globals__.items()
    # Variants of a design may differ in a constant of the file alone.
    numbers = sorted((name, value) for name, value in named if isinstance(value, (int, float)))
    which = zlib.crc32(repr((code.co_code, code.co_consts, code.co_names, numbers, seed)).encode())
    say("begin", which)
    rng = random.Random(seed)
    items = [rng.uniform(0.05, 0.5) for _ in range(200)]
    found = {"bins": pack(items), "share": pack(items) / sum(items), "which": which}
    time.sleep(0.03)
    say("end", which)
    return found


def test_little_waste(glia):
    assert glia.measure(waste, metric="share") < 1.1


def test_fewer_than_one_bin_each(glia):
    assert glia.compare(waste, against=one_bin_each, metric="bins").reduction > 0.5
'''


def made(folder: Path) -> Project:
    """The project, in a folder that has one for temporary files beside it."""
    for name in ("project", "tmp"):
        (folder / name).mkdir(parents=True)
    project = Project(folder / "project", {"TMPDIR": str(folder / "tmp")})
    project.write({**PACKING, "specs/test_packer.py": SPEC}).commit()
    return project


@dataclass
class Life:
    """A project whose searches are killed, one after the other."""

    project: Project
    rng: random.Random
    confined: bool
    kills: int
    before: Mapping[str, str]
    kept: dict[str, dict[str, float]] = field(default_factory=dict)
    read: int = 0
    struck: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Where replications say that they have begun and ended; no sandbox lets them."""
        return {} if self.confined else {"RUNS": str(self.project.folder.parent / "runs")}

    def run(self) -> None:
        """A search under the storm, and what must be so after it."""
        process = self.project.start(*COMMAND, **self.environment)
        try:
            first = len(self.struck)
            while process.poll() is None and len(self.struck) < self.kills:
                time.sleep(self.rng.uniform(0, 0.3))
                [role] = self.rng.choices(ROLES, OFTEN)
                # A search that has come to its end by itself cannot be killed any more.
                if strike(process.pid, role) and (role != "search" or process.wait() == -signal.SIGKILL):
                    self.struck.append(role)
            out, _ = process.communicate(timeout=100)
        finally:
            process.kill()
            process.wait()
        strikes = self.struck[first:]
        if "search" not in strikes:
            # It has come to its end: with a verdict, or with a sentence of what could not be evaluated.
            assert process.returncode in (0, 1, 4), out
            # One that goes on acts upon what had failed in it before.
            failed = any(has_failed(self.project, run) for run in runs(self.project))
            assert process.returncode == 0 or strikes or failed, out
            assert "INTERNALERROR" not in out
            assert "Traceback (most" not in out
        self.nothing_is_left()
        self.nothing_is_lost(len(strikes))

    def nothing_is_left(self) -> None:
        """No process, no lock, no temporary file; git whole, and what is the user's as it was."""
        deadline = time.monotonic() + 10
        while (alive := self.project.processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert alive == [], self.struck
        for lock in (self.project.folder / ".glia").rglob("*lock"):
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert list((self.project.folder.parent / "tmp").iterdir()) == []
        self.project.git("fsck", "--strict")
        assert len(self.project.git("worktree", "list").splitlines()) == 1
        assert self.project.fingerprint() == self.before

    def nothing_is_lost(self, strikes: int) -> None:
        """What was kept stays as it is and is not run again; no more is lost than was under way."""
        log = self.project.folder.parent / "runs"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        new, self.read = lines[self.read :], len(lines)
        paid = {metrics.get("which") for metrics in self.kept.values()}
        assert not paid & {float(which) for what, which in new if what == "begin"}
        rows = samples(self.project)
        assert {key: rows.get(key) for key in self.kept} == self.kept
        self.kept = rows
        ended = {float(which) for what, which in new if what == "end"}
        lost = ended - {metrics.get("which") for metrics in rows.values()}
        assert len(lost) <= WORKERS * strikes


def strike(search: int, role: str) -> bool:
    """SIGKILL for a process of the search in that role, if there is one within a short while."""
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        if (found := in_role(search, role)) is not None:
            with suppress(ProcessLookupError):
                os.kill(found, signal.SIGKILL)
                return True
        if not _read(f"/proc/{search}/cmdline"):
            return False
    return False


def in_role(search: int, role: str) -> int | None:
    """A process in that role."""
    generation = [search] if _read(f"/proc/{search}/cmdline") else []
    for depth in range(1, 1 + DEPTHS[ROLES.index(role)]):
        generation = [child for pid in generation for child in children(pid)]
        if depth == 1:  # git is another child
            generation = [pid for pid in generation if b"pytest_glia.child" in _read(f"/proc/{pid}/cmdline")]
        if depth == 2:  # the nursery is forked before any job
            generation = generation[:1] if role == "nursery" else generation[1:]
    return generation[0] if generation else None


def children(process: int) -> list[int]:
    """Those of a process that have not ended."""
    found = [int(pid) for pid in _read(f"/proc/{process}/task/{process}/children").split()]
    return [pid for pid in found if _read(f"/proc/{pid}/cmdline")]


def _read(place: str) -> bytes:
    try:
        return Path(place).read_bytes()
    except OSError:
        return b""


def samples(project: Project) -> dict[str, dict[str, float]]:
    """What the ledger has, after it was found to be whole."""
    file = project.folder / ".glia/ledger.db"
    if not file.exists():
        return {}
    with closing(sqlite3.connect(file)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with suppress(sqlite3.OperationalError):  # killed before there was a table
            return {key: json.loads(text) for key, text in ledger.execute("SELECT * FROM samples")}
    return {}


def runs(project: Project) -> dict[str, str | None]:
    """The outcomes of its runs, None for one that was killed."""
    with closing(sqlite3.connect(project.folder / ".glia/ledger.db")) as ledger:
        return dict(ledger.execute("SELECT run, outcome FROM runs ORDER BY started"))


def has_failed(project: Project, run: str) -> bool:
    """Whether a run has a failure on record that it has acted upon."""
    with closing(sqlite3.connect(project.folder / ".glia/ledger.db")) as ledger:
        sql = "SELECT 1 FROM records WHERE run = ? AND (key LIKE 'failed %' OR key LIKE 'ended: %')"
        return ledger.execute(sql, (run,)).fetchone() is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The best candidate of a search that nobody kills."""
    project = made(tmp_path_factory.mktemp("undisturbed"))
    ran = project.pytest(*COMMAND)
    assert ran.code == 0, ran.out
    return project.git("rev-parse", f"{project.best()}:candidates/packer.py")


def live(folder: Path, seed: int, kills: int, undisturbed: str) -> None:
    """One life: searches under so many kills, then one in peace."""
    project = made(folder)
    life = Life(project, random.Random(seed), seed % 2 == 0, kills, project.fingerprint())
    while len(life.struck) < kills:
        life.run()
    known = runs(project)
    goes_on = [run for run, outcome in known.items() if outcome is None]
    ran = project.pytest(*COMMAND, **life.environment)
    life.nothing_is_left()
    life.nothing_is_lost(0)
    assert list((project.folder / ".glia").glob("tree-*")) == []
    after = runs(project)
    if goes_on:
        assert after.keys() == known.keys()
        assert f"Run {goes_on[-1]} was killed. It goes on" in ran.text
        if has_failed(project, goes_on[-1]):
            # To this run a candidate whose replication was killed is one that does not work: not to the next.
            assert ran.code in (0, 1, 4), (life.struck, ran.out)
            ran = project.pytest(*COMMAND, **life.environment)
            after = runs(project)
    assert ran.code == 0, (life.struck, ran.out)
    assert None not in after.values()
    [best] = [line.split()[-1] for line in ran.lines("git merge glia/")]
    assert project.git("rev-parse", f"{best}:candidates/packer.py") == undisturbed


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_a_storm_of_kills_loses_nothing(seed: int, tmp_path: Path, undisturbed: str) -> None:
    """Whoever is killed: paid results stay, nothing is corrupt or left, and the next run ends as ever."""
    live(tmp_path, seed, 8, undisturbed)


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(100, 100 + -(-int(os.environ.get("GLIA_STORM", "1000")) // KILLS)))
def test_a_thousand_kills_lose_nothing(seed: int, tmp_path: Path, undisturbed: str) -> None:
    """The same, a life for each seed, without sandbox where it is odd."""
    live(tmp_path, seed, KILLS, undisturbed)
