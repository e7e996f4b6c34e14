"""The router's side of the cluster: the protocol a router follows, and the views that it reads.

A router is any class with a method `route`; nothing needs to be imported or inherited. It decides which
requests of the global queue go to which replica and when; what it leaves in the queue waits there, and it is
asked again at the next event. A router may keep state between calls. If its constructor takes `rng`, it is
given a seeded `random.Random`:

    class FewestRequests:
        def route(self, queue, replicas, now):
            for request in queue:
                yield request, min(replicas, key=lambda replica: replica.waiting + replica.running)

Each replica runs one engine: chunked prefill with continuous batching over a paged KV cache. Requests sent to
it wait in its own queue, in order, until their prompt's blocks fit and there is room in the batch. Each
output token of a running request takes one more token of cache. If no block is left the request admitted last
is evicted: it gives up all its blocks and later computes its prompt and its output so far again. Sent
requests cannot be recalled.

Views show what a real deployment can observe: never the output length of a request that has not finished, nor
anything about requests that have not arrived. They are live: an attribute read later may differ. Units are
seconds, tokens and blocks. Names that begin with an underscore are private by convention: through them Python
code reaches the run's memory, read-only or not.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

__all__ = ["Place", "PolicyError", "ReplicaView", "RequestView", "Router"]


class Place(NamedTuple):
    """A line of a policy."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """`file:line`, as editors and terminals follow it; relative to the current folder if shorter."""
        try:
            relative = os.path.relpath(self.file)
        except (OSError, ValueError):  # no current folder, or another drive
            relative = self.file
        return f"{min(relative, self.file, key=len)}:{self.line}"


class PolicyError(Exception):
    """A policy broke its protocol or raised: what was wrong, in which call, and where the policy says so.

    The text starts with file and line, and is wrapped for a traceback of 80 columns.
    """

    def __init__(self, reason: str, call: str = "", place: Place | None = None) -> None:
        super().__init__(reason, call, place)
        self.reason, self.call, self.place = reason, call, place

    def __str__(self) -> str:
        where = "" if self.place is None else f"{self.place}: "
        lines = [where + self.reason, *([f"in {self.call}"] if self.call else [])]
        # pytest puts "E   " before a line, and the name of the class before the first one.
        name = " " * len("sim.policies.PolicyError: ")
        text = [
            textwrap.fill(line, 76, initial_indent="" if number else name, break_on_hyphens=False)
            for number, line in enumerate(lines)
        ]
        return "\n".join(text).removeprefix(name)


class Router(Protocol):
    """Sends requests from the global queue to replicas."""

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterable[tuple[RequestView, ReplicaView]]:
        """The requests to send now, each with its replica; a list or a generator.

        Called once per arrival, and once per engine step in which at least one request completed, before that
        replica's next step (arrivals first at ties); also with an empty queue. Where replicas come, go or
        fail it is called then, too; where views are stale, whenever they are published while it holds
        requests. `queue` holds the requests not yet sent, in order of arrival; `replicas` those that take
        requests, by index; `now` is the time in seconds. A pair takes effect the moment it is taken from the
        iterable: the replica's `waiting`, `waiting_prompt_tokens` and `requests` include it from then on (if
        views are live).

        A router may also have a method `completed(request, now)`: it is called for each request that
        completed, just before the call of `route` that follows; the request's `tokens_done - prompt_tokens`
        is then its output length.
        """
        ...


class _ReadOnly:
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"a view is read-only: {type(self).__name__}.{name} cannot be set to {value!r}; "
            "keep what you want to remember in the router itself"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a view is read-only: {type(self).__name__}.{name} cannot be deleted")


_STATES = ("not arrived", "queued", "waiting", "running", "finished", "rejected")


class RequestView(_ReadOnly):
    """A request as a router sees it.

    id: its number in order of arrival.
    arrival: when it arrived, in seconds.
    prompt_tokens: length of its prompt.
    tokens_done: 0 until its first output token has streamed, from then on prompt tokens plus output tokens
        streamed so far; it does not fall at an eviction, for the client has seen them.
    state: "queued" (in the global queue), "waiting" (in a replica's queue), "running" (in a replica's batch),
        "finished", or "rejected" (sent to a replica whose cache could never hold it).
    priority: as given by the client, 0 by default.
    session: the conversation it belongs to, or None.
    prefix: hashes of the full blocks of its prompt from the beginning on, as far as others may share them:
        equal hashes at one place are equal tokens up to there; empty where no replica caches prefixes.
    ttft_slo, tpot_slo: seconds within which its first token, and on average each later one, should come; or
        None.
    """

    __slots__ = (
        "_state",
        "_tokens_done",
        "arrival",
        "id",
        "prefix",
        "priority",
        "prompt_tokens",
        "session",
        "tpot_slo",
        "ttft_slo",
    )

    id: int
    arrival: float
    prompt_tokens: int
    priority: int
    session: int | None
    prefix: tuple[int, ...]
    ttft_slo: float | None
    tpot_slo: float | None

    def __init__(
        self,
        id: int,
        arrival: float,
        prompt_tokens: int,
        priority: int,
        session: int | None,
        tokens_done: memoryview[int],
        state: memoryview[int],
        prefix: tuple[int, ...] = (),
        ttft_slo: float | None = None,
        tpot_slo: float | None = None,
    ) -> None:
        _set_id(self, id)
        _set_arrival(self, arrival)
        _set_prompt_tokens(self, prompt_tokens)
        _set_priority(self, priority)
        _set_session(self, session)
        _set_tokens_done(self, tokens_done)
        _set_state(self, state)
        _set_prefix(self, prefix)
        _set_ttft_slo(self, ttft_slo)
        _set_tpot_slo(self, tpot_slo)

    @property
    def tokens_done(self) -> int:
        return self._tokens_done[self.id]  # type: ignore[no-any-return,attr-defined]

    @property
    def state(self) -> str:
        return _STATES[self._state[self.id]]  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return (
            f"<request {self.id}: arrival {self.arrival:.3f} s, {self.prompt_tokens} prompt tokens, "
            f"{self.tokens_done} tokens done, {self.state}>"
        )


# Slot descriptors write past the read-only `__setattr__`, for the constructor alone.
_slots: dict[str, Any] = {name: vars(RequestView)[name].__set__ for name in RequestView.__slots__}
_set_id, _set_arrival, _set_prompt_tokens = _slots["id"], _slots["arrival"], _slots["prompt_tokens"]
_set_priority, _set_session = _slots["priority"], _slots["session"]
_set_tokens_done, _set_state = _slots["_tokens_done"], _slots["_state"]
_set_prefix, _set_ttft_slo, _set_tpot_slo = _slots["prefix"], _slots["ttft_slo"], _slots["tpot_slo"]


class ReplicaView(_ReadOnly):
    """A replica as a router sees it.

    index: its number in the cluster; its place in `replicas` as long as none comes, goes or fails.
    waiting: requests in its queue, evicted ones that wait for their restart included.
    running: requests in its running batch.
    waiting_prompt_tokens: sum of the prompt tokens of the waiting requests.
    blocks_used, blocks_total: KV blocks allocated to running requests, and in all.
    block_size: tokens per block.
    preemptions: evictions since the start.
    requests: views of the running requests in order of admission, then of the waiting ones in order of the
    queue.
    """

    __slots__ = ("_behind", "_ends", "_gauges", "_seats", "_views", "block_size", "blocks_total", "index")

    index: int
    blocks_total: int
    block_size: int

    def __init__(
        self,
        index: int,
        blocks_total: int,
        block_size: int,
        *,
        gauges: memoryview[int],
        seats: memoryview[int],
        ends: memoryview[int],
        behind: memoryview[int],
        views: Mapping[int, RequestView],
    ) -> None:
        for name, value in {
            "index": index,
            "blocks_total": blocks_total,
            "block_size": block_size,
            "_gauges": gauges,
            "_seats": seats,
            "_ends": ends,
            "_behind": behind,
            "_views": views,
        }.items():
            object.__setattr__(self, name, value)

    # Positions as in sim.state, which this file leaves to the simulator so that it can be read alone.
    @property
    def waiting(self) -> int:
        return self._gauges[0]  # type: ignore[no-any-return,attr-defined]

    @property
    def running(self) -> int:
        return self._gauges[1]  # type: ignore[no-any-return,attr-defined]

    @property
    def waiting_prompt_tokens(self) -> int:
        return self._gauges[2]  # type: ignore[no-any-return,attr-defined]

    @property
    def blocks_used(self) -> int:
        return self._gauges[3]  # type: ignore[no-any-return,attr-defined]

    @property
    def preemptions(self) -> int:
        return self._gauges[4]  # type: ignore[no-any-return,attr-defined]

    @property
    def requests(self) -> tuple[RequestView, ...]:
        ids: list[int] = self._seats[: self._gauges[1]].tolist()  # type: ignore[attr-defined]
        waiting: int = self._ends[0]  # type: ignore[attr-defined]
        while waiting >= 0:
            ids.append(waiting)
            waiting = self._behind[waiting]  # type: ignore[attr-defined]
        return tuple(filter(None, map(self._views.get, ids)))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return (
            f"<replica {self.index}: {self.running} running, {self.waiting} waiting, "
            f"{self.blocks_used} of {self.blocks_total} blocks used>"
        )
