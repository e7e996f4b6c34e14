"""Routers of load balancers and gateways, to compare with: power of two choices, shortest expected wait, and
prefix affinity with load; FunSearch's example of the Glia paper; and an oracle, for bounds only.

Plain Python over the views. Ties go to the lowest index unless said otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

import numpy as np

from sim.baselines import Pairs, Queue, Replicas, Uniform, generator
from sim.policies import ReplicaView, RequestView
from sim.settings import check
from sim.workloads import ClosedWorkload, Workload

__all__ = [
    "FunSearchExample",
    "OracleLeastWork",
    "PowerOfTwo",
    "PrefixAffinity",
    "ShortestExpectedWait",
]


class PowerOfTwo:
    """The less loaded of two replicas drawn at random, at once (Mitzenmacher 2001). Without `rng` the draws
    are those of seed 0."""

    def __init__(self, rng: Uniform | None = None) -> None:
        self._rng = generator(rng)

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            one, two = (replicas[int(self._rng.random() * len(replicas))] for _ in range(2))
            yield request, min(one, two, key=lambda replica: replica.waiting + replica.running)


class ShortestExpectedWait:
    """The replica where the request's prompt is expected to be computed soonest, at once.

    The work ahead of it is the prompts that wait there, its own prompt, and the tokens that the running
    requests are expected to make still, in tokens; a decoded token counts as `decode_cost` prefilled ones.
    How long answers are is learnt from completed requests (a moving average, `start` at first).
    """

    def __init__(self, decode_cost: float = 1.0, start: float = 256.0, alpha: float = 0.02) -> None:
        check("decode_cost", decode_cost, 0, 1e6, "prefilled tokens per decoded one", whole=False)
        check("start", start, 0, 1e9, "output tokens", whole=False)
        check("alpha", alpha, 0, 1, "as the weight of the latest answer", whole=False)
        self._decode_cost, self._answer, self._alpha = decode_cost, start, alpha

    def completed(self, request: RequestView, now: float) -> None:
        self._answer += self._alpha * (request.tokens_done - request.prompt_tokens - self._answer)

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            yield request, min(replicas, key=self._wait)

    def _wait(self, replica: ReplicaView) -> float:
        waiting = replica.waiting_prompt_tokens + replica.waiting * self._answer * self._decode_cost
        # Of a running request about half its answer is left.
        return waiting + replica.running * self._answer / 2 * self._decode_cost


class PrefixAffinity:
    """The replica that has served the longest beginning of the prompt, weighed against its load, at once.

    As the prefix-aware scorers of llm-d and Dynamo and SGLang's router do it: the router remembers which
    blocks it sent where (`capacity` blocks per replica, least recently used forgotten), for it cannot look
    into the caches. Cost of a replica = blocks of the prompt to compute there + `load_weight` x blocks in use
    or waiting; where the loads differ by more than `balance` requests load alone decides.
    """

    def __init__(self, load_weight: float = 0.05, balance: int = 32, capacity: int = 20_000) -> None:
        check("load_weight", load_weight, 0, 1e6, "blocks to compute per block of load", whole=False)
        check("balance", balance, 0, 10**9, "requests", whole=True)
        check("capacity", capacity, 0, 10**9, "blocks per replica", whole=True)
        self._load_weight, self._balance, self._capacity = load_weight, balance, capacity
        self._sent: dict[int, OrderedDict[int, None]] = {}

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            loads = [replica.waiting + replica.running for replica in replicas]
            if max(loads) - min(loads) > self._balance:
                chosen = replicas[loads.index(min(loads))]
            else:
                chosen = min(replicas, key=lambda replica, request=request: self._cost(request, replica))  # type: ignore[misc]
            self._remember(request, chosen)
            yield request, chosen

    def _cost(self, request: RequestView, replica: ReplicaView) -> float:
        size = replica.block_size
        known: Container[int] = self._sent.get(replica.index, ())
        hit = 0
        for block in request.prefix:
            if block not in known:
                break
            hit += 1
        compute = max(-(-request.prompt_tokens // size) - hit, 1)
        return compute + self._load_weight * (replica.blocks_used + replica.waiting_prompt_tokens / size)

    def _remember(self, request: RequestView, replica: ReplicaView) -> None:
        sent = self._sent.setdefault(replica.index, OrderedDict())
        for block in request.prefix:
            sent[block] = None
            sent.move_to_end(block)
        while len(sent) > self._capacity:
            sent.popitem(last=False)


class FunSearchExample:
    """The router that FunSearch found in the Glia paper, told by its authors (arXiv 2510.27176): a weighted
    sum of utilisation, backlog, queue and lack of blocks, each learnt or weighed by constants of the search.

    Answers are predicted by a moving average (alpha 0.1, start 96 tokens) in each of three classes of
    prompts: below 128, up to 512, and above. The paper gives the terms and that what exceeds the capacity
    counts by its square; the weights are not published, those here are 1 for each share and 4 for the
    penalty.
    """

    def __init__(self) -> None:
        self._answers = [96.0, 96.0, 96.0]

    @staticmethod
    def _class(prompt_tokens: int) -> int:
        return (prompt_tokens >= 128) + (prompt_tokens > 512)

    def completed(self, request: RequestView, now: float) -> None:
        which = self._class(request.prompt_tokens)
        made = request.tokens_done - request.prompt_tokens
        self._answers[which] += 0.1 * (made - self._answers[which])

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in queue:
            answer = self._answers[self._class(request.prompt_tokens)]
            need = request.prompt_tokens + answer
            yield request, min(replicas, key=lambda replica, need=need: self._cost(replica, need))  # type: ignore[misc]

    def _cost(self, replica: ReplicaView, need: float) -> float:
        total, size = replica.blocks_total, replica.block_size
        used = replica.blocks_used / total
        answer = sum(self._answers) / 3
        backlog = (replica.waiting_prompt_tokens + replica.waiting * answer) / size / total
        queue = replica.waiting / (replica.waiting + replica.running + 1)
        after = used + backlog + need / size / total
        return used + backlog + queue + 4 * max(after - 1, 0) ** 2


class OracleLeastWork:
    """An oracle, for bounds only: the request of least work first, where it fits to its end, held until then.

    It knows every output length from the workload, which no real router can. Work is KV tokens x steps: a
    request of p prompt and o output tokens holds on average p + o / 2 tokens for o steps. A replica has room
    if its requests, each growing by a token a step until it ends, and the new one never need more than
    `full` of its blocks; of those with room the one of the lowest peak takes the request. So it has both of
    what designs of the routing problem try to predict, and evictions all but vanish. It is a strong schedule,
    not a proof: the optimum can be better.

    With `order="prompt"` the shortest prompt goes first, which any router knows: memory alone is foreseen.
    A replica where `most_waiting` requests wait gets no more: with 1 hardly two prompts share a step.
    """

    def __init__(
        self,
        workload: Workload | ClosedWorkload,
        full: float = 0.98,
        order: str = "work",
        most_waiting: int = 1_000_000,
    ) -> None:
        check("full", full, 0.01, 1, "as a fraction of the blocks", whole=False)
        check("most_waiting", most_waiting, 1, 1_000_000, "requests", whole=True)
        if order not in ("work", "prompt"):
            raise ValueError(f"order={order!r}; expected 'work' or 'prompt'")
        self._tokens: list[int] = (workload.prompt_tokens + workload.output_tokens).tolist()
        output = workload.output_tokens
        work = output * (workload.prompt_tokens + output / 2)
        self._order: list[float] = (work if order == "work" else workload.prompt_tokens).tolist()
        self._full, self._most_waiting = full, most_waiting

    def route(self, queue: Queue, replicas: Replicas, now: float) -> Pairs:
        for request in sorted(queue, key=lambda request: self._order[request.id]):
            best = None
            for replica in replicas:
                if replica.waiting >= self._most_waiting:
                    continue
                held = (*replica.requests, request)
                peak = self._peak(held, replica.block_size) / replica.blocks_total
                if (peak <= self._full or len(held) == 1) and (best is None or peak < best[0]):
                    best = peak, replica
            if best is None:
                return
            yield request, best[1]

    def _peak(self, requests: Queue, block_size: int) -> int:
        """Blocks that these requests need at once at most, if each gets a token a step until it ends."""
        now = np.array([max(request.prompt_tokens, request.tokens_done) for request in requests])
        left = np.array([self._tokens[request.id] for request in requests]) - now
        # The peak is just before one of them ends, when those with no fewer tokens left are still there.
        blocks = -(-(now + left[:, None]) // block_size)
        return int(np.where(left >= left[:, None], blocks, 0).sum(axis=1).max())
