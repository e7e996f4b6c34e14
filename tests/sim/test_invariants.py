"""What holds in every run, on both engines: no policy sees the future, clocks do not go back, and the same
input gives the same bytes under every version of Python."""

from __future__ import annotations

import hashlib
import platform
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from sim import Cluster, Prefixes, Run, Workload
from sim.schedulers import ShortestPromptFirst
from tests.sim.strategies import Learner, begin_alike, scenarios_of_both

checked = settings(max_examples=120, deadline=None, derandomize=True, database=None)

SEEN = ("id", "arrival", "prompt_tokens", "priority", "session", "tokens_done", "state", "prefix")
SEEN_BY_SCHEDULER = ("computed_tokens", "tokens_to_compute", "prefilling", "blocks", "preemptions")
GAUGES = ("index", "waiting", "running", "waiting_prompt_tokens", "blocks_used", "preemptions")


def read(view: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """What a view says."""
    return tuple(getattr(view, name) for name in names)


class Recorder:
    """A router and a batch scheduler that note all that they can read, and decide by it."""

    def __init__(self) -> None:
        self.router, self.scheduler = Learner(), ShortestPromptFirst()
        self.log: list[tuple[float, Any]] = []

    def completed(self, request: Any, now: float) -> None:
        self.log.append((now, read(request, SEEN)))
        self.router.completed(request, now)

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        held = [read(request, SEEN) for request in queue]
        there = [(read(one, GAUGES), [read(request, SEEN) for request in one.requests]) for one in replicas]
        self.log.append((now, (held, there)))
        return self.router.route(queue, replicas, now)

    def plan(self, engine: Any, now: float) -> Any:
        everyone = (*engine.running, *engine.waiting)
        seen = [read(request, SEEN + SEEN_BY_SCHEDULER) for request in everyone]
        self.log.append((now, (engine.index, len(engine.running), engine.blocks_free, seen)))
        return self.scheduler.plan(engine, now)


def record(cluster: Cluster, workload: Workload, **more: Any) -> tuple[Recorder, Run]:
    """A run that notes everything; on vLLM's engine with a batch scheduler."""
    recorder = Recorder()
    scheduler = recorder if cluster.engine == "vllm" else None
    return recorder, cluster.run(workload, recorder, scheduler, **more)


def with_another_future(workload: Workload, run: Run, moment: float, rng: np.random.Generator) -> Workload:
    """The same until that moment, at which the run was stopped: what arrives later does so at other times
    with other lengths, and what has not finished goes on for another while."""
    arrived = len(run.requests["arrival"])
    most = int((workload.prompt_tokens + workload.output_tokens).max())
    prompt, output = workload.prompt_tokens.copy(), workload.output_tokens.copy()
    arrival = workload.arrival.copy()
    arrival[arrived:] = moment + np.cumsum(rng.exponential(0.2, len(workload) - arrived))
    prompt[arrived:] = rng.integers(1, prompt.max() + 1, len(workload) - arrived)
    made = np.zeros(len(workload), int)
    made[:arrived] = run.requests["tokens_made"]
    open_ = np.ones(len(workload), bool)
    open_[:arrived] = np.isnan(run.requests["finish"])
    output[open_] = rng.integers(made[open_] + 1, np.maximum(most - prompt, made + 1)[open_] + 1)
    priority = workload.priority
    if priority is not None:
        priority = np.concatenate([priority[:arrived], rng.integers(0, 3, len(workload) - arrived)])
    prefixes = workload.prefixes
    if prefixes is not None:
        size = prefixes.block_size
        rows: list[ArrayLike] = [
            prefixes.hashes[begin:end][: -(-tokens // size)]
            for (begin, end), tokens in zip(pairwise(prefixes.starts), prompt + output, strict=True)
        ]
        prefixes = Prefixes.from_rows(rows, size)
    return Workload.from_arrays(
        arrival=arrival,
        prompt_tokens=prompt,
        output_tokens=output,
        priority=priority,
        session=workload.session,
        prefixes=prefixes,
    )


@checked
@given(scenario=scenarios_of_both(), part=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_no_view_shows_the_future(scenario: tuple[Cluster, Workload], part: float, seed: int) -> None:
    """Two workloads that are equal up to a moment let policies read the same until then."""
    cluster, workload = scenario
    recorder, whole = record(cluster, workload)
    moment = part * float(np.nanmax(whole.requests["finish"]))
    _, stopped = record(cluster, workload, horizon=max(moment, 1e-9))
    other, _ = record(cluster, with_another_future(workload, stopped, moment, np.random.default_rng(seed)))
    until, others = ([each for each in one.log if each[0] <= moment] for one in (recorder, other))
    assert until == others


@checked
@given(scenario=scenarios_of_both(), part=st.floats(0.01, 1.0))
def test_a_share_is_part_of_a_whole(scenario: tuple[Cluster, Workload], part: float) -> None:
    """However failures and the horizon cut steps off, no share of the metrics is below 0 or above 1."""
    cluster, workload = scenario
    end = cluster.run(workload, Learner()).totals["end"]
    run = cluster.run(workload, Learner(), horizon=max(part * end, 1e-9))
    for name, value in run.metrics.items():
        if name.endswith(("_share", "_fraction")) or name.startswith("kv_use"):
            assert -1e-9 <= value <= 1 + 1e-9, name
    assert -1e-9 <= run.totals["batch_full_time"] <= run.totals["busy_time"] + 1e-9


@checked
@given(scenario=scenarios_of_both())
def test_clocks_do_not_go_back(scenario: tuple[Cluster, Workload]) -> None:
    """Policies are called in the order of time, within the run; a request's moments are in order, and so are
    the samples."""
    cluster, workload = scenario
    recorder, run = record(cluster, workload)
    calls = [now for now, _ in recorder.log]
    assert calls == sorted(calls)
    assert 0 <= calls[0] <= calls[-1] <= run.totals["end"]
    moments = [run.requests[name] for name in ("arrival", "routed", "admitted", "first_token", "finish")]
    for before, after in pairwise(moments):
        assert (before <= after).all()
    assert (np.diff(run.series["time"]) > 0).all()


DIGESTS = {
    "sarathi": "374229ed367feb87ef485323dc53ca8c36ddbb6b046a9fa975ec3b77790c6376",
    "vllm": "8445406167b6dcaba6caccdb6d91b504c19e244c9198e1f50d4c2ca4b1d38e69",
}
"""Of the runs below, the same on CPython 3.11 to 3.13."""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="the bytes are those of x86-64: elsewhere compilers may fuse a product and a sum",
)
@pytest.mark.parametrize("engine", DIGESTS)
def test_every_version_gives_the_same_bytes(engine: str) -> None:
    """The table of a run with evictions, made without a random generator, is this one to the last bit."""
    number, draws = 1, []
    for _ in range(900):
        number = number * 69_621 % (2**31 - 1)
        draws.append(number)
    arrival, prompt, output = np.array(draws).reshape(3, 300)
    workload = Workload.from_arrays(
        arrival=np.sort(arrival % 2560) / 64.0,
        prompt_tokens=330 + prompt % 300,
        output_tokens=1 + output % 400,
        prefixes=begin_alike(np.arange(300) % 7, np.full(300, 160)),
    )
    run = Cluster(replicas=2, kv_blocks=600, engine=engine).run(workload, Learner())
    assert run.metrics["restarts"] > 0.05
    table = b"".join(run.requests[name].tobytes() for name in sorted(run.requests))
    assert hashlib.sha256(table).hexdigest() == DIGESTS[engine]
