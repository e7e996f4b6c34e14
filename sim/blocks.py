"""The KV cache of one replica block by block, compiled: prefix caching with eviction of the least recently
used free block, as vLLM does it.

A full block has a content: equal contents are equal tokens after equal tokens. A block that no request holds
is free but keeps its content until it is taken, those without content first, then least recently freed first;
a request gives its blocks back last block first, so that beginnings live longest. Contents that only their
own request can have are found again only after it was preempted, so only then do they enter the buckets.
"""

from __future__ import annotations

from sim.compiled import njit
from sim.state import (
    BLOCK_SIZE,
    BLOCKS,
    BLOCKS_USED,
    CHAIN,
    COMPUTED,
    CONTENT,
    HOLDERS,
    KV_BLOCKS,
    MADE,
    NEXT,
    NOTHING,
    PREVIOUS,
    PROMPT,
    SLOT,
    UNMAPPED,
    Ints,
    State,
)


@njit
def content_of(contents: Ints, contents_of: Ints, request: int, place: int) -> int:
    """The content of the request's full block at that place."""
    start, own = contents_of[request, 0], contents_of[request, 1]
    if start + place < contents_of[request + 1, 0]:
        return int(contents[start + place])
    return int(own + place)


@njit
def _map(blocks: Ints, buckets: Ints, block: int) -> None:
    """Put a block behind the others of its bucket, where lookups find it."""
    bucket = blocks[CONTENT, block] & (len(buckets) - 1)
    blocks[CHAIN, block] = NOTHING
    if buckets[bucket] == NOTHING:
        buckets[bucket] = block
        return
    last = buckets[bucket]
    while blocks[CHAIN, last] != NOTHING:
        last = blocks[CHAIN, last]
    blocks[CHAIN, last] = block


@njit
def _unmap(blocks: Ints, buckets: Ints, block: int) -> None:
    """Take a block out of its bucket."""
    bucket = blocks[CONTENT, block] & (len(buckets) - 1)
    if buckets[bucket] == block:
        buckets[bucket] = blocks[CHAIN, block]
    else:
        before = buckets[bucket]
        while blocks[CHAIN, before] != block:
            before = blocks[CHAIN, before]
        blocks[CHAIN, before] = blocks[CHAIN, block]
    blocks[CHAIN, block] = UNMAPPED


@njit
def _find(blocks: Ints, buckets: Ints, content: int) -> int:
    """The block that has had this content longest; NOTHING if there is none."""
    block = buckets[content & (len(buckets) - 1)]
    while block != NOTHING and blocks[CONTENT, block] != content:
        block = blocks[CHAIN, block]
    return int(block)


@njit
def look_up(state: State, replica: int, request: int) -> tuple[int, int]:
    """How many blocks from the request's beginning on are in the cache, and how many of those are free.

    At least its last token is left to compute. The blocks are in its row of `tables`, that of the free slot
    it would get.
    """
    block_size = state.limits[replica, BLOCK_SIZE]
    most = (state.work[request, PROMPT] + state.work[request, MADE] - 1) // block_size
    table = state.tables[replica, state.slots[replica, state.slots[replica, 0]]]
    found = free = 0
    while found < most:
        block = _find(
            state.blocks[replica],
            state.buckets[replica],
            content_of(state.contents, state.contents_of, request, found),
        )
        if block == NOTHING:
            break
        if state.blocks[replica, HOLDERS, block] == 0:
            free += 1
        table[found] = block
        found += 1
    return found, free


@njit
def hold_found(state: State, replica: int, request: int, found: int) -> None:
    """Give the request a slot and the blocks that `look_up` has just found."""
    slots, blocks = state.slots[replica], state.blocks[replica]
    slot = slots[slots[0]]
    slots[0] -= 1
    state.place[request, SLOT] = slot
    for place in range(found):
        block = state.tables[replica, slot, place]
        if blocks[HOLDERS, block] == 0:
            before, after = blocks[PREVIOUS, block], blocks[NEXT, block]
            blocks[NEXT, before] = after
            blocks[PREVIOUS, after] = before
            state.gauges[replica, BLOCKS_USED] += 1
        blocks[HOLDERS, block] += 1
    state.work[request, BLOCKS] = found


@njit
def take_blocks(state: State, replica: int, request: int, count: int, tokens: int) -> None:
    """Give the request so many free blocks more, and fill what it holds up to `tokens` tokens."""
    blocks, buckets, ring = state.blocks[replica], state.buckets[replica], state.limits[replica, KV_BLOCKS]
    table = state.tables[replica, state.place[request, SLOT]]
    held = state.work[request, BLOCKS]
    for place in range(held, held + count):
        block = blocks[NEXT, ring]
        after = blocks[NEXT, block]
        blocks[NEXT, ring] = after
        blocks[PREVIOUS, after] = ring
        if blocks[CHAIN, block] != UNMAPPED:
            _unmap(blocks, buckets, block)
        blocks[CONTENT, block] = NOTHING
        blocks[HOLDERS, block] = 1
        table[place] = block
    state.work[request, BLOCKS] = held + count
    state.gauges[replica, BLOCKS_USED] += count
    block_size = state.limits[replica, BLOCK_SIZE]
    shared = state.contents_of[0, 1]
    for place in range(state.work[request, COMPUTED] // block_size, tokens // block_size):
        content = content_of(state.contents, state.contents_of, request, place)
        blocks[CONTENT, table[place]] = content
        if content < shared:
            _map(blocks, buckets, table[place])


@njit
def give_back(state: State, replica: int, request: int, comes_back: bool) -> None:
    """Take all its blocks from a request, last one first; what only it can find is kept if it comes back."""
    blocks, buckets, slots = state.blocks[replica], state.buckets[replica], state.slots[replica]
    ring = state.limits[replica, KV_BLOCKS]
    slot = state.place[request, SLOT]
    table = state.tables[replica, slot]
    if comes_back:
        for place in range(state.work[request, BLOCKS]):
            block = table[place]
            if blocks[CONTENT, block] != NOTHING and blocks[CHAIN, block] == UNMAPPED:
                _map(blocks, buckets, block)
    for place in range(state.work[request, BLOCKS] - 1, -1, -1):
        block = table[place]
        blocks[HOLDERS, block] -= 1
        if blocks[HOLDERS, block] == 0:
            # What nobody can find again is taken first.
            before = ring if blocks[CONTENT, block] == NOTHING else blocks[PREVIOUS, ring]
            after = blocks[NEXT, before]
            blocks[NEXT, before] = block
            blocks[PREVIOUS, block] = before
            blocks[NEXT, block] = after
            blocks[PREVIOUS, after] = block
            state.gauges[replica, BLOCKS_USED] -= 1
    slots[0] += 1
    slots[slots[0]] = slot
    state.work[request, BLOCKS] = 0
