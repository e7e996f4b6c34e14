"""A plain pytest run of specs: verdicts, what it says of them, and what every program reads."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import INI, PACKING, MakeProject, Project, Result, spec

# Measures the mean of seven noisy figures, and compares it with thresholds on all sides.
OUTCOMES = """
def noisy(answer, seed):
    return {"rt": answer() + (seed % 100) / 100, "exact": 3}


def test_is_shown(glia):
    assert glia.measure(noisy, metric="rt") < 20


def test_is_refuted(glia):
    assert glia.measure(noisy, metric="rt") < 2


def test_is_neither(glia):
    assert glia.measure(noisy, metric="rt") < 10.5


def test_negated(glia):
    assert not glia.measure(noisy, metric="rt") < 10.5


def test_mirrored(glia):
    assert 20 > glia.measure(noisy, metric="rt")


def test_reduction(glia):
    assert 0.7 < glia.compare(noisy, against=slow, metric="rt").reduction


def slow():
    return 20
"""
TEN = "def answer():\n    return 10\n"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result]:
    """One run of six specs, with everything that it can write."""
    project = Project(tmp_path_factory.mktemp("outcomes")).write(spec(TEN, OUTCOMES))
    return project, project.pytest("--glia-report=verdicts", "--junitxml=junit.xml", "-rf")


@pytest.fixture(scope="module")
def under_xdist(outcomes: tuple[Project, Result]) -> Result:
    """The same specs in two workers."""
    return outcomes[0].pytest("-n", "2", "-rf", "--glia-report=xdist")


def test_three_outcomes_pass_and_fail(outcomes: tuple[Project, Result]) -> None:
    """Shown passes; refuted and not shown fail, and so does the negation of what is not shown."""
    _, ran = outcomes
    failed = {line.split()[1].rpartition("::")[2] for line in ran.lines("FAILED ")}
    assert failed == {"test_is_refuted", "test_is_neither", "test_negated", "test_reduction"}
    assert ran.code == 1


def test_failure_explains_itself(outcomes: tuple[Project, Result]) -> None:
    """Estimate, interval, replications, verdict, and what would settle it, on lines of 80 columns."""
    _, ran = outcomes
    assert "assert rt < 2" in ran.out
    assert "refuted: the interval lies on the other side of the threshold" in ran.text
    assert "NotShown: rt < 10.5" in ran.out
    assert "replications would decide, if mean and spread stay" in ran.text
    assert "rt against slow > 70.0 %" in ran.out
    explanations = [line for line in ran.out.splitlines() if line.startswith("E ")]
    assert explanations
    assert max(map(len, explanations)) <= 80


def test_message_of_not_shown_has_no_trace_of_the_plugin(outcomes: tuple[Project, Result]) -> None:
    """A spec that is not shown fails at its assert, not inside the plugin's source."""
    _, ran = outcomes
    assert "pytest_glia/estimate.py" not in ran.out


def test_terminal_lists_every_verdict(outcomes: tuple[Project, Result]) -> None:
    """The section holds each comparison with its outcome, passing ones too, within 80 columns."""
    _, ran = outcomes
    section = ran.out.partition("glia verdicts")[2].partition(" generated xml file")[0]
    assert section.count("not shown ") == 2
    assert section.count("refuted ") == 2
    assert section.count("shown   ") == 2
    assert "asked < 20" in section
    assert max(map(len, section.splitlines())) <= 80


def test_json_holds_every_verdict(outcomes: tuple[Project, Result]) -> None:
    """The file has a schema number, and of each comparison all that was measured, in strict JSON."""
    project, _ = outcomes
    text = (project.folder / "verdicts/glia.json").read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["schema"] == 1
    tests = {test["nodeid"].rpartition("::")[2]: test for test in data["tests"]}
    assert len(tests) == 6
    assert tests["test_is_refuted"]["outcome"] == "failed"
    assert tests["test_is_shown"]["seconds"] >= 0
    [check] = tests["test_is_shown"]["checks"]
    assert check["low"] <= check["point"] <= check["high"]
    assert (check["op"], check["threshold"], check["n"], check["outcome"]) == ("<", 20, 6, "shown")
    assert check["evidence"] == {"rt": pytest.approx(check["point"]), "exact": 3}
    assert len(check["excess"]) == 6


