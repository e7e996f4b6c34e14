"""Routers to compare with: what is deployed, what an expert wrote, and what Glia found.

Plain Python over the views. Ties go to the lowest index unless said otherwise. Where an algorithm comes from
is named at each; those of the Glia paper are arXiv 2510.27176, told in its words and the authors' figure
captions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from sim.policies import ReplicaView, RequestView
from sim.settings import check

__all__ = [
    "Expert",
    "HeadRoomAdmission",
    "LeastLoadedQueue",
    "LeastOutstandingRequests",
    "Random",
    "RoundRobin",
]

Queue = Sequence[RequestView]
Replicas = Sequence[ReplicaView]
Pairs = Iterable[tuple[RequestView, ReplicaView]]


class Uniform(Protocol):
    """A source of randomness: `numpy.random.Generator` and `random.Random` both are."""

    def random(self) -> float: ...


def generator(rng: Uniform | None) -> Uniform:
    """The source of randomness given, or one of seed 0; ValueError if it has no method `random`."""
    if rng is not None and not callable(getattr(rng, "random", None)):
        raise ValueError(f"rng={rng!r}; expected a generator, as numpy.random.default_rng(1)")
    return np.random.default_rng(0) if rng is None else rng


class Random:
    """A replica drawn uniformly at random, at once. Without `rng` the draws are those of seed 0."""

    def __init__(self, rng: Uniform | None = None) -> None:
        self._rng = generator(rng)

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            yield request, replicas[int(self._rng.random() * len(replicas))]


class RoundRobin:
    """The replicas in turn, at once."""

    def __init__(self) -> None:
        self._turn = 0

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            yield request, replicas[self._turn % len(replicas)]
            self._turn += 1


class LeastLoadedQueue:
    """The replica with the fewest waiting and running requests, at once (LLQ of the Glia paper)."""

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            yield request, min(replicas, key=lambda replica: replica.waiting + replica.running)


class LeastOutstandingRequests:
    """The replica with the fewest waiting requests, at once (LOR as Vidur and the Glia paper have it)."""

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            yield request, min(replicas, key=lambda replica: replica.waiting)


class Expert:
    """The human expert's router of the Glia paper: hold requests while every replica is nearly full.

    Shortest prompt first. A replica has committed the blocks that its waiting and running requests' tokens
    take, and is full above 2,100 of 2,240 blocks (in proportion for other sizes). Of the others the one
    with the fewest requests takes the request; ties are broken at random. Without `rng` the draws are those
    of seed 0.
    """

    full = 2100 / 2240

    def __init__(self, rng: Uniform | None = None) -> None:
        self._rng = generator(rng)

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        committed = {
            replica.index: sum(self._blocks(request, replica) for request in replica.requests)
            for replica in replicas
        }
        for request in sorted(queue, key=lambda request: request.prompt_tokens):
            open_ = [r for r in replicas if committed[r.index] <= self.full * r.blocks_total]
            if not open_:
                return
            fewest = min(replica.waiting + replica.running for replica in open_)
            tied = [replica for replica in open_ if replica.waiting + replica.running == fewest]
            chosen = tied[int(self._rng.random() * len(tied))]
            committed[chosen.index] += self._blocks(request, chosen)
            yield request, chosen

    @staticmethod
    def _blocks(request: RequestView, replica: ReplicaView) -> int:
        return -(-max(request.prompt_tokens, request.tokens_done) // replica.block_size)


class HeadRoomAdmission:
    """Head-Room Admission (HRA), the router that Glia found: admit only where the prompt and room to grow
    fit.

    Shortest prompt first. A request needs the blocks of (1 + `reserve`) x its prompt; a replica's load is its
    allocated blocks and those needs of its waiting requests. It admits a request if `safety` of its blocks
    stay free then; of those that admit, the one of least load takes it (ties: fewest requests). If the first
    held request fits nowhere, all stay held.
    """

    def __init__(self, reserve: float = 0.6, safety: float = 0.03) -> None:
        check("reserve", reserve, 0, 1000, "times the prompt", whole=False)
        check("safety", safety, 0, 1, "as a fraction of the blocks", whole=False)
        self._growth = 1 + reserve
        self._safety = safety

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in sorted(queue, key=lambda request: (request.prompt_tokens, request.arrival)):
            best = None
            for replica in replicas:
                need = self._blocks(request.prompt_tokens, replica)
                load = replica.blocks_used + self._blocks(replica.waiting_prompt_tokens, replica)
                if replica.blocks_total - load - need >= self._safety * replica.blocks_total:
                    rank = (load, replica.waiting + replica.running)
                    if best is None or rank < best[0]:
                        best = rank, replica
            if best is None:
                return
            yield request, best[1]

    def _blocks(self, prompt_tokens: int, replica: ReplicaView) -> int:
        return -int(-prompt_tokens * self._growth // replica.block_size)
