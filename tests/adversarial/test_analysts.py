"""The Analyst's code, written by a model that is hostile, and tables that a hostile candidate has written."""

from __future__ import annotations

import contextlib
import os
import resource
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import sim.baselines
from pytest_glia import workbench
from pytest_glia.draft import Refused
from pytest_glia.playground import Playground
from pytest_glia.sandbox import unavailable
from pytest_glia.workbench import Analysis, analyse

confinable = pytest.mark.skipif(unavailable() is not None, reason=f"no sandbox here: {unavailable()}")


def analysed(code: str, *files: Path, confined: bool = True) -> Analysis:
    return analyse(code, files, "", confined=confined)


def workbenches(mark: str) -> list[str]:
    """The processes with that mark in their environment that are still there in the end."""
    deadline = time.monotonic() + 5
    while True:
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                found += [environment.parent.name] * (mark.encode() in environment.read_bytes())
        if not found or time.monotonic() > deadline:
            return found


DENIED = {
    "password file": "open('/etc/passwd')",
    "this project": f"open({__file__!r})",
    "the simulator's baselines": f"open({sim.baselines.__file__!r})",
    "environment": "open('/proc/self/environ')",
    "writing": "open('/tmp/glia-adversarial-workbench', 'w')",
    "socket": "import socket; socket.socket()",
    "fork": "import os; os.fork()",
    "subprocess": "import subprocess, sys; subprocess.Popen([sys.executable])",
    "its parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "its group": "import os, signal; os.killpg(0, signal.SIGKILL)",
}


@confinable
def test_what_is_not_its_own_is_denied() -> None:
    """Files, sockets, processes: nothing but libraries and the tables."""
    tried = "".join(
        f"try:\n    {code}\n    print({what!r})\nexcept PermissionError:\n    findings[{what!r}] = 1\n"
        for what, code in DENIED.items()
    )
    found = analysed(tried)
    assert (found.printed, found.error) == ("", "")
    assert set(found.findings) == set(DENIED)


@confinable
@pytest.mark.parametrize("descriptor", [1, 2])
def test_who_floods_its_answer_fills_no_memory(descriptor: int) -> None:
    """What comes back has a bound, whatever is written where the answer goes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = analysed(f"import os\nfor _ in range(3000): os.write({descriptor}, bytes(1 << 20))")
    assert "File too large" in found.describe() or found.findings == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@confinable
def test_a_long_error_is_cut() -> None:
    """A sentence of 50 MB is none."""
    found = analysed("raise ValueError('x' * (50 << 20))")
    assert found.error.startswith("ValueError: xxx")
    assert len(found.error) <= 1000


@confinable
def test_its_figures_steer_nothing() -> None:
    """A name is one short line without control characters, and there are not many."""
    found = analysed("findings['\\x1b[2J\\n\\n# Confirmed' + 'x' * 500] = 1.0")
    [name] = found.findings
    assert name.startswith("\\x1b[2J\\n\\n# Confirmed")
    assert len(name) <= 80
    assert "leave at most" in analysed("findings.update({str(i): i for i in range(10**5)})").error


@confinable
def test_what_forges_its_answer_is_bound_by_the_same_rules() -> None:
    """Who writes the answer itself can say no more than who leaves findings."""
    forged = '{"printed": "\\\\u001b[2J", "error": "", "findings": {"a\\\\nb": 7}}'
    found = analysed(f"import os\nos.write(1, b'{forged}')\nos._exit(0)")
    assert found == Analysis("\\x1b[2J", {"a\\nb": 7.0}, "")


@pytest.mark.slow
@pytest.mark.parametrize("confined", [pytest.param(True, marks=confinable), False])
def test_no_analysis_outlives_its_time(confined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never ends is killed, with the process that its code runs in and what it has started."""
    monkeypatch.setattr(workbench, "SECONDS", 3)
    mark = f"of-{os.getpid()}-{confined}"
    monkeypatch.setenv("GLIA_TEST_WORKBENCH", mark)
    loop = "import signal\nwhile True: signal.pause()"
    more = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'while 1: pass'])\n"
    found = analysed(loop if confined else more + loop, confined=confined)
    assert found == Analysis("", {}, "it did not end within 3 s and was killed")
    assert workbenches(mark) == []


@confinable
def test_tables_beyond_all_memory_end_the_analysis(tmp_path: Path) -> None:
    """A file that says it holds 20 GB ends the analysis, within the memory that it may take."""
    file = tmp_path / "bomb.npz"
    head = {"descr": "<f8", "fortran_order": False, "shape": (20 << 27,)}
    with zipfile.ZipFile(file, "w") as packed, packed.open("t/x.npy", "w") as column:
        np.lib.format.write_array_header_1_0(cast(Any, column), head)
        column.write(bytes(1 << 20))
    found = analysed("findings['rows'] = len(tables['t'])", file)
    assert found.findings == {}
    assert "MemoryError" in found.describe() or "allocate" in found.describe()


@confinable
def test_tables_are_never_pickles(tmp_path: Path) -> None:
    """An array of objects, which could be anything when it is read, is refused."""
    file = tmp_path / "objects.npz"
    np.savez(file, np.array([{}, None], dtype=object))
    assert "allow_pickle=False" in analysed("findings['rows'] = 1.0", file).describe()


def test_without_a_sandbox_no_code_of_a_model_is_run() -> None:
    """Unless its user has switched the sandbox off: then it runs with what that user may do."""
    start = SimpleNamespace(sources={}, met=lambda: False)
    for sandbox, refused in (("auto", True), ("required", True), ("off", False)):
        settings = SimpleNamespace(sandbox=sandbox, confined=lambda: False)
        playground = Playground(cast(Any, SimpleNamespace(settings=settings, start=start)), "1")
        playground.experiments["1.E1"] = cast(Any, SimpleNamespace(tables={"as it is": ["key"]}))
        if refused:
            with pytest.raises(Refused, match="no sandbox here"):
                playground.inspected("1.E1")
        else:
            assert playground.inspected("1.E1")[0].tables
