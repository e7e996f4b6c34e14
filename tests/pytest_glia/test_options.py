"""pytest's own options keep their meaning for specs, in plain runs and in searches."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import INI, PACKER, PACKER_SPEC, PACKING, MakeProject, Project, Result

FAILS, HOLDS = "test_little_waste", "test_fewer_than_one_bin_each"
CACHED = {**PACKING, "pytest.ini": INI.replace("addopts = -p no:cacheprovider\n", "")}
# Two goals, for neither of which there is an idea.
HOPELESS = {
    **CACHED,
    "conftest.py": "",
    "candidates/other.py": PACKER.replace("SPLIT = 0.9", "").replace(" and item < SPLIT", ""),
    "specs/test_other.py": PACKER_SPEC.replace("packer.py", "other.py"),
    "candidates/packer.py": PACKER.replace("SPLIT = 0.9", "").replace(" and item < SPLIT", ""),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has been run once: one spec fails."""
    project = Project(tmp_path_factory.mktemp("plain")).write(CACHED)
    project.commit()
    assert project.pytest().code == 1
    return project


def cases(file: Path) -> dict[str | None, ET.Element]:
    """The test cases of a JUnit file by name."""
    return {case.get("name"): case for case in ET.parse(file).getroot().iter("testcase")}


def test_last_failed_finds_what_fails(plain: Project) -> None:
    """--lf after a plain run selects the spec that failed, and no other."""
    ran = plain.pytest("--lf", "-rA")
    assert ran.code == 1
    assert (len(ran.lines(f"FAILED specs/test_packer.py::{FAILS}")), ran.lines("PASSED ")) == (1, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--setup-plan",), ("--setup-only",), ("--glia-optimize", "--setup-plan")], ids=" ".join
)
def test_setting_up_measures_nothing(options: tuple[str, ...], plain: Project) -> None:
    """--setup-plan and --setup-only show the fixtures and run no candidate, also under --glia-optimize."""
    ran = plain.pytest(*options, RUNS=str(plain.folder / "never"))
    assert ran.code == 0
    assert "SETUP    F glia" in ran.out
    assert not (plain.folder / "never").exists()
    assert not (plain.folder / ".glia").exists()


def test_failures_in_short_form(plain: Project) -> None:
    """-rA, --tb=short, --color=no: the explanation is whole, of 80 columns, without colour codes."""
    ran = plain.pytest("-rA", "--tb=short", "--color=no")
    assert ran.code == 1
    assert ran.lines(f"PASSED specs/test_packer.py::{HOLDS}")
    assert "E     refuted: the interval lies on the other side of the threshold" in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-qq", "--no-header"), ("--no-summary",), ("-p", "no:terminal")])
def test_quiet_runs_have_the_same_verdict(options: tuple[str, ...], plain: Project) -> None:
    """However little is shown, the exit code is that of a failing spec, and nothing breaks."""
    ran = plain.pytest(*options)
    assert ran.code == 1
    assert "INTERNALERROR" not in ran.out


def test_durations_are_those_of_the_specs(plain: Project) -> None:
    """--durations lists the specs' calls."""
    assert plain.pytest("--durations=0", "-vv").lines(f"call     specs/test_packer.py::{FAILS}")


def test_debugger_does_not_hang_without_a_terminal(plain: Project) -> None:
    """--pdb with standard input closed, as in CI, quits as pytest does, at the spec's own line."""
    ran = plain.pytest("--pdb")
    assert ran.code == 2
    assert '-> assert glia.measure(waste, metric="share") < 1.1' in ran.out


def test_warnings_as_errors(plain: Project) -> None:
    """-W error finds no warning of the plugin."""
    ran = plain.pytest("-W", "error", "-k", HOLDS)
    assert (ran.code, "warning" in ran.out) == (0, False)


def test_setting_that_does_not_exist_is_pytests_warning(plain: Project) -> None:
    """A misspelt setting is warned of, and with --strict-config an error, as any other."""
    assert "Unknown config option: glia_replication" in plain.pytest("-o", "glia_replication=9").out
    assert plain.pytest("-o", "glia_replication=9", "--strict-config").code == 4


def test_without_the_plugin_only_its_own_is_missing(make_project: MakeProject) -> None:
    """-p no:glia: specs are errors that name the fixture, options are unknown, other tests run."""
    more = {"specs/test_more.py": "def test_more():\n    pass\n", "pytest.ini": "[pytest]\n"}
    project = make_project({**PACKING, **more}, commit=False)
    ran = project.pytest("-p", "no:glia", "-rA")
    assert ran.code == 1
    assert (ran.out.count("fixture 'glia' not found"), len(ran.lines("PASSED "))) == (2, 1)
    asked = project.pytest("-p", "no:glia", "--glia-optimize")
    assert (asked.code, "unrecognized arguments: --glia-optimize" in asked.out) == (4, True)


