"""Specs on the testbed of real servers: projects whose servers are trivial ones, and the file of clusters."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason='the testbed needs it: pip install "pytest-glia[harness]"')

from gpu_harness.devices import DeviceLock, DevicesInUse
from gpu_harness.glia import glia_testbed
from gpu_harness.mapping import Entry, NotHonoured, read
from gpu_harness.specified import SpecTestbed, _rate
from sim import Autoscaling
from sim.scaling import Failure
from tests.project import MakeProject

ROOT = Path(__file__).parents[2]

INI = """\
[pytest]
glia_replications = 2
addopts = -p no:cacheprovider
"""

CLUSTERS = f"""\
[[cluster]]
spec = {{ gpu = "a10", model = "llama-3-8b" }}
launch.model = "none"
launch.command = ["{sys.executable}", "-m", "tests.gpu_harness.upstream", "{{port}}", "well"]
scrape_interval = 0.05
requests = 8
"""

ROUTER = """\
class Router:
    def route(self, queue, replicas, now):
        for request in queue:
            yield request, min(replicas, key=lambda each: (each.waiting + each.running, each.index))
"""

SPEC = '''\
"""Requests to two replicas are answered."""
import pytest
from sim import workloads
from sim.baselines import RoundRobin

pytestmark = pytest.mark.glia(candidate="candidates/router.py", entry="Router")


@pytest.fixture
def serve(testbed):
    cluster = testbed(replicas=2, gpu="a10", model="llama-3-8b", kv_blocks=2240)
    lengths = workloads.Independent(workloads.Fixed(12), workloads.Fixed(3))
    return lambda router, seed: cluster.run(
        workloads.generate(workloads.Poisson(200.0, 1), lengths, seed), router=router
    )
'''

COMPARED = """

def test_as_fast(glia, serve):
    estimate = glia.compare(serve, against=RoundRobin, metric="mean_response_time")
    print(len(estimate.samples), "samples")
    assert estimate.ratio < 50
"""


def files(tests: str, **more: str) -> dict[str, str]:
    return {
        "pytest.ini": INI,
        "testbed.toml": CLUSTERS,
        "candidates/router.py": ROUTER,
        "specs/test_served.py": SPEC + tests,
        **more,
    }


def test_same_text_on_real_servers(make_project: MakeProject) -> None:
    """A spec that holds in the simulator is judged on servers by --glia-testbed gpu: its verdict says how
    noisy the machine was, the candidate is confined, and no server is left."""
    # Servers whose tokens take 50 ms, and four seeds: of two, whose interval is 13 standard errors either
    # way, a busy machine's noise alone makes "not shown".
    steady = {"testbed.toml": CLUSTERS.replace('"well"', '"in time"')}
    project = make_project(files(COMPARED, **steady), commit=False)
    ran = project.pytest("--glia-testbed=gpu", "-rP", "-o", "glia_replications=4")
    assert ran.code == 0, ran.out
    assert re.search(r"ratio of mean_response_time against RoundRobin \(noise [\d.e+]+ %\)", ran.text), (
        ran.out
    )
    assert "4 samples" in ran.out
    assert "sandbox: Landlock" in ran.out or "sandbox: none" in ran.out
    assert project.processes() == []


@pytest.mark.slow
def test_two_at_once_have_their_turns(make_project: MakeProject) -> None:
    """Each waits for the other's servers and for its turn to measure, and none for both for ever."""
    project = make_project(files(COMPARED), commit=False)
    both = [project.start("--glia-testbed=gpu", "-o", "glia_replications=3") for _ in range(2)]
    for each in both:
        out, _ = each.communicate(timeout=200)
        assert "1 passed" in out or "not shown" in out, out
    assert project.processes() == []


def test_a_device_has_one_holder() -> None:
    """Whoever comes second is told at once, and has none of the others either."""
    lock = DeviceLock(["a", "c"])
    with pytest.raises(DevicesInUse, match=r"^c is in use by another run of this machine"):
        DeviceLock(["b", "c"])
    DeviceLock(["b"]).release()
    lock.release()
    DeviceLock(["c"]).release()


