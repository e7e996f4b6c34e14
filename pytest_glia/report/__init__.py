"""``--glia-report DIR``: ``report.md``, its pictures and ``glia.json``, written at the end of any run.

The folder is tried at the start: a run that has cost hours does not end with a report that cannot be written.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_glia import __version__
from pytest_glia.report.findings import design, plain, verdicts
from pytest_glia.report.page import page, picture_name, trade_off_name
from pytest_glia.report.plot import progress, trade_off

if TYPE_CHECKING:
    from pytest_glia.search import Search

SCHEMA = 1


class Report:
    """The plugin that gathers what a run finds out, and writes it at its end.

    Raises:
        pytest.UsageError: the folder cannot be written.
    """

    def __init__(self, config: pytest.Config, folder: str) -> None:
        self._config = config
        self._folder = Path(folder).absolute()
        self._reports: list[pytest.TestReport] = []
        self._designs: list[dict[str, Any]] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise pytest.UsageError(
                f"--glia-report={folder}: the folder cannot be written ({error}); give another"
            ) from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Of a spec also what kept it from measuring, such as a fixture that failed.
        kept = "glia" in report.keywords and not report.passed
        if (report.when == "call" and hasattr(report, "glia")) or kept:
            self._reports.append(report)

    def add(self, search: Search) -> None:
        """Take down what a search has come to, before it is closed."""
        self._designs.append(design(search))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        arguments = [str(each) for each in self._config.invocation_params.args]
        addopts = os.environ.get("PYTEST_ADDOPTS", "")
        before = f"PYTEST_ADDOPTS={shlex.quote(addopts)} " if addopts else ""
        data = plain(
            {
                "schema": SCHEMA,
                "version": __version__,
                "command": before + shlex.join(["pytest", *arguments]),
                "exit": int(exitstatus),
                "guard_seeds": self._config.getini("glia_guard_seeds"),
                "tests": verdicts(self._reports),
                "designs": self._designs,
            }
        )
        for name in (picture_name("*"), trade_off_name("*", "*")):
            for stale in self._folder.glob(name):
                stale.unlink()
        for number, each in enumerate(data["designs"], start=1):
            if each["trials"]:
                picture = progress(each["trials"], each["goal"]["quantity"], each["goal"]["threshold"])
                self._write(picture_name(number), picture)
            for other in range(1, len(each["front"]["objectives"]) if each["front"] else 0):
                self._write(trade_off_name(number, other + 1), trade_off(each["front"], other))
        self._write("glia.json", json.dumps(data, indent=1, allow_nan=False) + "\n")
        self._write("report.md", page(data))

    def _write(self, name: str, text: str) -> None:
        """The whole file or none of it: a reader never sees half of one."""
        part = self._folder / f".{name}.{os.getpid()}"
        try:
            part.write_text(text, "utf-8")
            part.replace(self._folder / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise pytest.UsageError(
                f"--glia-report: {self._folder / name} cannot be written ({error}): make room for it"
            ) from None