@dataclass(frozen=True)
class Searched:
    """A search that meets its specs, with what it wrote."""

    project: Project
    ran: Result
    junit: dict[str | None, ET.Element]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """One search under as many options as go together."""
    project = Project(tmp_path_factory.mktemp("searched")).write(CACHED)
    project.commit()
    ran = project.pytest(
        *("--glia-optimize", "--junitxml=junit.xml", "--durations=0", "-vv", "-W", "error"),
        *("--color=no", "--no-header", "-rA", "--maxfail=1", "--stepwise", "--tb=short"),
    )
    assert ran.code == 0, ran.out
    return Searched(project, ran, cases(project.folder / "junit.xml"))


@pytest.mark.slow
def test_search_keeps_to_its_columns_and_colours(searched: Searched) -> None:
    """80 columns and no colour code, from the first line to the last (a path or command may be longer)."""
    assert "\x1b" not in searched.ran.out
    longer = ("generated xml file", "git show ", "git merge ")
    lines = [line for line in searched.ran.out.splitlines() if not any(each in line for each in longer)]
    assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.slow
def test_search_reports_the_winners_specs(searched: Searched) -> None:
    """-rA, --durations and JUnit have the confirmed specs: passed, each with its estimates."""
    assert len(searched.ran.lines("PASSED specs/test_packer.py::")) == 2
    assert searched.ran.lines(f"call     specs/test_packer.py::{FAILS}")
    assert searched.junit.keys() == {FAILS, HOLDS}
    for case in searched.junit.values():
        assert case.find("failure") is None
        [entry] = [each for each in case.iter("property") if each.get("name") == "glia"]
        assert str(entry.get("value")).endswith(": shown")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--lf", "--stepwise"])
def test_after_a_search_the_checkout_still_fails(option: str, searched: Searched) -> None:
    """What passes is the design: --lf and --stepwise find what fails in the checkout."""
    ran = searched.project.pytest(option, "-rA")
    assert ran.lines(f"FAILED specs/test_packer.py::{FAILS}")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search for two goals out of reach, under -x."""
    project = Project(tmp_path_factory.mktemp("stopped")).write(HOPELESS)
    project.commit()
    ran = project.pytest("--glia-optimize", "-x", "--junitxml=junit.xml")
    return Searched(project, ran, cases(project.folder / "junit.xml"))


@pytest.mark.slow
def test_first_failure_stops_a_search(stopped: Searched) -> None:
    """-x: after the first goal that is not met no other is designed for, and no other spec is reported."""
    assert stopped.ran.code == 1
    assert "1 failed in" in stopped.ran.text
    assert "stopping after 1 failures" in stopped.ran.out
    assert stopped.ran.lines("=== glia: candidates/other.py")
    assert not stopped.ran.lines("=== glia: candidates/packer.py")
    assert stopped.project.branches("glia/packer") == []


@pytest.mark.slow
def test_junit_of_a_search_has_its_failures(stopped: Searched) -> None:
    """CI sees a goal that is not met as a failed test, with its explanation."""
    failure = stopped.junit[FAILS].find("failure")
    assert failure is not None
    assert "assert share < 1.1" in str(failure.get("message"))
    assert "refuted: the interval lies on the other side" in str(failure.text)


@pytest.mark.slow
def test_search_without_a_terminal_reporter(make_project: MakeProject) -> None:
    """-p no:terminal: it works in silence, and delivers."""
    project = make_project(PACKING)
    ran = project.pytest("-p", "no:terminal", "--glia-optimize")
    assert (ran.code, ran.out.strip()) == (0, "")
    assert project.best()


def test_workers_of_xdist_are_refused_in_a_search(plain: Project) -> None:
    """-n 2 --glia-optimize ends with a sentence, before anything is run or written; so does what -n is made
    of."""
    for workers in (("-n", "2"), ("--tx", "2*popen", "--dist", "load")):
        ran = plain.pytest(*workers, "--glia-optimize")
        assert ran.code == 4
        said = "--glia-optimize does not go with -n or --tx: it runs replications in parallel itself"
        assert said in ran.text
        assert not (plain.folder / ".glia").exists()


def test_a_wrong_setting_is_told_by_workers_of_xdist(plain: Project) -> None:
    """Each spec fails with the sentence that a run without them ends with."""
    ran = plain.pytest("-n", "2", "-o", "glia_replications=1")
    assert ran.code == 1, ran.out
    assert "glia_replications is 1: an interval needs at least 2" in ran.text
