"""The offline designer on the routing problem, as a user runs it: the quickstart and two other regimes."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim import Cluster, Workload, workloads
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue
from tests.project import Project

ROOT = Path(__file__).parents[1]
QUICKSTART = "specs/quickstart"

pytestmark = pytest.mark.slow

SPEC = '''\
"""{doc}"""

import pytest
from sim import workloads
from sim.baselines import LeastLoadedQueue

pytestmark = pytest.mark.glia(candidate="specs/quickstart/router.py", entry="Router")


@pytest.fixture
def serve(testbed):
    cluster = testbed(kv_blocks={kv_blocks})
    return lambda router, seed: cluster.run(workloads.{workload}, router=router)


def test_mean_response_time(glia, serve):
    assert glia.compare(serve, against=LeastLoadedQueue, metric="mean_response_time").reduction > {reduction}


def test_no_thrashing(glia, serve):
    assert glia.measure(serve, metric="restarted_fraction") < {restarted}
'''


class Design:
    """A delivered design: its source, its note, and the seeds on which it was confirmed."""

    def __init__(self, project: Project) -> None:
        self.branch = project.best()
        self.source = project.show(self.branch, f"{QUICKSTART}/router.py")
        self.note = project.show(self.branch, f"{QUICKSTART}/router.md")
        [listed] = re.findall(r"Confirmation seeds: .*: ([\d, ]+)\.$", self.note, re.MULTILINE)
        self.seeds = [int(seed) for seed in listed.split(", ")]

    def router(self) -> Any:
        """A new instance of the designed class."""
        scope: dict[str, Any] = {}
        exec(self.source, scope)
        return scope["Router"]()

    def ratio(self, baseline: Callable[[], Any], metric: str, workload: Callable[[int], Workload]) -> float:
        """Geometric mean over the confirmation seeds of design / baseline."""
        cluster = Cluster()
        logs = []
        for seed in self.seeds:
            ours, theirs = (
                cluster.run(workload(seed), router).metrics[metric] for router in (self.router(), baseline())
            )
            logs.append(math.log(ours / theirs))
        return math.exp(sum(logs) / len(logs))


def project_with(tmp_path: Path, **files: str) -> Project:
    """This repository's simulator and quickstart in a repository of their own."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "sim", folder / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "specs", folder / "specs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    project = Project(folder, {"XDG_CACHE_HOME": cache}).write(files)
    project.commit()
    return project


def test_the_quickstart(tmp_path: Path) -> None:
    """From the least-loaded queue to a router that passes, in 120 s, at most 2 % behind HRA."""
    project = project_with(tmp_path)
    before = project.fingerprint()
    began = time.monotonic()
    run = project.pytest(QUICKSTART, "--glia-optimize", "--glia-report", str(tmp_path))
    seconds = time.monotonic() - began
    assert run.code == 0, run.out
    assert seconds < 120
    assert project.fingerprint() == before

    verdicts = json.loads((tmp_path / "glia.json").read_text("utf-8"))["tests"]
    checks = {test["nodeid"].rpartition("::")[2]: test["checks"][0] for test in verdicts}
    assert checks["test_mean_response_time"]["low"] > 0.30
    assert checks["test_mean_response_time"]["n"] >= 10
    assert checks["test_no_thrashing"]["high"] < 0.10

    design = Design(project)
    ratio = design.ratio(
        HeadRoomAdmission, "mean_response_time", lambda s: workloads.sharegpt_bursty(8.5, 1000, s)
    )
    print(
        f"{seconds:.0f} s; mean response time {ratio:.3f} of HRA's; {len(design.source.splitlines())} lines"
    )
    assert ratio <= 1.02
    assert len(design.source.splitlines()) <= 120

    project.git("merge", "-q", design.branch)
    assert project.pytest(QUICKSTART).code == 0


def test_a_large_cache_needs_no_head_room(tmp_path: Path) -> None:
    """With eight times the KV cache nothing is evicted: the design has no head-room, and says what helps."""
    spec = SPEC.format(
        doc="A KV cache eight times as large.",
        kv_blocks=8 * 2240,
        workload="sharegpt_bursty(rate=17.0, duration=1000, seed=seed)",
        reduction=0.25,
        restarted=0.10,
    )
    project = project_with(tmp_path, **{"specs/test_large_cache.py": spec})
    run = project.pytest("specs/test_large_cache.py", "--glia-optimize")
    assert run.code == 0, run.out
    design = Design(project)
    assert "HEADROOM" not in design.source
    assert "hold requests without room" not in design.note.partition("## Tried and not kept")[0]
    assert "batches are full" in design.note


def test_short_prompts_need_another_reserve(tmp_path: Path) -> None:
    """Where answers are long and prompts short, no reserve in proportion to the prompt is in the design."""
    spec = SPEC.format(
        doc="Short prompts with long answers.",
        kv_blocks=2240,
        workload="short_prompts_long_outputs(rate=5.5, duration=1000, seed=seed)",
        reduction=0.1,
        restarted=0.25,
    )
    project = project_with(tmp_path, **{"specs/test_long_answers.py": spec})
    run = project.pytest("specs/test_long_answers.py", "--glia-optimize")
    assert run.code == 0, run.out
    design = Design(project)
    kept = design.note.partition("## Tried and not kept")[0]
    assert "reserve in proportion to the prompt" not in kept
    assert "### reserve for" in kept
    assert "shortest prompt first" not in kept


def test_the_baseline_is_past_its_knee() -> None:
    """At the quickstart's load a bit more work makes the least-loaded queue much slower, in most traces."""
    cluster, slower = Cluster(), Cluster(time_scale=1.05)
    ratios = []
    for seed in range(9):
        trace = workloads.sharegpt_bursty(8.5, 1000, seed)
        runs = [each.run(trace, LeastLoadedQueue()) for each in (cluster, slower)]
        ratios.append(runs[1].metrics["mean_response_time"] / runs[0].metrics["mean_response_time"])
    assert sorted(ratios)[4] > 1.15
