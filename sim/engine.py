"""The engine of one replica, compiled: which tokens go into its next step, and what the step's end changes.

Chunked prefill as Sarathi does it. A step has a budget of tokens. First every running request that decodes
gets one token, then running requests with an unfinished prefill get what is left, then waiting requests are
admitted in order. All blocks of a prefill are taken at admission, which leaves the watermark free; a decode
takes a block when it crosses a border. If there is none the newest running request is evicted: it gives its
blocks back and waits at the head of the queue, to compute prompt and output so far again in one prefill.
"""

from __future__ import annotations

from sim.compiled import njit
from sim.state import (
    ADMITTED,
    BEHIND,
    BLOCK_SIZE,
    BLOCKS,
    BLOCKS_USED,
    BUSY_TIME,
    COMPUTED,
    DECODE_RATE,
    DECODE_TOKENS,
    FINISH,
    FINISHED,
    FIRST_TOKEN,
    FULL_TIME,
    HEAD,
    KV_BLOCKS,
    LOST,
    MADE,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    NOBODY,
    OUTPUT,
    PREEMPTIONS,
    PREFILL,
    PREFILL_RATE,
    PREFILL_TOKENS,
    PROMPT,
    RECOMPUTE,
    RESTARTS,
    RUNNING,
    RUNNING_COUNT,
    SINCE,
    STATE,
    STEP_RATE,
    STEPS,
    TAIL,
    TOKENS_DONE,
    USE_BINS,
    WAITING,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    WATERMARK_BLOCKS,
    State,
)


@njit
def evict_newest(state: State, replica: int, now: float) -> None:
    """Take the request admitted last out of the batch and put it at the head of the replica's queue."""
    gauges, work = state.gauges[replica], state.work
    gauges[RUNNING_COUNT] -= 1
    request = state.seats[replica, gauges[RUNNING_COUNT]]
    book = work[request]
    gauges[BLOCKS_USED] -= book[BLOCKS]
    gauges[PREEMPTIONS] += 1
    gauges[WAITING_COUNT] += 1
    gauges[WAITING_PROMPT_TOKENS] += book[PROMPT]
    if book[LOST] == 0:
        state.times[request, SINCE] = now
    book[LOST] = max(book[LOST], book[COMPUTED])
    book[RESTARTS] += 1
    book[PREFILL] = book[PROMPT] + book[MADE]
    book[COMPUTED] = 0
    book[BLOCKS] = 0
    state.known[request, STATE] = WAITING
    ends = state.ends[replica]
    state.place[request, BEHIND] = ends[HEAD]
    if ends[HEAD] == NOBODY:
        ends[TAIL] = request
    ends[HEAD] = request


@njit
def admit_head(state: State, replica: int, blocks: int, now: float) -> int:
    """Move the head of the waiting queue into the batch with so many blocks; return its seat."""
    gauges, ends = state.gauges[replica], state.ends[replica]
    request = ends[HEAD]
    ends[HEAD] = state.place[request, BEHIND]
    if ends[HEAD] == NOBODY:
        ends[TAIL] = NOBODY
    seat = int(gauges[RUNNING_COUNT])
    state.seats[replica, seat] = request
    gauges[RUNNING_COUNT] += 1
    gauges[WAITING_COUNT] -= 1
    gauges[WAITING_PROMPT_TOKENS] -= state.work[request, PROMPT]
    gauges[BLOCKS_USED] += blocks
    state.work[request, BLOCKS] = blocks
    state.known[request, STATE] = RUNNING
    if state.work[request, RESTARTS] == 0:
        state.times[request, ADMITTED] = now
    return seat


