"""The engine of one replica, compiled: what every scheduling rule shares - eviction, admission, the time of a
step, and what the step's end changes."""

from __future__ import annotations

import math

from sim.blocks import give_back
from sim.compiled import inlined, njit
from sim.costs.step import STRAGGLER, Tables, step_seconds
from sim.state import (
    ADMITTED,
    BEHIND,
    BLOCKS,
    BLOCKS_USED,
    BUSY_TIME,
    BY_PRIORITY,
    CACHING,
    COMPUTED,
    DECODE_TOKENS,
    FINISH,
    FINISHED,
    FIRST_TOKEN,
    FULL_TIME,
    HEAD,
    KV_BLOCKS,
    LOST,
    MADE,
    MAX_NUM_SEQS,
    NOBODY,
    OUTPUT_LENGTH,
    PREEMPTIONS,
    PREFILL,
    PREFILL_TOKENS,
    PROFILE,
    PROMPT,
    RECOMPUTE,
    RESTARTS,
    RUNNING,
    RUNNING_COUNT,
    SINCE,
    STATE,
    STEPS,
    TAIL,
    TOKENS_DONE,
    USE_BINS,
    WAITING,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    State,
)


@njit
def put_first(state: State, replica: int, request: int) -> None:
    """Put a request at the head of the replica's queue; by priority, before all that are not before it."""
    ends, behind, before = state.ends[replica], state.place[:, BEHIND], NOBODY
    after = ends[HEAD]
    if state.limits[replica, BY_PRIORITY]:
        priority = state.priority
        while after != NOBODY and (
            priority[after] < priority[request] or (priority[after] == priority[request] and after < request)
        ):
            before = after
            after = behind[after]
    behind[request] = after
    if before == NOBODY:
        ends[HEAD] = request
    else:
        behind[before] = request
    if after == NOBODY:
        ends[TAIL] = request


@njit
def take_out(state: State, replica: int, request: int) -> None:
    """Take a waiting request out of the replica's queue, wherever it stands."""
    ends, behind, before = state.ends[replica], state.place[:, BEHIND], NOBODY
    waiting = ends[HEAD]
    while waiting != request:
        before = waiting
        waiting = behind[waiting]
    if before == NOBODY:
        ends[HEAD] = behind[request]
    else:
        behind[before] = behind[request]
    if ends[TAIL] == request:
        ends[TAIL] = before


@njit
def evict(state: State, replica: int, seat: int, now: float) -> None:
    """Take the request in that seat out of the batch and put it at the head of the replica's queue."""
    gauges, work, seats, chunks = (
        state.gauges[replica],
        state.work,
        state.seats[replica],
        state.chunks[replica],
    )
    request = seats[seat]
    gauges[RUNNING_COUNT] -= 1
    for later in range(seat, gauges[RUNNING_COUNT]):
        seats[later] = seats[later + 1]
        chunks[later] = chunks[later + 1]
    book = work[request]
    if state.limits[replica, CACHING]:
        give_back(state, replica, request, True)
    else:
        gauges[BLOCKS_USED] -= book[BLOCKS]
        book[BLOCKS] = 0
    gauges[PREEMPTIONS] += 1
    gauges[WAITING_COUNT] += 1
    gauges[WAITING_PROMPT_TOKENS] += book[PROMPT]
    if book[LOST] == 0:
        state.times[request, SINCE] = now
    book[LOST] = max(book[LOST], book[COMPUTED])
    book[RESTARTS] += 1
    book[PREFILL] = book[PROMPT] + book[MADE]
    book[COMPUTED] = 0
    state.known[request, STATE] = WAITING
    put_first(state, replica, request)


@njit
def admit(state: State, replica: int, request: int, now: float) -> int:
    """Move a request from the waiting queue into the batch; return its seat."""
    gauges, ends = state.gauges[replica], state.ends[replica]
    if request == ends[HEAD]:
        ends[HEAD] = state.place[request, BEHIND]
        if ends[HEAD] == NOBODY:
            ends[TAIL] = NOBODY
    else:
        take_out(state, replica, request)
    seat = int(gauges[RUNNING_COUNT])
    state.seats[replica, seat] = request
    gauges[RUNNING_COUNT] += 1
    gauges[WAITING_COUNT] -= 1
    gauges[WAITING_PROMPT_TOKENS] -= state.work[request, PROMPT]
    state.known[request, STATE] = RUNNING
    if not state.times[request, ADMITTED] >= 0.0:
        state.times[request, ADMITTED] = now
    return seat


_step_seconds = njit(step_seconds)


