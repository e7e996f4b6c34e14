"""Searches on other small domains: drawn ones, ones without ideas, packages, third-party designers."""

from __future__ import annotations

import ast
import random
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import INI, MakeProject, Project

pytestmark = pytest.mark.slow

LEVERS = ("batch", "delay", "cap", "share", "retry")

# A service whose cost falls by one lever only, near one setting of it. One other lever does harm, the rest
# change nothing; which is which, and where, is drawn by the test.
WORLD = """\
import math
import random

TRUE, BEST, BAD = {true!r}, {best!r}, {bad!r}


def cost(settings, seed):
    noise = random.Random(seed).gauss(0, 0.05)
    cost = 10 * math.exp(noise)
    if TRUE in settings:
        cost *= 0.3 + 0.7 * min(1, abs(math.log(settings[TRUE] / BEST)))
    if BAD in settings:
        cost *= 1.3
    return {{"cost": cost, "levers": len(settings)}}
"""

DRAWN = {
    "pytest.ini": INI,
    "policy.py": '''\
"""The service's settings."""


def settings():
    chosen = {}
    return chosen
''',
    "conftest.py": f"""\
import pluggy

LEVERS = {LEVERS}


class Lever:
    def __init__(self, name):
        self.name = f"the lever {{name}}"
        self.claim = f"Set {{name}}, for it may be what costs."
        self.lever = name
        self.constant = name.upper()
        self.predicts = {{"cost": -1}}
        self.numbers = {{self.constant: (1, 1000)}}
        self.defaults = {{self.constant: 30}}

    def called_for(self, evidence):
        return f"the cost is {{evidence['cost']:.1f}}" if evidence["cost"] > 1 else None

    def apply(self, source, numbers):
        if self.constant in source:
            return None
        setting = f"    chosen[{{self.lever!r}}] = {{self.constant}}\\n"
        constant = f"\\n{{self.constant}} = {{numbers[self.constant]}}  # of {{self.lever}}\\n"
        source = source.replace("    return", setting + "    return")
        return source.replace("\\n\\ndef", constant + "\\n\\ndef", 1)


@pluggy.HookimplMarker("glia")
def glia_mechanisms(path, entry, source):
    return [Lever(name) for name in LEVERS]
""",
    "test_policy.py": """\
import pytest
from world import cost

pytestmark = pytest.mark.glia(candidate="policy.py", entry="settings")


def none():
    return {}


def run(settings, seed):
    return cost(settings(), seed)


def test_cheap(glia):
    assert glia.compare(run, against=none, metric="cost").reduction > 0.4
""",
}


@dataclass(frozen=True)
class Drawn:
    """A world, and what a search has said and delivered in it."""

    true: str
    best: int
    bad: str
    code: int
    out: str
    source: str
    note: str

    @property
    def levers(self) -> set[str]:
        """The levers that the design's code sets."""
        code = {node.id for node in ast.walk(ast.parse(self.source)) if isinstance(node, ast.Name)}
        return {lever for lever in LEVERS if lever.upper() in code}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    """Three worlds drawn here, and the designs of three searches at once."""
    rng = random.Random("three worlds")
    searches = []
    for true in rng.sample(LEVERS, 3):
        best = round(10 ** rng.uniform(1, 2.5))
        bad = rng.choice([lever for lever in LEVERS if lever != true])
        project = Project(tmp_path_factory.mktemp(true))
        project.write({**DRAWN, "world.py": WORLD.format(true=true, best=best, bad=bad)}).commit()
        searches.append((project, true, best, bad, project.start("--glia-optimize")))
    found = []
    for project, true, best, bad, process in searches:
        out, _ = process.communicate(timeout=100)
        assert project.branches("/best"), out
        source, note = (project.show(project.best(), f"policy.{suffix}") for suffix in ("py", "md"))
        found.append(Drawn(true, best, bad, process.returncode, out, source, note))
    return found


def test_search_finds_what_was_drawn(drawn: list[Drawn]) -> None:
    """The design meets its spec with the lever that matters, near its best value, and with no other."""
    for each in drawn:
        assert each.code == 0, each.out
        assert each.levers == {each.true}
        value = ast.literal_eval(each.source.partition(f"{each.true.upper()} = ")[2].partition("  #")[0])
        assert each.best / 2 < value < each.best * 2


def test_three_worlds_give_three_designs(drawn: list[Drawn]) -> None:
    """For reasons that their notes state: each names its own lever as the design."""
    assert len({each.source for each in drawn}) == 3
    for each in drawn:
        design = each.note.partition("## The design")[2].partition("\n## ")[0]
        assert design.count("### ") == 1
        assert f"### the lever {each.true}\n" in design


