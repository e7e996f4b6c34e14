"""Runs at once in one repository: none disturbs another (of two for one candidate: test_interruption)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tests.project import PACKER_SPEC, PACKING, Project, Result

pytestmark = pytest.mark.slow

# Two candidates, each a goal of its own, in one repository.
FILES = {
    **PACKING,
    "candidates/second.py": PACKING["candidates/packer.py"],
    "specs/test_second.py": PACKER_SPEC.replace("packer.py", "second.py"),
}
NAMES = ("packer", "second")


@dataclass(frozen=True)
class Together:
    """Two searches for different candidates and two plain runs, all started at the same moment."""

    project: Project
    before: dict[str, str]
    searches: dict[str, Result]
    plain: dict[str, Result]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """All that runs at once."""
    project = Project(tmp_path_factory.mktemp("together")).write(FILES)
    project.commit()
    before = project.fingerprint()
    tmp = project.folder.parent
    started = {name: project.start(f"specs/test_{name}.py", "--glia-optimize") for name in NAMES}
    started |= {f"plain {n}": project.start("specs/test_packer.py", f"--glia-report={tmp / n}") for n in "12"}
    ended = {}
    for name, process in started.items():
        out, _ = process.communicate(timeout=200)
        ended[name] = Result(process.returncode, out)
    searches = {name: ended.pop(name) for name in NAMES}
    return Together(project, before, searches, ended)


@pytest.mark.parametrize("name", NAMES)
def test_searches_for_different_candidates_both_deliver(name: str, together: Together) -> None:
    """Each meets its spec and has its own best branch, whose commit changes its own candidate only."""
    ran = together.searches[name]
    assert ran.code == 0, ran.out
    [best] = together.project.branches(f"glia/{name}/")[1:]
    changed = together.project.git("diff", "--name-only", f"main..{best}").split()
    assert changed == [f"candidates/{name}.md", f"candidates/{name}.py"]


def test_plain_runs_beside_searches_see_the_checkout(together: Together) -> None:
    """Both fail as one alone does, with figures equal bit for bit."""
    assert [ran.code for ran in together.plain.values()] == [1, 1]
    first, second = (json.loads((together.project.folder.parent / n / "glia.json").read_text()) for n in "12")
    assert [test["checks"] for test in first["tests"]] == [test["checks"] for test in second["tests"]]
    assert [test["outcome"] for test in first["tests"]] == ["failed", "passed"]


def test_nothing_is_disturbed_or_left(together: Together) -> None:
    """The checkout is as it was; git is whole; no process and no composed tree is left."""
    assert together.project.fingerprint() == together.before
    together.project.git("fsck", "--strict")
    assert together.project.processes() == []
    assert list((together.project.folder / ".glia").glob("tree-*")) == []