@inlined
def price(state: State, replica: int, tokens: int, decodes: int, context: int, pairs: int) -> float:
    """Book a step of so many tokens, of them decodes, KV tokens read by decodes and twice the query-key pairs
    of prefills; return its time in seconds."""
    gauges, limits = state.gauges[replica], state.limits[replica]
    seats, chunks, work = state.seats[replica], state.chunks[replica], state.work
    profile = limits[PROFILE]
    sequences, deepest, depth, longest = decodes, 0, 0, 0
    if tokens > decodes or state.decode[profile, decodes, STRAGGLER] > 0.0:
        sequences = 0
        for seat in range(gauges[RUNNING_COUNT]):
            chunk = chunks[seat]
            if chunk > 0:
                sequences += 1
                request = seats[seat]
                computed = work[request, COMPUTED]
                if chunk == 1 and computed >= work[request, PREFILL]:
                    deepest = max(deepest, computed + 1)
                else:
                    depth = max(depth, computed + chunk)
                    longest = max(longest, chunk)
    return float(book(state, replica, tokens, sequences, decodes, context, deepest, pairs, depth, longest))


@inlined
def book(
    state: State,
    replica: int,
    tokens: int,
    sequences: int,
    decodes: int,
    context: int,
    deepest: int,
    pairs: int,
    depth: int,
    longest: int,
) -> float:
    """Book a step; the arguments are the fields of `sim.costs.Batch`. Returns its time in seconds."""
    gauges, limits, tally = state.gauges[replica], state.limits[replica], state.tally
    profile = limits[PROFILE]
    tables = Tables(state.linear[profile], state.head[profile], state.decode[profile], state.rates[profile])
    seconds = _step_seconds(tables, tokens, sequences, decodes, context, deepest, pairs, depth, longest)
    tally[BUSY_TIME] += seconds
    tally[STEPS] += 1
    tally[DECODE_TOKENS] += decodes
    tally[PREFILL_TOKENS] += tokens - decodes
    if gauges[RUNNING_COUNT] == limits[MAX_NUM_SEQS]:
        tally[FULL_TIME] += seconds
    state.kv_use[gauges[BLOCKS_USED] * USE_BINS // limits[KV_BLOCKS]] += seconds
    return float(seconds)


def cut_off(state: State, replica: int, now: float) -> None:
    """Take back what `price` booked of the replica's current step, if there is one, that is not done at
    `now`: the rest of its time, and all its tokens."""
    left = float(state.step_end[replica]) - now
    if left == math.inf:
        return
    gauges, limits, tally = state.gauges[replica], state.limits[replica], state.tally
    tokens = decodes = 0
    for request, chunk in zip(
        state.seats[replica], state.chunks[replica, : gauges[RUNNING_COUNT]], strict=False
    ):
        tokens += chunk
        decodes += chunk == 1 and state.work[request, COMPUTED] >= state.work[request, PREFILL]
    tally[BUSY_TIME] -= left
    tally[STEPS] -= 1
    tally[DECODE_TOKENS] -= decodes
    tally[PREFILL_TOKENS] -= tokens - decodes
    if gauges[RUNNING_COUNT] == limits[MAX_NUM_SEQS]:
        tally[FULL_TIME] -= left
    state.kv_use[gauges[BLOCKS_USED] * USE_BINS // limits[KV_BLOCKS]] -= left


@inlined
def end_step(state: State, replica: int, now: float) -> int:
    """Book what the step that ends at `now` computed; return how many requests completed (in
    state.completed)."""
    gauges, seats, chunks = state.gauges[replica], state.seats[replica], state.chunks[replica]
    work, times, known, completed = state.work, state.times, state.known, state.completed
    caching = state.limits[replica, CACHING]
    kept = 0
    done = 0
    progress = False
    for seat in range(gauges[RUNNING_COUNT]):
        request = seats[seat]
        book, chunk = work[request], chunks[seat]
        computed = book[COMPUTED] + chunk
        book[COMPUTED] = computed
        lost = book[LOST]
        if lost > 0:
            if computed >= lost:
                times[request, RECOMPUTE] += now - times[request, SINCE]
                book[LOST] = 0
        elif chunk > 0:
            progress = True
        if chunk > 0 and computed >= book[PREFILL]:
            made = book[MADE] + 1
            book[MADE] = made
            known[request, TOKENS_DONE] = book[PROMPT] + made
            progress = True
            if made == 1:
                times[request, FIRST_TOKEN] = now
            if made == state.lengths[request, OUTPUT_LENGTH]:
                times[request, FINISH] = now
                known[request, STATE] = FINISHED
                if caching:
                    give_back(state, replica, request, False)
                else:
                    gauges[BLOCKS_USED] -= book[BLOCKS]
                done += 1
                completed[done] = request
                continue
        seats[kept] = request
        kept += 1
    gauges[RUNNING_COUNT] = kept
    completed[0] = done
    state.barren[replica] = 0 if progress else state.barren[replica] + 1
    return done
