"""The compiled core: it agrees with the reference stepper, conserves everything, and is deterministic."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from sim import Cluster, Run, Workload, workloads
from sim.baselines import LeastLoadedQueue
from sim.policies import ReplicaView, RequestView
from tests.sim.reference import Replica, simulate
from tests.sim.strategies import ROUTERS, Learner, scenarios

pytestmark = pytest.mark.filterwarnings("error")
checked = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def rows(run: Run) -> list[tuple[Any, ...]]:
    """A run's table as one tuple a request."""
    names = ["routed", "admitted", "first_token", "finish", "replica", "restarts", "recompute_time"]
    return list(zip(*(run.requests[name].tolist() for name in names), strict=True))


@pytest.mark.parametrize("router", ROUTERS)
@checked
@given(scenario=scenarios())
def test_equals_the_reference(router: str, scenario: tuple[Cluster, Workload]) -> None:
    """Every time, replica and restart of every request is the one that the plain stepper gives."""
    cluster, workload = scenario
    run = cluster.run(workload, ROUTERS[router]())
    expected = [
        (r.routed, r.admitted, r.first_token, r.finish, r.replica, r.restarts, r.recompute_time)
        for r in simulate(cluster, workload, ROUTERS[router]())
    ]
    assert rows(run) == expected


def test_equals_the_reference_on_the_real_problem() -> None:
    """At the size and load of the routing problem, with restarts, both agree as well."""
    workload = workloads.sharegpt_bursty(rate=9.0, duration=60, seed=3)
    cluster = Cluster(kv_blocks=1100)
    run = cluster.run(workload, LeastLoadedQueue())
    assert run.metrics["restarts"] > 0.05
    expected = simulate(cluster, workload, LeastLoadedQueue())
    assert run.requests["finish"].tolist() == [request.finish for request in expected]
    assert run.requests["restarts"].tolist() == [request.restarts for request in expected]


@checked
@given(scenario=scenarios())
def test_the_reference_keeps_its_books(scenario: tuple[Cluster, Workload]) -> None:
    """The yardstick itself: blocks cover the cached tokens and never exceed the cache."""
    cluster, workload = scenario

    def watch(replicas: list[Replica]) -> None:
        for replica in replicas:
            assert replica.blocks_used <= cluster.kv_blocks
            assert len(replica.batch) <= cluster.max_num_seqs
            assert all(request.cached <= request.blocks * cluster.block_size for request in replica.batch)

    simulate(cluster, workload, Learner(), watch)


class Auditor:
    """Routes like LLQ and checks at each call what the views say."""

    def __init__(self, cluster: Cluster, workload: Workload) -> None:
        self.cluster, self.workload = cluster, workload
        self.inner = LeastLoadedQueue()
        self.finished: list[int] = []
        self.seen: dict[int, int] = {}

    def completed(self, request: RequestView, now: float) -> None:
        assert request.state == "finished"
        assert request.tokens_done - request.prompt_tokens == self.workload.output_tokens[request.id]
        self.finished.append(request.id)

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterable[tuple[RequestView, ReplicaView]]:
        for request in queue:
            assert request.arrival <= now
            assert (request.state, request.tokens_done) == ("queued", 0)
        placed = [request.id for replica in replicas for request in replica.requests]
        known = [*self.finished, *placed, *(request.id for request in queue)]
        assert sorted(known) == list(range(int((self.workload.arrival <= now).sum())))[: len(known)]
        for replica in replicas:
            states = [request.state for request in replica.requests]
            assert states == ["running"] * replica.running + ["waiting"] * replica.waiting
            assert 0 <= replica.blocks_used <= replica.blocks_total == self.cluster.kv_blocks
            assert replica.running <= self.cluster.max_num_seqs
            waiting = replica.requests[replica.running :]
            assert replica.waiting_prompt_tokens == sum(request.prompt_tokens for request in waiting)
            for request in replica.requests:
                assert request.tokens_done >= self.seen.get(request.id, 0)
                assert request.tokens_done < request.prompt_tokens + self.workload.output_tokens[request.id]
                self.seen[request.id] = request.tokens_done
        for request, replica in self.inner.route(queue, replicas, now):
            before = (replica.waiting, replica.waiting_prompt_tokens)
            yield request, replica
            assert (replica.waiting, replica.waiting_prompt_tokens) == (
                before[0] + 1,
                before[1] + request.prompt_tokens,
            )
            assert replica.requests[-1] is request


@checked
@given(scenario=scenarios())
def test_conservation(scenario: tuple[Cluster, Workload]) -> None:
    """Every request finishes once, tokens add up, blocks stay within the cache, no view shows the future."""
    cluster, workload = replace(scenario[0], failures=(), staleness=0.0), scenario[1]
    auditor = Auditor(cluster, workload)
    run = cluster.run(workload, auditor)
    assert sorted(auditor.finished) == list(range(len(workload)))
    table, totals = run.requests, run.totals
    assert (table["arrival"] <= table["routed"]).all()
    assert (table["routed"] <= table["admitted"]).all()
    assert (table["admitted"] < table["first_token"]).all()
    assert (table["first_token"] <= table["finish"]).all()
    restarts = table["restarts"].sum()
    computed = totals["prefill_tokens"] + totals["decode_tokens"]
    needed = (workload.prompt_tokens + workload.output_tokens - 1).sum()
    assert computed == needed if restarts == 0 else computed > needed
    assert (run.series["blocks_used"] <= cluster.kv_blocks).all()
    assert all(np.isfinite(value) for value in run.metrics.values())
    shares = ("router_wait_share", "replica_wait_share", "recompute_share", "service_share")
    assert sum(run.metrics[share] for share in shares) == pytest.approx(1)
    assert all(run.metrics[share] >= -1e-12 for share in shares)


@checked
@given(scenario=scenarios())
def test_same_input_same_bytes(scenario: tuple[Cluster, Workload]) -> None:
    """Two runs of the same input do not differ in a bit."""
    cluster, workload = scenario
    assert digest(cluster.run(workload, Learner())) == digest(cluster.run(workload, Learner()))


def digest(run: Run) -> str:
    """A hash over all that a run says."""
    parts = [array.tobytes() for table in (run.requests, run.series) for array in table.values()]
    return hashlib.sha256(b"".join(parts) + repr(dict(run.metrics)).encode()).hexdigest()


def printed_afresh(program: str) -> set[str]:
    """What a program prints in two processes that hash strings differently."""
    return {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_bytes() -> None:
    """Neither hash seeds nor the state of a process reach a result."""
    program = (
        "from sim import Cluster, workloads; from sim.baselines import Expert;"
        "from tests.sim.test_core import digest;"
        "print(digest(Cluster().run(workloads.sharegpt_bursty(9.0, 60, 5), Expert())))"
    )
    assert len(printed_afresh(program)) == 1
