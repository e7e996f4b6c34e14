"""Hypothesis strategies of clusters, workloads and routers, for specs of what must hold on any of them.

A spec that says "never 5 % worse than the least-loaded queue on any workload like this" is a property test:

    @given(workload=strategies.like(workloads.sharegpt_bursty(8.0, 300, seed=0)))
    def test_never_much_worse(workload): ...

Hypothesis looks for a workload on which it does not hold and shrinks it: fewer requests, then shorter ones,
then shorter gaps. What it prints is the call that makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "sim.strategies draws its examples with hypothesis, which is not installed: pip install hypothesis"
    ) from error

from sim import baselines
from sim.cluster import Cluster
from sim.workloads import Workload

__all__ = ["Hoarder", "Learner", "Scoring", "clusters", "like", "routers", "scenarios", "workloads"]

Range = tuple[int, int]
Pairs = Iterable[tuple[Any, Any]]


def clusters(*, holds: int = 128, **settings: Any) -> st.SearchStrategy[Cluster]:
    """Small clusters, each replica of which has a cache for a request of `holds` tokens alone, hardly more.

    One to four replicas with little batch and budget, so that queues, evictions and chunked prefills are
    common. Any setting of `Cluster` may be given, as a value or as a strategy, and then is not varied.
    """

    @st.composite
    def draw_cluster(draw: st.DrawFn) -> Cluster:
        chosen = {
            name: draw(value) if isinstance(value, st.SearchStrategy) else value
            for name, value in settings.items()
        }

        def pick(name: str, strategy: st.SearchStrategy[Any]) -> Any:
            if name not in chosen:
                chosen[name] = draw(strategy)
            return chosen[name]

        pick("replicas", st.integers(1, 4))
        block_size = pick("block_size", st.sampled_from([16, 4, 1]))
        watermark = pick("watermark", st.sampled_from([0.01, 0.0, 0.2])) or 0.0
        # One block more, which vLLM keeps for itself.
        least = int(-(-holds // block_size) / (1 - watermark)) + 2
        pick("kv_blocks", st.integers(least, least + 12))
        pick("max_num_seqs", st.sampled_from([32, 6, 2]))
        pick("max_num_batched_tokens", st.sampled_from([512, 64, 8]))
        return Cluster(**chosen)

    return draw_cluster()


def workloads(
    *,
    requests: Range = (1, 40),
    prompt_tokens: Range = (1, 64),
    output_tokens: Range = (1, 64),
    longest_gap: float = 2.0,
) -> st.SearchStrategy[Workload]:
    """Workloads of so many requests with lengths in these ranges (both ends included), and gaps of up to so
    many seconds, in ms, a third of them 0."""
    gaps = st.one_of(st.just(0), st.integers(0, round(longest_gap * 1000)), st.integers(0, 50))
    rows = st.tuples(gaps, st.integers(*prompt_tokens), st.integers(*output_tokens))
    least, most = requests

    @st.composite  # so that a counterexample is shown as the workload, not as what it was drawn from
    def workload(draw: st.DrawFn) -> Workload:
        drawn = draw(st.lists(rows, min_size=max(least, 1), max_size=most))
        gap, prompts, outputs = (list(column) for column in zip(*drawn, strict=True))
        return Workload.from_arrays(
            arrival=np.cumsum(gap) / 1000, prompt_tokens=prompts, output_tokens=outputs
        )

    return workload()


def like(
    workload: Workload, *, requests: Range = (1, 40), speed: tuple[float, float] = (0.5, 2.0)
) -> st.SearchStrategy[Workload]:
    """Workloads made of this one's requests and gaps: any of its pairs of lengths, after any of its gaps.

    `speed` is the range of a factor on the rate. Priorities, sessions and prefixes are left out.
    """
    if not isinstance(workload, Workload):
        raise ValueError(
            f"workload={workload!r:.60}; expected a sim.Workload, whose arrivals are known (a closed "
            "loop's are not before a run)"
        )
    if not (isinstance(requests, tuple) and len(requests) == 2 and 1 <= requests[0] <= requests[1]):
        raise ValueError(f"requests={requests!r}; expected a range (least, most) of at least one request")
    if not len(workload):
        raise ValueError("a workload of 0 requests has nothing to be like; expected at least one request")
    order = np.argsort(workload.prompt_tokens + workload.output_tokens, kind="stable")
    gaps = np.sort(np.diff(workload.arrival)) if len(workload) > 1 else np.zeros(1)
    # Shorter requests and gaps come first, for hypothesis shrinks towards 0.
    rows = st.tuples(st.integers(0, len(order) - 1), st.integers(0, len(gaps) - 1))

    least, most = requests
    low, high = speed
    factors = st.one_of(st.just(min(max(1.0, low), high)), st.floats(low, high))

    @st.composite
    def drawn_like(draw: st.DrawFn) -> Workload:
        drawn = draw(st.lists(rows, min_size=max(least, 1), max_size=most))
        factor = draw(factors)
        taken, after = (np.array(column) for column in zip(*drawn, strict=True))
        waits = np.concatenate([[0.0], gaps[after[1:]] / factor])
        return Workload.from_arrays(
            arrival=np.cumsum(waits).round(6),
            prompt_tokens=workload.prompt_tokens[order[taken]],
            output_tokens=workload.output_tokens[order[taken]],
        )

    return drawn_like()


def scenarios(
    *,
    requests: Range = (1, 40),
    prompt_tokens: Range = (1, 64),
    output_tokens: Range = (1, 64),
    longest_gap: float = 2.0,
    **settings: Any,
) -> st.SearchStrategy[tuple[Cluster, Workload]]:
    """A cluster and a workload each of whose requests fits a replica alone; arguments as for both."""
    return st.tuples(
        clusters(holds=prompt_tokens[1] + output_tokens[1], **settings),
        workloads(
            requests=requests,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            longest_gap=longest_gap,
        ),
    )


def routers() -> st.SearchStrategy[Callable[[], Any]]:
    """Makers of routers: the baselines, and adversaries that hold, reorder, remember and score oddly.

    Each call of a maker gives a new router, so that one example can run the same policy several times.
    """
    plain = [
        baselines.LeastLoadedQueue,
        baselines.RoundRobin,
        baselines.Random,
        baselines.LeastOutstandingRequests,
        baselines.Expert,
        # With head-room a prompt might never be admitted to caches so small.
        partial(baselines.HeadRoomAdmission, reserve=0.0, safety=0.0),
        Learner,
    ]
    weights = st.tuples(*[st.integers(-3, 3)] * 4)
    return st.one_of(
        st.sampled_from(plain),
        st.integers(1, 8).map(lambda patience: partial(Hoarder, patience)),
        weights.map(lambda drawn: partial(Scoring, *drawn)),
    )


class Hoarder:
    """Holds requests until `patience` have come together or nobody works, then sends the newest ones
    first."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def route(self, queue: Sequence[Any], replicas: Sequence[Any], now: float) -> Pairs:
        idle = not any(replica.running + replica.waiting for replica in replicas)
        if idle or len(queue) >= self.patience:
            return [(request, replicas[request.id % len(replicas)]) for request in reversed(queue)]
        return []


