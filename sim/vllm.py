"""The step of the vLLM v1 engine, compiled: which tokens go into a replica's next batch, by its own rule or
by a batch scheduler's plan.

One budget of tokens for all. Running requests come first, in order of admission, each with all that it has
left to compute as far as the budget goes (one token once its prefill is done); then waiting requests are
admitted in order of the queue while budget, seats and blocks last. Blocks are taken as tokens are scheduled.
When a running request finds no block the last running one is preempted (by priority: the one of the lowest,
then the latest), to be recomputed from the head of the queue, and nothing is admitted in that step. As in
vLLM an admission needs room for the whole prompt (`full_prompt_must_fit`) and, unless the replica is empty,
leaves the watermark free. Beside others a request gets at most `long_prefill_token_threshold` tokens, and
without chunked prefill none is admitted with less than that.

A plan replaces the order of admission and adds evictions and token counts; all else stays.
"""

from __future__ import annotations

from sim.blocks import hold_found, look_up, take_blocks
from sim.compiled import njit
from sim.engine import admit, evict, price
from sim.state import (
    ADMISSIONS,
    BLOCK_SIZE,
    BLOCKS,
    BLOCKS_USED,
    BY_PRIORITY,
    CACHED,
    CACHING,
    CHUNKED,
    COMPUTED,
    COUNTS,
    ENTRIES,
    EVERY_STEP,
    EVICTIONS,
    FULL_FIT,
    HEAD,
    HIT,
    KV_BLOCKS,
    LONG_PREFILL,
    LOOKED_UP,
    MADE,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    NOBODY,
    NOT_PLANNED,
    NOT_RUNNING,
    NOT_WAITING,
    OVER_BUDGET,
    PLANNED,
    PREFILL,
    PROMPT,
    REPLICA,
    RUNNING,
    RUNNING_COUNT,
    STATE,
    TOO_MANY_TOKENS,
    TWICE,
    UNLESS_ONLY_DECODES,
    WAITING,
    WAITING_COUNT,
    WATERMARK_BLOCKS,
    Ints,
    State,
)


@njit
def _victim(state: State, replica: int) -> int:
    """The seat to preempt: the last, or by priority the last of those of the lowest."""
    seat = state.gauges[replica, RUNNING_COUNT] - 1
    if state.limits[replica, BY_PRIORITY]:
        seats, priority = state.seats[replica], state.priority
        for other in range(seat):
            one, two = seats[other], seats[seat]
            if priority[one] > priority[two] or (priority[one] == priority[two] and one > two):
                seat = other
    return int(seat)


@njit
def _refuse(plan: Ints, why: int, request: int, number: int) -> float:
    """Leave in the plan what is wrong with it."""
    plan[0], plan[1], plan[2] = why, request, number
    return -2.0


@njit
def _here(known: Ints, place: Ints, replica: int, request: int, what: int) -> bool:
    """Whether the request is in this state at this replica."""
    return bool(
        0 <= request < len(known) and known[request, STATE] == what and place[request, REPLICA] == replica
    )


@njit
def _open_plan(state: State, replica: int, now: float) -> float:
    """Make the plan's evictions and note its token counts; their sum, or -2 if the plan is refused."""
    plan, counts = state.plan, state.counts
    evictions, admissions = plan[EVICTIONS], max(plan[ADMISSIONS], 0)
    for entry in range(ENTRIES, ENTRIES + evictions):
        request = plan[entry]
        if not _here(state.known, state.place, replica, request, RUNNING):
            return _refuse(state.plan, NOT_RUNNING, request, 0)
        seat = 0
        while state.seats[replica, seat] != request:
            seat += 1
        evict(state, replica, seat, now)
    first = ENTRIES + evictions
    for entry in range(first, first + admissions):
        if not _here(state.known, state.place, replica, plan[entry], WAITING):
            return _refuse(state.plan, NOT_WAITING, plan[entry], 0)
    stated = 0
    for pair in range(plan[COUNTS]):
        request, tokens = plan[first + admissions + 2 * pair], plan[first + admissions + 2 * pair + 1]
        planned = _here(state.known, state.place, replica, request, RUNNING)
        for entry in range(first, first + admissions):
            planned = planned or plan[entry] == request
        if not planned:
            return _refuse(state.plan, NOT_PLANNED, request, tokens)
        if counts[request] != NOBODY:
            return _refuse(state.plan, TWICE, request, tokens)
        if tokens < 0 or tokens > state.work[request, PROMPT] + state.work[request, MADE]:
            return _refuse(state.plan, TOO_MANY_TOKENS, request, tokens)
        counts[request] = tokens
        stated += tokens
    if stated > state.limits[replica, MAX_NUM_BATCHED_TOKENS]:
        return _refuse(state.plan, OVER_BUDGET, NOBODY, stated)
    return float(stated)


@njit
def asks_for_plan(state: State, replica: int) -> bool:
    """Whether its batch scheduler plans the replica's next step; where it leaves this one to vLLM, vLLM's own
    rule is written as the plan."""
    asked = state.limits[replica, PLANNED]
    if asked != UNLESS_ONLY_DECODES:
        return bool(asked == EVERY_STEP)
    if state.gauges[replica, WAITING_COUNT] > 0:
        return True
    for seat in range(state.gauges[replica, RUNNING_COUNT]):
        request = state.seats[replica, seat]
        if state.work[request, COMPUTED] < state.work[request, PREFILL]:
            return True
    state.plan[EVICTIONS], state.plan[ADMISSIONS], state.plan[COUNTS] = 0, -1, 0
    return False


