"""What a run leaves for people and for programs: the terminal's verdict table, and ``--glia-json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_glia import __version__
from pytest_glia.estimate import Check

SCHEMA = 1


def write_summary(terminal: pytest.TerminalReporter, reports: Sequence[pytest.TestReport]) -> None:
    """Two lines a comparison: its test with the verdict, and the estimate."""
    terminal.write_sep("=", "glia verdicts")
    for report in reports:
        for check in _checks(report):
            colour = {"shown": "green", "refuted": "red"}.get(check.outcome, "yellow")
            terminal.write(f"{check.outcome:<10}", **{colour: True})
            terminal.write_line(f"{report.nodeid.rpartition('/')[2]}")
            terminal.write_line(f"          {check.what()}")
            terminal.write_line(f"          {check.measured()}; asked {check.demand()}")


def write_json(path: str, reports: Sequence[pytest.TestReport]) -> None:
    """Every verdict, in a versioned schema; an unwritable file is an error of the run."""
    tests = [
        {
            "nodeid": report.nodeid,
            "outcome": report.outcome,
            "seconds": report.duration,
            "checks": [check.as_json() for check in _checks(report)],
        }
        for report in reports
    ]
    text = json.dumps({"schema": SCHEMA, "version": __version__, "tests": tests}, indent=1)
    try:
        Path(path).write_text(text + "\n", "utf-8")
    except OSError as error:
        raise pytest.UsageError(f"--glia-json={path}: the file cannot be written ({error})") from None


def _checks(report: pytest.TestReport) -> list[Check]:
    return [Check.from_json(data) for data in getattr(report, "glia", ())]