class Scoring:
    """The replica with the lowest weighted sum of what its view shows: sensible, odd or perverse by its
    weights."""

    def __init__(self, waiting: int, running: int, waiting_prompt_tokens: int, blocks_used: int) -> None:
        self.weights = waiting, running, waiting_prompt_tokens, blocks_used

    def route(self, queue: Sequence[Any], replicas: Sequence[Any], now: float) -> Pairs:
        for request in queue:
            yield request, min(replicas, key=self.score)

    def score(self, replica: Any) -> int:
        seen = replica.waiting, replica.running, replica.waiting_prompt_tokens, replica.blocks_used
        return sum(weight * value for weight, value in zip(self.weights, seen, strict=True))


class Learner:
    """Uses everything that a view shows and each completion: any difference in a view changes its
    decisions."""

    def __init__(self) -> None:
        self.memory = 0

    def completed(self, request: Any, now: float) -> None:
        self.memory = (self.memory * 31 + request.tokens_done + request.id) % 1009

    def route(self, queue: Sequence[Any], replicas: Sequence[Any], now: float) -> Pairs:
        for request in queue:
            yield request, min(replicas, key=lambda replica: self.weigh(replica, request))

    def weigh(self, replica: Any, request: Any) -> int:
        digest: int = self.memory + request.prompt_tokens
        for seen in (
            replica.waiting,
            replica.running,
            replica.waiting_prompt_tokens,
            replica.blocks_used,
            replica.preemptions,
            *(other.id for other in replica.requests),
            *(other.tokens_done for other in replica.requests),
            *(len(other.state) for other in replica.requests),
        ):
            digest = (digest * 31 + seen) % 1009
        return digest
