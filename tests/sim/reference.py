"""The simulator told plainly: slow, no arrays, no compilation; the compiled core must agree with it.

It reads like the description in docs/simulator.md and shares with `sim` only the cost profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sim import Cluster, Workload, costs
from sim.workloads import ClosedWorkload
from tests.sim.reference_fleet import Fleet
from tests.sim.reference_views import Shown


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
    requeued: bool = False
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
        self.tables = self.cluster.tables(self.index)
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

    def describe(self, tokens: int, context: int, pairs: int) -> costs.Batch:
        """The step that the chunks make."""
        decodes = [one for one in self.batch if one.chunk == 1 and one.cached >= one.to_prefill]
        chunks = [one for one in self.batch if one.chunk > 0 and one not in decodes]
        return costs.Batch(
            tokens=tokens,
            sequences=len(decodes) + len(chunks),
            decodes=len(decodes),
            context=context,
            deepest=max((one.cached + 1 for one in decodes), default=0),
            pairs=pairs,
            depth=max((one.cached + one.chunk for one in chunks), default=0),
            longest=max((one.chunk for one in chunks), default=0),
        )

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
        seconds = costs.step_seconds(self.tables, *self.describe(tokens, context, pairs))
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

    def fail(self, now: float) -> list[Request]:
        """Everything is lost; the requests that were here."""
        self.step_end, lost = None, list(self.requests)
        for request in lost:
            if request.lost == 0 and request.cached > 0:
                request.evicted = now
            request.lost = max(request.lost, request.cached)
            request.to_prefill = request.prompt_tokens + request.made
            request.cached = request.blocks = request.chunk = 0
            request.table.clear()
            request.state, request.requeued, request.replica = "queued", True, -1
        self.batch, self.queue = [], []
        return lost

    def free(self, request: Request) -> None:
        """Nothing more than its count of blocks here."""
        request.blocks = 0

    def forget(self) -> None:
        """There is no cache of prefixes here."""

    def enqueue(self, request: Request) -> None:
        """A request from the router, behind all others."""
        self.queue.append(request)


def simulate(
    cluster: Cluster,
    workload: Workload | ClosedWorkload,
    router: Any,
    watch: Callable[[list[Replica]], None] | None = None,
    replica: Callable[[int, Cluster], Replica] | None = None,
) -> list[Request]:
    """The workload's requests after the run; `watch` sees the replicas after every event."""
    return simulate_fleet(cluster, workload, router, None, watch, replica)[0]


def simulate_fleet(
    cluster: Cluster,
    workload: Workload | ClosedWorkload,
    router: Any,
    autoscaler: Any,
    watch: Callable[[list[Replica]], None] | None = None,
    replica: Callable[[int, Cluster], Replica] | None = None,
) -> tuple[list[Request], float]:
    """The same under an autoscaler, and the replica-seconds paid for."""
    users = Users(workload) if isinstance(workload, ClosedWorkload) else None
    requests = make_requests(workload.requests if isinstance(workload, ClosedWorkload) else workload)
    kind = Replica if replica is None else replica
    replicas = [kind(index, cluster) for index in range(cluster.size)]
    fleet = Fleet(cluster, replicas, autoscaler, requests[0].arrival)
    held: list[Request] = []
    shown = Shown(cluster.staleness, replicas)
    fleet.view = lambda: (
        [shown.views[index] for index in fleet.are("active")],
        sum(request.state == "queued" for request in requests),
    )
    now = 0.0
    for now, arrived, finished in events(requests, replicas, fleet, shown, users, cluster.engine_waits):
        held = sorted([*held, *arrived], key=lambda request: request.id)
        for request in finished:
            if hasattr(router, "completed"):
                router.completed(request, now)
        shown.holding = len(held) > 0
        if finished:
            fleet.completed += len(finished)
            fleet.after_completion(now)
        offered = tuple(shown.views[index] for index in fleet.are("active"))
        if not offered:
            continue
        for request, view in router.route(tuple(held), offered, now):
            held.remove(request)
            target = replicas[view.index]
            target.enqueue(request)
            request.state, request.replica = "waiting", target.index
            if not request.requeued:
                request.routed = now
            shown.heard(request)
        shown.holding = len(held) > 0
        if watch is not None:
            watch(replicas)
    return requests, fleet.bill(requests[0].arrival, now)


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


class Users:
    """Those of a closed loop: when each who is not waiting for a reply sends the next request."""

    def __init__(self, workload: ClosedWorkload) -> None:
        self.coming: list[float] = workload.starts.tolist()
        self.think: list[float] = workload.think.tolist()


def events(
    requests: list[Request],
    replicas: list[Replica],
    fleet: Fleet,
    shown: Shown,
    users: Users | None,
    engine_waits: bool,
) -> Iterator[tuple[float, list[Request], list[Request]]]:
    """Each call of the router: the time, who has come into the queue, who has just completed."""
    to_come = list(requests)
    tried: list[Replica] = []
    now = 0.0
    while True:
        if fleet.set and not to_come and all(r.finish is not None for r in requests):
            return
        if users is not None and to_come:
            to_come[0].arrival = min(users.coming, default=math.inf)
        due = min(
            [(request.arrival, -2) for request in to_come[:1] if request.arrival < math.inf]
            + [(timer[0], -1) for timer in fleet.timers[:1]]
            + [(shown.due, len(replicas)) for _ in [0] if shown.period and shown.holding and shown.changed]
            + [(replica.step_end, replica.index) for replica in replicas if replica.step_end is not None],
            default=None,
        )
        if due is None or due[0] > now:  # the instant is over
            idle = [r for r in replicas if r.step_end is None and r.requests and r not in tried]
            for replica in idle:
                replica.start(now)
                tried.append(replica)
                shown.changed = True
            if idle:
                continue
            if due is None:
                return
            shown.advance(due[0])
        now, index = due
        tried = []
        shown.changed = index < len(replicas)
        if index == len(replicas):
            shown.advance(math.nextafter(now, math.inf))
            yield now, [], []
        elif index == -2:
            request = to_come.pop(0)
            if users is not None:
                users.coming.remove(request.arrival)
            request.state = "queued"
            fleet.arrived += 1
            yield now, [request], []
        elif index == -1:
            lost, changed = fleet.fire(now)
            for request in lost:
                shown.known[request.id] = request.tokens_done, request.state
                shown.heard(request)
            if changed:
                yield now, lost, []
        else:
            finished = replicas[index].end(now)
            if users is not None:
                users.coming += [now + users.think.pop(0) for _ in finished]
            shown.refresh() if shown.period else None
            if finished and not engine_waits and replicas[index].requests:
                replicas[index].start(now)
            if finished:
                yield now, [], finished
