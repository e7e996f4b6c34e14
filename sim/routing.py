"""The global queue, the router's views, and what happens when a request leaves the one for a replica."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, cast

from numpy.typing import NDArray

from sim.complaints import Refused, shown
from sim.policies import ReplicaView, RequestView
from sim.state import (
    BEHIND,
    BLOCK_SIZE,
    BY_PRIORITY,
    CACHING,
    ENGINE,
    FINISHED,
    HEAD,
    KV_BLOCKS,
    NOBODY,
    PROMPT_LENGTH,
    QUEUED,
    REJECTED,
    REPLICA,
    ROUTED,
    SARATHI,
    STATE,
    TAIL,
    TOKENS_DONE,
    WAITING,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    WATERMARK_BLOCKS,
    Ints,
    State,
)
from sim.workloads import Workload


def most_blocks(limits: NDArray[Any]) -> int:
    """Blocks of the largest request that a replica with these limits can run alone."""
    watermark = int(limits[WATERMARK_BLOCKS]) if limits[ENGINE] == SARATHI else 0
    return int(limits[KV_BLOCKS]) - watermark


def memory(array: NDArray[Any]) -> memoryview[Any]:
    """The array's memory: single entries are read and written three times as fast as through NumPy."""
    return memoryview(cast(Any, array))


def replica_views(
    limits: Ints,
    gauges: Ints,
    ends: Ints,
    seats: Ints,
    behind: memoryview[int],
    views: Mapping[int, RequestView],
) -> tuple[ReplicaView, ...]:
    """Views of all replicas on read-only memory; `views` are those of the requests."""
    return tuple(
        ReplicaView(
            index,
            int(each[KV_BLOCKS]),
            int(each[BLOCK_SIZE]),
            gauges=memory(gauges[index]).toreadonly(),
            seats=memory(seats[index]).toreadonly(),
            ends=memory(ends[index]).toreadonly(),
            behind=behind.toreadonly(),
            views=views,
        )
        for index, each in enumerate(limits)
    )


def iterated(pairs: Any) -> Iterator[Any]:
    """What a router returned, pair by pair; Refused if it is nothing of the kind."""
    try:
        return iter(pairs)
    except TypeError:
        raise Refused(
            f"the router returned {shown(pairs)} where an iterable of pairs (request, replica) is expected"
        ) from None


def no_pair(given: object) -> Refused:
    """What is said of something that is no pair."""
    return Refused(f"the router gave {shown(given)} where a pair (request, replica) is expected")


def _bound(seconds: NDArray[Any] | None, request: int) -> float | None:
    """A request's bound; None for NaN."""
    return None if seconds is None or seconds[request] != seconds[request] else float(seconds[request])