def test_junit_has_failures_and_estimates(outcomes: tuple[Project, Result]) -> None:
    """CI sees the failed specs as ever, and each estimate as a property."""
    project, _ = outcomes
    suite = ET.parse(project.folder / "junit.xml").getroot()
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert cases["test_is_refuted"].find("failure") is not None
    assert cases["test_is_shown"].find("failure") is None
    [entry] = [each for each in cases["test_is_shown"].iter("property") if each.get("name") == "glia"]
    assert str(entry.get("value")).startswith("rt: 1")
    assert str(entry.get("value")).endswith("< 20: shown")


def test_same_verdict_bit_for_bit_in_two_runs(outcomes: tuple[Project, Result], under_xdist: Result) -> None:
    """Another run, with other processes in another order, measures the same to the last digit."""
    project, _ = outcomes
    first, second = (
        json.loads((project.folder / name / "glia.json").read_text()) for name in ("verdicts", "xdist")
    )
    assert len(first["tests"]) == 6
    assert {each["nodeid"]: each["checks"] for each in first["tests"]} == {
        each["nodeid"]: each["checks"] for each in second["tests"]
    }


def test_xdist_shows_the_same_section(under_xdist: Result) -> None:
    """The verdicts of all workers are in one list, and failures explain themselves."""
    assert under_xdist.code == 1
    assert under_xdist.out.count("glia verdicts") == 1
    assert len(under_xdist.lines("; asked ")) == 6
    assert "refuted: the interval lies on the other side of the threshold" in under_xdist.text


def test_first_failure_stops(outcomes: tuple[Project, Result]) -> None:
    """-x is -x."""
    project, _ = outcomes
    ran = project.pytest("-x")
    assert "1 failed, 1 passed" in ran.out


def test_only_selected_specs_run(outcomes: tuple[Project, Result]) -> None:
    """-k is -k: nothing else is measured."""
    project, _ = outcomes
    ran = project.pytest("-k", "mirrored")
    assert ran.code == 0
    assert "1 passed, 5 deselected" in ran.out
    assert "test_is_refuted" not in ran.out


def test_collecting_measures_nothing(make_project: MakeProject) -> None:
    """--collect-only lists the specs, also under --glia-optimize, and runs no candidate."""
    project = make_project(PACKING)
    for more in ([], ["--glia-optimize"]):
        ran = project.pytest("--collect-only", "-q", *more, RUNS=str(project.folder / "runs"))
        assert ran.code == 0
        assert "specs/test_packer.py::test_little_waste" in ran.out
    assert not (project.folder / "runs").exists()
    assert not project.branches("glia")


def test_run_without_the_plugin(make_project: MakeProject) -> None:
    """-p no:glia is honoured: pytest then knows no fixture of that name."""
    project = make_project({**PACKING, "pytest.ini": ""}, commit=False)
    ran = project.pytest("-p", "no:glia")
    assert "fixture 'glia' not found" in ran.out


def test_plain_run_leaves_nothing_behind(make_project: MakeProject) -> None:
    """No file, no branch, no ledger."""
    project = make_project(PACKING)
    before = project.fingerprint()
    project.pytest()
    assert project.fingerprint() == before
    assert not (project.folder / ".glia").exists()


MEASURE = """
def run(answer, seed):
    return answer()

def test_it(glia):
    assert glia.measure(run) < 20
"""


@dataclass(frozen=True)
class Mistake:
    """A candidate, what its spec does with it, and what the failure must say."""

    says: str
    candidate: str = TEN
    does: str = "glia.measure(run) < 20"
    marker: str = 'candidate="{}.py", entry="answer"'

    @classmethod
    def result(cls, value: str, says: str, does: str = "glia.measure(run) < 20") -> Mistake:
        """A candidate that answers with some expression."""
        return cls(says, f"def answer():\n    return {value}\n", does)

    @classmethod
    def against(cls, value: str, says: str) -> Mistake:
        """A comparison with some baseline."""
        return cls(says, does=f"glia.compare(run, against={value}).ratio < 1")