def test_refuted_ideas_are_in_the_note(drawn: list[Drawn]) -> None:
    """What was tried before the right idea, and did harm or nothing, is told with its figures."""
    for each in drawn:
        rejected = each.note.partition("## Tried and not kept")[2].partition("\n## ")[0]
        for lever in LEVERS[: LEVERS.index(each.true)]:
            verdict = "refuted; loss \\+" if lever == each.bad else "shown to change nothing; loss "
            assert re.search(rf"\*\*the lever {lever}\*\* \({verdict}", rejected)


TUNABLE = """\
import math

SIZE = 10  # how many at once
SCALE = 1.5


def cost():
    return abs(math.log(SIZE / 35)) + abs(math.log(SCALE / 1.5))
"""
TUNED_SPEC = """\
import os

import pytest

pytestmark = pytest.mark.glia(candidate="tunable.py", entry="cost")


def run(cost, seed):
    if "SEEN" in os.environ:
        with open(os.environ["SEEN"], "a") as seen:
            print(*os.environ.values(), file=seen)
    return cost() + (seed % 10) / 1000


def test_cost(glia):
    assert glia.measure(run) < LIMIT
"""


def tunable(limit: float, **more: str) -> dict[str, str]:
    """A candidate of which nothing is known but that it has constants; its cost starts at 1.25."""
    ini = INI.replace("glia_replications = 6", "glia_replications = 3")
    return {
        "pytest.ini": ini,
        "tunable.py": TUNABLE,
        "test_tunable.py": TUNED_SPEC.replace("LIMIT", str(limit)),
        **more,
    }


BUDGET = "--glia-budget=40 sims"


@dataclass(frozen=True)
class Tuned:
    """A search for constants: in a folder of a monorepo, on a detached HEAD, beside a package called sim."""

    project: Project
    code: int
    out: str
    before: dict[str, str]
    seen: str


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """One search under all the circumstances that must not matter."""
    project = Project(tmp_path_factory.mktemp("tuned"))
    files = tunable(1.0, **{"sim/__init__.py": "", "sim/world.py": "OFFSET = 0.0\n"})
    files["test_tunable.py"] = "from sim.world import OFFSET\n" + files["test_tunable.py"].replace(
        "return cost()", "return OFFSET + cost()"
    )
    project.write({f"service/{path}": text for path, text in files.items()}).commit()
    project.git("switch", "-q", "--detach", "HEAD")
    before = project.fingerprint()
    seen = tmp_path_factory.mktemp("seen") / "environments"
    secrets = {"OPENAI_API_KEY": "hide-1", "GH_TOKEN": "hide-2", "AWS_SECRET_ACCESS": "hide-3"}
    passwords = {"DB_PASSWORD": "hide-4", "GIT_CREDENTIALS": "hide-5", "PLAIN": "show-6"}
    ran = Project(project.folder / "service").pytest(
        "--glia-optimize", BUDGET, SEEN=str(seen), **secrets, **passwords
    )
    assert project.branches("/best"), ran.out
    return Tuned(project, ran.code, ran.out, before, seen.read_text())


def test_without_ideas_constants_are_tuned_and_it_says_so(tuned: Tuned) -> None:
    """The winner differs in numbers only; terminal and note say that this was all that could be done."""
    assert tuned.code == 0, tuned.out
    best = tuned.project.show(tuned.project.best(), "service/tunable.py")
    assert best.splitlines() != TUNABLE.splitlines()
    assert [line.partition("=")[0] for line in best.splitlines()] == [
        line.partition("=")[0] for line in TUNABLE.strip().splitlines()
    ]
    assert "# how many at once" in best
    said = "all that the offline designer can do is to tune the numeric constants"
    note = tuned.project.show(tuned.project.best(), "service/tunable.md")
    assert said in " ".join(tuned.out.split())
    assert said in " ".join(note.split())


def test_secrets_do_not_reach_the_candidate(tuned: Tuned) -> None:
    """Keys and tokens of the user's environment are not in that of its process; the rest is."""
    assert "hide-" not in tuned.seen
    assert "show-6" in tuned.seen


def test_detached_head_is_no_obstacle(tuned: Tuned) -> None:
    """The base is the commit that is checked out, and it stays checked out as it was."""
    head = tuned.project.git("rev-parse", "HEAD")
    assert tuned.project.git("rev-parse", f"{tuned.project.best()}^") == head
    assert tuned.project.fingerprint() == tuned.before


def test_root_directory_below_the_repositorys_top(tuned: Tuned) -> None:
    """In a monorepo, the paths of branch and note are those of the repository."""
    best = tuned.project.best()
    changed = tuned.project.git("diff", "--name-only", f"HEAD..{best}").split()
    assert changed == ["service/tunable.md", "service/tunable.py"]
    assert f"git show {best}:service/tunable.md" in tuned.out


def test_own_package_called_sim(tuned: Tuned) -> None:
    """A user's package of that name is theirs; if ours is hidden by it, that is said in a line."""
    assert tuned.code == 0
    assert "Traceback" not in tuned.out


