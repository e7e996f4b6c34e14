"""The conversation with a router: the global queue, its calls, and the effect of each pair that it gives.

Everything that a router can do wrong ends here in a PolicyError that shows the call.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, cast

from numpy.typing import NDArray

from sim.kernel import ARRIVAL, policy_events
from sim.policies import PolicyError, ReplicaView, RequestView, Router
from sim.state import (
    BEHIND,
    BLOCK_SIZE,
    HEAD,
    KV_BLOCKS,
    NOBODY,
    NOW,
    PROMPT,
    REPLICA,
    ROUTED,
    STATE,
    TAIL,
    TOKENS_DONE,
    WAITING,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    State,
)


def _memory(array: NDArray[Any]) -> memoryview[Any]:
    """The array's memory: single entries are read and written three times as fast as through NumPy."""
    return memoryview(cast(Any, array))


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep


class Dispatch:
    """One run's global queue and views, and what happens when a request leaves the one for a replica."""

    def __init__(
        self, state: State, priority: Sequence[int] | None, session: Sequence[int | None] | None
    ) -> None:
        self._arrival = _memory(state.arrival)
        self._prompt_tokens = _memory(state.work[:, PROMPT])
        self._priority = priority
        self._session = session
        self._behind = _memory(state.place[:, BEHIND])
        self._ends = [_memory(row) for row in state.ends]
        self._gauges = [_memory(row) for row in state.gauges]
        self._state = _memory(state.known[:, STATE])
        self._replica = _memory(state.place[:, REPLICA])
        self._routed = _memory(state.times[:, ROUTED])
        self.views: dict[int, RequestView] = {}
        """Requests that have arrived and not finished."""
        self.queue: dict[int, RequestView] = {}
        """The global queue, in order of arrival."""

        # A view refers to nothing but read-only memory of what may be observed, never to this object.
        self._seen_tokens_done = _memory(state.known[:, TOKENS_DONE]).toreadonly()
        self._seen_state = self._state.toreadonly()
        self.replicas = tuple(
            ReplicaView(
                index,
                int(state.limits[KV_BLOCKS]),
                int(state.limits[BLOCK_SIZE]),
                gauges=self._gauges[index].toreadonly(),
                seats=_memory(state.seats[index]).toreadonly(),
                ends=self._ends[index].toreadonly(),
                behind=self._behind.toreadonly(),
                views=MappingProxyType(self.views),
            )
            for index in range(len(self._gauges))
        )
        self._index = {id(replica): replica.index for replica in self.replicas}

    def arrive(self, request: int) -> None:
        """Put the request into the global queue."""
        self.views[request] = self.queue[request] = RequestView(
            request,
            self._arrival[request],
            self._prompt_tokens[request],
            self._priority[request] if self._priority is not None else 0,
            self._session[request] if self._session is not None else None,
            self._seen_tokens_done,
            self._seen_state,
        )

    def send(self, pairs: Iterable[tuple[RequestView, ReplicaView]], now: float) -> None:
        """Let each pair take effect as it is taken from the iterable: the request joins the replica's queue.

        Raises ValueError on anything that is not a queued request with a replica of this cluster.
        """
        try:
            taken = iter(pairs)
        except TypeError:
            raise ValueError(
                f"it returned {pairs!r} where an iterable of pairs (request, replica) is expected"
            ) from None
        for pair in taken:
            try:
                view, target = pair
                request = view.id
                replica = self._index[id(target)]
                if self.queue[request] is not view:
                    raise KeyError(request)
            except (TypeError, ValueError, AttributeError, KeyError):
                self._refuse(pair)
            del self.queue[request]
            self._state[request] = WAITING
            self._replica[request] = replica
            self._routed[request] = now
            ends = self._ends[replica]
            if ends[TAIL] == NOBODY:
                ends[HEAD] = request
            else:
                self._behind[ends[TAIL]] = request
            ends[TAIL] = request
            gauges = self._gauges[replica]
            gauges[WAITING_COUNT] += 1
            gauges[WAITING_PROMPT_TOKENS] += self._prompt_tokens[request]

    def _refuse(self, pair: object) -> NoReturn:
        """Say what is wrong with a pair."""
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ValueError(f"it gave {pair!r} where a pair (request, replica) is expected")
        request, replica = pair
        if not isinstance(request, RequestView):
            raise ValueError(f"the pair {pair!r} does not start with a request of `queue`")
        if self.queue.get(request.id) is not request:
            why = "it has finished" if request.state == "finished" else f"it is {request.state}: sent before"
            raise ValueError(
                f"it sent {request!r}, which is not in the queue ({why}); send each request once"
            )
        raise ValueError(
            f"it sent request {request.id} to {replica!r}, which is not one of the "
            f"{len(self.replicas)} objects in `replicas`"
        )


