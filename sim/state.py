"""The layout of a run's arrays: what the compiled kernel, the router's views and the results all look at.

What a router may observe lies in `known` and `gauges`; what it may not (output lengths, future arrivals, the
engine's own books) lies in arrays that no view refers to. Rows are requests in order of arrival, or replicas.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# known[request, ...]: what a router may observe of a request; a row is zero until the request has arrived.
TOKENS_DONE, STATE = 0, 1
NOT_ARRIVED, QUEUED, WAITING, RUNNING, FINISHED = 0, 1, 2, 3, 4

# gauges[replica, ...]: what a router may observe of a replica.
WAITING_COUNT, RUNNING_COUNT, WAITING_PROMPT_TOKENS, BLOCKS_USED, PREEMPTIONS = 0, 1, 2, 3, 4
GAUGES = 5

# work[request, ...]: the engine's book of a request, one cache line each. PREFILL: tokens to compute before
# (more) output comes; COMPUTED: tokens whose KV is held; MADE: output tokens made; LOST: COMPUTED at the
# eviction that has not been made good yet, else 0.
PROMPT, OUTPUT, PREFILL, COMPUTED, MADE, BLOCKS, LOST, RESTARTS = 0, 1, 2, 3, 4, 5, 6, 7
WORK = 8

# times[request, ...] in seconds. SINCE: of the eviction that has not been made good yet.
ROUTED, ADMITTED, FIRST_TOKEN, FINISH, SINCE, RECOMPUTE = 0, 1, 2, 3, 4, 5
TIMES = 6

# place[request, ...]: the replica a request was routed to, and the one behind it in that replica's waiting
# queue.
REPLICA, BEHIND = 0, 1

# ends[replica, ...] of the waiting queue.
HEAD, TAIL = 0, 1
NOBODY = -1

# limits[...]: the engine's settings.
KV_BLOCKS, BLOCK_SIZE, MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS, WATERMARK_BLOCKS = 0, 1, 2, 3, 4

# rates[...]: seconds per KV token read by decodes, per query-key pair of prefills, per step (LM head).
DECODE_RATE, PREFILL_RATE, STEP_RATE = 0, 1, 2

# clock[...]: seconds. NOW: the instant; INTERVAL: between two samples.
NOW, INTERVAL = 0, 1

# tally[...]: sums over all steps. BUSY_TIME and FULL_TIME (max_num_seqs running) in replica-seconds.
BUSY_TIME, FULL_TIME, STEPS, PREFILL_TOKENS, DECODE_TOKENS = 0, 1, 2, 3, 4
TALLY = 5

USE_BINS = 1000
"""kv_use[b]: replica-seconds of steps with b/1000 <= blocks used / blocks < (b + 1)/1000."""

SAMPLES = 4096
"""Samples kept at most: when they are used up every second one is dropped and the interval doubles."""


class State(NamedTuple):
    """All arrays of one run."""

    arrival: Floats
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
    """linear[tokens]: seconds of the linear parts of a step with so many tokens."""
    rates: Floats
    clock: Floats
    tally: Floats
    kv_use: Floats
    samples: Ints
    """samples[k, replica, ...] of running, waiting, blocks used at k * INTERVAL seconds."""
    sampled: Ints
    """sampled[0]: how many samples are there."""


def new_state(
    arrival: Floats,
    prompt_tokens: Ints,
    output_tokens: Ints,
    *,
    replicas: int,
    limits: tuple[int, int, int, int, int],
    linear: Floats,
    rates: tuple[float, float, float],
) -> State:
    """The state before the first event. `limits`, `linear` and `rates` as the constants above say."""
    requests = len(arrival)
    seats = limits[MAX_NUM_SEQS]
    work = np.zeros((requests, WORK), np.int64)
    work[:, PROMPT] = work[:, PREFILL] = prompt_tokens
    work[:, OUTPUT] = output_tokens
    return State(
        # A copy: Numba compiles anew for a read-only array, which a workload may or may not have.
        arrival=np.array(arrival, np.float64),
        work=work,
        times=np.zeros((requests, TIMES)),
        place=np.full((requests, 2), NOBODY, np.int64),
        known=np.zeros((requests, 2), np.int64),
        gauges=np.zeros((replicas, GAUGES), np.int64),
        ends=np.full((replicas, 2), NOBODY, np.int64),
        seats=np.zeros((replicas, seats), np.int64),
        chunks=np.zeros((replicas, seats), np.int64),
        step_end=np.full(replicas, np.inf),
        completed=np.zeros(seats + 1, np.int64),
        limits=np.array(limits, np.int64),
        linear=linear,
        rates=np.array(rates),
        clock=np.array([0.0, 1.0]),
        tally=np.zeros(TALLY),
        kv_use=np.zeros(USE_BINS + 1),
        samples=np.zeros((SAMPLES, replicas, 3), np.int64),
        sampled=np.zeros(1, np.int64),
    )
