"""The batch scheduler's side of a replica: the protocol that it follows, its plan, and the views it reads.

A batch scheduler is any class with a method `plan`; nothing needs to be imported or inherited. It is asked
before every step of every replica's engine which requests run in it:

    class ShortestPromptFirst:
        def plan(self, engine, now):
            return Plan(admit=sorted(engine.waiting, key=lambda request: request.prompt_tokens))

The engine is vLLM's (`sim.vllm`): the plan replaces its order of admission and may evict and set token
counts; everything that a plan does not mention is as vLLM does it. On a real server each replica has a
scheduler of its own: keep what you remember apart by `engine.index`. Units are seconds, tokens and blocks;
the output length of an unfinished request is never shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from sim.policies import RequestView, _ReadOnly

__all__ = ["BatchScheduler", "EngineRequest", "EngineView", "Plan", "WaitingQueue"]


class Plan(NamedTuple):
    """What is to be done otherwise in the next step; `Plan()` is vLLM's own rule."""

    admit: Iterable[EngineRequest] | None = None
    """Waiting requests to admit, in this order, as far as token budget, seats and blocks last: the first that
    does not fit ends it, and so do `max_num_seqs` requests. None: all, in the order of the queue; (): none.
    Nothing is admitted if the engine had to preempt a request for want of blocks."""
    evict: Iterable[EngineRequest] = ()
    """Running requests to preempt before anything else: each gives its blocks back and goes to the head of
    the waiting queue."""
    tokens: Mapping[EngineRequest, int] = MappingProxyType({})
    """Tokens of running or admitted requests in this step. These are set aside first; the others share the
    rest of the budget in order, one for each decode and as much as there is for each prefill. 0 lets a
    running request pause."""


class BatchScheduler(Protocol):
    """Forms the batches of replicas.

    It may say `plans_decodes = False`: then it is not asked before steps in which nothing waits and every
    running request only decodes, which most steps are; they are as vLLM does them, and cost a simulation
    little.
    """

    def plan(self, engine: EngineView, now: float) -> Plan:
        """The plan of one replica's next step: a Plan, or any object with `admit`, `evict` and `tokens`.

        Called whenever a replica with requests is about to start a step (but see above). If the plan leaves
        the batch empty the replica stands still until the next event; after evictions it is asked again at
        once. A plan that cannot be followed (more tokens than the budget or than a request has left, requests
        that are not there) ends the run with a PolicyError.
        """
        ...


class EngineRequest(RequestView):
    """A request as its replica's engine sees it: what a router sees, and besides

    computed_tokens: tokens whose KV is held.
    tokens_to_compute: tokens left to compute before its next output token; 1 for a decode.
    prefilling: whether its prompt, and output to be recomputed, is not computed yet.
    blocks: KV blocks that it holds.
    preemptions: how often it was evicted.
    """

    __slots__ = ("_row", "_work")

    def __init__(self, row: int, work: memoryview[int], *seen: Any) -> None:
        super().__init__(*seen)
        _set_row(self, row)
        _set_work(self, work)

    # Positions as in sim.state, which this file leaves to the simulator so that it can be read alone.
    @property
    def computed_tokens(self) -> int:
        return self._work[self._row + 2]  # type: ignore[no-any-return,attr-defined]

    @property
    def tokens_to_compute(self) -> int:
        work, row = self._work, self._row  # type: ignore[attr-defined]
        return work[row] + work[row + 3] - work[row + 2]  # type: ignore[no-any-return]

    @property
    def prefilling(self) -> bool:
        return self._work[self._row + 2] < self._work[self._row + 1]  # type: ignore[no-any-return,attr-defined]

    @property
    def blocks(self) -> int:
        return self._work[self._row + 4]  # type: ignore[no-any-return,attr-defined]

    @property
    def preemptions(self) -> int:
        return self._work[self._row + 6]  # type: ignore[no-any-return,attr-defined]


_slots: dict[str, Any] = {name: vars(EngineRequest)[name].__set__ for name in EngineRequest.__slots__}
_set_row, _set_work = _slots["_row"], _slots["_work"]


class WaitingQueue(_ReadOnly):
    """A replica's waiting requests in order of its queue; they are looked up as they are iterated over."""

    __slots__ = ("_behind", "_ends", "_gauges", "_views")

    def __init__(
        self, gauges: memoryview[int], ends: memoryview[int], behind: memoryview[int], views: Any
    ) -> None:
        for name, value in zip(self.__slots__, (behind, ends, gauges, views), strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self._gauges[0]  # type: ignore[no-any-return,attr-defined]

    def __iter__(self) -> Iterator[EngineRequest]:
        views, behind = self._views, self._behind  # type: ignore[attr-defined]
        request: int = self._ends[0]  # type: ignore[attr-defined]
        while request >= 0:
            yield views[request]
            request = behind[request]

    def __repr__(self) -> str:
        return f"<{len(self)} waiting requests>"


class EngineView(_ReadOnly):
    """One replica's engine as its batch scheduler sees it.

    index: the replica.
    running: tuple of the running requests in order of admission.
    waiting: the waiting ones in order of the queue; iterate over it.
    blocks_total, blocks_used, blocks_free, block_size: KV blocks, and tokens per block. With prefix caching
        blocks that nobody holds are free, though what is in them may be found again.
    token_budget, max_num_seqs: tokens and requests of a step at most.
    """

    __slots__ = (
        "_gauges",
        "_seats",
        "_views",
        "block_size",
        "blocks_total",
        "index",
        "max_num_seqs",
        "token_budget",
        "waiting",
    )

    index: int
    blocks_total: int
    block_size: int
    token_budget: int
    max_num_seqs: int
    waiting: WaitingQueue

    def __init__(self, **values: Any) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    @property
    def running(self) -> tuple[EngineRequest, ...]:
        seats: Any = self._seats[: self._gauges[1]]  # type: ignore[attr-defined]
        return tuple(map(self._views.__getitem__, seats.tolist()))  # type: ignore[attr-defined]

    @property
    def blocks_used(self) -> int:
        return self._gauges[3]  # type: ignore[no-any-return,attr-defined]

    @property
    def blocks_free(self) -> int:
        return self.blocks_total - self._gauges[3]  # type: ignore[no-any-return,attr-defined]

    def __repr__(self) -> str:
        return (
            f"<engine {self.index}: {self._gauges[1]} running, {len(self.waiting)} waiting, "  # type: ignore[attr-defined]
            f"{self.blocks_used} of {self.blocks_total} blocks used>"
        )