@pytest.mark.slow
def test_what_is_wrong_with_a_candidate_is_told(make_project: MakeProject) -> None:
    """One that raises, one that answers for no request, one that opens a socket in its sandbox: each fails
    its spec with a sentence and, where it has one, its own line."""
    wrong = {
        "raises": "raise RuntimeError('no idea')",
        "answers": "return [(1, 2)]",
        "connects": "import socket; socket.socket()",
    }
    routers = {
        f"candidates/{name}.py": ROUTER.partition("        for")[0] + f"        {text}\n"
        for name, text in wrong.items()
    }
    tests = "".join(
        f'''
@pytest.mark.glia(candidate="candidates/{name}.py", entry="Router", role="{name}")
def test_{name}(glia, testbed):
    cluster = testbed(replicas=1, gpu="a10")
    lengths = workloads.Independent(workloads.Fixed(12), workloads.Fixed(3))
    serve = lambda seed, {name}: cluster.run(
        workloads.generate(workloads.Poisson(50.0, 0.2), lengths, seed), router={name}
    )
    assert glia.measure(serve, metric="mean_ttft") < 9
'''
        for name in wrong
    )
    text = SPEC.replace("pytestmark = ", "unused = ") + tests
    ran = make_project({**files(""), **routers, "specs/test_served.py": text}, commit=False).pytest(
        "--glia-testbed=gpu", "-o", "glia_allow_imports=socket"
    )
    assert ran.code == 1
    assert "RuntimeError: no idea" in ran.text
    assert "raises.py:3: in route" in ran.text
    assert "the router gave (1, 2) where a pair (request, replica) is expected" in ran.text
    assert "PermissionError" in ran.text or "sandbox: none" in ran.text
    assert "3 failed" in ran.text


SKIPPED = """

def test_scheduler(glia, testbed):
    from sim.workloads import Workload
    work = Workload.from_arrays(arrival=[0.0], prompt_tokens=[9], output_tokens=[2])
    cluster = testbed(gpu="a10", replicas=1)
    glia.measure(lambda router, seed: cluster.run(work, router, scheduler=router), metric="mean_ttft")

def test_watermark(testbed):
    testbed(gpu="a10", watermark=0.05)

def test_unknown_cluster(testbed):
    testbed(gpu="h100")

def test_restarts(glia, serve):
    assert glia.measure(serve, metric="restarted_fraction") < 0.1

def test_closed(glia, testbed):
    cluster = testbed(gpu="a10", replicas=1)
    lengths = workloads.Independent(workloads.Fixed(12), workloads.Fixed(3))
    work = workloads.ClosedLoop(users=2, requests=4, lengths=lengths).workload
    glia.measure(lambda router, seed: cluster.run(work(seed), router), metric="mean_ttft")
"""


@pytest.mark.slow
def test_what_servers_cannot_do_skips(make_project: MakeProject) -> None:
    """A setting, a cluster, a metric, a closed loop, a batch scheduler: each skips its spec, with why."""
    ran = make_project(files(SKIPPED), commit=False).pytest("--glia-testbed=gpu", "-rs")
    assert (ran.code, "5 skipped" in ran.text) == (0, True), ran.out
    for reason in (
        "a batch scheduler runs inside the servers, where there is no sandbox",
        "the spec has watermark=0.05, which these servers are not known to have",
        "testbed.toml has no cluster for gpu='h100': it has {'gpu': 'a10', 'model': 'llama-3-8b'}",
        "restarted_fraction is not known on this testbed",
        "a closed loop runs in the simulator only",
    ):
        assert reason in ran.text, reason


def test_without_a_file_it_skips(make_project: MakeProject) -> None:
    """The reason names the file, and the setting that would name another."""
    project = make_project(files(COMPARED), commit=False)
    (project.folder / "testbed.toml").unlink()
    ran = project.pytest("--glia-testbed=gpu", "-rs")
    assert (ran.code, "1 skipped" in ran.text) == (0, True)
    assert re.search(r"no servers are known here: .*testbed\.toml \(glia_testbed_file\)", ran.text)


def test_wrong_file_fails(make_project: MakeProject) -> None:
    """The file of the setting, if it is wrong, fails the spec and names the place."""
    project = make_project(files(COMPARED, **{"other.toml": "[[cluster]]\nurl = 3\n"}), commit=False)
    ran = project.pytest("--glia-testbed=gpu", "-o", "glia_testbed_file=other.toml")
    assert ran.code == 1
    assert "--glia-testbed gpu:" in ran.text
    assert "other.toml, cluster 1 has 'url'; expected of spec, launch, urls" in ran.text


