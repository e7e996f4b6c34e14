"""The layout of a run's arrays: what the compiled kernel, the policies' views and the results all look at.

What a router may observe lies in `known` and `gauges`, what a batch scheduler may besides in `work`; what
nobody may (output lengths, future arrivals, contents of blocks) lies in arrays that no view refers to. Rows
are requests in order of arrival, or replicas.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# known[request, ...]: what a router may observe of a request; a row is zero until the request has arrived.
TOKENS_DONE, STATE = 0, 1
NOT_ARRIVED, QUEUED, WAITING, RUNNING, FINISHED, REJECTED = 0, 1, 2, 3, 4, 5

# gauges[replica, ...]: what a router may observe of a replica.
WAITING_COUNT, RUNNING_COUNT, WAITING_PROMPT_TOKENS, BLOCKS_USED, PREEMPTIONS = 0, 1, 2, 3, 4
GAUGES = 5

# lengths[request, ...]: tokens, hidden until the request has arrived, or for ever.
PROMPT_LENGTH, OUTPUT_LENGTH = 0, 1

# work[request, ...]: the engine's book of a request, one cache line each; a row is zero until the request has
# arrived. PREFILL: tokens to compute before (more) output comes; COMPUTED: tokens whose KV is held; MADE:
# output tokens made; LOST: COMPUTED at the eviction that has not been made good yet, else 0; CACHED: tokens
# found in the prefix cache, over all admissions.
PROMPT, PREFILL, COMPUTED, MADE, BLOCKS, LOST, RESTARTS, CACHED = 0, 1, 2, 3, 4, 5, 6, 7
WORK = 8

# times[request, ...] in seconds, NaN until it happens. SINCE: of the eviction that has not been made good
# yet; RECOMPUTE: a sum from 0.
ROUTED, ADMITTED, FIRST_TOKEN, FINISH, SINCE, RECOMPUTE = 0, 1, 2, 3, 4, 5
TIMES = 6

# place[request, ...]: the replica a request was routed to, the one behind it in that replica's waiting queue,
# and its row of `tables`.
REPLICA, BEHIND, SLOT = 0, 1, 2

# ends[replica, ...] of the waiting queue.
HEAD, TAIL = 0, 1
NOBODY = -1

# limits[replica, ...]: the engine's settings. PROFILE: row of the cost tables; FULL_FIT, BY_PRIORITY,
# CACHING, CHUNKED: 0 or 1; PLANNED: 0 or as below; LONG_PREFILL: tokens of a request in a step at most, while
# it is not the only one there.
KV_BLOCKS, BLOCK_SIZE, MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS, WATERMARK_BLOCKS = 0, 1, 2, 3, 4
ENGINE, PROFILE, FULL_FIT, BY_PRIORITY, CACHING, PLANNED = 5, 6, 7, 8, 9, 10
CHUNKED, LONG_PREFILL = 11, 12
LIMITS = 13
SARATHI, VLLM = 0, 1
EVERY_STEP, UNLESS_ONLY_DECODES = 1, 2  # what is PLANNED

# clock[...]: seconds. NOW: the instant; INTERVAL: between two samples; TIMER: when Python wants to be called;
# PERIOD: between two publications of the views, 0 for live ones; PUBLISH: when the next one is due.
NOW, INTERVAL, TIMER, PERIOD, PUBLISH = 0, 1, 2, 3, 4

# tally[...]: sums over all steps. BUSY_TIME and FULL_TIME (max_num_seqs running) in replica-seconds;
# LOOKED_UP and HIT: tokens at admissions with prefix caching.
BUSY_TIME, FULL_TIME, STEPS, PREFILL_TOKENS, DECODE_TOKENS, LOOKED_UP, HIT = 0, 1, 2, 3, 4, 5, 6
TALLY = 7

HELD = 1
GOES_ON = 2

USE_BINS = 1000
"""kv_use[b]: replica-seconds of steps with b/1000 <= blocks used / blocks < (b + 1)/1000."""

SAMPLES = 4096
"""Samples kept at most: when they are used up every second one is dropped and the interval doubles."""

BARREN = 100_000
"""Steps in a row of one replica that make no token and compute nothing new: then it is a livelock."""

# plan[...]: a batch scheduler's plan: numbers of evictions, admissions (-1: in the order of the queue) and
# token counts, then the requests and, for token counts, pairs (request, tokens). When a plan is refused
# plan[0] says why, plan[1] is the request and plan[2] a number.
EVICTIONS, ADMISSIONS, COUNTS, ENTRIES = 0, 1, 2, 3
NOT_RUNNING, NOT_WAITING, TOO_MANY_TOKENS, OVER_BUDGET, TWICE, NOT_PLANNED = 1, 2, 3, 4, 5, 6

# runs[replica, ...]: a run of steps that only decode (`sim.decoding`). LEFT: its steps up to and including
# the first that completes a request, 0 without a run; STARTED, ENDED: its steps so far; CONTEXT, DEEPEST: KV
# tokens that the next one reads, and that its deepest decode reads; ALONE: whether nothing waited when it
# began.
LEFT, STARTED, ENDED, CONTEXT, DEEPEST, ALONE = 0, 1, 2, 3, 4, 5
RUN = 6

# blocks[replica, ..., block]: the cache by blocks, for prefix caching. NEXT, PREVIOUS: of the free blocks,
# least recently used first, in a ring through the entry KV_BLOCKS; HOLDERS: requests that use it; CONTENT:
# what is in it, NOTHING until it is full; CHAIN: the next block of its bucket, UNMAPPED if it is in none.
NEXT, PREVIOUS, HOLDERS, CONTENT, CHAIN = 0, 1, 2, 3, 4
BLOCK = 5
NOTHING, UNMAPPED = -1, -2


class State(NamedTuple):
    """All arrays of one run."""

    arrival: Floats
    lengths: Ints
    priority: Ints
    work: Ints
    times: Floats
    place: Ints
    known: Ints
    gauges: Ints
    ends: Ints
    seats: Ints
    """seats[replica, i]: the running requests in order of admission."""
    chunks: Ints
    """chunks[replica, i]: tokens of seats[replica, i] in the current step."""
    step_end: Floats
    """step_end[replica]: when its current step ends; infinite where it stands still."""
    completed: Ints
    """completed[0] requests completed in the last step, in completed[1:]."""
    limits: Ints
    linear: Floats
    """linear[profile, tokens], and the next three by profile too: see `sim.costs.step.Tables`."""
    head: Floats
    decode: Floats
    rates: Floats
    clock: Floats
    tally: Floats
    kv_use: Floats
    samples: Ints
    """samples[k, replica, ...] of running, waiting, blocks used at k * INTERVAL seconds."""
    sampled: Ints
    """sampled[0]: how many samples are there."""
    barren: Ints
    """barren[replica]: steps since the last progress."""
    turn: Ints
    """turn[0]: the replica that a PLAN, REFUSED or LIVELOCK event is about; turn[GOES_ON]: whether a replica
    starts its next step before the caller is told of a COMPLETION; turn[HELD]: whether requests are
    held while views are stale."""
    plan: Ints
    counts: Ints
    """counts[request]: tokens that the plan gives it in this step; NOBODY where it says nothing."""
    runs: Ints
    """Empty where requests are looked at between steps."""
    borders: Ints
    """borders[replica, k]: requests of the run that need a block in its step k, and in every BLOCK_SIZE-th
    after it."""
    blocks: Ints
    buckets: Ints
    """buckets[replica, content & mask]: first block of the bucket."""
    tables: Ints
    """tables[replica, slot, k]: the k-th block of the running request with that slot."""
    slots: Ints
    """slots[replica, 0] free slots are in slots[replica, 1:]."""
    contents: Ints
    """Contents of the first full blocks of each request, one after another, below `contents_of[-1, 1]`."""
    contents_of: Ints
    """contents_of[request]: where its own row of `contents` starts, and the first of the contents that only
    this request can have; one row more than requests."""
    seen_gauges: Ints
    """As `gauges`, `seats`, `ends`, behind (of `place`) and `known` were at the last publication."""
    seen_seats: Ints
    seen_ends: Ints
    seen_behind: Ints
    seen_known: Ints


def new_state(
    arrival: Floats,
    prompt_tokens: Ints,
    output_tokens: Ints,
    priority: Ints | None,
    *,
    limits: Ints,
    costs: tuple[Floats, Floats, Floats, Floats],
    contents: tuple[Ints, Ints] | None,
    stale: bool,
) -> State:
    """The state before the first event; the last five arguments as the arrays above say."""
    requests, replicas = len(arrival), len(limits)
    seats = int(limits[:, MAX_NUM_SEQS].max())
    times = np.full((requests, TIMES), np.nan)
    times[:, RECOMPUTE] = 0.0
    planned = bool(limits[:, PLANNED].any())
    longest = (prompt_tokens + output_tokens).max(initial=1)
    arrays = State(
        # Copies: Numba compiles anew for a read-only array, which a workload may or may not have.
        arrival=np.array(arrival, np.float64),
        lengths=np.stack([prompt_tokens, output_tokens], axis=1).astype(np.int64),
        priority=np.zeros(requests, np.int64) if priority is None else np.array(priority, np.int64),
        work=np.zeros((requests, WORK), np.int64),
        times=times,
        place=np.full((requests, 3), NOBODY, np.int64),
        known=np.zeros((requests, 2), np.int64),
        gauges=np.zeros((replicas, GAUGES), np.int64),
        ends=np.full((replicas, 2), NOBODY, np.int64),
        seats=np.zeros((replicas, seats), np.int64),
        chunks=np.zeros((replicas, seats), np.int64),
        step_end=np.full(replicas, np.inf),
        completed=np.zeros(seats + 1, np.int64),
        limits=limits,
        linear=costs[0],
        head=costs[1],
        decode=costs[2],
        rates=costs[3],
        clock=np.array([0.0, 1.0, np.inf, 0.0, 0.0]),
        tally=np.zeros(TALLY),
        kv_use=np.zeros(USE_BINS + 1),
        samples=np.zeros((SAMPLES, replicas, 3), np.int64),
        sampled=np.zeros(1, np.int64),
        barren=np.zeros(replicas, np.int64),
        turn=np.zeros(3, np.int64),
        plan=np.zeros(ENTRIES + 6 * seats if planned else ENTRIES, np.int64),
        counts=np.full(requests if planned else 0, NOBODY, np.int64),
        runs=np.zeros((0, RUN), np.int64),
        borders=np.zeros((0, 0), np.int64),
        **_cache(limits, seats, int(longest), contents),
        **_seen(replicas, seats, requests if stale else 0),
    )
    if contents is not None:
        for replica in range(replicas):
            empty_cache(arrays, replica)
    return arrays


def unobserved(state: State) -> State:
    """The state of a run in which nobody looks at requests between two steps."""
    replicas, longest = len(state.limits), state.lengths[:, OUTPUT_LENGTH].max(initial=1)
    width = min(int(longest), int(state.limits[:, BLOCK_SIZE].max()))  # no run is longer than an output
    return state._replace(
        runs=np.zeros((replicas, RUN), np.int64), borders=np.zeros((replicas, width), np.int64)
    )


def empty_cache(state: State, replica: int) -> None:
    """Make every block of a replica free and forgotten, and every slot free."""
    count, blocks = int(state.limits[replica, KV_BLOCKS]), state.blocks[replica]
    ring = np.arange(count + 1)
    blocks[NEXT, :count], blocks[NEXT, count] = ring[1:], 0
    blocks[PREVIOUS, 1 : count + 1], blocks[PREVIOUS, 0] = ring[:-1], count
    blocks[HOLDERS] = 0
    blocks[CONTENT] = NOTHING
    blocks[CHAIN] = UNMAPPED
    state.buckets[replica] = NOTHING
    seats = state.slots.shape[1] - 1
    state.slots[replica, 0] = seats
    state.slots[replica, 1:] = np.arange(seats)[::-1]


def _cache(limits: Ints, seats: int, longest: int, contents: tuple[Ints, Ints] | None) -> dict[str, Ints]:
    """The arrays of prefix caching, empty where there is none; `longest` request in tokens."""
    if contents is None:
        none = np.zeros((0, 0), np.int64)
        empty = np.zeros((0, 0, 0), np.int64)
        return {
            "blocks": empty,
            "buckets": none,
            "tables": empty,
            "slots": none,
            "contents": np.zeros(0, np.int64),
            "contents_of": none,
        }
    replicas, most = len(limits), int(limits[:, KV_BLOCKS].max())
    return {
        "blocks": np.zeros((replicas, BLOCK, most + 1), np.int64),
        "buckets": np.zeros((replicas, 1 << most.bit_length()), np.int64),
        "tables": np.zeros(
            (replicas, seats, min(most, -(-longest // int(limits[:, BLOCK_SIZE].min())))), np.int64
        ),
        "slots": np.zeros((replicas, seats + 1), np.int64),
        "contents": contents[0],
        "contents_of": contents[1],
    }


def _seen(replicas: int, seats: int, requests: int) -> dict[str, Ints]:
    """The arrays of published views, empty where views are live (`requests` is 0 then)."""
    return {
        "seen_gauges": np.zeros((replicas, GAUGES), np.int64),
        "seen_seats": np.zeros((replicas, seats if requests else 0), np.int64),
        "seen_ends": np.full((replicas, 2), NOBODY, np.int64),
        "seen_behind": np.full(requests, NOBODY, np.int64),
        "seen_known": np.zeros((requests, 2), np.int64),
    }
