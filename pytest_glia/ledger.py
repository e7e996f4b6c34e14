"""What a search has paid for, on disk the moment it is known: ``.glia/ledger.db`` and its folder.

Git is the truth for candidates; the ledger keeps the raw samples, each run's secret, and how often a
confirmation was attempted. It can be deleted at any time at the price of running replications again.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_glia.misuse import Misuse
from pytest_glia.replication import Metrics
from pytest_glia.scratch import locked, scratch

_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, metrics TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, candidate TEXT NOT NULL, base TEXT NOT NULL, designer TEXT NOT NULL,
    budget TEXT NOT NULL, secret BLOB NOT NULL, started REAL NOT NULL, outcome TEXT
);
CREATE TABLE IF NOT EXISTS attempts (
    candidate TEXT NOT NULL, base TEXT NOT NULL, run TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (run, content)
);
"""


@dataclass(frozen=True)
class KilledRun:
    """A run that never ended: its id, the commit and the designer it began with, and its secret."""

    run: str
    base: str
    designer: str
    secret: bytes


class Ledger:
    """The ledger of a project, in the folder ``.glia`` of pytest's root directory.

    Safe for several processes at once, and for SIGKILL at any moment (SQLite's write-ahead log).
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / ".glia"
        try:
            self.folder.mkdir(exist_ok=True)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", "utf-8")
            self._db = _opened(self.folder / "ledger.db")
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

    def known(self, keys: Sequence[str]) -> dict[str, Metrics]:
        """The samples with these keys that were already paid for."""
        found = {}
        for key in keys:
            row = self._db.execute("SELECT metrics FROM samples WHERE key = ?", (key,)).fetchone()
            if row is not None:
                found[key] = json.loads(row[0])
        return found

    def keep(self, key: str, metrics: Metrics) -> None:
        """Write a sample; it survives this process."""
        self._db.execute("INSERT OR REPLACE INTO samples VALUES (?, ?)", (key, json.dumps(metrics)))

    def begin(self, candidate: str, base: str, designer: str, budget: str) -> tuple[str, bytes]:
        """Open a run of the search; returns its id and its secret, which nobody else knows yet."""
        run = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        secret = secrets.token_bytes(32)
        self._db.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (run, candidate, base, designer, budget, secret, time.time()),
        )
        return run, secret

    def end(self, run: str, outcome: str) -> None:
        """Close a run with what became of it."""
        self._db.execute("UPDATE runs SET outcome = ? WHERE run = ?", (outcome, run))

    def attempt(self, candidate: str, base: str, run: str, content: str) -> int:
        """Which attempt it is to confirm a design of these candidate files from this base commit, from 1.

        Written down before it is told. A run that goes on after a kill, with the same secret and `content`
        and so on the same seeds, is at the same attempt.
        """
        self._db.execute(
            "INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?)", (candidate, base, run, content)
        )
        [[attempt]] = self._db.execute(
            "SELECT count(*) FROM attempts WHERE candidate = ? AND base = ? AND rowid <= "
            "(SELECT rowid FROM attempts WHERE run = ? AND content = ?)",
            (candidate, base, run, content),
        )
        return int(attempt)

    def attempts(self, candidate: str, base: str) -> int:
        """How many attempts there were to confirm a design of these candidate files from this base commit."""
        [[count]] = self._db.execute(
            "SELECT count(*) FROM attempts WHERE candidate = ? AND base = ?", (candidate, base)
        )
        return int(count)

    def confirmations(self, candidate: str, base: str) -> list[tuple[str, str | None]]:
        """The run of each of those attempts, in order, and what became of it (None if it has not ended)."""
        return [
            (str(run), outcome)
            for run, outcome in self._db.execute(
                "SELECT attempts.run, outcome FROM attempts LEFT JOIN runs USING (run) "
                "WHERE attempts.candidate = ? AND attempts.base = ? ORDER BY attempts.rowid",
                (candidate, base),
            )
        ]

    def killed(self, candidate: str) -> list[KilledRun]:
        """Runs for this candidate that never ended, the last first.

        Ask while holding the candidate's lock: then no other is alive.
        """
        rows = self._db.execute(
            "SELECT run, base, designer, secret FROM runs WHERE candidate = ? AND outcome IS NULL "
            "ORDER BY started DESC",
            (candidate,),
        )
        return [KilledRun(*row) for row in rows]

    def lock(self, candidate: str) -> None:
        """Be the only search for this candidate until `close`; raises `Misuse` if another one is."""
        name = candidate.replace("/", "-")
        file = self.folder / f"{name}.lock"
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
        self._db.close()


def _opened(file: Path) -> sqlite3.Connection:
    """The database with its tables; a file that is none is closed again."""
    db = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
