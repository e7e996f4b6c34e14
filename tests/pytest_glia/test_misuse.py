"""``--glia-optimize`` where it cannot work: a sentence, the right exit code, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.project import INI, PACKING, MakeProject, Project, spec

SPEC, CANDIDATE = "specs/test_packer.py", "candidates/packer.py"


def refused(project: Project, *arguments: str, code: int = 4, **environment: str) -> str:
    """What a search says that must not start: one sentence, no branch, nothing touched."""
    before = project.fingerprint()
    ran = project.pytest("--glia-optimize", *arguments, **environment)
    assert ran.code == code, ran.out
    assert "Traceback (most recent call last)" not in ran.out
    assert "INTERNALERROR" not in ran.out
    assert project.fingerprint() == before
    assert project.processes() == []
    return ran.text


def test_no_repository(make_project: MakeProject) -> None:
    """Candidates are commits, so there must be a repository."""
    said = refused(make_project(PACKING, commit=False))
    assert "is not in a git repository" in said
    assert '"git init"' in said


def test_no_commit(make_project: MakeProject) -> None:
    """There is nothing to start from yet."""
    project = make_project(PACKING, commit=False)
    project.git("init", "-q", "-b", "main")
    assert "has no commit yet: commit the spec and the candidate first" in refused(project)


def _dirty(path: str) -> Callable[[Project], object]:
    return lambda project: project.write({path: PACKING[path] + "\n# more\n"})


def _uncommitted(path: str) -> Callable[[Project], object]:
    def take_out(project: Project) -> None:
        project.git("rm", "-q", "--cached", path)
        project.git("commit", "-q", "-m", "without")

    return take_out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_dirty(CANDIDATE), f"{CANDIDATE} has changes that are not committed"),
        (_dirty(SPEC), f"{SPEC} has changes that are not committed"),
        (_uncommitted(SPEC), f"{SPEC} has changes that are not committed"),
        (_uncommitted(CANDIDATE), f"the candidate {CANDIDATE} is not in the commit"),
        (lambda project: (project.folder / ".glia").touch(), ".glia cannot be written"),
    ],
    ids=["dirty candidate", "dirty spec", "uncommitted spec", "uncommitted candidate", "unwritable"],
)
def test_state_that_is_no_base(
    make_project: MakeProject, spoil: Callable[[Project], object], says: str
) -> None:
    """What is measured is the commit; where the checkout differs in what counts, the user is asked."""
    project = make_project(PACKING)
    spoil(project)
    assert says in refused(project)
    assert project.branches("glia") == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {SPEC: PACKING[SPEC].replace("packer.py", "pakcer.py")},
            "candidates/pakcer.py is not in the commit",
        ),
        ({SPEC: PACKING[SPEC].replace('entry="pack"', 'entry="pakc"')}, "has no 'pakc', the entry that"),
        ({SPEC: PACKING[SPEC].replace("entry=", "enrty=")}, "the glia marker has 'enrty'"),
        ({CANDIDATE: "def pack(:\n"}, f"{CANDIDATE}:1 is not valid Python"),
        ({SPEC: PACKING[SPEC].replace("glia(", "no_glia(")}, ""),
    ],
    ids=["missing candidate", "missing entry", "bad marker", "syntax error", "no marker"],
)
def test_project_that_is_no_start(make_project: MakeProject, files: dict[str, str], says: str) -> None:
    """The sentence names file and mistake; a selection without specs of candidates is exit code 5."""
    project = make_project({**PACKING, **files})
    assert says in refused(project, code=4 if says else 5)
    assert project.branches("glia") == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["-o", "glia_replications=x"], 4, "glia_replications is 'x': give a whole number"),
        (["-o", "glia_margin=a: b"], 4, "glia_margin is 'a: b': give a number"),
        (["--glia-budget=5 beers"], 4, "the budget '5 beers' has '5 beers'"),
        (["--glia-designer=nobody"], 4, "there is no designer 'nobody': --glia-designer takes best-of-n"),
        (["-n", "2"], 4, "--glia-optimize does not go with -n"),
        (["-o", "glia_confidence=95"], 4, "glia_confidence is 95.0"),
        (["-k", "no_such_test"], 5, "2 deselected"),
        (["no/such/file.py"], 4, "file or directory not found"),
        (
            ["--glia-budget=3 sims"],
            4,
            "too small: to look at the present candidate and to confirm one takes 10 simulations",
        ),
    ],
)
def test_bad_command_line(make_project: MakeProject, arguments: list[str], code: int, says: str) -> None:
    """Misuse is exit code 4, an empty selection 5, each with its sentence."""
    assert says in refused(make_project(PACKING), *arguments, code=code)


def test_spec_that_does_not_import(make_project: MakeProject) -> None:
    """An error of collection is pytest's own, and nothing is evaluated."""
    project = make_project({**PACKING, SPEC: "import no_such_module_x\n"})
    assert "No module named 'no_such_module_x'" in refused(project, code=2)


