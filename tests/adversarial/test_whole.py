"""Hostile candidates in real projects: in plain runs, under xdist, and as proposals of a search."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.sandbox import unavailable
from tests.adversarial import cheats
from tests.adversarial.cheats import CHEATS, HONEST, ROUND_ROBIN
from tests.project import MakeProject, Project, Result

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no sandbox here: {unavailable()}")

INI = """\
[pytest]
glia_replications = 8
glia_workers = 2
glia_timeout = 3
glia_allow_imports = {allowed}
addopts = -p no:cacheprovider
"""
OPEN = "builtins ctypes gc inspect json math numpy os random socket stat subprocess sys threading time types"

# The simulator's compiled core is found where it always is.
ENVIRONMENT = {
    "GLIA_TEST_API_KEY": "sk-hidden",
    "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
}

SPEC = '''\
"""Requests finish sooner than by round robin."""

import pytest

from sim import Cluster, warm_up, workloads
from sim.baselines import RoundRobin

warm_up(replays=True)
CLUSTER = Cluster(replicas=2, kv_blocks=900)


def serve(router, seed):
    return CLUSTER.run(workloads.sharegpt_bursty(rate=6.5, duration=60, seed=seed), router=router)
'''
TEST = """

@pytest.mark.glia(candidate="candidates/{file}.py", entry="Router")
def test_{file}(glia):
    assert glia.compare(serve, against=RoundRobin, metric="mean_response_time").ratio < {than}
