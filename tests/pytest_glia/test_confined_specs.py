"""Specs whose candidates do what only a confined process is kept from, in each way of running them."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_glia import sandbox
from pytest_glia.sandbox import kernel, seccomp
from tests.project import MakeProject, spec

pytestmark = pytest.mark.skipif(
    sandbox.unavailable() is not None, reason=f"no sandbox here: {sandbox.unavailable()}"
)

MEASURED = """
def run(answer, seed):
    return answer()

def baseline():
    return float(len(open(os.environ["OUTSIDE"]).read()))

def test_small(glia):
    assert glia.measure(run) < 20
"""
READS = """\
import os
import pathlib

def answer():
    pathlib.Path("data.txt").read_text()
    return float(len(pathlib.Path(os.environ["OUTSIDE"]).read_text()))
"""
OFF = ("-o", "glia_sandbox=off")
OPEN = ("-o", "glia_allow_imports=os pathlib")


@pytest.mark.parametrize(
    "how",
    [
        (),
        pytest.param(("-n2",), marks=pytest.mark.slow),
        pytest.param(("--glia-optimize", "--glia-budget=20 sims"), marks=pytest.mark.slow),
    ],
)
def test_candidate_is_confined(make_project: MakeProject, tmp_path: Path, how: tuple[str, ...]) -> None:
    """In a plain run, under xdist and in a search it reads the project, and nothing beside it."""
    (tmp_path / "outside.txt").write_text("outside")
    project = make_project({**spec(READS, MEASURED), "data.txt": "inside"})
    ran = project.pytest(*how, *OPEN, OUTSIDE=str(tmp_path / "outside.txt"))
    assert ran.code != 0
    assert "PermissionError: [Errno 13] Permission denied:" in ran.text
    assert "outside.txt'" in ran.text
    assert "glia_sandbox = off runs without it" in ran.text
    free = project.pytest(*how, *OPEN, *OFF, OUTSIDE=str(tmp_path / "outside.txt"))
    assert free.code == 0, free.out


def test_baseline_is_trusted(make_project: MakeProject, tmp_path: Path) -> None:
    """What the spec itself brings along is not confined: it is the user's."""
    (tmp_path / "outside.txt").write_text("outside")
    body = MEASURED.replace("glia.measure(run) < 20", "glia.compare(run, against=baseline).ratio < 2")
    project = make_project(spec("def answer():\n    return 7.0\n", body), commit=False)
    ran = project.pytest(OUTSIDE=str(tmp_path / "outside.txt"))
    assert ran.code == 0, ran.out


@pytest.mark.slow
def test_candidate_knows_no_secret(make_project: MakeProject) -> None:
    """A plain run of pytest has the user's keys; its candidates do not."""
    candidate = "import os\n\ndef answer():\n    return float('MY_TOKEN' in os.environ)\n"
    body = MEASURED.replace("glia.measure(run) < 20", "os.environ['MY_TOKEN'] and glia.measure(run) < 0.5")
    ran = make_project(spec(candidate, body), commit=False).pytest(*OPEN, MY_TOKEN="hidden")
    assert ran.code == 0, ran.out


@pytest.mark.slow
def test_run_says_what_confines_candidates(make_project: MakeProject) -> None:
    """One line below the verdicts: what does it, or that it is off."""
    project = make_project(spec("def answer():\n    return 7.0\n", MEASURED), commit=False)
    assert project.pytest().lines(f"sandbox: {sandbox.describe()}")
    assert project.pytest(*OFF).lines("sandbox: off (glia_sandbox)")


def refuse_landlock() -> None:
    """Be in a container whose filter knows no Landlock."""
    here = kernel.architecture()
    assert here is not None
    kernel.prctl(38, 1)
    number = here.confining["landlock_create_ruleset"]
    refusing = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | errno.EPERM)]
    seccomp.install(here, seccomp.packed([*refusing, (0x06, 0, 0, 0x7FFF0000)]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "code", "says"),
    [
        ("required", 4, "glia_sandbox is 'required', but candidates cannot be confined: the kernel has no"),
        ("auto", 0, "sandbox: none, as the kernel has no Landlock"),
        ("off", 0, "sandbox: off"),
    ],
)
def test_where_there_is_no_sandbox(make_project: MakeProject, mode: str, code: int, says: str) -> None:
    """``required`` is misuse before the first test, ``auto`` runs and says so."""
    project = make_project(spec("def answer():\n    return 7.0\n", MEASURED), commit=False)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-o", f"glia_sandbox={mode}"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        preexec_fn=refuse_landlock,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert says in " ".join((ran.stdout + ran.stderr).split())
