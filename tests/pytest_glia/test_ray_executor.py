"""A search on a Ray cluster gives what it gives on one machine, whatever becomes of the workers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_glia.childprocess import Launch
from pytest_glia.misuse import Misuse
from pytest_glia.ray_executor import RayExecutor
from tests.blocking import Blocked, blocked, until
from tests.project import PACKER_SPEC, PACKING, MakeProject, Project, Result

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='Ray is not installed: pip install "pytest-glia[ray]"'
)
ROOT = Path(__file__).parents[2]
# So that the executor is no part of what a sample is known by.
ON_RAY = {"PYTEST_ADDOPTS": "-o glia_executor=ray"}
# Ray and its workers take long to start on a machine that is busy.
PATIENCE = 150.0


def samples(project: Project) -> dict[str, str]:
    """All that the ledger keeps, as it is written there."""
    database = sqlite3.connect(project.folder / ".glia" / "ledger.db")
    found = dict(database.execute("SELECT key, metrics FROM samples"))
    database.close()
    return found


def spent(result: Result) -> int:
    """Simulations, as the last lines of a search tell."""
    return int(re.findall(r", (\d+) simulations$", result.out, re.MULTILINE)[-1])


@dataclass(frozen=True)
class Searched:
    """A search that has ended, and the replications that were run for it."""

    project: Project
    result: Result

    @property
    def runs(self) -> list[str]:
        """A line each."""
        return (self.project.folder.parent / "runs").read_text().splitlines()


def searched(folder: Path, **environment: str) -> Searched:
    """Bin packing, designed until its specs pass."""
    project = Project(folder / "project")
    project.folder.mkdir()
    project.write(PACKING).commit()
    arguments = ("--glia-optimize", "--glia-budget=90 sims, 500 s")
    return Searched(project, project.pytest(*arguments, RUNS=str(folder / "runs"), **environment))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searched, Searched]:
    """The same search here and on Ray."""
    here = searched(tmp_path_factory.mktemp("here"))
    return here, searched(tmp_path_factory.mktemp("ray"), **ON_RAY)


@needs_ray
def test_same_design(both: tuple[Searched, Searched]) -> None:
    """The candidate of the best branch is the same text, and Ray prints nothing."""
    here, ray = both
    assert ray.result.code == here.result.code == 0, ray.result.out
    designs = [each.project.show(each.project.best(), "candidates/packer.py") for each in both]
    assert designs[0] == designs[1]
    assert "core_worker" not in ray.result.out
    assert ray.result.lines("glia: ") == here.result.lines("glia: ")


@needs_ray
def test_same_samples(both: tuple[Searched, Searched]) -> None:
    """Of the seeds that are not sealed both ledgers have the same keys with the same bytes."""
    here, ray = (samples(each.project) for each in both)
    shared = here.keys() & ray.keys()
    assert {key: here[key] for key in shared} == {key: ray[key] for key in shared}
    # Sealed: the confirmed candidate, its baseline and two ablations, on seven seeds each; a constant at half
    # and at twice its value, on four.
    assert len(here) - len(shared) == len(ray) - len(shared) == 36


@needs_ray
def test_same_price(both: tuple[Searched, Searched]) -> None:
    """As many simulations are paid for, and as many replications run: none for nothing."""
    here, ray = both
    assert spent(ray.result) == spent(here.result) <= 90
    assert len(ray.runs) == len(here.runs) == len(samples(ray.project))


@needs_ray
def test_replications_run_on_the_workers(both: tuple[Searched, Searched]) -> None:
    """Candidates were loaded in the trees of workers, and nothing of these is left."""
    _, ray = both
    assert all("worker" in line for line in ray.runs if line.startswith("glia_candidate"))
    assert ray.project.processes() == []


LOOKING = '''\
import pluggy
from pytest_glia.designers import Proposal


class Looking:
    """Wants to see the tables of the start."""

    def design(self, lab):
        keys = lab.look(lab.start.sources, 2, inspected=True).tables
        lab.say(f"{sum(lab.tables(key).exists() for key in keys)} tables")
        return Proposal(lab.start)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"looking": Looking()}
'''


@needs_ray
def test_tables_are_where_they_are_looked_at(make_project: MakeProject) -> None:
    """Replications that keep their tables run here, others on the workers."""
    project = make_project({**PACKING, "conftest.py": LOOKING})
    runs = project.folder.parent / "runs"
    arguments = ("--glia-optimize", "--glia-designer=looking", "--glia-budget=90 sims, 500 s")
    result = project.pytest(*arguments, RUNS=str(runs), **ON_RAY)
    assert result.code == 1, result.out
    assert "      2 tables" in result.out
    of_candidates = [line for line in runs.read_text().splitlines() if line.startswith("glia_candidate")]
    on_workers = ["worker" in line for line in of_candidates]
    assert on_workers == [True] * (len(on_workers) - 2) + [False] * 2


@dataclass(frozen=True)
class WithoutWorker:
    """A search that lost a worker in the middle, and the same one undisturbed on one machine."""

    search: Blocked
    result: Result
    undisturbed: Project


@pytest.fixture(scope="module")
def without_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithoutWorker]:
    """SIGKILL for a worker while it runs a replication, which is then no longer blocked."""
    alone = blocked(tmp_path_factory.mktemp("undisturbed"))
    search = blocked(tmp_path_factory.mktemp("without"), PATIENCE, **ON_RAY)
    try:
        Path(alone.environment["GATE"]).touch()
        looks = min(2, len(os.sched_getaffinity(0)))
        until(lambda: search.runs("blocked").total() == looks)
        worker = working(search)[0]
        os.kill(worker, signal.SIGKILL)
        # What it had started ends with it, before it can come to its own end.
        until(lambda: not any(f"glia-worker-{worker}-" in title for title in titles(search).values()))
        Path(search.environment["GATE"]).touch()
        out, _ = search.process.communicate(timeout=PATIENCE)
        alone.process.communicate(timeout=PATIENCE)
        yield WithoutWorker(search, Result(search.process.returncode, out), alone.project)
    finally:
        ended(search)
        ended(alone)


def titles(search: Blocked) -> dict[int, str]:
    """The command lines of the search's processes, in which Ray writes what a worker does."""
    found = {}
    for pid in search.project.processes():
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return found


