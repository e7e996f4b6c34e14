"""What a spec asks is what a search works for: negated asserts, plain asserts, shared candidates, base."""

from __future__ import annotations

import pytest

from tests.project import MakeProject

pytestmark = pytest.mark.slow

INI = "[pytest]\nglia_replications = 4\nglia_workers = 2\naddopts = -p no:cacheprovider\n"
CANDIDATE = "SIZE = 8.0\n\n\ndef cost():\n    return SIZE\n"
HEAD = """\
import pytest

pytestmark = pytest.mark.glia(candidate="c.py", entry="cost")


def run(cost, seed):
    return {"cost": cost() + seed % 7 / 1000, "room": 20 - cost() + seed % 5 / 1000}


"""


def files(spec: str, **more: str) -> dict[str, str]:
    return {"pytest.ini": INI, "c.py": CANDIDATE, "test_c.py": HEAD + spec, **more}


def test_negated_comparison_is_a_demand_for_the_opposite(make_project: MakeProject) -> None:
    """`assert not cost > 5` is a goal that is reached from above, beside a constraint of the same kind."""
    project = make_project(
        files(
            "def test_goal(glia):\n    assert not glia.measure(run, metric='cost') > 5\n\n\n"
            "def test_room(glia):\n    assert not glia.measure(run, metric='room') < 9\n"
        )
    )
    ran = project.pytest("--glia-optimize", "--glia-budget=120 sims")
    assert ran.code == 0, ran.out
    assert "(a) cost, asked <= 5" in ran.out
    assert "c: meets its specs" in ran.out
    assert ran.lines("shown     test_c.py::test_goal")
    # Confirmation and ablations speak of the same direction: the idea that did it is not refuted.
    note = project.show(project.best(), "c.md")
    assert "**shown" in note
    assert "refuted" not in note + ran.out.partition("Confirming on")[2]


def test_plain_assert_is_respected_all_along(make_project: MakeProject) -> None:
    """A candidate that breaks a law of the spec does not work, whether or not its comparisons are met."""
    law = "    assert float(open('c.py').read().split()[2]) > 0\n"
    project = make_project(
        files(
            "def test_goal(glia):\n    cost = glia.measure(run, metric='cost')\n    assert cost < 5\n"
            "    assert cost.point > 3\n" + law
        )
    )
    ran = project.pytest("--glia-optimize", "--glia-budget=120 sims")
    assert ran.code == 0, ran.out
    size = float(project.show(project.best(), "c.py").split()[2])
    assert 3 < size < 5


def test_specs_of_one_file_are_one_goal_whatever_else_their_markers_say(make_project: MakeProject) -> None:
    """A spec that exposes other files is a constraint of the same search: the winner meets both."""
    project = make_project(
        files(
            "def test_goal(glia):\n    assert glia.measure(run, metric='cost') < 5\n\n\n"
            "@pytest.mark.glia(candidate='c.py', entry='cost', exposes=['test_c.py'])\n"
            "def test_floor(glia):\n    assert glia.measure(run, metric='cost') > 4\n"
        )
    )
    ran = project.pytest("--glia-optimize", "--glia-budget=160 sims")
    assert ran.code == 0, ran.out
    assert ran.out.count("glia: c.py (cost)") == 1
    project.git("merge", "-q", project.best())
    assert project.pytest().code == 0


CURIOUS = """\
import pathlib

import pluggy

from pytest_glia.designers import Proposal


class Curious:
    def design(self, lab):
        pathlib.Path("seen.txt").write_text(" ".join(lab.candidates[0].exposes))
        return Proposal(lab.start)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"curious": Curious()}
"""


def test_a_designer_may_read_what_any_of_the_specs_exposes(make_project: MakeProject) -> None:
    """The files of all their markers, each once."""
    spec = (
        "@pytest.mark.glia(candidate='c.py', entry='cost', exposes=['a.py', 'b.py'])\n"
        "def test_goal(glia):\n    assert glia.measure(run, metric='cost') < 5\n\n\n"
        "@pytest.mark.glia(candidate='c.py', entry='cost', exposes=['b.py', 'd.py'])\n"
        "def test_floor(glia):\n    assert glia.measure(run, metric='cost') > 4\n"
    )
    project = make_project(files(spec, **{"conftest.py": CURIOUS, "a.py": "", "b.py": "", "d.py": ""}))
    ran = project.pytest("--glia-optimize", "--glia-designer=curious", "--glia-budget=60 sims")
    assert ran.code == 1, ran.out
    assert sorted((project.folder / "seen.txt").read_text().split()) == ["a.py", "b.py", "d.py"]


