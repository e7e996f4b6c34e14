"""One replica of vLLM v1 in plain Python, step by step: what measured vLLM runs are compared with.

It follows vLLM's scheduler: one token budget for prefill and decode, running requests before waiting ones,
first come first served, KV blocks taken chunk by chunk, a prompt admitted only if all of it would fit, the
last running request preempted when blocks run out, full blocks found again by their content (prefix caching)
with the least recently freed one reused first, after those without content. With `async_scheduling` a step
is scheduled while the one before it still runs, so that a token is known, and a finished request's blocks are
free, one step later; without it the run is that of the compiled engine (`sim.vllm`), bit by bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sim.costs import Batch

__all__ = ["Settings", "Timing", "serve"]


@dataclass(frozen=True, slots=True)
class Settings:
    """vLLM's engine configuration, in its own words and defaults."""

    kv_blocks: int
    """`num_gpu_blocks`; one of them is vLLM's null block and holds nothing."""
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    async_scheduling: bool = True
    enable_prefix_caching: bool = True


@dataclass(slots=True)
class Timing:
    """What became of one request; times in seconds since the start of the workload."""

    scheduled: float = -1.0
    first_token: float = -1.0
    finish: float = -1.0
    preemptions: int = 0
    cached_tokens: int = 0
    """Tokens found in the prefix cache, over all admissions."""


@dataclass(slots=True, eq=False)
class _Request:
    prompt: int
    output: int
    keys: Sequence[Hashable]
    """Content of the full prompt blocks: equal keys stand for equal tokens from the start on."""
    row: int
    timing: Timing = field(default_factory=Timing)
    prefill: int = 0
    """Tokens to compute before (more) output comes."""
    computed: int = 0
    made: int = 0
    pending: int = 0
    """Tokens scheduled to be made whose step has not ended."""
    blocks: list[int] = field(default_factory=list)

    def key(self, block: int) -> Hashable:
        return self.keys[block] if block < len(self.keys) else (self.row, block)


class _Share(NamedTuple):
    """What a step computes for one request."""

    request: _Request
    tokens: int
    before: int
    """KV tokens held before the step."""
    makes: bool
    """Whether the step makes an output token."""
    decodes: bool
    """Whether its one token is an output token, fed back."""


class _Blocks:
    """The KV blocks of a replica: free ones in the order in which they will be reused."""

    def __init__(self, count: int) -> None:
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, count))
        self.users = [0] * count
        self.key: dict[int, Hashable] = {}
        self.found: dict[Hashable, list[int]] = {}
        """Blocks of that content; the one that has had it longest is found."""

    def cached(self, request: _Request, limit: int) -> list[int]:
        """The blocks that hold the request's tokens from the start on, at most `limit`."""
        hits: list[int] = []
        while len(hits) < limit and (blocks := self.found.get(request.key(len(hits)))):
            hits.append(blocks[0])
        return hits

    def take(self, request: _Request, count: int) -> None:
        for _ in range(count):
            block, _ = self.free.popitem(last=False)
            if block in self.key:
                self.found[self.key.pop(block)].remove(block)
            self.users[block] = 1
            request.blocks.append(block)

    def share(self, request: _Request, hits: list[int]) -> None:
        for block in hits:
            self.free.pop(block, None)
            self.users[block] += 1
            request.blocks.append(block)

    def give_back(self, request: _Request) -> None:
        for block in reversed(request.blocks):
            self.users[block] -= 1
            if self.users[block] == 0:
                self.free[block] = None
                self.free.move_to_end(block, last=block in self.key)  # what nobody can find goes first
        request.blocks.clear()

    def remember(self, request: _Request, full: int) -> None:
        """Make the request's first `full` blocks, whose tokens are known, findable."""
        for index in range(full - 1, -1, -1):
            block = request.blocks[index]
            key = request.key(index)
            if block in self.key:
                return
            self.key[block] = key
            self.found.setdefault(key, []).append(block)