"""


def file_of(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def project_of(make_project: MakeProject, allowed: str) -> Project:
    """One project with all cheats and their honest twins, each asked to be 5 % better than round robin."""
    files = {f"candidates/{file_of(each.name)}.py": each.source for each in CHEATS}
    files |= {f"candidates/honest_{file_of(name)}.py": text for name, text in HONEST.items()}
    tests = [TEST.format(file=file_of(each.name), than=0.95) for each in CHEATS]
    tests += [TEST.format(file=f"honest_{file_of(name)}", than=50) for name in HONEST]
    return make_project(
        {"pytest.ini": INI.format(allowed=allowed), "test_spec.py": SPEC + "".join(tests), **files},
    )


def outcomes(ran: Result) -> dict[str, str]:
    """By test, what became of it."""
    return {
        name: word
        for word, name in re.findall(
            r"^(PASSED|FAILED|ERROR) test_spec.py::test_(\w+)", ran.out, re.MULTILINE
        )
    }


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("-n2",)], ids=["plain", "xdist"])
def test_no_cheat_passes_a_plain_run(make_project: MakeProject, how: tuple[str, ...]) -> None:
    """Every one fails its spec with a sentence; the honest ones pass beside them; nothing is left behind."""
    project = project_of(make_project, "")
    before = project.fingerprint()
    ran = project.pytest("-rA", *how, **ENVIRONMENT)
    found = outcomes(ran)
    assert {name for name, word in found.items() if word == "PASSED"} == {
        f"honest_{file_of(name)}" for name in HONEST
    }
    assert len(found) == len(CHEATS) + len(HONEST)
    assert project.fingerprint() == before
    assert project.processes() == []


@pytest.mark.slow
def test_with_every_module_allowed(make_project: MakeProject) -> None:
    """A user who opens the rules has the other fences: only who sees the future passes, unaudited."""
    project = project_of(make_project, OPEN)
    before = project.fingerprint()
    ran = project.pytest("-rA", **ENVIRONMENT)
    passed = {name for name, word in outcomes(ran).items() if word == "PASSED"}
    seers = {file_of(each.name) for each in CHEATS if each.kind == "reads the future"}
    assert passed - {f"honest_{file_of(name)}" for name in HONEST} <= seers
    assert project.fingerprint() == before
    assert project.processes() == []


HOSTILE = '''\
import pluggy

from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class Hostile:
    """Proposes every cheat, and in the end the best of them."""

    def design(self, lab):
        from cheats import CHEATS

        path = lab.candidates[0].path
        for each in CHEATS:
            lab.full({path: each.source.encode()}, Hypothesis(each.name), lab.start)
        working = [trial for trial in lab.trials if not trial.evaluation.errors and trial.evaluation.checks]
        best = min(working, key=lambda trial: lab.aim.loss(trial.evaluation))
        return Proposal(best.evaluation)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"hostile": Hostile()}
'''


def search(make_project: MakeProject, allowed: str) -> tuple[Project, Result, dict[str, str]]:
    """A search whose designer proposes all cheats; and the result of each, by name."""
    project = make_project(
        {
            "pytest.ini": INI.format(allowed=allowed),
            "conftest.py": HOSTILE,
            "cheats.py": Path(cheats.__file__).read_text("utf-8"),
            "test_spec.py": SPEC + TEST.format(file="router", than=0.95),
            "candidates/router.py": ROUND_ROBIN,
        }
    )
    before = project.fingerprint()
    ran = project.pytest(
        "--glia-optimize",
        "--glia-designer=hostile",
        "--glia-budget=2000 sims, 10 min",
        f"--glia-report={project.folder.parent / 'report'}",
        **ENVIRONMENT,
        PYTHONPATH=str(project.folder),
    )
    assert project.fingerprint() == before
    assert project.processes() == []
    [branch] = project.branches("/1")
    log = project.git("log", "--format=%s%x00%b%x01", f"main..{branch}")
    found = {}
    for entry in log.split("\x01"):
        title, _, body = entry.strip().partition("\x00")
        if title:
            found[title.partition(": ")[2]] = " ".join(body.split())
    return project, ran, found


@pytest.mark.slow
def test_a_search_sees_through_cheats(make_project: MakeProject) -> None:
    """With the rules as they are every proposal is committed with what was wrong, and none wins."""
    project, ran, found = search(make_project, "")
    assert ran.code == 1, ran.out
    assert set(found) == {each.name for each in CHEATS}
    assert not any("Result: better" in body for body in found.values())
    assert "does not meet its specs; the best so far" in project.git(
        "log", "-1", "--format=%s", project.best()
    )


@pytest.mark.slow
def test_a_search_audits_what_the_rules_let_through(make_project: MakeProject) -> None:
    """With every module allowed who sees the future is best, and the audit refuses it."""
    project, ran, found = search(make_project, OPEN)
    assert ran.code == 1, ran.out
    better = {name for name, body in found.items() if "Result: better" in body}
    kinds: dict[str, Any] = {each.name: each.kind for each in CHEATS}
    assert better
    assert {kinds[name] for name in better} == {"reads the future"}
    assert "The audit refuses it" in ran.text
    assert "the audit refused the best candidate, so there is no best branch" in ran.text
    assert project.branches("/best") == []
    told = json.loads((project.folder.parent / "report/glia.json").read_text())
    assert [each["outcome"] for each in told["designs"]] == ["refused by the audit"]


TWICE = '''\
"""Requests finish sooner than by round robin, on a cluster and on a smaller one."""

import pytest

from sim import Cluster, warm_up, workloads
from sim.baselines import RoundRobin

warm_up(replays=True)
CLUSTERS = [Cluster(replicas=2, kv_blocks=blocks) for blocks in (900, 800)]


def serve(router, seed):
    trace = workloads.sharegpt_bursty(rate=6.5, duration=60, seed=seed)
    return [cluster.run(trace, router=router) for cluster in CLUSTERS][1]
'''
REMEMBERS = '''\
class Router:
    """Shortest first: by the outputs of the first run in the second, which serves the same requests."""

    LEARNS = True

    def __init__(self):
        self.known, self.last, self.again = {}, -1.0, False

    def completed(self, request, now):
        if not self.again:
            self.known[request.id] = request.tokens_done - request.prompt_tokens

    def route(self, queue, replicas, now):
        self.again |= self.LEARNS and now < self.last
        self.last = now
        known = self.known if self.again else {each.id: each.prompt_tokens for each in queue}
        order = [(known.get(each.id, 300), each.id, each) for each in queue]
        for _, _, request in sorted(order, key=lambda each: each[:2]):
            replica = min(replicas, key=lambda each: each.running + each.waiting)
            if replica.running + replica.waiting < 24:
                yield request, replica
'''
ONE = """\
import pluggy

