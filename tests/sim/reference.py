"""The simulator told plainly: slow, no arrays, no compilation; the compiled core must agree with it.

It reads like the description in docs/simulator.md and shares with `sim` only the cost profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sim import Cluster, Workload, costs


@dataclass(eq=False)
class Request:
    """A request, with the attributes of a view and what the engine knows besides."""

    id: int
    arrival: float
    prompt_tokens: int
    output_tokens: int
    state: str = "not arrived"
    priority: int = 0
    session: int | None = None

    made: int = 0
    to_prefill: int = 0
    cached: int = 0
    blocks: int = 0
    chunk: int = 0

    routed: float = 0.0
    admitted: float | None = None
    first_token: float = 0.0
    finish: float | None = None
    replica: int = -1
    restarts: int = 0
    lost: int = 0
    evicted: float = 0.0
    recompute_time: float = 0.0
    hashes: tuple[int, ...] = ()
    found: int = 0
    table: list[int] = field(default_factory=list)

    @property
    def tokens_done(self) -> int:
        return self.prompt_tokens + self.made if self.made else 0

    # What a batch scheduler sees besides.
    @property
    def computed_tokens(self) -> int:
        return self.cached

    @property
    def tokens_to_compute(self) -> int:
        return self.prompt_tokens + self.made - self.cached

    @property
    def prefilling(self) -> bool:
        return not self.decodes

    @property
    def preemptions(self) -> int:
        return self.restarts

    @property
    def decodes(self) -> bool:
        return self.cached >= self.to_prefill


@dataclass(eq=False)
class Replica:
    """One engine, with the attributes of a view."""

    index: int
    cluster: Cluster
    batch: list[Request] = field(default_factory=list)
    queue: list[Request] = field(default_factory=list)
    step_end: float | None = None
    preemptions: int = 0

    def __post_init__(self) -> None:
        mine = {
            name: self.cluster.setting(self.index, name)
            for name in ("gpu", "model", "time_scale", "kv_blocks", "max_num_seqs", "max_num_batched_tokens")
        }
        self.budget, self.max_num_seqs = mine["max_num_batched_tokens"], mine["max_num_seqs"]
        profile = costs.profile(mine["gpu"], mine["model"])
        self.linear = profile.linear_table(self.budget, mine["time_scale"]).tolist()
        self.decode, self.half_pair, self.step = profile.rates(mine["time_scale"])
        self.step += self.cluster.step_overhead
        self.blocks_total = mine["kv_blocks"]
        self.block_size = self.cluster.block_size
        watermark = self.cluster.watermark
        if watermark is None:
            watermark = 0.0 if self.cluster.engine == "vllm" else 0.01
        self.watermark_blocks = int(watermark * self.blocks_total)

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def running(self) -> int:
        return len(self.batch)

    @property
    def waiting_prompt_tokens(self) -> int:
        return sum(request.prompt_tokens for request in self.queue)

    @property
    def blocks_used(self) -> int:
        return sum(request.blocks for request in self.batch)

    @property
    def requests(self) -> tuple[Request, ...]:
        return (*self.batch, *self.queue)

    def start(self, now: float) -> None:
        """Form a batch and say when its step ends."""
        budget = self.budget
        context = pairs = 0
        for request in self.batch:
            request.chunk = 0

        # One token for everyone who decodes, oldest admission first.
        for request in list(self.batch):
            if request not in self.batch or not request.decodes or budget == 0:
                continue
            if request.cached == request.blocks * self.block_size:  # the next token needs a block
                while request in self.batch and self.blocks_used == self.blocks_total:
                    self.evict(self.batch[-1], now)
                if request not in self.batch:
                    continue
                request.blocks += 1
            request.chunk = 1
            budget -= 1
            context += request.cached + 1

        # What is left goes to prefills that an earlier step began, then to new ones.
        def prefill(request: Request) -> int:
            request.chunk = min(request.to_prefill - request.cached, budget)
            return sum(2 * (request.cached + token) for token in range(1, request.chunk + 1))

        for request in self.batch:
            if not request.decodes:
                pairs += prefill(request)
                budget -= request.chunk
        while self.queue and budget > 0 and len(self.batch) < self.max_num_seqs:
            request = self.queue[0]
            blocks = -(-request.to_prefill // self.block_size)
            free_then = self.blocks_total - self.blocks_used - blocks
            if free_then < self.watermark_blocks:
                break
            self.queue.pop(0)
            self.batch.append(request)
            request.state = "running"
            request.blocks = blocks
            if request.admitted is None:
                request.admitted = now
            pairs += prefill(request)
            budget -= request.chunk

        tokens = sum(request.chunk for request in self.batch)
        self.price(now, tokens, context, pairs)

    def price(self, now: float, tokens: int, context: int, pairs: int) -> None:
        """Say when the step ends."""
        seconds = self.linear[tokens] + self.step + context * self.decode + pairs * self.half_pair
        self.step_end = now + seconds

    def evict(self, request: Request, now: float) -> None:
        """All its blocks back; it will compute prompt and output so far again, before anyone behind it."""
        self.batch.remove(request)
        self.queue.insert(0, request)
        self.preemptions += 1
        if request.lost == 0:
            request.evicted = now
        request.lost = max(request.lost, request.cached)
        request.state = "waiting"
        request.restarts += 1
        request.to_prefill = request.prompt_tokens + request.made
        request.cached = request.blocks = request.chunk = 0

    def end(self, now: float) -> list[Request]:
        """Book the step that ends now; the requests that it completed."""
        self.step_end = None
        for request in self.batch:
            request.cached += request.chunk
            if request.lost and request.cached >= request.lost:
                request.recompute_time += now - request.evicted
                request.lost = 0
            if request.chunk and request.decodes:
                request.made += 1
                if request.made == 1:
                    request.first_token = now
        finished = [request for request in self.batch if request.made == request.output_tokens]
        for request in finished:
            request.state = "finished"
            request.finish = now
            self.batch.remove(request)
            self.free(request)
        return finished

    def free(self, request: Request) -> None:
        """Nothing more than its count of blocks here."""
        request.blocks = 0

    def enqueue(self, request: Request) -> None:
        """A request from the router, behind all others."""
        self.queue.append(request)


def simulate(
    cluster: Cluster,
    workload: Workload,
    router: Any,
    watch: Callable[[list[Replica]], None] | None = None,
    replica: Callable[[int, Cluster], Replica] | None = None,
) -> list[Request]:
    """The workload's requests after the run; `watch` sees the replicas after every event."""
    requests = make_requests(workload)
    kind = Replica if replica is None else replica
    replicas = [kind(index, cluster) for index in range(cluster.replicas)]
    held: list[Request] = []
    for now, arrived, finished in events(requests, replicas):
        held += arrived
        for request in finished:
            if hasattr(router, "completed"):
                router.completed(request, now)
        for request, target in router.route(tuple(held), tuple(replicas), now):
            held.remove(request)
            target.enqueue(request)
            request.state, request.routed, request.replica = "waiting", now, target.index
        if watch is not None:
            watch(replicas)
    return requests