RATIO = "glia.compare(run, against=two).ratio < 1"
MISTAKES = {
    "no_file": Mistake("the candidate no_file.py does not exist", candidate=""),
    "no_entry": Mistake(
        "no_entry.py has no 'answer', the entry that the glia marker names; it defines anwser",
        "def anwser(): ...\n",
    ),
    "not_callable": Mistake("the entry is 42: it must be a class or a function", "answer = 42\n"),
    "marker": Mistake(
        "the glia marker has 'enrty': it takes the keywords", marker='candidate="a.py", enrty="answer"'
    ),
    "imports": Mistake(
        "imports.py:2 does not import: ModuleNotFoundError: No module named 'no_such_x'",
        "x = 1\nimport no_such_x\n" + TEN,
    ),
    "syntax": Mistake("syntax.py:1 is not valid Python: ", "def answer(:\n"),
    "rule": Mistake(
        "rule.py:1 imports gc, which a candidate may not: list gc in glia_allow_imports",
        "import gc\n" + TEN,
    ),
    "hangs": Mistake(
        "the replication did not finish within 2 s and was killed: it may never return, or need a larger "
        "glia_timeout",
        "def answer():\n    while True: pass\n",
    ),
    "dies": Mistake("killed by SIGKILL", "import os\ndef answer():\n    os.kill(os.getpid(), 9)\n"),
    "nan": Mistake.result('float("nan")', "value is nan with seed"),
    "inf": Mistake.result('{"rt": float("inf")}', "rt is inf with seed"),
    "text": Mistake.result('"fast"', "the replication returned str: return a number, a mapping"),
    "none": Mistake.result("None", "the replication returned NoneType"),
    "empty": Mistake.result("{}", "the replication returned dict"),
    "inner": Mistake.result('{"rt": "fast"}', "the metric 'rt' is 'fast': a metric is a number"),
    "unnamed": Mistake.result('{"rt": 1, "kv": 2}', "no metric was named: the replications report kv, rt"),
    "unknown": Mistake.result(
        '{"rt": 1, "kv": 2}',
        "there is no metric 'tr': the replications report kv, rt",
        'glia.measure(run, metric="tr") < 20',
    ),
    "zero": Mistake.result(
        "0",
        "value is 0 for the candidate and 2 for two with seed",
        "glia.compare(run, against=two).ratio < 1",
    ),
    "negative": Mistake.result("-1", "a ratio needs positive numbers; use glia.measure", RATIO),
    "other_branch": Mistake.against('"main"', "against='main': give a class, a function, or \"base\""),
    "number": Mistake.against("3", "against=3: give a class, a function"),
    "roles": Mistake.against("{'other': print}", "but the candidates' roles are"),
    "no_git": Mistake.against('"base"', "is not in a git repository"),
    "equal": Mistake("an estimate is never exactly equal", does="glia.measure(run) == 10"),
    "truth": Mistake("an estimate is neither true nor false", does="glia.measure(run)"),
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """One run of a spec for each mistake: the failure that each has given."""
    tests = "\n".join(
        f"@pytest.mark.glia({each.marker.format(name)})\ndef test_{name}(glia):\n    assert {each.does}\n\n"
        for name, each in MISTAKES.items()
    )
    head = "import pytest\n\ndef two():\n    return 2\n\ndef run(answer, seed):\n    return answer()\n\n"
    candidates = {f"{name}.py": each.candidate for name, each in MISTAKES.items() if each.candidate}
    project = Project(tmp_path_factory.mktemp("mistakes"))
    project.write({"pytest.ini": INI, "test_mistakes.py": head + tests, **candidates})
    ran = project.pytest(
        "--junitxml=junit.xml", "-o", "glia_timeout=2", "-o", "glia_allow_imports=os no_such_x"
    )
    assert ran.code == 1
    assert "INTERNALERROR" not in ran.out
    failures = {}
    for case in ET.parse(project.folder / "junit.xml").getroot().iter("testcase"):
        texts = [each.text or "" for each in case if each.tag in ("failure", "error")]
        failures[str(case.get("name")).removeprefix("test_")] = "\n".join(texts)
    return project, failures


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_told_in_a_sentence(name: str, mistakes: tuple[Project, dict[str, str]]) -> None:
    """The failure says what was given and what to do, without a traceback through the plugin."""
    _, failures = mistakes
    assert MISTAKES[name].says in " ".join(failures[name].split())
    assert "pytest_glia/" not in failures[name]


def test_mistakes_leave_no_process(mistakes: tuple[Project, dict[str, str]]) -> None:
    """Neither the candidate that hangs nor any other is still there."""
    project, _ = mistakes
    assert project.processes() == []


def test_candidate_that_raises(make_project: MakeProject) -> None:
    """The failure has the seed, the error and the candidate's own line."""
    project = make_project(spec("def answer():\n    return [][3]  # here\n", MEASURE), commit=False)
    ran = project.pytest()
    assert "the candidate, seed" in ran.text
    assert "the replication raised IndexError: list index out of range" in ran.text
    assert "return [][3] # here" in ran.text


def test_fixture_without_marker_is_told(make_project: MakeProject) -> None:
    """The fixture alone does not know what to measure; the message shows a marker."""
    ran = make_project(spec(TEN, "pytestmark = []\n" + MEASURE), commit=False).pytest()
    assert ran.code == 1
    assert 'pytest.mark.glia(candidate="path/to/file.py"' in ran.text


def test_bad_setting_is_told(make_project: MakeProject) -> None:
    """The message of the setting reaches the user as a sentence, not as a traceback."""
    ran = make_project(spec(TEN, MEASURE), commit=False).pytest("-o", "glia_replications=1")
    assert ran.code in (1, 4)
    assert "glia_replications is 1: an interval needs at least 2 replications" in ran.text
    assert "pytest_glia/" not in ran.out


def test_candidates_with_roles_arrive_as_keywords(make_project: MakeProject) -> None:
    """A spec of two candidates gets both, and the seed, by name; a baseline replaces both."""
    project = make_project(
        {
            "pytest.ini": "",
            "router.py": "class Router:\n    cost = 2\n",
            "scheduler.py": "def schedule():\n    return 3\n",
            "test_spec.py": """\
import pytest

pytestmark = [
    pytest.mark.glia(candidate="scheduler.py", entry="schedule", role="scheduler"),
    pytest.mark.glia(candidate="router.py", entry="Router", role="router"),
]


class Dear:
    cost = 6


def four():
    return 4


def run(router, scheduler, seed):
    assert isinstance(seed, int)
    return router.cost * scheduler()


def test_both(glia):
    assert glia.measure(run) <= 6
    assert glia.compare(run, against={"router": Dear, "scheduler": four}).ratio <= 0.25
""",
        },
        commit=False,
    )
    ran = project.pytest()
    assert ran.code == 0, ran.out


def test_policy_gets_a_stream_that_the_seed_decides(make_project: MakeProject) -> None:
    """The same seed gives a policy the same random numbers, and a fresh instance, in both its runs."""
    candidate = "class answer:\n    def __init__(self, rng):\n        self.x = rng.random()\n"
    body = """
def run(policy, seed):
    policy.runs = getattr(policy, "runs", 0) + 1
    assert policy.runs == 1
    return policy.x

class Same:
    def __init__(self, rng):
        self.x = rng.random()

def test_it(glia):
    same = glia.compare(run, against=Same)
    assert same.ratio <= 1
    assert same.ratio >= 1
    assert glia.measure(run).interval.sd > 0
"""
    ran = make_project(spec(candidate, body), commit=False).pytest()
    assert ran.code == 0, ran.out


COUNTED = """
def run(answer, seed):
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(f"{seed} {answer()}\\n")
    return answer()

def test_first(glia):
    assert glia.measure(run) < 20

def test_second(glia):
    assert glia.measure(run) < 30
"""


def runs(project: Project) -> list[str]:
    """The lines that the replications have written."""
    file = project.folder / "runs"
    return file.read_text().splitlines() if file.exists() else []


def test_tests_of_a_file_share_replications(make_project: MakeProject) -> None:
    """The same function, candidate and seeds are run once in a session."""
    project = make_project(spec(TEN, COUNTED), commit=False)
    assert project.pytest(RUNS=str(project.folder / "runs")).code == 0
    assert len(runs(project)) == len(set(runs(project))) == 6


def test_monkeypatched_tests_share_nothing(make_project: MakeProject) -> None:
    """What a test has patched may change a replication, so its runs are its own."""
    body = COUNTED.replace("test_second(glia)", "test_second(glia, monkeypatch)")
    project = make_project(spec(TEN, body), commit=False)
    assert project.pytest(RUNS=str(project.folder / "runs")).code == 0
    assert len(runs(project)) == 12


def test_what_a_closure_has_captured_is_not_shared(make_project: MakeProject) -> None:
    """Functions made by one fixture with different values are different replications."""
    body = """
@pytest.fixture(params=[1, 100])
def load(request):
    return request.param

@pytest.fixture
def serve(load):
    return lambda answer, seed: answer() * load

def test_load(glia, serve, load):
    assert glia.measure(serve) <= 10 * load
    assert glia.measure(serve) >= 10 * load
    for factor in (2, 3):
        scaled = lambda answer, seed: answer() * factor
        assert glia.measure(scaled) <= 10 * factor
        assert glia.measure(scaled) >= 10 * factor
"""
    ran = make_project(spec(TEN, body), commit=False).pytest()
    assert ran.code == 0, ran.out


def test_what_a_fixture_has_set_is_not_shared(make_project: MakeProject) -> None:
    """A module-level value that a fixture changes for one test is not in another test's replications."""
    body = """
LOAD = {"x": 1}

@pytest.fixture
def heavy():
    LOAD["x"] = 100
    yield
    LOAD["x"] = 1

def run(answer, seed):
    return answer() * LOAD["x"]

def test_light(glia):
    assert glia.measure(run) <= 10

@pytest.mark.usefixtures("heavy")
def test_heavy(glia):
    assert glia.measure(run) >= 1000
"""
    ran = make_project(spec(TEN, body), commit=False).pytest()
    assert ran.code == 0, ran.out


BASE = MEASURE.replace("measure(run) < 20", 'compare(run, against="base").increase < 0.02')


def test_base_is_the_candidate_before_the_change(make_project: MakeProject) -> None:
    """On main it is the parent's; for uncommitted work it is the last commit's. A slower one is refuted."""
    project = make_project(spec(TEN, BASE))
    project.write({"candidate.py": "def answer():\n    return 9\n"}).commit()
    assert project.pytest().code == 0
    project.write({"candidate.py": "def answer():\n    return 11\n"})
    ran = project.pytest()
    assert ran.code == 1
    assert "value against base" in ran.out
    assert "22.2 %" in ran.out


@pytest.mark.slow
def test_base_of_a_branch_is_where_it_left_main(make_project: MakeProject) -> None:
    """Slow erosion is caught at the commit with which all together cost too much: the base stays the same."""
    project = make_project(spec(TEN, BASE))
    project.git("switch", "-q", "-c", "feature")
    codes = []
    for value in (10.06, 10.12, 10.18, 10.24):
        project.write({"candidate.py": f"def answer():\n    return {value}\n"}).commit()
        ran = project.pytest()
        codes.append(ran.code)
    assert codes == [0, 0, 0, 1]
    assert "assert increase of value against base < 2.0 %" in ran.out
    assert "measured: 2.4 % [2.4 %, 2.4 %] (n=6, 95 %)" in ran.out


def test_base_without_a_past_is_skipped(make_project: MakeProject) -> None:
    """With one commit, or a candidate that the base lacks, there is nothing to compare with."""
    project = make_project(spec(TEN, BASE))
    first = project.pytest("-rs")
    assert (first.code, "one commit only" in first.text) == (0, True)
    project.git("switch", "-q", "--orphan", "other")
    project.write({"readme": "x"}).commit()
    project.write(spec(TEN, BASE)).commit()
    project.git("branch", "-D", "main")
    second = project.pytest("-rs")
    assert (second.code, "candidate.py does not exist at the base commit" in second.text) == (0, True)


def test_shallow_clone_fails_with_the_setting_to_change(make_project: MakeProject, tmp_path: Path) -> None:
    """A guard that silently passed in CI would guard nothing."""
    project = make_project(spec(TEN, BASE))
    project.commit()
    project.git("clone", "-q", "--depth=1", f"file://{project.folder}", str(tmp_path / "clone"))
    ran = Project(tmp_path / "clone").pytest()
    assert ran.code == 1
    assert "fetch-depth: 0" in ran.text
    assert "pytest_glia/" not in ran.out


def test_own_package_called_sim(make_project: MakeProject) -> None:
    """A user's package of that name is theirs; the domain of ours that it hides is no obstacle."""
    files = spec(TEN, "from sim.world import LOAD\n" + MEASURE.replace("answer()", "answer() * LOAD"))
    project = make_project({**files, "sim/__init__.py": "", "sim/world.py": "LOAD = 1\n"}, commit=False)
    ran = project.pytest()
    assert ran.code == 0, ran.out


def test_unknown_testbed_is_told(make_project: MakeProject) -> None:
    """The fixture testbed says what it was asked for."""
    body = "def test_it(testbed):\n    pass\n"
    ran = make_project(spec(TEN, body), commit=False).pytest("--glia-testbed=moon")
    assert ran.code == 1
    assert "no domain provides the testbed 'moon'" in ran.text


def test_testbed_of_a_conftest(make_project: MakeProject) -> None:
    """A project's own conftest is a domain too; a sentence in place of a testbed skips with it."""
    conftest = """\
import pluggy

@pluggy.HookimplMarker("glia")
def glia_testbed(name):
    return {"mine": list, "broken": "the rack is being moved"}.get(name)
"""
    body = "def test_it(testbed):\n    assert testbed is list\n"
    project = make_project({**spec(TEN, body), "conftest.py": conftest}, commit=False)
    assert project.pytest("--glia-testbed=mine").code == 0
    skipped = project.pytest("--glia-testbed=broken", "-rs")
    assert (skipped.code, "the rack is being moved" in skipped.out) == (0, True)


SEEDED = """
def test_seeds(glia):
    assert glia.measure(lambda answer, seed: answer() + seed / 2**32) < 5
"""


@pytest.mark.slow
def test_guard_seeds_of_a_name(make_project: MakeProject) -> None:
    """The same text has the same seeds, `fixed` those of any plain run; a run with others tells the text."""
    project = make_project(spec(TEN, SEEDED))

    def measured(*options: str) -> tuple[str, str]:
        ran = project.pytest("--glia-report", str(project.folder / "report"), *options)
        assert ran.code == 1
        return ran.lines("E         measured: ")[0], ran.out

    plain, out = measured()
    assert measured("-o", "glia_guard_seeds=fixed")[0] == plain
    assert "guard seeds" not in out
    assert "On the guard seeds" not in (project.folder / "report/report.md").read_text("utf-8")
    night, out = measured("-o", "glia_guard_seeds=2026-11-28")
    assert "\nguard seeds: '2026-11-28' (glia_guard_seeds)\n" in out
    page = (project.folder / "report/report.md").read_text("utf-8")
    assert "On the guard seeds of `2026-11-28`" in page
    data = json.loads((project.folder / "report/glia.json").read_text("utf-8"))
    assert data["guard_seeds"] == "2026-11-28"
    assert measured("-o", "glia_guard_seeds=2026-11-28")[0] == night
    assert len({plain, night, measured("-o", "glia_guard_seeds=2026-11-29")[0]}) == 3


def test_guard_seeds_without_a_name_are_misuse(make_project: MakeProject) -> None:
    """An empty text, as of a variable that is not set, ends the run before the first spec."""
    ran = make_project(spec(TEN, SEEDED)).pytest("-o", "glia_guard_seeds=")
    assert ran.code == 4
    assert "glia_guard_seeds is '': give fixed, or a text on one line" in ran.text
