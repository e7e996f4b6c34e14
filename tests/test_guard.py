"""The guard of the discovered designs: what makes one worse, as measured apart, turns its spec red."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

from pytest_glia import seeds
from pytest_glia.calling import metrics_of
from pytest_glia.estimate import Check, Estimate, Scale
from pytest_glia.replication import Metrics, Replication
from pytest_glia.running import run_all
from pytest_glia.statistics import mean_interval, stretch_of
from sim.cluster import Cluster, warm_up
from tests.mutants import Mutant, mutants
from tests.project import Project, Result

ROOT = Path(__file__).parents[1]
SPECS = {
    "router": "router",
    "scheduler": "batch_scheduler",
    "autoscaler": "autoscaler",
    "pair/router": "router_with_scheduler",
    "pair/scheduler": "router_with_scheduler",
    "stack/router": "full_stack",
    "stack/scheduler": "full_stack",
    "stack/autoscaler": "full_stack",
}
# Of what its spec asks nothing is shown to break without any of its ideas.
UNGUARDED = {"stack/router"}
# Apart from the guard's, and fewer: most mutants that matter do so by far.
APART = seeds.guard("whether a mutant matters", 6)
CONFIDENCE = 0.95

pytestmark = pytest.mark.slow


@dataclass
class Aside:
    """In the place of the fixture `glia`: what a spec asks of a mutant is judged on runs made apart.

    Comparisons with other baselines than the base are left out: they are about the design, not the change.
    """

    mutant: Sequence[Metrics]
    original: Sequence[Metrics]
    checks: list[Check] = field(default_factory=list)
    broken: list[Check] = field(default_factory=list)

    def compare(self, replicate: object, against: object, metric: str) -> Estimate:
        """As `pytest_glia.glia.Glia.compare`."""
        if against != "base":
            return self._estimate(metric, [0.0] * len(APART), "ratio", lambda check: True)
        pairs = zip(self.mutant, self.original, strict=True)
        logs = [math.log(ours[metric] / theirs[metric]) for ours, theirs in pairs]
        return self._estimate(f"{metric} against base", logs, "ratio", self._judge)

    def measure(self, replicate: object, metric: str) -> Estimate:
        """As `pytest_glia.glia.Glia.measure`."""
        pairs = list(zip(self.mutant, self.original, strict=True))
        change = mean_interval([ours[metric] - theirs[metric] for ours, theirs in pairs], CONFIDENCE)

        def judge(check: Check) -> bool:
            worse = change.low > 0 if check.op in ("<", "<=") else change.high < 0
            return self._judge(check, worse=worse)

        return self._estimate(metric, [ours[metric] for ours, _ in pairs], "mean", judge)

    def refutes(self) -> bool:
        """Whether anything is refuted."""
        return any(check.outcome == "refuted" for check in self.broken)

    def _judge(self, check: Check, *, worse: bool = False) -> bool:
        """Broken is what is refuted, and what the mean misses that is shown to be `worse`."""
        self.checks.append(check)
        if check.outcome == "refuted" or (worse and fmean(check.excess) > 0):
            self.broken.append(check)
        return True

    def _estimate(
        self, quantity: str, samples: list[float], scale: Scale, judge: Callable[[Check], bool]
    ) -> Estimate:
        interval = mean_interval(samples, CONFIDENCE, stretch=stretch_of(quantity))
        return Estimate(quantity, interval, tuple(samples), scale, judge=judge)


def spec_of(layer: str) -> ModuleType:
    """The module that guards a layer's candidate."""
    return importlib.import_module(f"specs.test_{SPECS[layer]}")


def made(source: str, entry: str) -> Any:
    """A new object of the class `entry` of this text."""
    scope: dict[str, Any] = {"__name__": "candidate"}
    exec(source, scope)
    return scope[entry]()