LAST = """

@pytest.fixture
def crowd(testbed):
    cluster = testbed(replicas=2, gpu="a10", model="llama-3-8b", kv_blocks=2240)
    def run(router, seed):
        arrival, prompts = [each / 30 for each in range(30)], [512 + seed % 3] * 30
        work = workloads.Workload.from_arrays(
            arrival=arrival, prompt_tokens=prompts, output_tokens=[8] * 30
        )
        return cluster.run(work, router=router)
    return run

def test_soon(glia, crowd):
    assert glia.measure(crowd, metric="mean_response_time") < 1.9

def test_no_restarts(glia, crowd):
    assert glia.measure(crowd, metric="restarted_fraction") < 0.5
"""

TEACHER = """\
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class Teacher:
    def design(self, lab):
        [candidate] = lab.candidates
        sources = {candidate.path: lab.start.sources[candidate.path].replace(b"-each.index", b"each.waiting")}
        trial = lab.full(sources, Hypothesis("shorter queues"), lab.start, race=False)
        return Proposal(trial.evaluation)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"teacher": Teacher()}
"""
LAST_ONE = """\
class Router:
    def route(self, queue, replicas, now):
        for request in queue:
            yield request, min(replicas, key=lambda each: -each.index)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "code", "says"),
    [
        ("well", 0, "on the testbed gpu 1 of 2 specs pass, 1 skipped: restarted_fraction is not known"),
        ("slowly", 1, "on the testbed gpu 0 of 2 specs pass, 1 skipped"),
        ("", 0, "on the testbed gpu 0 of 2 specs pass, 2 skipped: no servers are known here"),
    ],
)
def test_a_design_is_confirmed_on_servers_at_last(
    make_project: MakeProject, way: str, code: int, says: str
) -> None:
    """A search runs in the simulator; what it has confirmed there runs on the servers, too. A spec that fails
    there fails the command, the design delivered all the same; without servers it says so."""
    project = make_project(
        {
            **files(LAST),
            "candidates/router.py": LAST_ONE,
            "conftest.py": TEACHER,
            "servers.toml": CLUSTERS.replace('"well"', f'"{way}"'),
        }
    )
    file = "servers.toml" if way else "none.toml"
    ran = project.pytest(
        *("--glia-testbed=gpu", "--glia-optimize", "--glia-designer=teacher"),
        *("-o", f"glia_testbed_file={file}", "--glia-budget=100 sims"),
        XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
    )
    assert (ran.code, says in ran.text) == (code, True), ran.out
    assert project.branches("/best")
    assert project.processes() == []


def entry(**more: Any) -> Entry:
    given: dict[str, Any] = {
        "spec": {"gpu": "a10"},
        "launch": {"model": "m"},
        "urls": (),
        "served": "",
        "load": None,
        "requests": None,
        "settings": {},
    }
    return Entry(**{**given, **more})


def test_servers_are_started_as_the_spec_says() -> None:
    """What a spec says of replicas, cache and batches is what they are started with, in its own blocks,
    unless the file says otherwise; what vLLM has anyway is nothing to say."""
    said = entry(launch={"model": "m", "max_num_seqs": 9}).servers(
        {"gpu": "a10", "replicas": 3, "kv_blocks": 99, "max_num_seqs": 64, "engine": "vllm", "staleness": 0.5}
    )
    launch = said.launch
    assert launch is not None
    assert (launch.replicas, launch.kv_blocks, launch.block_size, launch.max_num_seqs) == (3, 99, 16, 9)
    assert said.scrape_interval == 0.5
    scaling = Autoscaling(max_replicas=5)
    launch = entry().servers({"autoscaling": scaling}).launch
    assert launch is not None
    assert (launch.replicas, launch.kv_blocks, launch.autoscaling) == (4, None, scaling)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"engine": "sarathi", "time_scale": 1.2}, r"the spec has time_scale=1\.2, which these servers"),
        ({"failures": (Failure(replica=0, at=1.0),)}, r"the spec has failures="),
    ],
)
def test_what_is_not_honoured_is_named(settings: Mapping[str, Any], says: str) -> None:
    """Unless it is declared in the cluster's `spec`, or is what the simulator has by default."""
    with pytest.raises(NotHonoured, match=says):
        entry().servers(settings)
    assert entry(spec=dict(settings)).servers(settings).launch is not None