class _Replica:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.blocks = _Blocks(settings.kv_blocks)
        self.waiting: list[_Request] = []
        self.running: list[_Request] = []

    def schedule(self, now: float) -> list[_Share]:
        """The next step; its tokens count as computed from here."""
        batch: list[_Share] = []
        budget = self.settings.max_num_batched_tokens
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            index += 1
            if request.made + request.pending == request.output:
                continue  # its last token is being made
            tokens = min(request.prompt + request.made + request.pending - request.computed, budget)
            need = self._blocks_for(request.computed + tokens) - len(request.blocks)
            while need > len(self.blocks.free) and request in self.running:
                self._preempt()
                preempted = True
            if request not in self.running:
                break
            self.blocks.take(request, need)
            budget -= self._add(batch, request, tokens)
        while (
            self.waiting and budget > 0 and len(self.running) < self.settings.max_num_seqs and not preempted
        ):
            taken = self._admit(batch, budget, now)
            if taken == 0:
                break
            budget -= taken
        return batch

    def _admit(self, batch: list[_Share], budget: int, now: float) -> int:
        """Admit the head of the queue if all its tokens would fit; the tokens scheduled, else 0."""
        request = self.waiting[0]
        request.prefill = total = request.prompt + request.made
        hits: list[int] = []
        if self.settings.enable_prefix_caching:
            hits = self.blocks.cached(request, (total - 1) // self.settings.block_size)
        unused = sum(self.blocks.users[block] == 0 for block in hits)
        if self._blocks_for(total) - len(hits) + unused > len(self.blocks.free):
            return 0
        self.waiting.pop(0)
        self.running.append(request)
        self.blocks.share(request, hits)
        request.computed = len(hits) * self.settings.block_size
        request.timing.cached_tokens += request.computed
        if request.timing.scheduled < 0:
            request.timing.scheduled = now
        tokens = min(total - request.computed, budget)
        self.blocks.take(request, self._blocks_for(request.computed + tokens) - len(hits))
        return self._add(batch, request, tokens)

    def _add(self, batch: list[_Share], request: _Request, tokens: int) -> int:
        before = request.computed
        decodes = tokens == 1 and before >= request.prefill
        request.computed += tokens
        makes = request.computed == request.prompt + request.made + request.pending
        request.pending += makes
        batch.append(_Share(request, tokens, before, makes, decodes))
        if self.settings.enable_prefix_caching:
            known = min(request.computed, request.prompt + request.made)
            self.blocks.remember(request, known // self.settings.block_size)
        return tokens

    def _preempt(self) -> None:
        """Take the last running request out of the batch; a token of it still in flight is kept."""
        request = self.running.pop()
        self.blocks.give_back(request)
        request.computed = 0
        request.timing.preemptions += 1
        self.waiting.insert(0, request)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.settings.block_size)

    def end(self, makers: list[_Request], now: float) -> None:
        """Book the tokens of a step that ended at `now`."""
        for request in makers:
            request.pending -= 1
            request.made += 1
            if request.made == 1:
                request.timing.first_token = now
            if request.made == request.output:
                request.timing.finish = now
                self.blocks.give_back(request)
                (self.running if request in self.running else self.waiting).remove(request)


def _describe(batch: list[_Share]) -> Batch:
    """The step as the cost model sees it."""
    return Batch.of((share.tokens, share.before, share.decodes) for share in batch)


def serve(
    arrival: Sequence[float],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    *,
    settings: Settings,
    seconds: Callable[[Batch], float],
    prefix_keys: Sequence[Sequence[Hashable]] | None = None,
) -> list[Timing]:
    """Run the requests, given in order of arrival, to their end; `seconds` says what a step takes.

    `prefix_keys` name the contents of each request's full prompt blocks; without them no two share any.
    ValueError if a request alone exceeds the KV cache.
    """
    keys = prefix_keys if prefix_keys is not None else [()] * len(arrival)
    requests = [
        _Request(int(prompt), int(output), own, row)
        for row, (prompt, output, own) in enumerate(zip(prompt_tokens, output_tokens, keys, strict=True))
    ]
    room = (settings.kv_blocks - 1) * settings.block_size
    for request in requests:
        if request.prompt + request.output - 1 > room:
            raise ValueError(
                f"request {request.row} has {request.prompt} prompt and {request.output} output tokens; "
                f"{settings.kv_blocks} KV blocks of {settings.block_size} hold {room}"
            )
    replica = _Replica(settings)
    depth = 2 if settings.async_scheduling else 1
    in_flight: list[tuple[list[_Request], float]] = []
    now = gpu_free = 0.0
    arrived = 0
    while True:
        while arrived < len(requests) and arrival[arrived] <= now:
            replica.waiting.append(requests[arrived])
            arrived += 1
        batch = replica.schedule(now)
        if batch:
            makers = [share.request for share in batch if share.makes]
            gpu_free = max(now, gpu_free) + seconds(_describe(batch))
            in_flight.append((makers, gpu_free))
            if len(in_flight) < depth:
                continue
        if in_flight:
            makers, now = in_flight.pop(0)
            replica.end(makers, now)
        elif arrived < len(requests):
            now = max(now, float(arrival[arrived]))
        else:
            return [request.timing for request in requests]
