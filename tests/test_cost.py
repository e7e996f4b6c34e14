"""What an evaluation costs beyond its simulations: a dozen candidates of the quickstart, both ways.

`python -m pytest -m slow tests/test_cost.py -s` prints the ratios, with GLIA_COST=100 for a hundred.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from sim import Cluster, workloads
from sim.cluster import warm_up
from sim.mechanisms.routing import routing_mechanisms
from tests.project import Project

ROOT = Path(__file__).parents[1]
QUICKSTART = "specs/quickstart"
CANDIDATES = int(os.environ.get("GLIA_COST", "12"))
MOST = 2.0
"""Times the simulations' own time of processors; docs/designing.md says what the rest is spent on."""

# Evaluates what lies in FOLDER, one file a candidate, and has the simulations run alone after each ten.
DESIGNER = """\
import json
import os
import resource
import sys
import time
from pathlib import Path

import pluggy

from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis

sys.path.insert(0, {root!r})
FOLDER = Path({folder!r})



def processor():
    # Seconds of this process, of the evaluating one, and of all that it has waited for.
    ticks = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) * os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Hundred:
    def design(self, lab):
        [path] = lab.start.sources
        for number, file in enumerate(sorted(FOLDER.glob("*.py"))):
            began, used = time.monotonic(), processor()
            trial = lab.full({{path: file.read_bytes()}}, Hypothesis(file.name), lab.start, race=False)
            spent = [time.monotonic() - began, processor() - used]
            assert trial.result != "broken", trial.evaluation.errors
            with (FOLDER / "evaluated").open("a") as told:
                told.write(json.dumps(spent) + "\\n")
            (FOLDER / "alone").write_text(json.dumps([str(file), list(trial.evaluation.seeds)]))
            while (FOLDER / "alone").exists():
                time.sleep(0.002)
        return Proposal(lab.start)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {{"hundred": Hundred()}}
"""


def candidates() -> list[str]:
    """As a search tries them: variants of the start and of it with each mechanism, all different."""
    start = (ROOT / QUICKSTART / "router.py").read_text("utf-8")
    texts = [start.replace("replica.waiting", f"0.{10 + n} + replica.waiting") for n in range(100)]
    made: list[list[str]] = [texts]
    for idea in routing_mechanisms("Router"):
        made.append([])
        for n in range(100):
            numbers = {
                name: min(high, max(low, type(low)(idea.defaults[name] * (1 + n / 500))))
                for name, (low, high) in idea.numbers.items()
            }
            text = idea.apply(start, numbers)
            if text is not None:
                made[-1].append(f"{text}\nVARIANT = {n}\n")
    made = [each for each in made if each]
    return [made[n % len(made)][n // len(made)] for n in range(CANDIDATES)]


def replication(source: str, seed: int) -> None:
    """Nothing but the simulation."""
    scope: dict[str, Any] = {"__name__": "candidate"}
    exec(source, scope)
    cluster = Cluster(replicas=4, gpu="a10", model="llama-3-8b", kv_blocks=2240)
    workload = workloads.sharegpt_bursty(rate=8.5, duration=1000, seed=seed)
    assert cluster.run(workload, router=scope["Router"]()).metrics["mean_response_time"] > 0


def simulated(source: str, seeds: Sequence[int], workers: int) -> tuple[float, float]:
    """Seconds that a plain pool takes for a candidate, on the clock and of processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        list(pool.map(int, range(workers)))
        began = time.monotonic()
        list(pool.map(replication, [source] * len(seeds), seeds))
        seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_evaluating_costs_little_more_than_simulating(tmp_path: Path) -> None:
    """A hundred candidates on all development seeds, against a plain pool, in turns: medians of both."""
    folder = tmp_path / "candidates"
    folder.mkdir()
    for n, text in enumerate(candidates()):
        (folder / f"{n:03}.py").write_text(text, "utf-8")
    place = tmp_path / "project"
    for name in ("sim", "specs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    project = Project(place, {"XDG_CACHE_HOME": cache})
    project.write({"conftest.py": DESIGNER.format(root=str(ROOT), folder=str(folder))}).commit()
    warm_up()
    workers = len(os.sched_getaffinity(0))
    search = project.start(
        *(QUICKSTART, "--glia-optimize", "--glia-designer=hundred", "--glia-budget=9999 sims, 9999 s")
    )
    alone = []
    try:
        while search.poll() is None:
            asked = folder / "alone"
            text = asked.read_text("utf-8") if asked.exists() else ""
            if not text:
                time.sleep(0.002)
                continue
            file, seeds = json.loads(text)
            alone.append(simulated(Path(file).read_text("utf-8"), seeds, workers))
            asked.unlink()
        out, _ = search.communicate()
    finally:
        search.kill()
    lines = (folder / "evaluated").read_text("utf-8").splitlines()
    evaluated = [json.loads(line) for line in lines]
    assert len(evaluated) == len(alone) == CANDIDATES, out
    ratios = {
        what: told(what, [each[k] for each in evaluated], [each[k] for each in alone])
        for k, what in enumerate(("on the clock", "of processors"))
    }
    assert ratios["of processors"] <= MOST


def told(what: str, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The ratio of the medians of seconds, after printing it with its circumstances."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    each = statistics.quantiles([one / other for one, other in zip(ours, theirs, strict=True)], n=4)
    print(
        f"\n{len(ours)} candidates, {what}: {statistics.median(ours):.2f} s each, simulations alone "
        f"{statistics.median(theirs):.2f} s; ratio of medians {ratio:.3f}, of sums "
        f"{sum(ours) / sum(theirs):.3f}, quartiles of ratios {', '.join(f'{q:.3f}' for q in each)}"
    )
    return ratio


def test_candidates_of_the_measurement_are_all_different() -> None:
    """Nothing that is measured was known, and both kinds of design are among them."""
    texts = candidates()
    assert len(set(texts)) == CANDIDATES
    assert any("continue" in text or "break" in text for text in texts)
