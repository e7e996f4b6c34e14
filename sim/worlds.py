"""Other worlds to run a policy in, so that one that knows too much gives itself away.

Within `varied` every run of a cluster serves another draw of its workload: the same lengths at the same
moments, dealt out anew, a little later. A policy that decides by what it may see is as good there as before;
one that knows the workload by heart, or draws it again from the seed, is not.

Within `future_changed` every run serves a workload that is the same up to a recorded decision, in all that
a policy may see, and another one afterwards: requests not yet finished turn out longer, and what arrives
later comes at other moments with other lengths. A policy that sees no future decides the same up to there.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.recording import Recorder, Recording, recording
from sim.workloads import ClosedWorkload, Workload

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.results import Run

__all__ = ["future_changed", "varied"]

AnyWorkload = Workload | ClosedWorkload

_ALIKE = 32
"""Requests of like prompts among which outputs are exchanged: few beside thousands, so that how outputs hang
on prompts stays, and enough that a known prompt tells little."""

_SHIFT = 10.0
"""Seconds by which a varied workload begins later at most: enough that no moment is what it was, and little
beside the hours of a diurnal load."""


@dataclass(frozen=True)
class Change:
    """The decision after which the future is another one."""

    logs: Sequence[tuple[Recorder, bytes]]
    call: int
    key: int


@dataclass(frozen=True)
class _Variation:
    """Another draw of every workload: each run's is its own, for a policy remembers what it met before."""

    key: int
    runs: Iterator[int]


_VARIATION: ContextVar[_Variation | None] = ContextVar("variation", default=None)
_CHANGE: ContextVar[Change | None] = ContextVar("change", default=None)


@contextmanager
def varied(key: int) -> Iterator[None]:
    """Run every workload in another draw, decided by `key` and by how many were run before."""
    token = _VARIATION.set(_Variation(key, itertools.count()))
    try:
        yield
    finally:
        _VARIATION.reset(token)


@contextmanager
def future_changed(logs: Sequence[tuple[Recorder, bytes]], call: int, key: int) -> Iterator[None]:
    """Run every workload with another future from a decision on, decided by `key`.

    `logs` has the recorders that stand for policies here, each with the log of what its policy has decided
    before; `call` is the ordinal, from 0, of a call of the first.
    """
    token = _CHANGE.set(Change(logs, call, key))
    try:
        yield
    finally:
        _CHANGE.reset(token)


def workload_here(
    cluster: Cluster, workload: AnyWorkload, policies: Mapping[str, Any], horizon: float | None
) -> AnyWorkload:
    """The workload as it is in the world that the caller is in."""
    variation, change = _VARIATION.get(), _CHANGE.get()
    if variation is not None:
        rng = np.random.default_rng([variation.key, len(workload), next(variation.runs)])
        workload = _dealt_anew(workload, rng)
    if change is None:
        return workload
    call = change.call - change.logs[0][0].calls
    if call < 0:
        return workload
    tokens = _CHANGE.set(None), _VARIATION.set(None)
    try:
        moments, run = _replayed(cluster, workload, policies, horizon, change)
    finally:
        _CHANGE.reset(tokens[0])
        _VARIATION.reset(tokens[1])
    if call >= len(moments):
        return workload
    rng = np.random.default_rng([change.key, len(workload)])
    return _other_future(workload, moments[call], run, _most_tokens(cluster), rng)


def _dealt_anew(workload: AnyWorkload, rng: np.random.Generator) -> AnyWorkload:
    """The requests in another order, outputs exchanged among like prompts, at the same moments but later.

    Requests of conversations or with common prefixes stay in their order, for what they share depends on it.
    """
    later, order = rng.uniform(0, _SHIFT), rng.permutation(len(workload))
    # Who knows the requests by heart would find an output by its prompt: like prompts exchange theirs.
    by_prompt = order[np.argsort(workload.prompt_tokens[order], kind="stable")]
    exchanged = np.arange(len(order))
    for begin in range(0, len(order), _ALIKE):
        alike = by_prompt[begin : begin + _ALIKE]
        exchanged[alike] = rng.permutation(alike)
    if isinstance(workload, ClosedWorkload):
        return replace(
            workload,
            starts=workload.starts + later,
            prompt_tokens=workload.prompt_tokens[order],
            output_tokens=workload.output_tokens[exchanged[order]],
        )
    columns: dict[str, Any] = {"arrival": workload.arrival + later}
    if workload.prefixes is None and workload.session is None:
        for name in ("prompt_tokens", "priority", "ttft_slo", "tpot_slo"):
            column = getattr(workload, name)
            columns[name] = None if column is None else column[order]
        columns["output_tokens"] = workload.output_tokens[exchanged[order]]
    return replace(workload, **columns)


