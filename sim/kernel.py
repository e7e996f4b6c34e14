"""The event loop of a run, compiled: it advances the cluster from one policy event to the next.

At one instant all arrivals come first, then the ends of steps in order of replicas, then every replica that
stands still and has work starts its next step. The loop is a generator, so that a run costs one resumption
per policy event (about 80 ns) and the arrays are handed over once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.compiled import njit
from sim.engine import end_step, start_step
from sim.state import (
    BLOCKS_USED,
    INTERVAL,
    NOW,
    QUEUED,
    RUNNING_COUNT,
    SAMPLES,
    STATE,
    WAITING_COUNT,
    State,
)

ARRIVAL, COMPLETION = 0, 1


@njit
def sample_until(state: State, end: float) -> None:
    """Write the samples due before `end`: nothing changes between two instants."""
    count = state.sampled[0]
    while count * state.clock[INTERVAL] < end:
        if count == SAMPLES:
            for k in range(SAMPLES // 2):
                state.samples[k] = state.samples[2 * k]
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
def policy_events(state: State) -> Iterator[int]:
    """Yield ARRIVAL for each arrival and COMPLETION for each step in which a request completed.

    `state.clock[NOW]` is the instant. Whatever the caller changes between two events (requests appended to
    waiting queues) is seen from then on. Ends when nothing can happen any more.
    """
    arrival, step_end, gauges = state.arrival, state.step_end, state.gauges
    replicas = len(step_end)
    arrived = 0
    now = 0.0
    while True:
        due = arrival[arrived] if arrived < len(arrival) else np.inf
        first = 0
        for replica in range(1, replicas):
            if step_end[replica] < step_end[first]:
                first = replica
        if min(due, step_end[first]) > now:
            for replica in range(replicas):
                if (
                    step_end[replica] == np.inf
                    and gauges[replica, RUNNING_COUNT] + gauges[replica, WAITING_COUNT] > 0
                ):
                    step_end[replica] = now + start_step(state, replica, now)
                if step_end[replica] < step_end[first] or (
                    step_end[replica] == step_end[first] and replica < first
                ):
                    first = replica
            moment = min(due, step_end[first])
            if moment == np.inf:
                return
            sample_until(state, moment)
            now = moment
            state.clock[NOW] = now
        if due <= step_end[first]:
            state.known[arrived, STATE] = QUEUED
            arrived += 1
            yield ARRIVAL
        else:
            step_end[first] = np.inf
            if end_step(state, first, now) > 0:
                yield COMPLETION
