"""The testbed on server processes that are trivial, and on some that fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason='the testbed needs it: pip install "pytest-glia[harness]"')

from gpu_harness import Launch, Testbed
from gpu_harness.launching import named_scheduler
from gpu_harness.load import LoadError
from gpu_harness.servers import ServerError
from sim.autoscalers import Fixed
from sim.baselines import LeastLoadedQueue, RoundRobin
from sim.policies import PolicyError
from sim.results import Run
from sim.scaling import Autoscaling
from sim.schedulers import ShortestPromptFirst
from sim.workloads import Workload

ROOT = Path(__file__).parents[2]
COUNT = 20
WORKLOAD = Workload.from_arrays(
    arrival=np.arange(COUNT) * 0.01,
    prompt_tokens=np.arange(COUNT) + 10,
    output_tokens=np.arange(COUNT) % 5 + 2,
)


def trivial(way: str = "well", replicas: int = 2, **settings: Any) -> Launch:
    command = (sys.executable, "-m", "tests.gpu_harness.upstream", "{port}", way)
    return Launch(model="none", replicas=replicas, command=command, **settings)


@pytest.fixture(scope="module")
def testbed() -> Iterator[Testbed]:
    with Testbed(trivial(), scrape_interval=0.05) as running:
        yield running


@pytest.fixture(scope="module")
def run(testbed: Testbed) -> Run:
    return testbed.run(WORKLOAD, router=RoundRobin())


def test_the_table_is_complete_and_in_order(run: Run) -> None:
    """Every request arrived when the workload says, and then was routed, got its first token and finished;
    the replicas are those that the router named."""
    table = run.requests
    assert table["arrival"].tolist() == WORKLOAD.arrival.tolist()
    assert table["tokens_made"].tolist() == WORKLOAD.output_tokens.tolist()
    times = [table[name] for name in ("arrival", "routed", "admitted", "first_token", "finish")]
    for before, after in pairwise(times):
        assert (after >= before).all()
    # In turn, as they came to the proxy: on a busy machine not quite as they were sent.
    assert np.bincount(table["replica"]).tolist() == [COUNT // 2] * 2


def test_metrics_are_those_of_the_simulator(run: Run) -> None:
    """All metrics are there; those that such servers do not tell are NaN, never zero; a failure would be
    unfinished."""
    from sim import Cluster

    simulated = Cluster(replicas=2).run(WORKLOAD, router=RoundRobin())
    assert set(run.metrics) == set(simulated.metrics)
    unknown = {name for name, value in run.metrics.items() if np.isnan(value)}
    assert unknown == {
        "restarts",
        "restarted_fraction",
        "unrestarted_fraction",
        "recompute_share",
        "replica_wait_share",
        "service_share",
    }
    assert run.metrics["unfinished_fraction"] == 0
    assert run.metrics["mean_response_time"] > 0
    assert run.totals["failed"] == 0
    assert run.totals["staleness_mean"] > 0


def test_runs_are_kept_like_simulated_ones(run: Run, tmp_path: Path) -> None:
    """To Parquet and back nothing is lost."""
    run.to_parquet(tmp_path / "run.parquet")
    again = Run.from_parquet(tmp_path / "run.parquet")
    assert again.totals == pytest.approx(run.totals, nan_ok=True)
    assert all(
        np.array_equal(again.requests[name], run.requests[name], equal_nan=True) for name in run.requests
    )


@pytest.mark.slow
def test_slowdowns_are_against_requests_like_those_of_the_workload() -> None:
    """Not against those of the workload before: one with an output of one token says nothing of decoding."""

    def alike(output: int) -> Workload:
        return Workload.from_arrays(arrival=[0.0], prompt_tokens=[10], output_tokens=[output])

    with Testbed(trivial("in time", replicas=1)) as testbed:
        for output in (1, 12):
            assert testbed.run(alike(output), router=RoundRobin()).metrics["mean_slowdown"] < 3


def test_a_failing_router_ends_the_run(testbed: Testbed) -> None:
    """Unlike the proxy, which goes on, a measurement under another router than was asked for is none."""

    class Raising:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            raise RuntimeError("no idea")

    with pytest.raises(PolicyError, match="RuntimeError: no idea"):
        testbed.run(WORKLOAD, router=Raising())


def test_running_servers_are_measured_and_left_running(testbed: Testbed) -> None:
    """By URL no server is started, and none is ended."""
    with Testbed(urls=testbed.urls) as attached:
        assert attached.run(WORKLOAD, router=LeastLoadedQueue()).metrics["unfinished_fraction"] == 0
    assert testbed.run(WORKLOAD, router=LeastLoadedQueue()).metrics["unfinished_fraction"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "error", "says"),
    [
        (
            "dies at start",
            ServerError,
            r"(?s)exit code 3.*:\nValueError: the root cause\n\.\.\.\nat\n.*OutOfMemoryError: the last",
        ),
        ("never healthy", ServerError, r"is not healthy after 1 s \(start_timeout\)"),
        ("dies in mid-run", ServerError, r"(?s)exit code 4.*last words|was lost in mid-run"),
        ("hangs", ServerError, r"open requests and has streamed nothing for . s \(stall_timeout=1\)"),
        ("is stopped", ServerError, r"was lost in mid-run: no answer within 5 s|has streamed nothing for"),
        ("runs out of memory", ServerError, r"(?s)out of memory: lower kv_blocks.*\nMemoryError"),
        ("is killed", ServerError, r"exit code 137 \(killed, as the kernel does|was lost in mid-run"),
        ("no metrics endpoint", ServerError, r"cannot be used: GET /metrics is answered with 404, not 200"),
        ("no metrics", ServerError, r"cannot be used: /metrics has no vllm:num_requests_running"),
        ("another version", ServerError, r"the replicas are of different versions: http.* expected one"),
        ("lies", LoadError, r"the server's usage has .* output tokens; expected"),
    ],
)
def test_what_goes_wrong_is_an_error_that_says_so(way: str, error: type[Exception], says: str) -> None:
    """Each way in which a server can fail ends the run with an error; no server is left."""
    # Short where it is to run out, long where a busy machine must not matter.
    start, stall = (1 if way == "never healthy" else 60), (1 if way == "hangs" else 60)
    with Testbed(trivial(way), start_timeout=start, stall_timeout=stall, scrape_interval=0.05) as testbed:
        with pytest.raises(error, match=says):
            testbed.run(WORKLOAD, router=RoundRobin())
        pids = testbed.pids
    assert not any(map(alive, pids))


def test_what_cannot_be_started_is_said_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A taken port, a missing model, missing vLLM, too few GPUs: each with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} is taken .*; choose others with ports="):
            Testbed(trivial(replicas=1, ports=(port,))).run(WORKLOAD, router=RoundRobin())
    with pytest.raises(FileNotFoundError, match=r"is no model folder: it has no config\.json"):
        Testbed(Launch(model=str(tmp_path / "missing"))).run(WORKLOAD, router=RoundRobin())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(ServerError, match=r"replicas=2 of tensor_parallel=2 need 4 GPUs; there are 3"):
        Testbed(trivial(tensor_parallel=2)).run(WORKLOAD, router=RoundRobin())


def test_each_replica_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are taken in order from CUDA_VISIBLE_DEVICES, as many as the model is split over."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a,7,8")
    started = trivial(tensor_parallel=2).commands(None, tmp_path)
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, _, environment in started] == ["4,5", "GPU-a,7"]


def test_settings_that_make_no_sense_are_refused() -> None:
    """With what was expected."""

    class Local:
        def plan(self, engine: Any, now: float) -> Any:
            return None

    with pytest.raises(ValueError, match="expected one of the two: servers to start, or running ones"):
        Testbed()
    with pytest.raises(ValueError, match="replicas=0; expected a whole number of at least 1"):
        Launch(model="m", replicas=0)
    with pytest.raises(ValueError, match=r"ports=\(1,\); expected one for each of 2 replicas"):
        Launch(model="m", ports=(1,))
    with pytest.raises(
        ValueError, match=r"an autoscaler and no autoscaling; expected Launch\(\.\.\., autoscaling"
    ):
        Testbed(trivial()).run(WORKLOAD, router=RoundRobin(), autoscaler=Fixed(2))
    with pytest.raises(ValueError, match="each server makes its own"):
        named_scheduler(Local())
    assert named_scheduler(ShortestPromptFirst()) == "ShortestPromptFirst"


PARENT = """\
import os, signal, sys, time
from gpu_harness.servers import started
command = [sys.executable, "-m", "tests.gpu_harness.upstream", "{port}", "well"]
from gpu_harness import Launch
from pathlib import Path
launch = Launch(model="none", replicas=2, command=tuple(command))
servers = started(launch.commands(None, Path(".")), 30)
print(*(server.pid for server in servers), flush=True)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "signalled"),
    [
        ("time.sleep(600)", signal.SIGKILL),
        ("time.sleep(600)", signal.SIGINT),
        ("raise RuntimeError", None),
        ("os._exit(0)", None),
    ],
)
def test_no_server_outlives_its_parent(ending: str, signalled: signal.Signals | None) -> None:
    """However the parent ends: killed, interrupted, by an exception, or without any cleaning up."""
    text = PARENT.replace("{ending}", ending)
    parent = subprocess.Popen(
        [sys.executable, "-c", text],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    keepers = [int(word) for word in parent.stdout.readline().split()]
    family = [*keepers, *(child for keeper in keepers for child in children(keeper))]
    assert len(family) == 4 or ending != "time.sleep(600)"
    if signalled is not None:
        parent.send_signal(signalled)
    parent.wait(30)
    parent.stdout.close()
    end = time.monotonic() + 30
    while any(map(alive, family)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(alive, family))


def children(parent: int) -> list[int]:
    """Of a process, by /proc."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def alive(pid: int) -> bool:
    """Whether the process is there and has not ended."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return status not in "ZX"


@pytest.mark.slow
def test_an_autoscaler_starts_and_stops_servers() -> None:
    """A replica that is asked for starts, takes requests and is paid for from then; one too many drains,
    then its server ends; the next run begins with as many as the first."""

    class Wave:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def target(self, cluster: Any, now: float) -> int:
            self.seen.append((len(cluster.replicas), cluster.starting))
            return 2 if self.seen.count((2, 0)) < 8 else 1

    class Newest:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return [(request, replicas[-1]) for request in queue]

    scaling = Autoscaling(max_replicas=2, interval=0.1)
    waves = Wave()
    long = Workload.from_arrays(
        arrival=np.arange(80) * 0.06, prompt_tokens=np.full(80, 20), output_tokens=np.full(80, 3)
    )
    with Testbed(trivial(replicas=1, autoscaling=scaling), scrape_interval=0.05) as testbed:
        run = testbed.run(long, router=Newest(), autoscaler=waves)
        assert testbed.pids == ()
    assert run.metrics["unfinished_fraction"] == 0
    assert run.totals["replicas"] == 1
    assert run.totals["autoscaler_calls"] == len(waves.seen)
    assert {(1, 0), (1, 1), (2, 0)} <= set(waves.seen)
    assert waves.seen[-1] == (1, 0)
    # What holds the fewest requests goes first: the old one, for the router prefers the new one.
    old, new = run.replicas["paid"].tolist()
    assert 0 < old < 5
    assert 0 < new < 5
    assert run.requests["replica"][0] == 0
    assert run.series["active"].max() == 2