class Dispatch:
    """One run's global queue and views, and what happens when a request leaves the one for a replica."""

    def __init__(self, state: State, workload: Workload, blocks_needed: Sequence[int] | None) -> None:
        """`blocks_needed` by each request, if some do not fit into some replica."""
        self._arrival = memory(state.arrival)
        self._prompt_tokens = memory(state.lengths[:, PROMPT_LENGTH])
        self._priority = None if workload.priority is None else workload.priority.tolist()
        self._session = None if workload.session is None else workload.session.tolist()
        self._block_size = int(state.limits[0, BLOCK_SIZE])
        prefixes = workload.prefixes if state.limits[0, CACHING] else None
        self._prefixes = None if prefixes is None else prefixes.in_blocks(self._block_size)
        bounded = workload.ttft_slo is not None or workload.tpot_slo is not None
        self._slo = (workload.ttft_slo, workload.tpot_slo) if bounded else None
        self.blocks_needed = blocks_needed
        """By each request; None if all fit everywhere."""
        self.room = [most_blocks(limits) for limits in state.limits]
        """Blocks of the largest request that each replica can run alone."""
        self.by_priority = bool(state.limits[0, BY_PRIORITY])
        """Whether replicas' queues are in order of priority."""
        self._behind = memory(state.place[:, BEHIND])
        self._ends = [memory(row) for row in state.ends]
        self._gauges = [memory(row) for row in state.gauges]
        self._state = memory(state.known[:, STATE])
        self._replica = memory(state.place[:, REPLICA])
        self._routed = memory(state.times[:, ROUTED])
        self.views: dict[int, RequestView] = {}
        """Requests that have arrived and not finished."""
        self.queue: dict[int, RequestView] = {}
        """The global queue, in order of arrival."""

        # A view refers to nothing but read-only memory of what may be observed, never to this object. Where
        # views are stale that is the published copy, to which only what the router does and hears is added.
        self._stale = len(state.seen_known) > 0
        known = state.seen_known if self._stale else state.known
        gauges, ends, seats = (
            (state.seen_gauges, state.seen_ends, state.seen_seats)
            if self._stale
            else (state.gauges, state.ends, state.seats)
        )
        behind = memory(state.seen_behind) if self._stale else self._behind
        self._true_tokens_done = memory(state.known[:, TOKENS_DONE])
        self._known_tokens_done = memory(known[:, TOKENS_DONE])
        self._known_state = memory(known[:, STATE])
        self._seen_tokens_done = self._known_tokens_done.toreadonly()
        self._seen_state = self._known_state.toreadonly()
        self.all_replicas = replica_views(
            state.limits, gauges, ends, seats, behind, MappingProxyType(self.views)
        )
        self.replicas: tuple[ReplicaView, ...] = ()
        """Those that take requests."""
        self._index: dict[int, int] = {}
        self.rejected = 0
        self._requeued: set[int] = set()
        self.accept(range(len(self.all_replicas)))

    def accept(self, indices: Iterable[int]) -> None:
        """Offer these replicas to the router from now on."""
        self.replicas = tuple(self.all_replicas[index] for index in indices)
        self._index = {id(replica): replica.index for replica in self.replicas}

    def arrive(self, request: int) -> bool:
        """Put the request into the global queue; False if no replica could ever serve it."""
        if self.blocks_needed is not None and self.blocks_needed[request] > max(self.room):
            self._reject(request)
            return False
        self._known_state[request] = QUEUED
        self.views[request] = self.queue[request] = RequestView(
            request,
            self._arrival[request],
            self._prompt_tokens[request],
            self._priority[request] if self._priority is not None else 0,
            None if self._session is None or self._session[request] < 0 else self._session[request],
            self._seen_tokens_done,
            self._seen_state,
            () if self._prefixes is None else self._prefix(request),
            None if self._slo is None else _bound(self._slo[0], request),
            None if self._slo is None else _bound(self._slo[1], request),
        )
        return True

    def _prefix(self, request: int) -> tuple[int, ...]:
        """Hashes of the full blocks of the prompt: what lies in the output is not known yet."""
        assert self._prefixes is not None
        starts, hashes = self._prefixes
        begin = int(starts[request])
        end = min(int(starts[request + 1]), begin + self._prompt_tokens[request] // self._block_size)
        return tuple(hashes[begin:end].tolist())

    def _reject(self, request: int) -> None:
        self._state[request] = self._known_state[request] = REJECTED
        self.rejected += 1

    def finish(self, request: int) -> RequestView:
        """Take the view of a completed request out of the books."""
        if self._stale:
            self._known_state[request] = FINISHED
            self._known_tokens_done[request] = self._true_tokens_done[request]
        return self.views.pop(request)

    def requeue(self, requests: Iterable[int]) -> None:
        """Put requests that a replica lost back into the global queue, in order of arrival."""
        for request in requests:
            self._state[request] = self._known_state[request] = QUEUED
            self._known_tokens_done[request] = self._true_tokens_done[request]
            self.queue[request] = self.views[request]
            self._requeued.add(request)
        for request in sorted(self.queue):
            self.queue[request] = self.queue.pop(request)

    def send(self, pairs: Iterable[tuple[RequestView, ReplicaView]], now: float) -> None:
        """Let each pair take effect as it is taken from the iterable: the request joins the replica's queue.

        Raises Refused on anything that is not a queued request with a replica of this cluster.
        """
        for pair in iterated(pairs):
            try:
                view, target = pair
                request = view.id
                replica = self._index[id(target)]
                if self.queue[request] is not view:
                    raise KeyError(request)
            except (TypeError, ValueError, AttributeError, KeyError):
                self._refuse(pair)
            del self.queue[request]
            if self.blocks_needed is not None and self.blocks_needed[request] > self.room[replica]:
                del self.views[request]
                self._reject(request)
                continue
            self._state[request] = self._known_state[request] = WAITING
            self._replica[request] = replica
            if not self._requeued or request not in self._requeued:
                self._routed[request] = now
            ends = self._ends[replica]
            last = ends[TAIL]
            if last == NOBODY:
                ends[HEAD] = ends[TAIL] = request
                self._behind[request] = NOBODY
            elif self.by_priority and self._is_before(request, last):
                self._insert(request, ends)
            else:
                self._behind[last] = ends[TAIL] = request
                self._behind[request] = NOBODY
            gauges = self._gauges[replica]
            gauges[WAITING_COUNT] += 1
            gauges[WAITING_PROMPT_TOKENS] += self._prompt_tokens[request]

    def _is_before(self, one: int, other: int) -> bool:
        """Whether a request goes before another where the queue is in order of priority."""
        if self._priority is None:
            return one < other
        return (self._priority[one], one) < (self._priority[other], other)

    def _insert(self, request: int, ends: memoryview[int]) -> None:
        """Put a request into a queue in order of priority, somewhere before its end."""
        before, after = NOBODY, ends[HEAD]
        while self._is_before(after, request):
            before, after = after, self._behind[after]
        self._behind[request] = after
        if before == NOBODY:
            ends[HEAD] = request
        else:
            self._behind[before] = request

    def _refuse(self, pair: object) -> NoReturn:
        """Say what is wrong with a pair."""
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise no_pair(pair)
        request, replica = pair
        if not isinstance(request, RequestView):
            raise Refused(f"the pair {shown(pair)} does not start with a request of `queue`")
        if self.queue.get(request.id) is not request:
            why = "it has finished" if request.state == "finished" else f"it is {request.state}: sent before"
            raise Refused(
                f"the router sent {request!r}, which is not in the queue ({why}); send each request once"
            )
        if any(replica is known for known in self.all_replicas):
            raise Refused(
                f"the router sent request {request.id} to {replica!r}, which takes no requests now (down, "
                "draining or stopped); choose among the `replicas` of the call"
            )
        raise Refused(
            f"the router sent request {request.id} to {shown(replica)}, which is not one of the "
            f"{len(self.replicas)} objects in `replicas`"
        )
