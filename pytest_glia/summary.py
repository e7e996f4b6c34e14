"""What a run says of its specs on the terminal: the table of verdicts."""

from __future__ import annotations

from collections.abc import Sequence

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
