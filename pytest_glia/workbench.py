"""Where the Analyst's code runs: a process of its own, confined, with the tables of a run as data frames.

`analyse` starts it; this module, run as a program, is that process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pytest_glia.childprocess import without_secrets
from pytest_glia.sandbox import Confinement, confine, reach
from pytest_glia.visible import visible

SECONDS = 60
"""After which an analysis is killed."""

_PRINTED = 8_000
"""Characters of what an analysis prints that are shown."""

_MEMORY = 4 << 30


@dataclass(frozen=True)
class Analysis:
    """What some code made of the tables.

    Attributes:
        printed: What it has printed, cut.
        findings: The numbers that it left in ``findings``.
        error: Why it ended early, if it did.
    """

    printed: str
    findings: Mapping[str, float]
    error: str = ""

    def describe(self) -> str:
        """All of it, for a conversation."""
        parts = [self.printed.rstrip()] if self.printed.strip() else []
        if self.findings:
            parts.append("findings: " + ", ".join(f"{n} = {v:.6g}" for n, v in self.findings.items()))
        if self.error:
            parts.append(f"error: {self.error}")
        return "\n".join(parts) or "(it printed nothing and left no findings)"


def analyse(code: str, files: Sequence[Path], printed: str, *, confined: bool) -> Analysis:
    """Run code on the tables of some replications, in the order of their files.

    It finds ``runs``, a list with a dictionary of pandas data frames for each replication, ``tables``, the
    first of them, and ``printed``, what the candidate has printed; numbers that it leaves in the dictionary
    ``findings`` are its result.
    """
    task = {"code": code, "files": [str(file) for file in files], "printed": printed, "confined": confined}
    environment = {**without_secrets(os.environ), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pytest_glia.workbench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    with process:
        try:
            out, words = process.communicate(json.dumps(task), timeout=SECONDS)
        except BaseException as error:
            # The code runs in a fork of it.
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return Analysis("", {}, f"it did not end within {SECONDS} s and was killed")
    try:
        said = json.loads(out)
        findings = {str(name): float(value) for name, value in said["findings"].items()}
        return Analysis(visible(str(said["printed"]))[:_PRINTED], findings, visible(str(said["error"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Analysis("", {}, visible((words.strip().splitlines() or ["it ended without a word"])[-1]))


def _frames(file: str) -> dict[str, Any]:
    """The tables in a file, as data frames by name."""
    import numpy as np
    import pandas as pd

    columns: dict[str, dict[str, Any]] = {}
    with np.load(file, allow_pickle=False) as found:
        for name in found.files:
            table, _, column = name.partition("/")
            columns.setdefault(table, {})[column] = found[name]
    return {table: pd.DataFrame(members) for table, members in columns.items()}


def _confinement() -> Confinement:
    """Reads libraries, but none of a domain's, whose baselines would be answers; writes nothing."""
    domains = {entry.module.partition(".")[0] for entry in entry_points(group="glia")}
    confinement = Confinement.of_project(Path(sys.prefix), seconds=SECONDS, workers=0)
    return replace(confinement, readable=reach.libraries(domains), memory=_MEMORY)


def _run(task: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of the code in a task."""
    if task["confined"]:
        confine(_confinement(), [0, 1, 2])
    # What a model sees goes out to its server.
    os.environ.clear()
    printed, findings, error = io.StringIO(), dict[str, Any](), ""
    scope = {
        "__name__": "analysis",
        "runs": runs,
        "tables": runs[0] if runs else {},
        "printed": task["printed"],
        "findings": findings,
    }
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(task["code"], "analysis.py", "exec"), scope)
        findings = {str(name): float(value) for name, value in dict(scope["findings"]).items()}
    except BaseException as failed:
        lines = [f.lineno for f in traceback.extract_tb(failed.__traceback__) if f.filename == "analysis.py"]
        where = f" (line {lines[-1]})" if lines else ""
        findings, error = {}, f"{type(failed).__name__}: {failed}{where}"
    return {"printed": printed.getvalue()[: 2 * _PRINTED], "findings": findings, "error": error}


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    task = json.loads(sys.stdin.read())
    runs = [_frames(file) for file in task["files"]]
    with warnings.catch_warnings():
        # A library may have started threads. The fork has none of them, and so it can be confined.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(abs(status))
    sys.stdout.write(json.dumps(_run(task, runs)))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
