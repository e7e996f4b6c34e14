"""Where the Analyst's code runs: a process of its own, confined, with the tables of a run as data frames.

`analyse` starts it; this module, run as a program, is that process. The code is a model's, and the tables may
be a candidate's: neither is looked at before the process is confined, and what comes back has a bound.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any

from pytest_glia.childprocess import without_secrets
from pytest_glia.processes import die_with, end_session
from pytest_glia.sandbox import Confinement, confine, limits, reach
from pytest_glia.visible import visible

SECONDS = 60
"""After which an analysis is killed."""

_PRINTED = 8_000
"""Characters of what an analysis prints that are shown."""

_ERROR = 1_000
"""Characters of why it ended early."""

_FINDINGS, _NAME = 50, 80
"""Figures that an analysis may leave, and characters of the name of each."""

_SAID = 1 << 20
"""Bytes that the process may write: all that its answer can hold, and little to keep in memory."""

_MEMORY = 4 << 30
"""Bytes of memory, tables included."""


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
    task = {
        "code": code,
        "files": [str(file) for file in files],
        "printed": printed,
        "confined": confined,
        "parent": os.getpid(),
    }
    environment = {**without_secrets(os.environ), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # A file's size has a limit, as a pipe's has not.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest_glia.workbench"],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=words,
            env=environment,
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(task).encode(), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return Analysis("", {}, f"it did not end within {SECONDS} s and was killed")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            end_session(process.pid)
            process.wait()
        return _heard(_read(answer), _read(words))


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_SAID)


def _heard(answer: bytes, words: bytes) -> Analysis:
    """What the process has said: JSON, or, if it ended without that, its last words."""
    try:
        said = json.loads(answer)
        named = list(said["findings"].items())[:_FINDINGS]
        findings = {visible(str(n), line=True)[:_NAME]: float(value) for n, value in named}
        printed, error = (visible(str(said[name])) for name in ("printed", "error"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        lines = words.decode("utf-8", "replace").strip().splitlines() or ["it ended without a word"]
        return Analysis("", {}, visible(lines[-1], line=True)[:_ERROR])
    return Analysis(printed[:_PRINTED], findings, error[:_ERROR])


def _frames(packed: bytes) -> dict[str, Any]:
    """The tables of a file's bytes, as data frames by name."""
    import numpy as np
    import pandas as pd

    columns: dict[str, dict[str, Any]] = {}
    with np.load(io.BytesIO(packed), allow_pickle=False) as found:
        for name in found.files:
            table, _, column = name.partition("/")
            columns.setdefault(table, {})[column] = found[name]
    return {table: pd.DataFrame(members) for table, members in columns.items()}


def _confinement() -> Confinement:
    """Reads libraries, but none of a domain's, whose baselines would be answers; writes nothing."""
    domains = {entry.module.partition(".")[0] for entry in entry_points(group="glia")}
    confinement = Confinement.of_project(Path(sys.prefix), seconds=SECONDS, workers=0)
    return replace(confinement, readable=reach.libraries(domains), memory=_MEMORY)


def _run(task: Mapping[str, Any], packed: Sequence[bytes]) -> dict[str, Any]:
    """What is said of the code in a task."""
    if task["confined"]:
        confine(_confinement(), [0, 1, 2])
    runs = [_frames(each) for each in packed]
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
        findings = dict(_numbers("", scope["findings"]))
        if len(findings) > _FINDINGS:
            raise ValueError(f"findings holds {len(findings)} figures: leave at most {_FINDINGS}")
    except BaseException as failed:
        lines = [f.lineno for f in traceback.extract_tb(failed.__traceback__) if f.filename == "analysis.py"]
        where = f" (line {lines[-1]})" if lines else ""
        findings, error = {}, f"{type(failed).__name__}: {str(failed)[:_ERROR]}{where}"
    return {"printed": printed.getvalue()[:_PRINTED], "findings": findings, "error": error}


def _numbers(prefix: str, found: Any) -> Iterator[tuple[str, float]]:
    """The figures in a mapping, those of mappings in it by both names; TypeError for anything else."""
    for name, value in dict(found).items():
        if hasattr(value, "items"):
            yield from _numbers(f"{prefix}{name} ", value)
        else:
            try:
                yield f"{prefix}{name}", float(value)
            except (TypeError, ValueError):
                raise TypeError(
                    f"findings[{name!r}] is {value!r:.60}: leave a number under each name"
                ) from None


def _main() -> None:
    task = json.loads(sys.stdin.read())
    die_with(task["parent"])
    limits.lower(resource.RLIMIT_CORE, 0)
    limits.lower(resource.RLIMIT_FSIZE, _SAID)
    limits.lower(resource.RLIMIT_DATA, _MEMORY)
    packed = [Path(file).read_bytes() for file in task["files"]]
    # What it loads late it can still load now.
    importlib.import_module("pandas").DataFrame({"number": [0.0], "text": ["none"]})
    this = os.getpid()
    with warnings.catch_warnings():
        # A library may have started threads. The fork has none of them, and so it can be confined.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(abs(status))
    die_with(this)
    sys.stdout.write(json.dumps(_run(task, packed)))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