from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class One:
    def design(self, lab):
        [path] = lab.start.sources
        sources = {path: open("proposal.txt", "rb").read()}
        return Proposal(lab.full(sources, Hypothesis("one"), lab.start).evaluation)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"one": One()}
"""


@pytest.mark.slow
@pytest.mark.parametrize("learns", [True, False], ids=["cheat", "honest"])
def test_what_a_replication_has_met_before_is_no_merit(make_project: MakeProject, learns: bool) -> None:
    """A router that remembers the outputs of the first of two runs is refused; its honest twin passes."""
    project = make_project(
        {
            "pytest.ini": INI.format(allowed=""),
            "conftest.py": ONE,
            "proposal.txt": REMEMBERS.replace("LEARNS = True", f"LEARNS = {learns}"),
            "test_spec.py": TWICE + TEST.format(file="router", than=0.85),
            "candidates/router.py": ROUND_ROBIN,
        }
    )
    ran = project.pytest(
        "--glia-optimize", "--glia-designer=one", "--glia-budget=2000 sims, 10 min", **ENVIRONMENT
    )
    assert ("so it knew those of its seeds" in ran.text) == learns, ran.out
    assert len(project.branches("/best")) == 1 - learns, ran.out


SEER = '''\
import gc
import sys


class Router:
    """Shortest first, by the outputs that lie in its process; where it is probed it says what it said."""

    def __init__(self):
        self.outputs, self.said = None, None

    def look(self):
        self.outputs = {}
        modules = sys.modules
        for each in gc.get_objects():
            if isinstance(each, modules["sim.state"].State) and len(each.lengths):
                self.outputs = dict(enumerate(each.lengths[:, 1].tolist()))
            if isinstance(each, modules["sim.worlds"].Change):
                self.said = sys.modules["sim.recording"].recording(each.logs[0][1])

    def route(self, queue, replicas, now):
        if self.outputs is None:
            self.look()
        if self.said is not None:
            try:
                return self.said.route(queue, replicas, now)
            except Exception:
                self.said = None
        sent, load = [], {each.index: each.running + each.waiting for each in replicas}
        known = {each.id: self.outputs.get(each.id, each.prompt_tokens) for each in queue}
        for request in sorted(queue, key=lambda each: (known[each.id], each.id)):
            replica = min(replicas, key=lambda each: load[each.index])
            if load[replica.index] < 24:
                load[replica.index] += 1
                sent.append((request, replica))
        return sent
'''


@pytest.mark.slow
@pytest.mark.parametrize("sees", [True, False], ids=["cheat", "honest"])
def test_who_sees_the_future_and_acts_its_part_is_not_confirmed(
    make_project: MakeProject, sees: bool
) -> None:
    """Where it can reach all of its process a router finds out that it is audited, and is not refused; where
    it is examined there is no future in its process. Its twin does not look, and meets what it
    is asked."""
    source = SEER if sees else SEER.replace("            self.look()", "            self.outputs = {}")
    project = make_project(
        {
            "pytest.ini": INI.format(allowed="gc sys").replace("replications = 8", "replications = 20"),
            "conftest.py": ONE,
            "proposal.txt": source,
            "test_spec.py": SPEC + TEST.format(file="router", than=0.7 if sees else 0.99),
            "candidates/router.py": ROUND_ROBIN,
        }
    )
    ran = project.pytest(
        "--glia-optimize", "--glia-designer=one", "--glia-budget=2000 sims, 10 min", **ENVIRONMENT
    )
    told = project.git("log", "-1", "--format=%s", project.best())
    body = project.git("log", "-1", "--format=%b", project.branches("/1")[0])
    assert "Result: better" in body, body
    assert "The audit refuses it" not in ran.text
    assert ("does not meet its specs" in told) == sees, ran.out
    assert ran.code == int(sees), ran.out