def make_requests(workload: Workload) -> list[Request]:
    """The workload's requests before the run."""
    columns = [workload.arrival.tolist(), workload.prompt_tokens.tolist(), workload.output_tokens.tolist()]
    requests = [
        Request(id_, arrival, prompt, output, to_prefill=prompt)
        for id_, (arrival, prompt, output) in enumerate(zip(*columns, strict=True))
    ]
    for request in requests:
        if workload.priority is not None:
            request.priority = int(workload.priority[request.id])
        if workload.prefixes is not None:
            begin, end = workload.prefixes.starts[request.id : request.id + 2]
            request.hashes = tuple(workload.prefixes.hashes[begin:end].tolist())
    return requests


def events(
    requests: list[Request], replicas: list[Replica]
) -> Iterator[tuple[float, list[Request], list[Request]]]:
    """Each call of the router: the time, who arrived (one or none), who has just completed."""
    to_come = list(requests)
    now = 0.0
    while True:
        due = min(
            [(request.arrival, -1) for request in to_come[:1]]
            + [(replica.step_end, replica.index) for replica in replicas if replica.step_end is not None],
            default=None,
        )
        if due is None or due[0] > now:  # the instant is over
            idle = [r for r in replicas if r.step_end is None and r.requests]
            for replica in idle:
                replica.start(now)
            if idle:
                continue
            if due is None:
                return
        now, index = due
        if index == -1:
            request = to_come.pop(0)
            request.state = "queued"
            yield now, [request], []
        else:
            finished = replicas[index].end(now)
            if finished:
                yield now, [], finished
