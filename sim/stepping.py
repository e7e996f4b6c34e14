"""One replica of the compiled vLLM engine, a step at a time: what a step decides, to be compared with another
engine's."""

from __future__ import annotations

from typing import NamedTuple

from sim.cluster import Cluster
from sim.engine import end_step
from sim.planning import Planner
from sim.routing import Dispatch
from sim.scheduling import BatchScheduler
from sim.state import (
    ADMITTED,
    BEHIND,
    BLOCKS,
    BLOCKS_USED,
    COMPUTED,
    FINISH,
    FIRST_TOKEN,
    HEAD,
    HIT,
    NOBODY,
    PREEMPTIONS,
    PREFILL,
    PROMPT,
    PROMPT_LENGTH,
    QUEUED,
    RESTARTS,
    RUNNING_COUNT,
    SLOT,
    STATE,
)
from sim.vllm import asks_for_plan, start_vllm_step
from sim.workloads import Workload

__all__ = ["Share", "Step", "Stepper"]


class Share(NamedTuple):
    """What a running request has in a step."""

    request: int
    tokens: int
    """Computed in this step; 0 if it has to pause."""
    held: int
    """Tokens whose KV it held before."""
    blocks: tuple[int, ...]
    """The KV blocks that it holds in the step: their numbers from 1 with prefix caching, else zeros."""
    preemptions: int
    """How often it was evicted so far."""


class Step(NamedTuple):
    """An engine's decision about one step, and the state in which it leaves the replica."""

    running: tuple[Share, ...]
    """In order of admission."""
    waiting: tuple[int, ...]
    """Requests in order of the queue."""
    blocks_used: int


class Stepper:
    """The first replica of a cluster, without the event loop: the caller says what happens when.

    `scheduler` plans its steps, if given. ValueError if the engine is not vLLM's.
    """

    def __init__(self, cluster: Cluster, workload: Workload, scheduler: BatchScheduler | None = None) -> None:
        if cluster.engine != "vllm":
            raise ValueError(f"engine={cluster.engine!r}; expected engine='vllm', the one that is stepped")
        self._state = cluster.state(workload, planned=scheduler is not None)
        self._dispatch = Dispatch(self._state, workload, None)
        self._planner = None if scheduler is None else Planner(self._state, self._dispatch.views, scheduler)
        self._caching = cluster.caches_prefixes

    def arrive(self, request: int, now: float) -> None:
        """Put the next request of the workload into the replica's queue, at `now` in seconds."""
        work = self._state.work
        work[request, PROMPT] = work[request, PREFILL] = self._state.lengths[request, PROMPT_LENGTH]
        self._state.known[request, STATE] = QUEUED
        self._dispatch.arrive(request)
        self._dispatch.send([(self._dispatch.views[request], self._dispatch.replicas[0])], now)

    def start(self, now: float) -> float:
        """Form the next batch at `now`; the step's time in seconds, -1 if the batch is empty.

        Raises PolicyError if the scheduler's plan cannot be followed.
        """
        if self._planner is not None and asks_for_plan(self._state, 0):
            self._planner.plan(0, now)
        seconds = float(start_vllm_step(self._state, 0, now))
        if seconds == -2.0:
            assert self._planner is not None
            raise self._planner.refused(0, now)
        return seconds

    def end(self, now: float) -> tuple[int, ...]:
        """Book the step that ends at `now`; the requests that completed in it."""
        count = end_step(self._state, 0, now)
        completed: list[int] = self._state.completed[1 : count + 1].tolist()
        for request in completed:
            self._dispatch.finish(request)
        return tuple(completed)

    @property
    def step(self) -> Step:
        """What the last call of `start` decided; an empty batch's shares have no tokens."""
        state, count = self._state, int(self._state.gauges[0, RUNNING_COUNT])
        waiting, request = [], int(state.ends[0, HEAD])
        while request != NOBODY:
            waiting.append(request)
            request = int(state.place[request, BEHIND])
        seats = state.seats[0, :count].tolist()
        books, chunks = state.work[seats].tolist(), state.chunks[0, :count].tolist()
        return Step(
            tuple(
                Share(request, tokens, book[COMPUTED], self._blocks(request, book[BLOCKS]), book[RESTARTS])
                for request, tokens, book in zip(seats, chunks, books, strict=True)
            ),
            tuple(waiting),
            int(state.gauges[0, BLOCKS_USED]),
        )

    def _blocks(self, request: int, count: int) -> tuple[int, ...]:
        if not self._caching:
            return (0,) * count
        return tuple((self._state.tables[0, self._state.place[request, SLOT], :count] + 1).tolist())

    @property
    def times(self) -> dict[str, list[float]]:
        """Moments of each request in seconds, NaN until they come, by the names of a run's table."""
        columns = {"admitted": ADMITTED, "first_token": FIRST_TOKEN, "finish": FINISH}
        return {name: self._state.times[:, column].tolist() for name, column in columns.items()}

    @property
    def preemptions(self) -> int:
        """Evictions so far."""
        return int(self._state.gauges[0, PREEMPTIONS])

    @property
    def cached_tokens(self) -> int:
        """Tokens found in the prefix cache so far, over all admissions."""
        return int(self._state.tally[HIT])
