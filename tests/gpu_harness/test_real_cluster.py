"""The testbed on two real vLLM servers with small caches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.baselines import HeadRoomAdmission, LeastLoadedQueue, LeastOutstandingRequests, RoundRobin
from sim.results import Run
from sim.schedulers import ShortestPromptFirst
from sim.workloads import Prefixes, Workload
from tests.gpu_harness.tiny_model import LAUNCH, make_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

COUNT = 48
ROOT = Path(__file__).parents[2]


def workload() -> Workload:
    """Bursts that want more cache than there is; a quarter begins as others do."""
    rng = np.random.default_rng(1)
    return Workload.from_arrays(
        arrival=np.sort(rng.uniform(0, 1.0, COUNT)),
        prompt_tokens=rng.integers(70, 250, COUNT),
        output_tokens=rng.integers(20, 120, COUNT),
        prefixes=Prefixes.from_rows([[5, 6] if number % 4 == 0 else [] for number in range(COUNT)], 32),
    )


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from gpu_harness import Launch, Testbed

    model = make_model(tmp_path_factory.mktemp("model"))
    launch = Launch(
        model=str(model),
        replicas=2,
        kv_blocks=31,
        block_size=32,
        max_num_seqs=16,
        max_model_len=512,
        options=LAUNCH,
    )
    with Testbed(launch, start_timeout=300, stall_timeout=120, scrape_interval=0.1) as running:
        yield running


def candidate() -> Any:
    from sim.layers import policy

    return policy("router", str(ROOT / "candidates/router.py")).new(workload(), 0)


ROUTERS = {
    "RoundRobin": RoundRobin,
    "LeastLoadedQueue": LeastLoadedQueue,
    "LeastOutstandingRequests": LeastOutstandingRequests,
    "HeadRoomAdmission": HeadRoomAdmission,
    "candidates/router.py": candidate,
}


@pytest.fixture(scope="module")
def runs(testbed: Any) -> dict[str, Run]:
    return {name: testbed.run(workload(), router=make()) for name, make in ROUTERS.items()}


@pytest.mark.parametrize("name", ROUTERS)
def test_table_and_metrics_are_complete(runs: dict[str, Run], name: str) -> None:
    """Under every router each request finishes with its exact tokens, its times are in order, both replicas
    serve, and no metric that such servers tell is missing."""
    run, load = runs[name], workload()
    table = run.requests
    assert table["tokens_made"].tolist() == load.output_tokens.tolist()
    assert table["prompt_tokens"].tolist() == load.prompt_tokens.tolist()
    for before, after in (
        ("arrival", "routed"),
        ("routed", "admitted"),
        ("admitted", "first_token"),
        ("first_token", "finish"),
    ):
        assert (table[after] >= table[before]).all(), (before, after)
    assert set(table["replica"].tolist()) == {0, 1}
    assert {metric for metric, value in run.metrics.items() if math.isnan(value)} == {"batch_full_share"}
    assert run.metrics["unfinished_fraction"] == 0
    assert run.totals["decode_tokens"] == load.output_tokens.sum()
    assert run.series["running"].max() > 1
    assert 0 < run.metrics["kv_use_mean"] <= 1


def test_what_the_engine_tells_is_in_the_table(runs: dict[str, Run]) -> None:
    """Evictions of the requests are those that the servers count, each with its time of recomputation, and
    shared prefixes are found in the caches."""
    run = runs["RoundRobin"]
    restarts = run.requests["restarts"]
    assert restarts.sum() == run.totals["preemptions"]
    assert restarts.sum() > 0
    assert ((run.requests["recompute_time"] > 0) == (restarts > 0)).all()
    assert run.requests["cached_tokens"].sum() > 0


def test_routers_that_hold_requests_evict_fewer(runs: dict[str, Run]) -> None:
    """The routers that keep head-room have fewer restarts than Round Robin, and requests wait for it."""
    for name in ("HeadRoomAdmission", "candidates/router.py"):
        assert runs[name].totals["preemptions"] < runs["RoundRobin"].totals["preemptions"]
        assert runs[name].totals["queue_max"] > 0


def test_a_batch_scheduler_runs_inside_the_servers(testbed: Any) -> None:
    """The servers are started again with it; the requests are served by its plans."""
    run = testbed.run(workload(), router=RoundRobin(), scheduler=ShortestPromptFirst())
    assert run.metrics["unfinished_fraction"] == 0
    waited = run.requests["admitted"] - run.requests["routed"]
    prompts = run.requests["prompt_tokens"]
    assert waited[prompts < 130].mean() < waited[prompts > 190].mean()