@pytest.mark.slow
def test_helper_that_was_not_committed(make_project: MakeProject) -> None:
    """A spec that imports an untracked file works here but not at the commit; the sentence shows why."""
    project = make_project({**PACKING, SPEC: "import helper_x\n" + PACKING[SPEC]})
    project.write({"specs/helper_x.py": ""})
    said = refused(project)
    assert "cannot be collected at the base commit" in said
    assert "No module named 'helper_x'" in said


@pytest.mark.slow
def test_start_that_never_returns(make_project: MakeProject) -> None:
    """It is killed at its deadline; no search begins, for there is nothing to start from."""
    files = {**PACKING, CANDIDATE: "def pack(items):\n    while True: pass\n"}
    ran = (project := make_project(files)).pytest("--glia-optimize", "-k", "little", "-o", "glia_timeout=0.2")
    assert ran.code == 4
    assert "test_little_waste cannot be evaluated for the present candidate" in ran.text
    assert "did not finish within 0.2 s and was killed" in ran.text
    assert "it may never return, or need a larger glia_timeout" in ran.text
    assert project.branches("glia") == []
    assert project.processes() == []


@pytest.mark.slow
def test_start_that_does_not_import(make_project: MakeProject) -> None:
    """The reason is shown with file and line."""
    files = {**PACKING, CANDIDATE: "import no_such_x\n\n\ndef pack(items):\n    return 1\n"}
    ran = make_project(files).pytest("--glia-optimize", "-o", "glia_allow_imports=no_such_x")
    assert ran.code == 4
    assert f"{CANDIDATE}:1 does not import: ModuleNotFoundError" in ran.text


@pytest.mark.slow
def test_time_is_hard_too(make_project: MakeProject) -> None:
    """When the seconds are over, the run ends with what it has, as a failure that says so."""
    project = make_project(
        {**PACKING, SPEC: PACKING[SPEC].replace("    rng =", "    sum(range(30_000_000))\n    rng =")}
    )
    ran = project.pytest("--glia-optimize", "--glia-budget=3 s", "-k", "little")
    assert ran.code in (1, 4), ran.out
    assert "the budget of 3 seconds is spent" in ran.text
    assert "INTERNALERROR" not in ran.out
    assert project.processes() == []
    seconds = float(ran.out.rpartition(" in ")[2].partition("s")[0])
    assert seconds < 20


@pytest.mark.parametrize(
    ("designer", "library", "extra"),
    [("offline", "optuna", "sim"), ("openevolve", "openevolve", "openevolve")],
)
def test_a_designer_without_its_library(
    make_project: MakeProject, designer: str, library: str, extra: str
) -> None:
    """It is told what to install before anything is run."""
    conftest = f"import sys\n\nsys.modules[{library!r}] = None\n\n{PACKING['conftest.py']}"
    project = make_project({**PACKING, "conftest.py": conftest})
    said = refused(project, f"--glia-designer={designer}", "--glia-model=some")
    assert f'is not installed: pip install "pytest-glia[{extra}]"' in said
    assert "on guard seeds" not in said
    assert project.branches("glia") == []


@pytest.mark.slow
def test_a_link_to_the_project_leads_to_what_is_committed(make_project: MakeProject) -> None:
    """Whatever way leads to a module, and wherever pytest is called: the working tree is not measured."""
    body = """\
import wares


def test_cost(glia):
    assert glia.measure(lambda answer, seed: wares.COST) < 1
"""
    files = spec("def answer():\n    return 0\n", body, INI + "pythonpath = src\n")
    project = make_project({**files, "src/wares.py": "COST = 2\n"})
    (project.folder / "src/wares.py").write_text("COST = 7\n")
    link = project.folder.parent / "link"
    link.symlink_to(project.folder)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(link), "--glia-optimize"],
        cwd=project.folder.parent,
        env={**os.environ, **project.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "measured: 2 [2, 2] (n=6, 95 %)" in ran.stdout, ran.stdout