@njit
def start_vllm_step(state: State, replica: int, now: float) -> float:
    """Form the replica's next batch at `now`; return the step's time in seconds, -1 if the batch is empty, -2
    if the plan is refused (see `state.plan`)."""
    planned = state.limits[replica, PLANNED] != 0
    stated = 0
    if planned:
        opened = _open_plan(state, replica, now)
        if opened < 0:
            return opened
        stated = int(opened)
    seconds = _form_batch(state, replica, now, planned, stated)
    if planned and seconds != -2.0:
        first = ENTRIES + state.plan[EVICTIONS] + max(state.plan[ADMISSIONS], 0)
        for pair in range(state.plan[COUNTS]):
            state.counts[state.plan[first + 2 * pair]] = NOBODY
    return seconds


@njit
def _form_batch(state: State, replica: int, now: float, planned: bool, stated: int) -> float:
    """One pass over running and waiting requests; returns as `start_vllm_step`."""
    gauges, seats, chunks, work = (
        state.gauges[replica],
        state.seats[replica],
        state.chunks[replica],
        state.work,
    )
    limits = state.limits[replica]
    block_size, kv_blocks, caching = limits[BLOCK_SIZE], limits[KV_BLOCKS], limits[CACHING]
    budget = limits[MAX_NUM_BATCHED_TOKENS] - stated  # for what the plan says nothing of
    most = limits[MAX_NUM_BATCHED_TOKENS]
    if gauges[RUNNING_COUNT] + gauges[WAITING_COUNT] > 1:  # who is alone starves nobody
        most = limits[LONG_PREFILL]
    tokens = decodes = context = pairs = 0
    preempted = False

    seat = 0
    while seat < gauges[RUNNING_COUNT] and (budget > 0 or planned):
        request = seats[seat]
        book = work[request]
        computed = book[COMPUTED]
        left = book[PROMPT] + book[MADE] - computed
        chunk = min(left, budget)
        if chunk > most:
            chunk = most
        count = NOBODY
        if planned:
            count = state.counts[request]
            if count > left:
                return _refuse(state.plan, TOO_MANY_TOKENS, request, count)
            if count != NOBODY:
                chunk = count
        after, room = computed + chunk, book[BLOCKS] * block_size
        need = 0  # most steps of a decode stay within its last block: they divide nothing
        if after > room:
            need = (after - room + block_size - 1) // block_size
        itself = False
        while not itself and need > kv_blocks - gauges[BLOCKS_USED]:
            victim = _victim(state, replica)
            preempted = True
            itself = victim == seat
            if victim < seat:
                back, held = chunks[victim], work[seats[victim], COMPUTED]
                tokens -= back
                if back == 1 and held >= work[seats[victim], PREFILL]:
                    decodes -= 1
                    context -= held + 1
                else:
                    pairs -= back * (2 * held + back + 1)
                if not planned or state.counts[seats[victim]] == NOBODY:
                    budget += back
                seat -= 1
            evict(state, replica, victim, now)
        if itself:
            break
        if caching:
            if chunk > 1 or after >= room:  # only then a block is new, or becomes full
                take_blocks(state, replica, request, need, after)
        elif need > 0:
            book[BLOCKS] += need
            gauges[BLOCKS_USED] += need
        chunks[seat] = chunk
        if count == NOBODY:
            budget -= chunk
        tokens += chunk
        if chunk == 1 and computed >= book[PREFILL]:
            decodes += 1
            context += computed + 1
        else:
            pairs += chunk * (2 * computed + chunk + 1)
        seat += 1
    for later in range(seat, gauges[RUNNING_COUNT]):
        chunks[later] = 0

    in_order = not planned or state.plan[ADMISSIONS] < 0
    entry, last = 0, 0
    if planned:
        entry = ENTRIES + state.plan[EVICTIONS]
        last = entry + max(state.plan[ADMISSIONS], 0)
    while not preempted and gauges[RUNNING_COUNT] < limits[MAX_NUM_SEQS]:
        if in_order:
            request = state.ends[replica, HEAD]
            if request == NOBODY:
                break
        elif entry < last:
            request = state.plan[entry]
            entry += 1
            if not _here(state.known, state.place, replica, request, WAITING):
                return _refuse(state.plan, TWICE, request, 0)
        else:
            break
        found = free = 0
        if caching:
            found, free = look_up(state, replica, request)
        computed = found * block_size
        whole = work[request, PROMPT] + work[request, MADE]
        chunk = min(whole - computed, most)
        if chunk > budget:
            chunk = budget if limits[CHUNKED] else 0
        count = state.counts[request] if planned else NOBODY
        if count != NOBODY:
            if count < 1:
                return _refuse(state.plan, TOO_MANY_TOKENS, request, count)
            chunk = min(count, whole - computed)  # who plans cannot know what the prefix cache holds
        if chunk == 0:
            break
        need = (computed + chunk + block_size - 1) // block_size - found
        room = (whole + block_size - 1) // block_size - found if limits[FULL_FIT] else need
        if gauges[RUNNING_COUNT] > 0:
            room += limits[WATERMARK_BLOCKS]
        if room + free > kv_blocks - gauges[BLOCKS_USED]:
            break
        seat = admit(state, replica, request, now)
        if caching:
            hold_found(state, replica, request, found)
            work[request, COMPUTED] = computed
            work[request, CACHED] += computed
            state.tally[LOOKED_UP] += whole
            state.tally[HIT] += computed
            take_blocks(state, replica, request, need, computed + chunk)
        else:
            work[request, BLOCKS] = need
            gauges[BLOCKS_USED] += need
        chunks[seat] = chunk
        if count == NOBODY:
            budget -= chunk
        tokens += chunk
        pairs += chunk * (2 * computed + chunk + 1)

    if tokens == 0:
        return -1.0
    return price(state, replica, tokens, decodes, context, pairs)
