"""What a search has paid for, on disk the moment it is known: ``.glia/ledger.db`` and its folder.

Git is the truth for candidates; the ledger keeps the raw samples, each run's secret, and how often a
confirmation was attempted. It can be deleted at any time at the price of running replications again.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_glia.misuse import Misuse
from pytest_glia.replication import Metrics
from pytest_glia.scratch import locked, scratch

_VERSION = 2
"""Of the tables, counted up when they change."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, metrics TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, candidate TEXT NOT NULL, base TEXT NOT NULL, designer TEXT NOT NULL,
    command TEXT NOT NULL, secret BLOB NOT NULL, started REAL NOT NULL, outcome TEXT
);
CREATE TABLE IF NOT EXISTS payments (run TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (run, key));
CREATE TABLE IF NOT EXISTS figures (run TEXT, name TEXT, value REAL, PRIMARY KEY (run, name));
CREATE TABLE IF NOT EXISTS records (run TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (run, key));
CREATE TABLE IF NOT EXISTS attempts (
    candidate TEXT NOT NULL, base TEXT NOT NULL, run TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (run, content)
);
CREATE TABLE IF NOT EXISTS exchanges (
    run TEXT NOT NULL, thread TEXT NOT NULL, ordinal INTEGER NOT NULL, role TEXT NOT NULL,
    model TEXT NOT NULL, hash TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, dollars REAL NOT NULL,
    seconds REAL NOT NULL, PRIMARY KEY (run, thread, ordinal)
);
"""


@dataclass(frozen=True)
class Run:
    """A run of the search.

    Attributes:
        base: The commit that it begins with.
        secret: What its sealed seeds are drawn under; nobody else knows it until the run ends.
        started: Seconds since the epoch.
    """

    id: str
    base: str
    designer: str
    secret: bytes
    started: float


@dataclass(frozen=True)
class Command:
    """How a run was started.

    Attributes:
        arguments: Of pytest.
        folder: In which, relative to the top of the repository.
        addopts: The variable ``PYTEST_ADDOPTS``: what was to go before the arguments.
    """

    arguments: tuple[str, ...]
    folder: str
    addopts: str = ""

    def as_json(self) -> str:
        """For the ledger."""
        return json.dumps([self.arguments, self.folder, self.addopts])


@dataclass(frozen=True)
class Exchange:
    """A request to a language model that was answered, and what that took.

    Attributes:
        thread: Which conversation of the run it belongs to, and `ordinal` its place there, from 0.
        role: Who of the team has asked.
        hash: Of the request.
        request, reply: As JSON.
        dollars: At the price of the time; 0 if none was known.
    """

    thread: str
    ordinal: int
    role: str
    model: str
    hash: str
    request: str
    reply: str
    prompt_tokens: int
    completion_tokens: int
    dollars: float
    seconds: float


_EXCHANGE = ", ".join(each.name for each in fields(Exchange))


class Ledger:
    """The ledger of a project, in the folder ``.glia`` of pytest's root directory.

    Safe for several threads and processes at once, and for SIGKILL at any moment (SQLite's write-ahead log).
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / ".glia"
        try:
            self.folder.mkdir(exist_ok=True)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", "utf-8")
            # One at a time: of two that make the database at once, SQLite refuses one.
            opening = locked(self.folder / "opening.lock", wait=True)
            try:
                self._db = _opened(self.folder / "ledger.db")
            finally:
                os.close(opening)
        except (OSError, sqlite3.OperationalError) as error:
            raise Misuse(
                f"the folder {self.folder} cannot be written ({error}): --glia-optimize keeps there what it "
                "has paid for; make it writable, or work in a copy"
            ) from None
        except sqlite3.DatabaseError as error:
            raise Misuse(
                f"{self.folder / 'ledger.db'} is damaged ({error}): delete the folder {self.folder}; it "
                "holds results of replications, which are then run again"
            ) from None
        self._locks: list[int] = []
        self._one_at_a_time = threading.Lock()

    def known(self, keys: Sequence[str]) -> dict[str, Metrics]:
        """The samples with these keys that were already paid for."""
        found = {}
        for key in keys:
            for [metrics] in self._do("SELECT metrics FROM samples WHERE key = ?", key):
                found[key] = json.loads(metrics)
        return found

    def keep(self, key: str, metrics: Metrics) -> None:
        """Write a sample; it survives this process."""
        self._do("INSERT OR REPLACE INTO samples VALUES (?, ?)", key, json.dumps(metrics))

    def fail(self, run: str, key: str, words: Sequence[str]) -> None:
        """Write down that a sample has failed, and how: in this run, for in another one it may not."""
        self.remember(run, f"failed {key}", json.dumps(words))

    def failed(self, run: str, keys: Sequence[str]) -> dict[str, list[str]]:
        """Those of the samples that have failed in a run, in order, and how."""
        found = ((key, self.recall(run, f"failed {key}")) for key in keys)
        return {key: json.loads(words) for key, words in found if words is not None}

    def pay(self, run: str, keys: Collection[str]) -> None:
        """Write down that a run pays for these simulations."""
        with self._one_at_a_time:
            sql = "INSERT OR IGNORE INTO payments VALUES (?, ?)"
            self._db.executemany(sql, [(run, key) for key in keys])

    def paid(self, run: str, keys: Collection[str]) -> set[str]:
        """Those of the keys for which the run has paid."""
        sql = "SELECT 1 FROM payments WHERE run = ? AND key = ?"
        return {key for key in keys if self._do(sql, run, key)}

    @property
    def tables(self) -> Path:
        """The folder of the tables that experiments look at, a file a replication."""
        return self.folder / "tables"

    def begin(self, candidate: str, base: str, designer: str, command: Command) -> Run:
        """Open a run of the search."""
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        run = Run(name, base, designer, secrets.token_bytes(32), time.time())
        values = (run.id, candidate, base, designer, command.as_json(), run.secret, run.started)
        self._do("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", *values)
        return run

    def goes_on(self, run: str, command: Command) -> None:
        """Write down by which command a run goes on: its budget may be another one."""
        self._do("UPDATE runs SET command = ? WHERE run = ?", command.as_json(), run)

    def remember(self, run: str, key: str, value: str) -> None:
        """Keep what a run has found out, under a key of its own."""
        self._do("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", run, key, value)

    def recall(self, run: str, key: str) -> str | None:
        """What the run has kept under a key; None if nothing."""
        rows = self._do("SELECT value FROM records WHERE run = ? AND key = ?", run, key)
        return str(rows[0][0]) if rows else None

    def records(self, run: str, containing: str) -> list[str]:
        """All that the run has kept under keys that contain a text, in order."""
        sql = "SELECT value FROM records WHERE run = ? AND instr(key, ?) ORDER BY rowid"
        return [str(value) for [value] in self._do(sql, run, containing)]

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        """By run, in order: its candidate files, and how it ended (None if it was killed)."""
        rows = self._do("SELECT run, candidate, outcome FROM runs ORDER BY started")
        return {run: (candidate, outcome) for run, candidate, outcome in rows}

    def note(self, run: str, name: str, value: float) -> None:
        """Write down a figure of a run as it is now."""
        self._do("INSERT OR REPLACE INTO figures VALUES (?, ?, ?)", run, name, value)

    def begun(self, run: str) -> tuple[Run, Command]:
        """A run, and how it was started; raises `Misuse` if there is no such run."""
        rows = self._do("SELECT run, base, designer, secret, started, command FROM runs WHERE run = ?", run)
        if not rows:
            known = [name for (name,) in self._do("SELECT run FROM runs ORDER BY started DESC LIMIT 5")]
            there = f"the last are {', '.join(known)}" if known else "there is none yet"
            raise Misuse(f"there is no run {run!r} in {self.folder}: {there}")
        [[*found, command]] = rows
        arguments, *where = json.loads(command)
        return Run(*found), Command(tuple(arguments), *where)

    def reopen(self, run: str) -> None:
        """Take a run for one that never ended, and all others for ended: for a replay, in a copy."""
        self._do("UPDATE runs SET outcome = CASE run WHEN ? THEN NULL ELSE 'other' END", run)

    def copy(self, file: Path) -> None:
        """Write the whole database to another file, consistent whoever writes meanwhile."""
        with closing(sqlite3.connect(file)) as other, self._one_at_a_time:
            self._db.backup(other)

    def once(self, run: str, name: str, value: float) -> float:
        """A figure of a run that another process could not come to again: the first that it was given."""
        self._do("INSERT OR IGNORE INTO figures VALUES (?, ?, ?)", run, name, value)
        sql = "SELECT value FROM figures WHERE run = ? AND name = ?"
        return float(self._do(sql, run, name)[0][0])

    def end(self, run: str, outcome: str) -> None:
        """Close a run with what became of it."""
        self._do("UPDATE runs SET outcome = ? WHERE run = ?", outcome, run)

    def attempt(self, candidate: str, base: str, run: str, content: str) -> int:
        """Which attempt it is to confirm a design of these candidate files from this base commit, from 1.

        Written down before it is told. A run that goes on after a kill, with the same secret and `content`
        and so on the same seeds, is at the same attempt.
        """
        self._do("INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?)", candidate, base, run, content)
        [[attempt]] = self._do(
            "SELECT count(*) FROM attempts WHERE candidate = ? AND base = ? AND rowid <= "
            "(SELECT rowid FROM attempts WHERE run = ? AND content = ?)",
            *(candidate, base, run, content),
        )
        return int(attempt)

    def attempts(self, candidate: str, run: Run) -> int:
        """How many attempts there were, before a run, to confirm a design from its base commit."""
        [[count]] = self._do(
            "SELECT count(*) FROM attempts JOIN runs USING (run) WHERE attempts.candidate = ? "
            "AND attempts.base = ? AND started < ?",
            candidate,
            run.base,
            run.started,
        )
        return int(count)

    def confirmations(self, candidate: str, base: str) -> list[tuple[str, str | None]]:
        """The run of each of those attempts, in order, and what became of it (None if it has not ended)."""
        return [
            (str(run), outcome)
            for run, outcome in self._do(
                "SELECT attempts.run, outcome FROM attempts LEFT JOIN runs USING (run) "
                "WHERE attempts.candidate = ? AND attempts.base = ? ORDER BY attempts.rowid",
                candidate,
                base,
            )
        ]

    def killed(self, candidate: str) -> list[Run]:
        """Runs for this candidate that never ended, the last first.

        Ask while holding the candidate's lock: then no other is alive.
        """
        rows = self._do(
            "SELECT run, base, designer, secret, started FROM runs WHERE candidate = ? AND outcome IS NULL "
            "ORDER BY started DESC",
            candidate,
        )
        return [Run(*row) for row in rows]

    def exchanged(self, run: str, exchange: Exchange) -> None:
        """Write down what a model has answered."""
        places = ", ".join("?" for _ in range(1 + len(fields(exchange))))
        self._do(
            f"INSERT OR REPLACE INTO exchanges (run, {_EXCHANGE}) VALUES ({places})", run, *astuple(exchange)
        )

    def exchange(self, run: str, thread: str, ordinal: int) -> Exchange | None:
        """What is on record at that place of a conversation."""
        where = "run = ? AND thread = ? AND ordinal = ?"
        rows = self._do(f"SELECT {_EXCHANGE} FROM exchanges WHERE {where}", run, thread, ordinal)
        return Exchange(*rows[0]) if rows else None

    def exchanges(self, run: str) -> list[Exchange]:
        """All that the models of a run were asked, in the order in which it was answered."""
        rows = self._do(f"SELECT {_EXCHANGE} FROM exchanges WHERE run = ? ORDER BY rowid", run)
        return [Exchange(*row) for row in rows]

    def forget(self, run: str, thread: str, ordinal: int) -> None:
        """Discard a conversation from that place on: another request was made there."""
        self._do("DELETE FROM exchanges WHERE run = ? AND thread = ? AND ordinal >= ?", run, thread, ordinal)

    def lock(self, candidate: str) -> None:
        """Be the only search for this candidate until `close`; raises `Misuse` if another one is."""
        file = self.folder / f"{quote(candidate, safe='')}.lock"
        try:
            descriptor = locked(file)
        except BlockingIOError:
            holder = file.read_text("ascii", "replace").strip() or "unknown"
            raise Misuse(
                f"another --glia-optimize is at work on {candidate} (process {holder}): wait until it ends, "
                "or stop it; nothing was changed"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._locks.append(descriptor)

    def scratch(self) -> Path:
        """A new folder, its own until `close`; those that killed processes have left are deleted."""
        folder, lock = scratch(self.folder, "tree")
        self._locks.append(lock)
        return folder

    def close(self) -> None:
        """Release locks and the database."""
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()
        with self._one_at_a_time:
            self._db.close()

    def _do(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement, for which other threads wait."""
        with self._one_at_a_time:
            return self._db.execute(statement, values).fetchall()


def _opened(file: Path) -> sqlite3.Connection:
    """The database with its tables; a file that is none is closed again."""
    db = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        [[version]] = db.execute("PRAGMA user_version")
        tables = db.execute("SELECT 1 FROM sqlite_master").fetchone()
        if version != _VERSION and (version or tables):
            raise Misuse(
                f"{file} was written by another version of pytest-glia: delete the folder {file.parent}; it "
                "holds results of replications, which are then run again"
            )
        db.execute(f"PRAGMA user_version={_VERSION}")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