def test_goal_out_of_reach_names_the_best_so_far(make_project: MakeProject) -> None:
    """Exit code 1; the best candidate is on its branch, and the end says that it does not meet the specs."""
    project = make_project(tunable(-1.0))
    ran = project.pytest("--glia-optimize", BUDGET)
    assert ran.code == 1
    assert "tunable: does not meet its specs" in ran.text
    assert f"git merge {project.best()}" in ran.out
    assert "does **not** meet" in project.show(project.best(), "tunable.md")
    assert "1 failed" in ran.out


def test_nothing_better_leaves_no_best_branch(make_project: MakeProject) -> None:
    """A candidate that gives no hold ends with exit code 1 and a sentence."""
    files = {**tunable(1.0), "tunable.py": "def cost():\n    return 3\n"}
    project = make_project(files)
    ran = project.pytest("--glia-optimize", BUDGET)
    assert ran.code == 1
    assert "no better candidate than the present one was found" in ran.text
    assert project.branches("/best") == []


SECOND_WORKLOAD = """


def other(cost, seed):
    return 2 * cost() + (seed % 7) / 1000


def test_other_workload(glia):
    assert glia.measure(other) < 2
"""


def test_confirmation_is_affordable_with_several_workloads(make_project: MakeProject) -> None:
    """Where each spec needs runs of its own, the search leaves enough of the budget to confirm them all."""
    files = tunable(1.0)
    files["test_tunable.py"] += SECOND_WORKLOAD
    ran = make_project(files).pytest("--glia-optimize", BUDGET)
    assert ran.code == 0, ran.out
    assert "2 passed" in ran.out


DESIGNER = '''\
"""A designer of the project's own."""

import pluggy

from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class Mine:
    def design(self, lab):
        [candidate] = lab.candidates
        source = lab.start.sources[candidate.path].replace(b"SIZE = 10", b"SIZE = 35")
        trial = lab.full({candidate.path: source}, Hypothesis("I know", "It is 35."), lab.start)
        return Proposal(trial.evaluation, remark="I knew.")


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"mine": Mine()}
'''


def test_designer_of_a_third_party(make_project: MakeProject) -> None:
    """A hook gives a designer its name on the command line; its work is confirmed like any other."""
    project = make_project(tunable(0.1, **{"conftest.py": DESIGNER}))
    ran = project.pytest("--glia-optimize", "--glia-designer=mine")
    assert ran.code == 0, ran.out
    assert "SIZE = 35  # how many at once" in project.show(project.best(), "tunable.py")
    assert "Designer `mine`" in project.show(project.best(), "tunable.md")


PACKAGE = {
    "pytest.ini": INI.replace("glia_replications = 6", "glia_replications = 3"),
    "src/wares/__init__.py": "",
    "src/wares/base.py": "OPTIMUM = 35\n",
    "src/wares/policy.py": (
        "import math\n\nfrom .base import OPTIMUM\n\nSIZE = 10\n\n\n"
        "def cost():\n    return abs(math.log(SIZE / OPTIMUM))\n"
    ),
    "tests/test_wares.py": """\
import os

import pytest
import wares.base

pytestmark = pytest.mark.glia(candidate="src/wares/policy.py", entry="cost", exposes=["src/wares/base.py"])


def run(cost, seed):
    with open(os.environ["SEEN"], "a") as seen:
        print(wares.base.__file__, cost.__module__, cost.__globals__["OPTIMUM"], file=seen)
    return cost() + (seed % 10) / 1000


def test_cost(glia):
    assert glia.measure(run) < 1
""",
}


def measured(project: Project, seen: Path, pythonpath: Path) -> set[tuple[str, str]]:
    """Runs a search; gives the module name and the optimum of all runs, whose files are in its own tree."""
    ran = project.pytest("--glia-optimize", BUDGET, SEEN=str(seen), PYTHONPATH=str(pythonpath))
    assert ran.code == 0, ran.out
    lines = [line.split() for line in seen.read_text().splitlines()]
    assert all(file.startswith(f"{project.folder}/.glia/tree-") for file, _, _ in lines)
    assert len(lines) > 10
    return {(module, optimum) for _, module, optimum in lines}


def test_installed_package_is_measured_in_the_composed_tree(
    make_project: MakeProject, tmp_path: Path
) -> None:
    """With an editable install of the checkout, what counts is the commit, not the edited neighbour."""
    project = make_project(PACKAGE)
    project.write({"src/wares/base.py": "OPTIMUM = 999\n"})
    assert measured(project, tmp_path / "seen", project.folder / "src") == {("wares.policy", "35")}


def test_old_copy_of_the_package_is_not_measured(make_project: MakeProject, tmp_path: Path) -> None:
    """With another version installed elsewhere, the composed tree's copy is still the one that runs."""
    project = make_project(PACKAGE)
    old = Project(tmp_path / "old").write(
        {"wares/__init__.py": "", "wares/base.py": "OPTIMUM = 7\n", "wares/policy.py": ""}
    )
    assert measured(project, tmp_path / "seen", old.folder) == {("wares.policy", "35")}
