"""The runs of a comparison: each a search in a fresh clone of the repository, and what its ledger has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_glia.ledger import Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.repeating import copied
from pytest_glia.repository import Repository

Row = Mapping[str, Any]
"""A candidate of a run, as `pytest_glia.lab.Lab` puts it on record."""


@dataclass(frozen=True)
class Goal:
    """What the first unmet spec asks of its quantity: smaller is better where ``op`` is ``<`` or ``<=``."""

    quantity: str
    op: str
    threshold: float

    def better(self, one: float, other: float) -> bool:
        """Whether a value is at least as good as another."""
        return one <= other if self.op.startswith("<") else one >= other


@dataclass(frozen=True)
class Measured:
    """The goal's quantity on seeds that no search has seen, with its interval (None: without bound)."""

    point: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class SearchRun:
    """One search.

    Attributes:
        number: Of the designer's runs, from 1.
        outcome: ``passed``, ``not met``, ``budget spent`` or ``failed``.
        candidate: The files that it designed, joined by ``+``.
        rows: The start and each candidate, in order.
        final: Of the winner as confirmed; None if there was none, or it was not confirmed to the end.
    """

    designer: str
    number: int
    outcome: str
    candidate: str
    goal: Goal
    rows: tuple[Row, ...]
    final: Measured | None

    def as_json(self) -> dict[str, Any]:
        """JSON types; `from_json` reads them again."""
        return {**asdict(self), "rows": list(self.rows)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchRun:
        """What `as_json` wrote."""
        final = data["final"] and Measured(**data["final"])
        return cls(**{**data, "goal": Goal(**data["goal"]), "rows": tuple(data["rows"]), "final": final})


@dataclass(frozen=True)
class Comparison:
    """Where runs are made, and with what.

    Attributes:
        root: The folder of the checkout in which pytest would be run.
        specs: What pytest is told to collect.
        options: More options of pytest, of each run.
    """

    root: Path
    specs: tuple[str, ...]
    budget: str
    options: tuple[str, ...]

    def search(self, designer: str, number: int, log: Path) -> SearchRun:
        """A search by a designer, with its output in a file; raises `Misuse` if it could not be made."""
        with self._clone() as (folder, verdicts):
            arguments = ["--glia-optimize", f"--glia-designer={designer}", f"--glia-budget={self.budget}"]
            code = self._pytest(folder, verdicts, arguments, log)
            ledgers = sorted(folder.rglob(".glia/ledger.db"))
            if code not in (0, 1) or not ledgers:
                raise Misuse(
                    f"the run of {designer!r} ended with exit code {code}: {_last_line(log)}; see {log}"
                )
            ledger = Ledger(ledgers[0].parent.parent)
            try:
                return _search_run(ledger, designer, number, json.loads(verdicts.read_text("utf-8")))
            finally:
                ledger.close()

    def baseline(self, file: Path, candidate: str, goal: Goal, log: Path) -> Measured:
        """What the goal's quantity is on guard seeds with a file's text in the candidate's place."""
        with self._clone() as (folder, verdicts):
            shutil.copyfile(file, folder / candidate)
            self._pytest(folder, verdicts, [], log)
            found = _measured(json.loads(verdicts.read_text("utf-8")), goal) if verdicts.exists() else None
        if found is None:
            raise Misuse(
                f"with {str(file)!r} as {candidate} the specs measure no {goal.quantity!r}; see {log}"
            )
        return found

    @contextmanager
    def _clone(self) -> Iterator[tuple[Path, Path]]:
        """The folder that is `root` in a fresh clone, and a file for verdicts; both are deleted again."""
        repository = Repository(self.root)
        with copied(repository, repository.head(), without="/glia/") as copy:
            yield copy / repository.prefix, copy.parent / "report/glia.json"

    def _pytest(self, folder: Path, verdicts: Path, arguments: Sequence[str], log: Path) -> int:
        command = [sys.executable, "-m", "pytest", *self.specs, *arguments, *self.options]
        with log.open("wb") as output:
            return subprocess.run(
                [*command, f"--glia-report={verdicts.parent}"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ).returncode


def _search_run(ledger: Ledger, designer: str, number: int, verdicts: Mapping[str, Any]) -> SearchRun:
    runs = ledger.outcomes()
    if not runs:
        raise Misuse("no spec fails for the present candidate, so there is nothing to design")
    if len(runs) > 1:
        named = ", ".join(candidate for candidate, _ in runs.values())
        raise Misuse(f"the specs name several candidates ({named}): compare designers on one at a time")
    [(run, (candidate, outcome))] = runs.items()
    goals = ledger.records(run, " goal")
    if not goals and outcome == "budget spent":
        raise Misuse(
            f"the budget of the run of {designer!r} was spent before the present candidate was seen, so "
            "there is nothing to draw: give a larger --budget"
        )
    if not goals or not json.loads(goals[0]):
        raise Misuse("the failing specs compare nothing with a number, so there is nothing to draw")
    goal = Goal(**json.loads(goals[0]))
    rows = tuple(json.loads(each) for each in ledger.records(run, " trial "))
    # Without a confirmation pytest's verdicts are those of the start.
    confirmed = any(each["confirmation"] for each in verdicts["designs"])
    final = _measured(verdicts, goal) if confirmed else None
    return SearchRun(designer, number, outcome or "failed", candidate, goal, rows, final)


def _measured(verdicts: Mapping[str, Any], goal: Goal) -> Measured | None:
    """The goal's quantity in the verdicts of a run of pytest."""
    for check in (check for test in verdicts["tests"] for check in test["checks"]):
        what = check["quantity"] if check["scale"] == "mean" else f"{check['scale']} of {check['quantity']}"
        if what == goal.quantity:
            return Measured(check["point"], check["low"], check["high"], check["n"])
    return None


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