def test_servers_at_urls_have_what_is_declared() -> None:
    """So many of them as the spec has replicas; too few, or a cache that nobody has declared, is not
    honoured."""
    running = entry(launch=None, urls=("http://a", "http://b", "http://c"), served="m")
    assert running.servers({"replicas": 2}).urls == ("http://a", "http://b")
    with pytest.raises(NotHonoured, match="the spec has 4 replicas, and there are 3 urls"):
        running.servers({"gpu": "a10"})
    with pytest.raises(NotHonoured, match="kv_blocks=99, which these servers are not known to have"):
        running.servers({"replicas": 2, "kv_blocks": 99})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is no TOML"),
        ("[clusters]\n", "has 'clusters'; expected [[cluster]]"),
        ("", "has no [[cluster]]; expected one or more"),
        ("[[cluster]]\nspec = 3\n", "cluster 1: spec=3; expected a dict"),
        ("[[cluster]]\nurls = ['http://a']\nload = true\nserved = 'm'", "load=True; expected a float"),
        ("[[cluster]]\nspec = { gpus = 1 }\n", "spec has 'gpus'; expected settings of sim.Cluster"),
        ("[[cluster]]\n", "expected one of launch (servers to start) and urls"),
        ("[[cluster]]\nlaunch = { mode = 'm' }\n", "launch has 'mode'; expected of block_size, command"),
        ("[[cluster]]\nlaunch = { replicas = 2 }\n", "launch={'replicas': 2}"),
        ("[[cluster]]\nurls = ['a:80']\nserved = 'm'\n", "expected http://HOST:PORT of each server"),
        ("[[cluster]]\nurls = ['http://a']\n", "urls and no `served`"),
        ("[[cluster]]\nlaunch = { model = 'm' }\nload = 0\n", "load=0; expected a fraction"),
        ("[[cluster]]\nlaunch = { model = 'm' }\nrequests = 0\n", "requests=0; expected a number"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str, says: str, tmp_path: Path) -> None:
    """With the place, what was given, and what is expected."""
    file = tmp_path / "testbed.toml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        read(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_other_testbeds_are_not_ours(tmp_path: Path) -> None:
    """Only `gpu` is."""
    assert glia_testbed("sim", tmp_path) is None


def test_load_is_a_fraction_of_the_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The capacity is measured once for like workloads, by a burst, and the same requests then come at that
    fraction of it."""
    from gpu_harness import specified
    from sim import Cluster
    from sim.workloads import sharegpt_bursty

    runs: list[Any] = []

    class Simulated:
        def __init__(self, launch: Any, **settings: Any) -> None: ...

        def run(self, workload: Any, *policies: Any, **more: Any) -> Any:
            runs.append(workload)
            return Cluster(replicas=2, engine="vllm").run(workload, policies[0])

        def close(self) -> None: ...

    from sim.baselines import RoundRobin

    monkeypatch.setattr(specified, "Testbed", Simulated)
    command = {"model": "m", "command": ("none",)}
    with_load = SpecTestbed([entry(load=0.5, requests=100, launch=command)], "testbed.toml")
    cluster = with_load(gpu="a10", replicas=2)
    for seed in (1, 2):
        cluster.run(sharegpt_bursty(rate=1.0, duration=400, seed=seed), RoundRobin())
    with_load.close()
    warming, burst, first, second = runs
    assert [len(each) for each in runs] == [100] * 4
    assert warming.arrival.max() == burst.arrival.max() == 0
    capacity = _rate(Cluster(replicas=2, engine="vllm").run(burst, RoundRobin()))
    for run in (first, second):
        rate = 99 / (run.arrival[-1] - run.arrival[0])
        assert rate == pytest.approx(0.5 * capacity, rel=0.25)  # LLQ's burst is not Round Robin's
    assert np.array_equal(first.prompt_tokens, burst.prompt_tokens)
