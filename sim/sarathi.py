"""The step of the Sarathi engine, compiled: which tokens go into a replica's next batch.

Chunked prefill as Sarathi does it. A step has a budget of tokens. First every running request that decodes
gets one token, then running requests with an unfinished prefill get what is left, then waiting requests are
admitted in order. All blocks of a prefill are taken at admission, which leaves the watermark free; a decode
takes a block when it crosses a border. If there is none the newest running request is evicted: it gives its
blocks back and waits at the head of the queue, to compute prompt and output so far again in one prefill.
"""

from __future__ import annotations

from sim.compiled import inlined
from sim.engine import admit, evict, price
from sim.state import (
    BLOCK_SIZE,
    BLOCKS,
    BLOCKS_USED,
    COMPUTED,
    HEAD,
    KV_BLOCKS,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    PREFILL,
    RUNNING_COUNT,
    WAITING_COUNT,
    WATERMARK_BLOCKS,
    State,
)


@inlined
def start_sarathi_step(state: State, replica: int, now: float) -> float:
    """Form the replica's next batch at `now`; return the step's time in seconds, -1 if the batch is empty."""
    gauges, seats, chunks, work = (
        state.gauges[replica],
        state.seats[replica],
        state.chunks[replica],
        state.work,
    )
    limits = state.limits[replica]
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
                    running -= 1
                    evict(state, replica, running, now)
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
        request = state.ends[replica, HEAD]
        prefill = work[request, PREFILL]
        blocks = (prefill + block_size - 1) // block_size
        if kv_blocks - gauges[BLOCKS_USED] - blocks < limits[WATERMARK_BLOCKS]:
            break
        seat = admit(state, replica, request, now)
        work[request, BLOCKS] = blocks
        gauges[BLOCKS_USED] += blocks
        chunk = min(prefill, budget)
        chunks[seat] = chunk
        budget -= chunk
        pairs += chunk * (chunk + 1)

    tokens = limits[MAX_NUM_BATCHED_TOKENS] - budget
    if tokens == 0:
        return -1.0
    return price(state, replica, tokens, decodes, context, pairs)