def working(search: Blocked) -> list[int]:
    """The workers that run a replication."""
    return [pid for pid, title in titles(search).items() if title.startswith("ray::Worker.")]


def ended(search: Blocked) -> None:
    """Make sure of it, also for what Ray itself leaves for a minute."""
    search.process.kill()
    search.process.communicate()
    for pid in search.project.processes():
        os.kill(pid, signal.SIGKILL)


@needs_ray
def test_lost_worker_is_told_and_changes_nothing(without_worker: WithoutWorker) -> None:
    """The search ends with the design that it would have come to."""
    assert without_worker.result.code == 0, without_worker.result.out
    assert "glia: a Ray worker was lost" in without_worker.result.text
    projects = (without_worker.search.project, without_worker.undisturbed)
    designs = [each.show(each.best(), "tunable.py") for each in projects]
    assert designs[0] == designs[1]


@needs_ray
def test_lost_worker_loses_one_replication_only(without_worker: WithoutWorker) -> None:
    """No other is run twice; what the budget counts is the same as ever."""
    search = without_worker.search
    assert set(search.runs("end").values()) == {1}
    begun = search.runs("begin")
    assert [times for times in begun.values() if times > 1] == [2]
    assert spent(without_worker.result) <= 30


@needs_ray
def test_interruption_leaves_no_process_of_ray(tmp_path: Path) -> None:
    """Ctrl-C ends workers, what they run, and the cluster that was started for them."""
    search = blocked(tmp_path, PATIENCE, **ON_RAY)
    try:
        assert working(search)
        result = search.signalled(signal.SIGINT)
        assert result.code == 2, result.out
        until(lambda: not search.project.processes())
    finally:
        ended(search)


@needs_ray
def test_killed_search_leaves_no_worker(tmp_path: Path) -> None:
    """Workers and their replications end with a search that gets SIGKILL; Ray's own agents follow later."""
    search = blocked(tmp_path, PATIENCE, **ON_RAY)
    try:
        assert working(search)
        search.signalled(signal.SIGKILL)
        until(lambda: all("Agent" in title for title in titles(search).values()))
    finally:
        ended(search)


# Ray lets nobody into a cluster who does not know its token.
TOKEN = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token"}
CLUSTER = """\
import signal, ray

context = ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
print("at", context.address_info["gcs_address"], flush=True)
signal.pause()
"""