def converse(
    state: State, router: Router, priority: Sequence[int] | None, session: Sequence[int | None] | None
) -> tuple[int, int]:
    """Run the cluster to its end; return how often `route` was called and the longest queue that it left.

    Raises PolicyError if the router raises, gives something other than pairs of a queued request and a
    replica, or leaves requests in the queue when nothing can happen any more.
    """
    route = getattr(router, "route", None)
    if not callable(route) or isinstance(router, type):
        raise PolicyError(f"a router is an object with a method route(queue, replicas, now): got {router!r}")
    completed = getattr(router, "completed", None)
    dispatch = Dispatch(state, priority, session)
    queue, views, replicas = dispatch.queue, dispatch.views, dispatch.replicas
    clock, finished = _memory(state.clock), _memory(state.completed)
    calls = arrived = longest = waiting = 0
    now = 0.0
    for event in policy_events(state):
        now = clock[NOW]
        method = "completed"
        try:
            if event == ARRIVAL:
                dispatch.arrive(arrived)
                arrived += 1
            else:
                for request in finished[1 : finished[0] + 1].tolist():
                    view = views.pop(request)
                    if completed is not None:
                        completed(view, now)
            method = "route"
            calls += 1
            waiting = len(queue)
            dispatch.send(route(tuple(queue.values()), replicas, now), now)
        except Exception as error:
            raise PolicyError(_complaint(router, method, error, calls, waiting, now)) from error
        if len(queue) > longest:
            longest = len(queue)
    if queue:
        raise PolicyError(
            f"{_name(router)} held {len(queue)} requests for ever: after call {calls} at {now:.3f} s there "
            "is no arrival and no completion left to call it again, and the global queue still starts with "
            f"{next(iter(queue.values()))!r}"
        )
    return calls, longest


def _name(router: Router) -> str:
    return type(router).__name__


def _complaint(router: Router, method: str, error: Exception, calls: int, waiting: int, now: float) -> str:
    """One sentence on the call that failed, with file and line of the policy."""
    call = f"{_name(router)}.{method}, call {calls} at {now:.3f} s with {waiting} requests queued"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    if not frames:  # this file refused what the router gave
        code = getattr(router.route, "__code__", None)
        return f"{call}: {error}" + (f" ({code.co_filename}, line {code.co_firstlineno})" if code else "")
    where = ([frame for frame in frames if not _is_library(frame.filename)] or frames)[-1]
    return f"{call}: {type(error).__name__}: {error} ({where.filename}, line {where.lineno})"


def _is_library(filename: str) -> bool:
    """Whether a frame is of this package, the standard library or an installed one, rather than of a
    policy."""
    return filename.startswith((_PACKAGE, _STANDARD_LIBRARY, "<frozen")) or "site-packages" in filename


def columns_to_lists(
    priority: NDArray[Any] | None, session: NDArray[Any] | None
) -> tuple[list[int] | None, list[int | None] | None]:
    """Optional columns as Python lists; a session of -1 means that there is none."""
    sessions = None if session is None else [None if s < 0 else s for s in session.tolist()]
    return (None if priority is None else priority.tolist()), sessions
