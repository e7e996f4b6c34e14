"""The replicas of a run as they come, go and fail: timers, autoscaling, draining, and what they cost."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from sim.complaints import Refused, cause, complaint, defined_at, named, shown
from sim.engine import cut_off
from sim.policies import PolicyError
from sim.results import STATUSES
from sim.routing import Dispatch, memory
from sim.scaling import Autoscaler, Autoscaling, ClusterView, Failure
from sim.state import (
    BEHIND,
    BLOCKS,
    BLOCKS_USED,
    COMPUTED,
    HEAD,
    LOST,
    MADE,
    NOBODY,
    PREFILL,
    PROMPT,
    RUNNING_COUNT,
    SINCE,
    TIMER,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    State,
    empty_cache,
)

ACTIVE, STARTING, DRAINING, DOWN = STATUSES
OFF = "off"
PATIENCE = 1000
"""Calls of an autoscaler in a row while nothing else can happen: then it is a livelock."""


class Fleet:
    """One run's replicas and the timers that change them."""

    def __init__(
        self,
        state: State,
        dispatch: Dispatch,
        *,
        replicas: int,
        failures: Sequence[Failure],
        autoscaling: Autoscaling | None,
        autoscaler: Autoscaler | None,
        horizon: float | None,
    ) -> None:
        self._state, self._dispatch = state, dispatch
        self._clock, self._gauges = memory(state.clock), [memory(row) for row in state.gauges]
        size = len(state.gauges)
        self._status = [ACTIVE] * replicas + [OFF] * (size - replicas)
        self._paid_from: list[float] = [0.0] * replicas + [math.inf] * (size - replicas)
        self._paid: list[tuple[int, float, float]] = []
        self._starts = [0] * size
        self._back = [0.0] * size  # when each that is down takes requests again
        self._scaling, self._autoscaler = autoscaling, autoscaler
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._pending = 0
        self._idle_calls = 0
        self.draining = self.over = False
        self.arrived = self.completed = self.requeued = self.calls = 0
        for failure in failures:
            self._at(failure.at, partial(self._fail, failure))
            self._pending += 1
        if autoscaler is not None:
            target = getattr(autoscaler, "target", None)
            if not callable(target) or isinstance(autoscaler, type):
                raise PolicyError(
                    f"an autoscaler is an object with a method target(cluster, now): got {autoscaler!r}"
                )
            assert autoscaling is not None
            begin, interval = float(state.arrival[0]) if len(state.arrival) else 0.0, autoscaling.interval
            self._at((begin // interval + 1) * interval, self._scale)
        if horizon is not None:
            self._at(horizon, self._stop)
        self.statuses: list[tuple[float, tuple[int, ...]]] = []
        """From when on how many replicas were in each of STATUSES."""
        self._set_timer()
        self._offer()
        self._note(0.0)

    def fire(self, now: float) -> bool:
        """Do what is due; whether the router should be asked because replicas or the queue changed."""
        before, requeued = self._dispatch.replicas, self.requeued
        while self._timers and self._timers[0][0] <= now and not self.over:
            heapq.heappop(self._timers)[2](now)
        self._set_timer()
        self._note(now)
        return before != self._dispatch.replicas or requeued != self.requeued

    def after_completion(self, completed: int, now: float) -> None:
        """Count, and stop replicas that have drained."""
        self.completed += completed
        self._idle_calls = 0
        if self.draining:
            for index in self._with(DRAINING):
                self._stop_if_empty(index, now)
            self._note(now)

    def paid(self, begin: float, end: float) -> list[float]:
        """Seconds for which each replica is paid between two moments."""
        seconds = [0.0] * len(self._status)
        running = [(index, since, end) for index, since in enumerate(self._paid_from) if since < end]
        for index, start, stop in (*self._paid, *running):
            seconds[index] += max(0.0, min(stop, end) - max(start, begin))
        return seconds

    def _at(self, moment: float, action: Callable[[float], None]) -> None:
        self._count += 1
        if moment < math.inf:
            heapq.heappush(self._timers, (moment, self._count, action))

    def _set_timer(self) -> None:
        self._clock[TIMER] = self._timers[0][0] if self._timers else math.inf

    def _note(self, now: float) -> None:
        counted = tuple(map(self._status.count, STATUSES))
        if not self.statuses or self.statuses[-1][1] != counted:
            self.statuses.append((now, counted))

    def _with(self, *statuses: str) -> list[int]:
        return [index for index, status in enumerate(self._status) if status in statuses]

    def _offer(self) -> None:
        self._dispatch.accept(self._with(ACTIVE))
        self.draining = DRAINING in self._status

    def _stop(self, now: float) -> None:
        for index in range(len(self._status)):
            cut_off(self._state, index, now)
        self.over = True

    def _held(self, index: int) -> Iterator[int]:
        """The requests at a replica."""
        yield from self._state.seats[index, : self._state.gauges[index, RUNNING_COUNT]].tolist()
        request = int(self._state.ends[index, HEAD])
        while request != NOBODY:
            yield request
            request = int(self._state.place[request, BEHIND])

    def _fail(self, failure: Failure, now: float) -> None:
        """Lose all that the replica holds, and put its requests back into the global queue."""
        index, state = failure.replica, self._state
        self._pending -= 1
        if self._status[index] not in (ACTIVE, DRAINING, DOWN):
            return
        cut_off(state, index, now)
        lost = list(self._held(index))
        for request in lost:
            book = state.work[request]
            if book[LOST] == 0 and book[COMPUTED] > 0:
                state.times[request, SINCE] = now
            book[LOST] = max(book[LOST], book[COMPUTED])
            book[PREFILL] = book[PROMPT] + book[MADE]
            book[COMPUTED] = book[BLOCKS] = 0
            state.place[request] = NOBODY
        for gauge in (RUNNING_COUNT, WAITING_COUNT, WAITING_PROMPT_TOKENS, BLOCKS_USED):
            state.gauges[index, gauge] = 0
        state.ends[index] = NOBODY
        state.step_end[index] = math.inf
        state.barren[index] = 0
        if len(state.blocks):
            empty_cache(state, index)
        back = now + failure.duration
        if self._status[index] == DOWN:
            back = max(back, self._back[index])
        if self._status[index] != DRAINING and back < math.inf:
            self._status[index], self._back[index] = DOWN, back
            self._at(back, partial(self._recover, index))
            self._pending += 1
        else:
            self._switch_off(index, now)
        self.requeued += len(lost)
        self._dispatch.requeue(lost)
        self._offer()

    def _recover(self, index: int, now: float) -> None:
        self._pending -= 1
        if self._status[index] == DOWN and self._back[index] <= now:  # else it was given up, or failed again
            self._status[index] = ACTIVE
            self._offer()

    def _scale(self, now: float) -> None:
        """Ask the autoscaler and follow it."""
        scaling, autoscaler = self._scaling, self._autoscaler
        assert scaling is not None
        assert autoscaler is not None
        self.calls += 1
        call = f"{named(autoscaler)}.target, call {self.calls} at {now:.3f} s"
        try:
            target: Any = autoscaler.target(self._view(), now)
            if isinstance(target, bool) or not isinstance(target, int | np.integer) or target < 0:
                raise Refused(
                    f"the autoscaler returned {shown(target)} where a whole number of replicas is expected"
                )
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise complaint(autoscaler, "target", call, error) from cause(error)
        arrival = self._state.arrival
        coming = self.arrived < len(arrival) and arrival[self.arrived] < math.inf
        working = (self._state.step_end < math.inf).any()
        self._idle_calls = 0 if self._pending or coming or working else self._idle_calls + 1
        if self._idle_calls > PATIENCE:
            raise PolicyError(
                f"livelock at {now:.3f} s: for {PATIENCE} calls of {named(autoscaler)}.target "
                f"nothing else has happened, and {len(self._dispatch.queue)} requests wait in the "
                "global queue",
                place=defined_at(autoscaler, "target"),
            )
        target = min(max(int(target), scaling.min_replicas), scaling.max_replicas)
        more = target - len(self._with(ACTIVE, STARTING, DOWN))
        if more > 0:
            self._grow(more, now)
        elif more < 0:
            self._shrink(-more, now)
        self._offer()
        self._at(now + scaling.interval, self._scale)

    def _view(self) -> ClusterView:
        return ClusterView(
            self._dispatch.replicas,
            starting=self._status.count(STARTING),
            draining=self._status.count(DRAINING),
            down=self._status.count(DOWN),
            queued=len(self._dispatch.queue),
            arrived=self.arrived,
            completed=self.completed,
        )

    def _grow(self, more: int, now: float) -> None:
        """Draining replicas stay; then new ones are started."""
        assert self._scaling is not None
        for index in [*self._with(DRAINING), *self._with(OFF)][:more]:
            if self._status[index] == DRAINING:
                self._status[index] = ACTIVE
                continue
            self._status[index] = STARTING
            self._paid_from[index] = now
            self._starts[index] += 1
            start = self._starts[index]
            ready = now + self._scaling.provisioning_time + self._scaling.load_time
            self._at(ready, partial(self._ready, index, start))
            self._pending += 1

    def _ready(self, index: int, start: int, now: float) -> None:
        self._pending -= 1
        if self._status[index] == STARTING and self._starts[index] == start:
            self._status[index] = ACTIVE
            self._offer()

    def _shrink(self, fewer: int, now: float) -> None:
        """Those that are down go first, then those that start, the latest ready of each first; then those
        with the fewest requests drain."""
        down = sorted(self._with(DOWN), key=lambda index: (-self._back[index], -index))
        starting = sorted(self._with(STARTING), key=lambda index: (-self._paid_from[index], -index))
        active = sorted(self._with(ACTIVE), key=lambda index: (self._load(index), -index))
        for index in [*down, *starting, *active][:fewer]:
            if self._status[index] == ACTIVE:
                self._status[index] = DRAINING
                self._stop_if_empty(index, now)
            else:
                self._switch_off(index, now)

    def _load(self, index: int) -> int:
        return int(self._gauges[index][WAITING_COUNT] + self._gauges[index][RUNNING_COUNT])

    def _stop_if_empty(self, index: int, now: float) -> None:
        if self._load(index) == 0:
            self._switch_off(index, now)
            if len(self._state.blocks):
                empty_cache(self._state, index)
            self.draining = DRAINING in self._status

    def _switch_off(self, index: int, now: float) -> None:
        """It exists no more, and is paid for until now."""
        self._status[index] = OFF
        self._paid.append((index, self._paid_from[index], now))
        self._paid_from[index] = math.inf
