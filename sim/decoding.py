"""Runs of steps in which a replica only decodes, compiled: their books are written once, when a run ends.

Where nobody looks at requests between two steps, as in a replay of recorded routing, a step that adds one
token to each running request, and completes and admits none, changes only sums. A run of such steps keeps
those and nothing else, and is as long as no request completes, no block is missing and no request comes to an
empty queue; each of its steps is booked and timed as ever, in the same order, to the last bit. For the
Sarathi engine.
"""

from __future__ import annotations

from sim.compiled import inlined, njit
from sim.engine import book
from sim.state import (
    ALONE,
    BLOCK_SIZE,
    BLOCKS,
    BLOCKS_USED,
    COMPUTED,
    CONTEXT,
    DEEPEST,
    ENDED,
    ENGINE,
    HEAD,
    KV_BLOCKS,
    LEFT,
    LOST,
    MADE,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    OUTPUT_LENGTH,
    PREFILL,
    PROMPT,
    RUNNING_COUNT,
    SARATHI,
    STARTED,
    TOKENS_DONE,
    WAITING_COUNT,
    WATERMARK_BLOCKS,
    State,
)

NO_RUN = -3.0


@njit
def _admits(state: State, replica: int) -> bool:
    """Whether the first waiting request might join a step in which all running ones decode."""
    gauges, limits = state.gauges[replica], state.limits[replica]
    running = gauges[RUNNING_COUNT]
    if gauges[WAITING_COUNT] == 0 or running == limits[MAX_NUM_SEQS]:
        return False
    prefill = state.work[state.ends[replica, HEAD], PREFILL]
    blocks = (prefill + limits[BLOCK_SIZE] - 1) // limits[BLOCK_SIZE]
    return bool(limits[KV_BLOCKS] - gauges[BLOCKS_USED] - blocks >= limits[WATERMARK_BLOCKS])


@njit
def _open(state: State, replica: int) -> None:
    """Begin a run with the replica's next step, if it only decodes."""
    seats, work, run, borders = state.seats[replica], state.work, state.runs[replica], state.borders[replica]
    running = state.gauges[replica, RUNNING_COUNT]
    if (
        state.limits[replica, ENGINE] != SARATHI
        or running == 0
        or running >= state.limits[replica, MAX_NUM_BATCHED_TOKENS]
        or work[seats[running - 1], COMPUTED] < work[seats[running - 1], PREFILL]
        or _admits(state, replica)
    ):
        return
    size = state.limits[replica, BLOCK_SIZE]
    left, context, deepest = state.lengths[seats[0], OUTPUT_LENGTH], 0, 0
    borders[:] = 0
    for seat in range(running):
        request = seats[seat]
        computed = work[request, COMPUTED]
        if computed < work[request, PREFILL] or work[request, LOST] > 0:
            return
        left = min(left, state.lengths[request, OUTPUT_LENGTH] - work[request, MADE])
        context += computed + 1
        deepest = max(deepest, computed + 1)
        room = work[request, BLOCKS] * size - computed
        if room < len(borders):
            borders[room] += 1
        state.chunks[replica, seat] = 1
    run[LEFT], run[CONTEXT], run[DEEPEST] = left, context, deepest
    run[STARTED] = run[ENDED] = 0
    run[ALONE] = state.gauges[replica, WAITING_COUNT] == 0


@njit
def _close(state: State, replica: int) -> None:
    """Write the books of the run's requests up to the step that has ended last."""
    work, run, size = state.work, state.runs[replica], state.limits[replica, BLOCK_SIZE]
    for seat in range(state.gauges[replica, RUNNING_COUNT]):
        request = state.seats[replica, seat]
        row = work[request]
        row[BLOCKS] = max(row[BLOCKS], (row[COMPUTED] + run[STARTED] + size - 1) // size)
        row[COMPUTED] += run[ENDED]
        row[MADE] += run[ENDED]
        state.known[request, TOKENS_DONE] = row[PROMPT] + row[MADE]
    run[LEFT] = 0


@inlined
def start_step_of_run(state: State, replica: int) -> float:
    """Start the replica's next step, if it belongs to a run; its time in seconds, NO_RUN otherwise."""
    gauges, run = state.gauges[replica], state.runs[replica]
    if run[LEFT] == 0:
        _open(state, replica)
        if run[LEFT] == 0:
            return NO_RUN
    blocks = state.borders[replica, run[STARTED] % state.limits[replica, BLOCK_SIZE]]
    if (run[ALONE] and gauges[WAITING_COUNT] > 0) or (
        gauges[BLOCKS_USED] + blocks > state.limits[replica, KV_BLOCKS]
    ):
        _close(state, replica)
        return NO_RUN
    gauges[BLOCKS_USED] += blocks
    run[STARTED] += 1
    decodes = gauges[RUNNING_COUNT]
    return float(book(state, replica, decodes, decodes, decodes, run[CONTEXT], run[DEEPEST], 0, 0, 0))


@inlined
def end_step_of_run(state: State, replica: int) -> bool:
    """End the replica's step, if it belongs to a run and no request completes; whether it did."""
    run = state.runs[replica]
    if run[LEFT] > 1:
        run[LEFT] -= 1
        run[ENDED] += 1
        run[CONTEXT] += state.gauges[replica, RUNNING_COUNT]
        run[DEEPEST] += 1
        state.barren[replica] = 0
        return True
    if run[LEFT] == 1:
        _close(state, replica)
    return False
