"""vLLM v1's scheduler and block pool told plainly, after vllm/v1/core; the compiled engine must agree.

Blocks are objects of a list, prefixes are found in a dictionary, queues are lists.
"""

from __future__ import annotations

from typing import Any

from sim import Cluster
from tests.sim.reference import Replica, Request


class VllmReplica(Replica):
    """One vLLM server."""

    def __init__(self, index: int, cluster: Cluster, scheduler: Any = None) -> None:
        super().__init__(index, cluster)
        self.scheduler = scheduler
        self.blocks_total -= 1  # the null block
        self.forget()

    def forget(self) -> None:
        """An empty cache."""
        self.free_blocks = list(range(self.blocks_total))
        self.holders = [0] * self.blocks_total
        self.content: dict[int, Any] = {}
        self.cached: dict[Any, list[int]] = {}

    @property
    def blocks_used(self) -> int:
        return int(self.blocks_total) - len(self.free_blocks)

    def fail(self, now: float) -> list[Request]:
        lost = super().fail(now)
        self.forget()
        return lost

    def enqueue(self, request: Request) -> None:
        self.queue.append(request)
        if self.cluster.scheduling_policy == "priority":
            self.queue.sort(key=lambda one: (one.priority, one.id))

    def hash_of(self, request: Request, place: int) -> Any:
        """What the request's block at that place is known by."""
        return request.hashes[place] if place < len(request.hashes) else (request.id, place)

    def find(self, request: Request) -> list[int]:
        """The cached blocks that the request begins with; its last token is always left to compute."""
        found: list[int] = []
        if not self.cluster.caches_prefixes:
            return found
        for place in range((request.prompt_tokens + request.made - 1) // self.block_size):
            blocks = self.cached.get(self.hash_of(request, place))
            if not blocks:
                break
            found.append(blocks[0])
        return found

    def allocate(self, request: Request, tokens: int) -> None:
        """Blocks for that many tokens in all; the full ones are known by their contents from now on."""
        while len(request.table) * self.block_size < tokens:
            block = self.free_blocks.pop(0)
            if block in self.content:
                content = self.content.pop(block)
                self.cached[content].remove(block)
            self.holders[block] = 1
            request.table.append(block)
        for place, block in enumerate(request.table):
            if (place + 1) * self.block_size <= tokens and block not in self.content:
                self.content[block] = self.hash_of(request, place)
                self.cached.setdefault(self.content[block], []).append(block)
        request.blocks = len(request.table)

    def free(self, request: Request) -> None:
        for block in reversed(request.table):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                self.free_blocks.insert(len(self.free_blocks) if block in self.content else 0, block)
        request.table.clear()
        request.blocks = 0

    def evict(self, request: Request, now: float) -> None:
        self.free(request)
        super().evict(request, now)
        if self.cluster.scheduling_policy == "priority":
            self.queue.sort(key=lambda one: (one.priority, one.id))

    def start(self, now: float) -> None:
        """`Scheduler.schedule`, again if all that it did was to preempt; a plan's evictions come before."""
        while True:
            restarts = self.preemptions
            order, tokens = None, {}
            if self.scheduler is not None:
                plan = self.scheduler.plan(Engine(self), now)
                order = None if plan.admit is None else list(plan.admit)
                tokens = {request.id: count for request, count in plan.tokens.items()}
                for request in plan.evict:
                    self.evict(request, now)
            self.schedule(now, order, tokens)
            if self.step_end is not None or self.preemptions == restarts:
                return

    def schedule(self, now: float, order: list[Request] | None, counts: dict[int, int]) -> None:
        budget = self.budget - sum(counts.values())
        most = self.cluster.long_prefill_token_threshold or self.budget
        if len(self.batch) + len(self.queue) == 1:
            most = self.budget
        preempted = False
        for request in self.batch:
            request.chunk = 0
        index = 0
        while index < len(self.batch) and (budget > 0 or self.scheduler is not None):
            request = self.batch[index]
            tokens = counts.get(request.id, min(request.tokens_to_compute, budget, most))
            fits = True
            while -(-(request.cached + tokens) // self.block_size) - request.blocks > len(self.free_blocks):
                victim = self.batch[-1]
                if self.cluster.scheduling_policy == "priority":
                    victim = max(self.batch, key=lambda one: (one.priority, one.id))
                if self.batch.index(victim) < index:
                    budget += 0 if victim.id in counts else victim.chunk
                    index -= 1
                self.evict(victim, now)
                preempted = True
                if victim is request:
                    fits = False
                    break
            if not fits:
                break
            self.allocate(request, request.cached + tokens)
            request.chunk = tokens
            budget -= 0 if request.id in counts else tokens
            index += 1
        for request in list(self.queue) if order is None else order:
            if preempted or len(self.batch) == self.max_num_seqs:
                break
            found = self.find(request)
            whole = request.prompt_tokens + request.made
            cached = len(found) * self.block_size
            tokens = min(whole - cached, most)
            if tokens > budget:
                tokens = budget if self.cluster.chunked_prefill else 0
            if request.id in counts:
                tokens = min(whole - cached, counts[request.id])
            if tokens == 0:
                break
            idle = sum(self.holders[block] == 0 for block in found)
            spare = self.watermark_blocks if self.batch else 0
            reach = whole if self.cluster.full_prompt_must_fit else cached + tokens
            if -(-reach // self.block_size) - len(found) + idle + spare > len(self.free_blocks):
                break
            self.queue.remove(request)
            self.batch.append(request)
            request.state = "running"
            request.admitted = now if request.admitted is None else request.admitted
            for block in found:
                if self.holders[block] == 0:
                    self.free_blocks.remove(block)
                self.holders[block] += 1
            request.table = list(found)
            request.cached = cached
            request.found += cached
            self.allocate(request, cached + tokens)
            request.chunk = tokens
            budget -= 0 if request.id in counts else tokens
        self.price_batch(now)

    def price_batch(self, now: float) -> None:
        """The time of the step, if there is anything in it."""
        tokens = context = pairs = 0
        for request in self.batch:
            tokens += request.chunk
            if request.chunk and request.decodes:
                context += request.cached + 1
            else:
                pairs += sum(2 * (request.cached + token) for token in range(1, request.chunk + 1))
        if tokens:
            self.price(now, tokens, context, pairs)


class Engine:
    """A replica with the attributes of the view that a batch scheduler gets."""

    def __init__(self, replica: VllmReplica) -> None:
        self.index, self.block_size = replica.index, replica.block_size
        self.running, self.waiting = tuple(replica.batch), tuple(replica.queue)
        self.blocks_total, self.blocks_used = replica.blocks_total, replica.blocks_used
        self.blocks_free = len(replica.free_blocks)
        self.token_budget, self.max_num_seqs = replica.budget, replica.max_num_seqs
