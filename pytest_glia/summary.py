"""What a run says of its specs on the terminal: the table of verdicts, and the lines of a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pytest_glia.estimate import Check


def write_summary(terminal: pytest.TerminalReporter, reports: Sequence[pytest.TestReport]) -> None:
    """Two lines a comparison: its test with the verdict, and the estimate."""
    terminal.write_sep("=", "glia verdicts")
    for report in reports:
        for check in (Check.from_json(data) for data in getattr(report, "glia", ())):
            colour = {"shown": "green", "refuted": "red"}.get(check.outcome, "yellow")
            terminal.write(f"{check.outcome:<10}", **{colour: True})
            terminal.write_line(f"{report.nodeid.rpartition('/')[2]}")
            terminal.write_line(f"          {check.what()}")
            terminal.write_line(f"          {check.measured()}; asked {check.demand()}")


def show(write: Callable[[str], None], reports: Sequence[pytest.TestReport]) -> None:
    """A line a comparison, and one for a test that ended otherwise."""
    for report in reports:
        name = report.nodeid.rpartition("::")[2]
        checks = [Check.from_json(data) for data in getattr(report, "glia", ())]
        # Such as one that asserts the opposite of what is shown.
        otherwise = report.failed and all(check.outcome == "shown" for check in checks)
        for check in checks:
            passed = check.outcome == "shown" and not (otherwise and check is checks[-1])
            write(f"  {'pass' if passed else 'FAIL'}  {name[:70]}")
            write(f"        {check.what()}")
            write(f"        {check.describe()}")
        if otherwise:
            if not checks:
                write(f"  FAIL  {name}")
            write(f"        {report.longreprtext.strip().splitlines()[-1][:200]}")
        elif report.skipped:
            write(f"  skip  {name}")