@njit
def start_step(state: State, replica: int, now: float) -> float:
    """Form the replica's next batch at `now`; return the step's time in seconds."""
    gauges, seats, chunks, work = (
        state.gauges[replica],
        state.seats[replica],
        state.chunks[replica],
        state.work,
    )
    limits = state.limits
    block_size, kv_blocks = limits[BLOCK_SIZE], limits[KV_BLOCKS]
    budget = limits[MAX_NUM_BATCHED_TOKENS]
    decodes = 0
    context = 0  # KV tokens read by decodes
    pairs = 0  # twice the query-key pairs of prefills, so that it stays an integer
    unfinished = False

    seat = 0
    running = gauges[RUNNING_COUNT]
    while seat < running:
        request = seats[seat]
        computed = work[request, COMPUTED]
        chunks[seat] = 0
        if computed < work[request, PREFILL]:
            unfinished = True
        elif budget > 0:
            if computed == work[request, BLOCKS] * block_size:
                while gauges[BLOCKS_USED] == kv_blocks and running > seat:
                    evict_newest(state, replica, now)
                    running -= 1
                if running == seat:
                    break  # it was the newest itself
                work[request, BLOCKS] += 1
                gauges[BLOCKS_USED] += 1
            chunks[seat] = 1
            budget -= 1
            decodes += 1
            context += computed + 1
        seat += 1

    if unfinished:
        for seat in range(gauges[RUNNING_COUNT]):
            request = seats[seat]
            if work[request, COMPUTED] < work[request, PREFILL] and budget > 0:
                chunk = min(work[request, PREFILL] - work[request, COMPUTED], budget)
                chunks[seat] = chunk
                budget -= chunk
                pairs += chunk * (2 * work[request, COMPUTED] + chunk + 1)

    while budget > 0 and gauges[WAITING_COUNT] > 0 and gauges[RUNNING_COUNT] < limits[MAX_NUM_SEQS]:
        prefill = work[state.ends[replica, HEAD], PREFILL]
        blocks = (prefill + block_size - 1) // block_size
        if kv_blocks - gauges[BLOCKS_USED] - blocks < limits[WATERMARK_BLOCKS]:
            break
        seat = admit_head(state, replica, blocks, now)
        chunk = min(prefill, budget)
        chunks[seat] = chunk
        budget -= chunk
        pairs += chunk * (chunk + 1)

    tokens = limits[MAX_NUM_BATCHED_TOKENS] - budget
    rates = state.rates
    seconds = (
        state.linear[tokens] + rates[STEP_RATE] + context * rates[DECODE_RATE] + pairs * rates[PREFILL_RATE]
    )
    tally = state.tally
    tally[BUSY_TIME] += seconds
    tally[STEPS] += 1
    tally[DECODE_TOKENS] += decodes
    tally[PREFILL_TOKENS] += tokens - decodes
    if gauges[RUNNING_COUNT] == limits[MAX_NUM_SEQS]:
        tally[FULL_TIME] += seconds
    state.kv_use[gauges[BLOCKS_USED] * USE_BINS // kv_blocks] += seconds
    return float(seconds)


@njit
def end_step(state: State, replica: int, now: float) -> int:
    """Book what the step that ends at `now` computed; return how many requests completed (in
    state.completed)."""
    gauges, seats, chunks = state.gauges[replica], state.seats[replica], state.chunks[replica]
    work, times, known, completed = state.work, state.times, state.known, state.completed
    kept = 0
    done = 0
    for seat in range(gauges[RUNNING_COUNT]):
        request = seats[seat]
        computed = work[request, COMPUTED] + chunks[seat]
        work[request, COMPUTED] = computed
        lost = work[request, LOST]
        if lost > 0 and computed >= lost:
            times[request, RECOMPUTE] += now - times[request, SINCE]
            work[request, LOST] = 0
        if chunks[seat] > 0 and computed >= work[request, PREFILL]:
            made = work[request, MADE] + 1
            work[request, MADE] = made
            known[request, TOKENS_DONE] = work[request, PROMPT] + made
            if made == 1:
                times[request, FIRST_TOKEN] = now
            if made == work[request, OUTPUT]:
                times[request, FINISH] = now
                known[request, STATE] = FINISHED
                gauges[BLOCKS_USED] -= work[request, BLOCKS]
                done += 1
                completed[done] = request
                continue
        seats[kept] = request
        kept += 1
    gauges[RUNNING_COUNT] = kept
    completed[0] = done
    return done