@pytest.fixture
def other_cluster(tmp_path: Path, make_project: MakeProject) -> Iterator[tuple[Project, str]]:
    """A project, and the address of a cluster with one more distribution than is installed here."""
    project = make_project(PACKING)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "odd-1.0.dist-info").mkdir()
    (packages / "odd-1.0.dist-info" / "METADATA").write_text("Name: odd\nVersion: 1.0\n")
    folders = [folder for folder in sys.path if Path(folder).name == "site-packages"]
    ours = "; ".join(["import site", *(f"site.addsitedir({folder!r})" for folder in folders)])
    (packages / "ours.pth").write_text(f"{ours}\n")
    cluster = subprocess.Popen(
        [environment / "bin" / "python", "-c", CLUSTER],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), **TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert cluster.stdout is not None
        address = next(line for line in cluster.stdout if line.startswith("at ")).split()[1]
        yield project, address
    finally:
        cluster.kill()
        cluster.communicate()


@needs_ray
def test_worker_with_other_software_is_not_used(other_cluster: tuple[Project, str]) -> None:
    """It is said what differs; the search runs on this machine, with nothing run twice."""
    project, address = other_cluster
    runs = project.folder.parent / "runs"
    arguments = ("--glia-optimize", "--glia-budget=90 sims, 500 s")
    result = project.pytest(*arguments, RUNS=str(runs), RAY_ADDRESS=address, **TOKEN, **ON_RAY)
    assert result.code == 0, result.out
    said = (
        "glia: a Ray worker has other software than this machine: odd 1.0 there, nothing here; it is not used"
    )
    assert said in result.text, result.out
    assert len(runs.read_text().splitlines()) == len(samples(project))


@needs_ray
def test_worker_with_other_replications_is_not_used(make_project: MakeProject) -> None:
    """A spec that depends on its folder has other samples in each tree: said once, nothing runs twice."""
    spec = PACKER_SPEC.replace("import pytest\n", "import pytest\n\nHERE = os.path.dirname(__file__)\n")
    spec = spec.replace("random.Random(seed)", "random.Random(seed + HERE.count(chr(0)))")
    project = make_project({**PACKING, "specs/test_packer.py": spec})
    runs = project.folder.parent / "runs"
    result = project.pytest("--glia-optimize", "--glia-budget=90 sims, 500 s", RUNS=str(runs), **ON_RAY)
    assert result.code == 0, result.out
    said = "a Ray worker asks for other replications than this machine does, perhaps because a spec depends"
    assert result.text.count(said) == 1
    assert len(runs.read_text().splitlines()) == len(samples(project))


@needs_ray
def test_cluster_out_of_reach_is_misuse(make_project: MakeProject) -> None:
    """The address is named, and what to do."""
    result = make_project(PACKING).pytest("--glia-optimize", RAY_ADDRESS="127.0.0.1:1", **ON_RAY)
    assert result.code == 4, result.out
    assert 'glia_executor is "ray", but no Ray cluster can be reached (127.0.0.1:1: ' in result.text
    assert "correct RAY_ADDRESS, or unset it to use this machine" in result.text


def test_missing_ray_is_misuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    launch = Launch((), (), Path(os.devnull), Path("."), (), (), tmp_path, {})
    with pytest.raises(
        Misuse, match=r'^glia_executor is "ray", but Ray is not installed: pip install "pytest'
    ):
        RayExecutor(
            launch,
            tmp_path,
            [],
            at_most=1,
            known=lambda keys: {},
            seconds_left=lambda: 1.0,
            write=lambda text: None,
        )


@needs_ray
@pytest.mark.slow
def test_same_samples_of_the_simulator(tmp_path: Path) -> None:
    """The quickstart's specs with less traffic: replayed and audited, byte by byte the same."""
    found = []
    for name, environment in (("here", {}), ("ray", ON_RAY)):
        folder = tmp_path / name
        for path in ("router.py", "test_quickstart.py"):
            (folder / "specs/quickstart").mkdir(parents=True, exist_ok=True)
            text = (ROOT / "specs/quickstart" / path).read_text()
            (folder / "specs/quickstart" / path).write_text(text.replace("duration=1000", "duration=400"))
        project = Project(folder).write({"pytest.ini": "[pytest]\nglia_replications = 6\n"})
        project.commit()
        arguments = ("specs/quickstart", "--glia-optimize", "--glia-budget=80 sims, 500 s")
        result = project.pytest(*arguments, **environment)
        assert result.lines("Audit: "), result.out
        found.append(samples(project))
    here, ray = found
    shared = here.keys() & ray.keys()
    assert {key: here[key] for key in shared} == {key: ray[key] for key in shared}
    assert len(shared) > len(here) / 2
    assert len(here) == len(ray)