def measured(layer: str, source: str) -> list[Metrics]:
    """What the spec's replications report of a text of the candidate, on the seeds apart."""
    spec = spec_of(layer)
    serve = inspect.unwrap(spec.serve)(Cluster)
    marks = spec.pytestmark if isinstance(spec.pytestmark, list) else [spec.pytestmark]
    files = {mark.kwargs["candidate"]: (ROOT / mark.kwargs["candidate"]).read_text("utf-8") for mark in marks}
    files[f"candidates/{layer}.py"] = source

    def run(seed: int) -> Metrics:
        policies = {
            mark.kwargs.get("role", layer): made(files[mark.kwargs["candidate"]], mark.kwargs["entry"])
            for mark in marks
        }
        return metrics_of(serve(**policies, seed=seed))

    replications = [Replication(lambda seed=seed: run(seed)) for seed in APART]  # type: ignore[misc]
    found = dict(run_all(replications, workers=len(os.sched_getaffinity(0)), timeout=120))
    runs = [found[index] for index in range(len(APART))]
    metrics = [each for each in runs if isinstance(each, dict)]
    assert metrics == runs, runs
    return metrics


def broken(layer: str, mutant: Sequence[Metrics], original: Sequence[Metrics]) -> dict[str, Aside]:
    """The tests of the spec of which the mutant is shown to break something."""
    found = {}
    for name, test in vars(spec_of(layer)).items():
        if name.startswith("test_"):
            aside = Aside(mutant, original)
            test(aside, None)
            if aside.broken:
                found[name] = aside
    return found


def explained(ran: Result, checks: Sequence[Check]) -> bool:
    """Whether a failing test says what was measured, with its interval, and what was asked."""
    asked = "|".join(re.escape(f"{check.what()} {check.demand()}") for check in checks)
    return bool(re.search(rf"E .*\b({asked})\nE +measured: \S.* \[.+, .+\] \(n=10, 95 %\)\n", ran.out))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """This one as it is, on the branch main of another."""
    folder = tmp_path_factory.mktemp("guard") / "project"
    for name in ("sim", "specs", "candidates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    project = Project(folder, {"XDG_CACHE_HOME": cache})
    project.commit()
    return project


def weaken(repository: Project, mutant: Mutant) -> None:
    """Commit the mutant on a branch of its own."""
    repository.git("switch", "-q", "-C", "weaker", "main")
    repository.write({f"candidates/{mutant.layer}.py": mutant.source}).commit(str(mutant))


@pytest.mark.parametrize("layer", SPECS)
def test_what_matters_is_caught(layer: str, repository: Project) -> None:
    """Of every mutant that is shown, on other seeds, to break what the spec asks the guard says so, and how.

    What is run of the guard is the test that the mutant breaks: if that one fails, so does the spec.
    """
    warm_up()
    original = measured(layer, (ROOT / f"candidates/{layer}.py").read_text("utf-8"))
    assert not broken(layer, original, original)
    missed, matter = {}, 0
    for mutant in mutants(layer):
        runs = measured(layer, mutant.source)
        broke = broken(layer, runs, original)
        if not broke:
            print(f"{mutant}: does not matter")
            continue
        matter += 1
        test, aside = min(broke.items(), key=lambda each: not each[1].refutes())
        weaken(repository, mutant)
        ran = repository.pytest(f"specs/test_{SPECS[layer]}.py::{test}")
        print(f"{mutant}: {aside.broken[0].describe()}; {test} {'fails' if ran.code else 'passes'}")
        if ran.code != 1 or not explained(ran, aside.checks):
            missed[str(mutant)] = ran.out
    assert bool(matter) == (layer not in UNGUARDED), f"{matter} changes of candidates/{layer}.py matter"
    assert not missed, "\n\n".join(f"{mutant} matters:\n{out}" for mutant, out in missed.items())


def test_what_is_not_changed_passes(repository: Project) -> None:
    """On a branch that leaves its candidate alone a spec passes: it is the mutant that turned it red.

    That every spec does on the default branch is what ``pytest specs`` in .ci/run is for.
    """
    repository.git("switch", "-q", "-C", "as-it-is", "main")
    ran = repository.pytest("specs/test_router.py")
    assert ran.code == 0, ran.out
    assert "increase of mean_response_time against base" in ran.out
