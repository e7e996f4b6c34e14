"""The event loop of a run, compiled: it advances the cluster from one policy event to the next.

At one instant all arrivals come first, then what Python has set the timer for, then the ends of steps in
order of replicas, then every replica that stands still and has work starts its next step. The loop is a
generator, so that a run costs one resumption per policy event (about 80 ns) and the arrays are handed over
once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.compiled import njit
from sim.decoding import NO_RUN, end_step_of_run, start_step_of_run
from sim.engine import end_step
from sim.sarathi import start_sarathi_step
from sim.state import (
    BARREN,
    BEHIND,
    BLOCKS_USED,
    ENGINE,
    GAUGES,
    GOES_ON,
    HEAD,
    HELD,
    INTERVAL,
    NOBODY,
    NOW,
    PERIOD,
    PREEMPTIONS,
    PREFILL,
    PROMPT,
    PROMPT_LENGTH,
    PUBLISH,
    QUEUED,
    RUNNING_COUNT,
    SAMPLES,
    STATE,
    TIMER,
    VLLM,
    WAITING_COUNT,
    State,
)
from sim.vllm import asks_for_plan, start_vllm_step

ARRIVAL, COMPLETION, TIMED, PLAN, REFUSED, LIVELOCK, PUBLISHED = 0, 1, 2, 3, 4, 5, 6


@njit
def sample_until(state: State, end: float) -> None:
    """Write the samples due before `end`: nothing changes between two instants."""
    count = state.sampled[0]
    while count * state.clock[INTERVAL] < end:
        if count == SAMPLES:
            for k in range(SAMPLES // 2):
                for replica in range(len(state.gauges)):
                    for column in range(3):
                        state.samples[k, replica, column] = state.samples[2 * k, replica, column]
            count = SAMPLES // 2
            state.clock[INTERVAL] *= 2
            continue
        for replica in range(len(state.gauges)):
            state.samples[count, replica, 0] = state.gauges[replica, RUNNING_COUNT]
            state.samples[count, replica, 1] = state.gauges[replica, WAITING_COUNT]
            state.samples[count, replica, 2] = state.gauges[replica, BLOCKS_USED]
        count += 1
    state.sampled[0] = count


@njit
def _publish_request(state: State, request: int) -> None:
    for column in range(2):
        state.seen_known[request, column] = state.known[request, column]


@njit
def publish_until(state: State, end: float) -> None:
    """Publish the views, of which a publication is due before `end`: nothing changes between two instants."""
    period = state.clock[PERIOD]
    periods = np.ceil(end / period)
    state.clock[PUBLISH] = periods * period if periods * period >= end else (periods + 1) * period
    for replica in range(len(state.gauges)):
        for column in range(GAUGES):
            state.seen_gauges[replica, column] = state.gauges[replica, column]
        for column in range(2):
            state.seen_ends[replica, column] = state.ends[replica, column]
        for seat in range(state.gauges[replica, RUNNING_COUNT]):
            request = state.seats[replica, seat]
            state.seen_seats[replica, seat] = request
            _publish_request(state, request)
        request = state.ends[replica, HEAD]
        while request != NOBODY:
            state.seen_behind[request] = state.place[request, BEHIND]
            _publish_request(state, request)
            request = state.place[request, BEHIND]


@njit
def policy_events(state: State) -> Iterator[int]:
    """Yield an event whenever Python is needed; `state.clock[NOW]` is the instant.

    ARRIVAL for each arrival, COMPLETION for each step in which a request completed, TIMED when
    `state.clock[TIMER]` is reached (the caller moves it on), PLAN for each step that a batch scheduler plans
    (the caller fills `state.plan`), REFUSED if it cannot be followed and LIVELOCK if a replica works without
    progress; `state.turn[0]` is the replica of the last three. PUBLISHED when stale views are published while
    the caller holds requests (`state.turn[HELD]`) and something has changed. With `state.turn[GOES_ON]` a
    replica whose step has completed requests starts its next one before the COMPLETION. Whatever the caller
    changes between two events is seen from then on. Ends when nothing can happen any more.
    """
    arrival, step_end, gauges = state.arrival, state.step_end, state.gauges
    replicas, runs = len(step_end), len(state.runs) > 0
    arrived = 0
    now = 0.0
    changed = False  # since the last PUBLISHED
    ended = NOBODY  # the replica whose requests have completed, if the caller is told once it has gone on
    while True:
        due = min(arrival[arrived] if arrived < len(arrival) else np.inf, state.clock[TIMER])
        first = int(np.argmin(step_end))
        if ended != NOBODY or min(due, step_end[first]) > now:
            low, high = (0, replicas) if ended == NOBODY else (ended, ended + 1)
            for replica in range(low, high):
                if (
                    step_end[replica] == np.inf
                    and gauges[replica, RUNNING_COUNT] + gauges[replica, WAITING_COUNT] > 0
                ):
                    seconds, evicted = -1.0, -1
                    # An empty batch after evictions is formed again at once, as in vLLM: by priority the
                    # first in order may have preempted itself.
                    while seconds == -1.0 and evicted != gauges[replica, PREEMPTIONS]:
                        evicted = gauges[replica, PREEMPTIONS]
                        if asks_for_plan(state, replica):
                            state.turn[0] = replica
                            yield PLAN
                        seconds = start_step_of_run(state, replica) if runs else NO_RUN
                        if seconds != NO_RUN:
                            break
                        if state.limits[replica, ENGINE] == VLLM:
                            seconds = start_vllm_step(state, replica, now)
                        else:
                            seconds = start_sarathi_step(state, replica, now)
                    changed = True
                    if seconds >= 0.0:
                        step_end[replica] = now + seconds
                    elif seconds == -2.0:
                        state.turn[0] = replica
                        yield REFUSED
                if step_end[replica] < step_end[first] or (
                    step_end[replica] == step_end[first] and replica < first
                ):
                    first = replica
            if ended != NOBODY:
                ended = NOBODY
                yield COMPLETION
                continue
            wake = state.clock[PUBLISH] if changed and state.turn[HELD] else np.inf
            moment = min(due, step_end[first], wake)
            if moment == np.inf:
                return
            if state.sampled[0] * state.clock[INTERVAL] < moment:
                sample_until(state, moment)
            if state.clock[PERIOD] > 0.0 and state.clock[PUBLISH] < moment:
                publish_until(state, moment)
            now = moment
            state.clock[NOW] = now
        if arrived < len(arrival) and arrival[arrived] == now:
            state.work[arrived, PROMPT] = state.work[arrived, PREFILL] = state.lengths[arrived, PROMPT_LENGTH]
            state.known[arrived, STATE] = QUEUED
            arrived += 1
            yield ARRIVAL
            changed = True
        elif due == now:
            yield TIMED
            changed = True
        elif step_end[first] > now:
            publish_until(state, np.nextafter(now, np.inf))
            changed = False
            yield PUBLISHED
        else:
            changed = True
            step_end[first] = np.inf
            if runs and end_step_of_run(state, first):
                continue
            if end_step(state, first, now) > 0:
                if state.turn[GOES_ON]:
                    ended = first
                else:
                    yield COMPLETION
            elif state.barren[first] > BARREN:
                state.turn[0] = first
                yield LIVELOCK
