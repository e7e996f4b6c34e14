"""Specs of wall-clock time in whole projects: verdicts, errors, xdist and a search."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.project import MakeProject, Project, Result, spec

pytestmark = pytest.mark.slow

INI = """\
[pytest]
glia_replications = 7
glia_workers = 2
addopts = -p no:cacheprovider
"""

ADD = """\
def answer(xs):
    return sum(xs)
"""

VERDICTS = """
def loop(xs):
    total = 0
    for x in xs:
        total += x
    return total


def adding(add, seed):
    xs = [seed % 1000] * 10_000_000
    return lambda: add(xs)


def test_faster(glia):
    found = glia.compare(adding, against=loop, timed=True).ratio
    assert found < 0.6
    assert not found < 0.01


def test_seconds(glia):
    assert glia.measure(adding, timed=True, reference={None: loop}) < 5
"""

# What can be wrong; each test's name is looked up below.
MISTAKES = """
def slowly(answer, seed):
    return lambda: (time.sleep(0.2), answer(seed))[1]


def same(seed):
    return seed


def test_wrong_output(glia):
    assert glia.compare(slowly, against=lambda seed: [seed], timed=True).ratio < 1


def test_no_function(glia):
    assert glia.measure(lambda answer, seed: answer(seed), timed=True, reference=same) < 1


def test_no_reference(glia):
    assert glia.measure(slowly, timed=True) < 1


def test_bad_reference(glia):
    assert glia.measure(slowly, timed=True, reference="main") < 1


def test_reference_without_time(glia):
    assert glia.measure(slowly, reference=same) < 1


def test_metric(glia):
    assert glia.compare(slowly, against=same, metric="seconds", timed=True).ratio < 1


def test_raises(glia):
    assert glia.measure(lambda answer, seed: lambda: answer(None), timed=True, reference=same) < 1


def test_too_short(glia):
    assert glia.measure(lambda answer, seed: lambda: answer(seed), timed=True, reference=same) < 1
"""
ANSWER = "def answer(seed):\n    return seed + 0\n"


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Result:
    project = Project(tmp_path_factory.mktemp("verdicts")).write(spec(ADD, VERDICTS, INI))
    return project.pytest("-v")


def test_a_faster_algorithm_is_shown_faster(verdicts: Result) -> None:
    """The sum that is built in beats a loop by what it does, and not by a hundred times."""
    assert verdicts.code == 0, verdicts.out
    assert len(verdicts.lines("PASSED")) == 2


def test_the_verdict_says_how_noisy_it_was(verdicts: Result) -> None:
    """The quantity is seconds, with the difference between two runs of the same code."""
    [told, *_] = verdicts.lines("ratio of seconds against loop")
    assert re.search(r"ratio of seconds against loop \(noise \S+ %\)$", told)


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Result:
    project = Project(tmp_path_factory.mktemp("mistakes")).write(spec(ANSWER, MISTAKES, INI))
    return project.pytest("-n", "2")


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("test_wrong_output", r"the candidate, seed \d+: the output is not that of <lambda>: \d+ where \["),
        ("test_no_function", r"seed \d+: with timed=True the function returned \d+: return a function"),
        ("test_no_reference", r"measure\(..., timed=True\) has no reference=...: give a class, a function"),
        ("test_bad_reference", r"reference='main': give a class, a function, or \"base\""),
        ("test_reference_without_time", r"reference=... is what a timed output is compared with: add timed"),
        ("test_metric", r"timed=True measures seconds: leave metric='seconds' out"),
        ("test_raises", r"the replication raised TypeError: .*candidate.py:2: in answer return seed \+ 0"),
        ("test_too_short", r"the timed call took \S+ ms, and a call that does nothing takes \S+ ms: do more"),
    ],
)
def test_a_mistake_is_told(mistakes: Result, test: str, told: str) -> None:
    """Each fails its spec with one sentence that says what was given and what to do."""
    section = re.split(r"_{5,} (test_\w+) _{5,}", mistakes.out)
    found = " ".join(section[section.index(test) + 1].split())
    assert re.search(told, found), found


def test_the_same_code_is_not_shown_faster(make_project: MakeProject) -> None:
    """Of a candidate and itself neither is shown to be faster, at a confidence that hardly ever errs."""
    body = """
def slowly(answer, seed):
    return lambda: (time.sleep(0.1), answer(seed))[1]


def the_same(seed):
    return seed + 0


def test_no_difference(glia):
    found = glia.compare(slowly, against=the_same, timed=True).ratio
    assert ((found < 1).outcome, (found > 1).outcome) == ("not shown", "not shown")
"""
    ini = INI.replace("glia_replications = 7", "glia_replications = 10\nglia_confidence = 0.9999")
    ran = make_project(spec(ANSWER, body, ini), commit=False).pytest()
    assert "(n=10, 99.99 %)" in ran.out
    assert ran.code == 0, ran.out


def test_two_workers_never_time_at_once(make_project: MakeProject, tmp_path: Path) -> None:
    """Under xdist timed runs of two workers follow one another; both had some."""
    body = """
def logged(answer, seed):
    def timed():
        began = time.monotonic()
        time.sleep(0.1)
        with open(os.environ["SEEN"], "a") as log:
            log.write(f"{began} {time.monotonic()} {os.environ['PYTEST_XDIST_WORKER']}\\n")
        return answer(seed)

    return timed


@pytest.mark.parametrize("number", range(4))
def test_one(glia, number):
    assert glia.measure(logged, timed=True, reference=lambda seed: seed) < 60
"""
    log = tmp_path / "log"
    ran = make_project(spec(ANSWER, body, INI), commit=False).pytest("-n2", SEEN=str(log))
    assert ran.code == 0, ran.out
    runs = sorted(line.split() for line in log.read_text().splitlines())
    assert {worker for _, _, worker in runs} == {"gw0", "gw1"}
    assert len(runs) == 7 * 4 * 3 * 2
    for before, after in pairwise(runs):
        assert float(before[1]) <= float(after[0])


def test_a_search_times_its_candidates(make_project: MakeProject) -> None:
    """The offline designer finds the constant that makes a candidate faster, and pays for each look."""
    candidate = """\
PAUSES = 8


def answer(pause, seed):
    for _ in range(PAUSES):
        pause()
    return seed
"""
    body = '''
def timed(answer, seed):
    return lambda: answer(lambda: time.sleep(0.008), seed)


def at_once(pause, seed):
    return seed


def test_fast(glia):
    """Its answer takes no longer than seven pauses."""
    assert glia.measure(timed, timed=True, reference=at_once) < 0.058
'''
    ini = INI.replace("glia_replications = 7", "glia_replications = 2\nglia_confidence = 0.6")
    project = make_project(spec(candidate, body, ini))
    ran = project.pytest("--glia-optimize", "--glia-budget", "32 sims, 100 s")
    assert ran.code == 0, ran.out
    found = re.search(r"PAUSES = (\d+)", project.show(project.best(), "candidate.py"))
    assert found is not None
    assert int(found[1]) < 8
    spent = re.search(r"meets its specs \(\w+\), (\d+) simulations", ran.text)
    assert spent is not None
    # Two looks at least, two audits and confirmations of two seeds each: nothing is had from the ledger.
    assert 8 <= int(spent[1]) <= 32