def _other_future(
    workload: AnyWorkload, now: float, run: Run, most: int, rng: np.random.Generator
) -> AnyWorkload:
    """The workload with another future after `now` (seconds), given how it went in a run.

    What has arrived and not finished makes more output, as far as it fits (`most` tokens); of what has not
    arrived the outputs are dealt anew, and the gaps between the arrivals.
    """
    outputs = workload.output_tokens.copy()
    arrival, finish = (np.full(len(outputs), np.inf) for _ in range(2))
    arrival[: len(run.requests["arrival"])] = run.requests["arrival"]
    finish[: len(run.requests["finish"])] = run.requests["finish"]
    here, later = np.flatnonzero((arrival <= now) & ~(finish <= now)), np.flatnonzero(arrival > now)
    room = np.maximum(most - workload.prompt_tokens[here] - outputs[here], 0)
    mean = int(outputs.mean())
    outputs[here] += np.minimum(rng.integers(1, 2 * mean + 2, len(here)), room)
    if isinstance(workload, ClosedWorkload):
        outputs[later] = rng.permutation(outputs[later])
        return replace(workload, output_tokens=outputs)
    if workload.prefixes is None:
        outputs[later] = rng.permutation(outputs[later])
    else:  # what is shared is part of what was put out: it must not become shorter
        outputs[later] += rng.integers(1, mean + 2, len(later))
    arrival = workload.arrival.copy()
    if len(later):
        before = max(now, arrival[later[0] - 1] if later[0] else 0.0)
        gaps = np.diff(arrival[later], prepend=before)
        arrival[later] = before + np.cumsum(rng.permutation(gaps) + 1e-6)
    return replace(workload, arrival=arrival, output_tokens=outputs)


def _replayed(
    cluster: Cluster,
    workload: AnyWorkload,
    policies: Mapping[str, Any],
    horizon: float | None,
    change: Change,
) -> tuple[list[float], Run]:
    """When the calls of the first recorded policy were, in seconds, and the run that was recorded."""
    clocks = {id(recorder): _Clock(recording(log).after(recorder)) for recorder, log in change.logs}
    stand_ins = {
        name: clocks[id(policy)] if id(policy) in clocks else copy.deepcopy(policy)
        for name, policy in policies.items()
    }
    run = cluster.run(workload, **stand_ins, horizon=horizon)
    return clocks[id(change.logs[0][0])].moments, run


class _Clock:
    """A recording as a policy, that notes when it is asked."""

    def __init__(self, recorded: Recording) -> None:
        self._recorded = recorded
        self.plans_decodes = recorded.plans_decodes
        self.moments: list[float] = []

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        self.moments.append(now)
        return self._recorded.route(queue, replicas, now)

    def plan(self, engine: Any, now: float) -> Any:
        self.moments.append(now)
        return self._recorded.plan(engine, now)

    def target(self, cluster: Any, now: float) -> int:
        self.moments.append(now)
        return self._recorded.target(cluster, now)


def _most_tokens(cluster: Cluster) -> int:
    """Tokens of a request that fits every replica alone."""
    blocks, budget = (
        min(cluster.setting(index, name) for index in range(len(cluster.each) or 1))
        for name in ("kv_blocks", "max_num_batched_tokens")
    )
    most = int((blocks - cluster.watermark_of(blocks) - 1) * cluster.block_size)
    return most if cluster.chunked_prefill else min(most, budget)