def test_first_look_is_that_of_a_plain_run(make_project: MakeProject) -> None:
    """On the default branch, base is the commit before: an erosion there is a failing spec, not nothing."""
    spec = (
        "def test_base(glia):\n    assert glia.compare(run, against='base', metric='cost').increase < 0.02\n"
    )
    project = make_project(files(spec))
    project.write({"c.py": CANDIDATE.replace("8.0", "9.0")}).commit()
    assert project.pytest().code == 1
    ran = project.pytest("--glia-optimize", "--glia-budget=60 sims")
    assert "12.5 %" in ran.out
    assert "nothing to do" not in ran.out


def test_present_candidate_is_not_passed_off_as_a_design(make_project: MakeProject) -> None:
    """Where nothing better is found, the reports and the exit code are those of the first look."""
    spec = "def test_goal(glia):\n    assert glia.measure(lambda cost, seed: 5 + seed % 2) < 4\n"
    project = make_project(files(spec))
    ran = project.pytest("--glia-optimize", "--glia-budget=40 sims")
    assert ran.code == 1
    assert "no better candidate than the present one" in ran.out
    assert project.branches("/best") == []


IDEA = """\
import pluggy


class Idea:
    name = "half"
    claim = "Half the size is enough."
    predicts = {"cost": -1}
    numbers = {}
    defaults = {}

    def called_for(self, evidence):
        return "it is large"

    def apply(self, source, numbers):
        %s


@pluggy.HookimplMarker("glia")
def glia_mechanisms(path, entry, source):
    return [Idea()]
"""
GOAL = "def test_goal(glia):\n    assert glia.measure(run, metric='cost') < 5\n"


def test_fault_in_an_idea_does_not_end_the_search(make_project: MakeProject) -> None:
    """An idea that raises, or writes what is no Python, is told and left out; the run ends as ever."""
    for body, told in (
        ("return source.nothing", "The mechanism 'half' failed (AttributeError"),
        ("return source + '(('", "c.py:6 is not valid Python"),
    ):
        project = make_project(files(GOAL, **{"conftest.py": IDEA % body}), name=f"p{len(body)}")
        ran = project.pytest("--glia-optimize")
        assert ran.code == 1, ran.out
        assert "INTERNALERROR" not in ran.out
        assert told in " ".join(ran.out.split())


def test_idea_that_is_not_complete_is_refused(make_project: MakeProject) -> None:
    """The sentence names the idea and what it lacks."""
    for old, new, told in (
        ("    predicts = {'cost': -1}\n", "", "the mechanism 'half' has no 'predicts'"),
        ("numbers = {}", "numbers = {'N': 3}", "numbers ['N'] and defaults []"),
    ):
        idea = (IDEA % "return source").replace(old.replace("'", '"'), new)
        project = make_project(files(GOAL, **{"conftest.py": idea}), name=f"p{len(new)}")
        ran = project.pytest("--glia-optimize")
        assert ran.code == 4
        assert told in ran.text


def test_what_git_or_an_editor_could_not_take_is_refused(make_project: MakeProject) -> None:
    """A branch called glia, a candidate that is no UTF-8, a conftest that was not committed."""
    project = make_project(files(GOAL, **{"conftest.py": IDEA % "return None"}))
    project.write({"conftest.py": IDEA % "return source"})
    ran = project.pytest("--glia-optimize")
    assert (ran.code, "conftest.py has changes that are not committed" in ran.text) == (4, True)
    project.git("checkout", "-q", "conftest.py")
    project.git("branch", "glia")
    ran = project.pytest("--glia-optimize")
    assert (ran.code, 'there is a branch "glia"' in ran.text) == (4, True)
    project.git("branch", "-D", "glia")
    (project.folder / "c.py").write_bytes(b"# coding: latin-1\nNAME = '\xe9'\n" + CANDIDATE.encode())
    project.commit()
    ran = project.pytest("--glia-optimize")
    assert (ran.code, "c.py is not UTF-8" in ran.text) == (4, True)


def test_budget_is_shared_by_the_searches_of_one_command(make_project: MakeProject) -> None:
    """Two candidates do not spend twice what was given."""
    other = HEAD.replace("c.py", "d.py") + GOAL
    project = make_project(files(GOAL, **{"d.py": CANDIDATE, "test_d.py": other}))
    ran = project.pytest("--glia-optimize", "--glia-budget=40 sims")
    spent = [int(line.split()[2]) for line in ran.out.splitlines() if line.strip().startswith(("- ", "1 "))]
    assert ran.code == 1
    assert "c: " in ran.out.partition("glia designs")[2]
    assert "d: the budget of 40 simulations is spent" in ran.out
    assert max(spent) <= 40
    assert spent == sorted(spent)


def test_conftest_at_the_root_needs_no_settings_file(make_project: MakeProject) -> None:
    """Without a pytest.ini the root's conftest is the commit's, not also the checkout's."""
    given = files(GOAL, **{"conftest.py": IDEA % "return source.replace('8.0', '4.0')"})
    del given["pytest.ini"]
    ran = make_project(given).pytest("--glia-optimize")
    assert ran.code == 0, ran.out
