"""A policy in another process than the simulator: what it may observe goes there, what it decides comes back.

The process that has the policy (`answering`) holds a copy of the memory behind the views and nothing else of
a run: no output lengths, nothing of what has not arrived, and not how much will. Each question brings the
copy up to date; the views and the checks there are those of a run. Of an answer only numbers are believed.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sim.compiled import njit
from sim.complaints import Refused, shown
from sim.planning import Planner
from sim.policies import ReplicaView, RequestView
from sim.recording import NamedPlan, NamedRequest
from sim.routing import Dispatch, iterated, memory, no_pair, replica_views
from sim.scaling import ClusterView
from sim.state import (
    ADMISSIONS,
    BEHIND,
    COUNTS,
    ENTRIES,
    EVICTIONS,
    GAUGES,
    NOBODY,
    STATE,
    TOKENS_DONE,
    WORK,
    Ints,
    State,
)

__all__ = ["answering", "asking", "observed"]

_METHODS = ("route", "completed", "plan", "target")

_LIVE = ("known", "place", "gauges", "seats", "ends")
_PUBLISHED = ("seen_known", "seen_behind", "seen_gauges", "seen_seats", "seen_ends")
_BY_REQUEST = {"known", "place", "work", "seen_known", "seen_behind"}
_FROM_NOBODY = {"place", "ends", "seen_behind", "seen_ends"}

_ROWS = 1 << 16
"""Rows that the copy has at least, else a power of two: it is not to tell how many requests there will be."""

_LONGEST_NAME = 100

_NOT_ITS_OWN = (
    "views that are not the run's own were handed to a policy that is in another process, where they are not "
    "known: hand it those that the run gives"
)


class _Observed(NamedTuple):
    """A run that policies are asked in."""

    state: State
    dispatch: Dispatch


_RUN: ContextVar[_Observed | None] = ContextVar("run", default=None)


@contextmanager
def observed(state: State, dispatch: Dispatch) -> Iterator[None]:
    """While a run's policies are called: what those that are apart are told of."""
    token = _RUN.set(_Observed(state, dispatch))
    try:
        yield
    finally:
        _RUN.reset(token)


def asking(ask: Callable[[bytes], bytes]) -> Any:
    """A policy with the methods of the one that `ask` leads to."""
    said = _read(ask(marshal.dumps(("methods",))))
    match said:
        case {"name": str(name), "methods": list(methods), "plans_decodes": plans_decodes}:
            return _Asking(
                ask, name[:_LONGEST_NAME], [each for each in _METHODS if each in methods], plans_decodes
            )
    raise Refused(f"{said!r:.60} does not say which methods the policy has")


def answering(policy: Any) -> Callable[[bytes], bytes]:
    """What answers a question to the policy; it raises what the policy raises."""
    return _Answering(policy).answer


class _Asking:
    """Stands for a policy. It has those of the methods that the policy has."""

    def __init__(
        self, ask: Callable[[bytes], bytes], name: str, methods: Sequence[str], plans_decodes: object
    ) -> None:
        self.__wrapped__ = type(name, (), {})()
        self.plans_decodes = plans_decodes
        self._ask, self._methods = ask, methods
        self._window: _Window | None = None
        for method in methods:
            setattr(self, method, getattr(self, f"_{method}"))

    def _route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterator[tuple[RequestView, ReplicaView]]:
        window = self._here()
        held, there = window.requests(queue), window.replicas(replicas)
        return self._pairs(window, self._asked(window, "route", now, held, there), now)

    def _pairs(self, window: _Window, answer: bytes, now: float) -> Iterator[tuple[RequestView, ReplicaView]]:
        """Pairs as they are taken; what the taken one has changed is told before the next is asked for."""
        while True:
            match _read(answer):
                case [list(pairs), bool(more)]:
                    for pair in pairs:
                        yield window.pair(pair)
                case other:
                    raise Refused(f"the router's answer {other!r:.60} is not a list of pairs")
            if not more:
                return
            answer = self._asked(window, "next", now)

    def _completed(self, request: RequestView, now: float) -> None:
        self._asked(self._here(), "completed", now, request.id)

    def _target(self, cluster: ClusterView, now: float) -> int:
        window = self._here()
        there = window.replicas(cluster.replicas)
        target = _read(self._asked(window, "target", now, there, list(cluster[1:])))
        if type(target) is not int:
            raise Refused(f"the autoscaler's answer is {target!r:.60}; expected a whole number of replicas")
        return target

    def _plan(self, engine: Any, now: float) -> NamedPlan:
        answer = self._asked(self._here(), "plan", now, engine.index)
        entries = memoryview(answer).cast("q").tolist() if len(answer) % 8 == 0 else []
        evictions, admissions, counts = entries[:ENTRIES] if len(entries) >= ENTRIES else (-1, -1, -1)
        at = ENTRIES + evictions
        tokens = at + max(admissions, 0)
        if evictions < 0 or admissions < -1 or counts < 0 or len(entries) != tokens + 2 * counts:
            raise Refused(f"the scheduler's answer of {len(answer)} bytes is not a plan")
        named = [NamedRequest(number) for number in entries[ENTRIES:tokens]]
        return NamedPlan(
            None if admissions < 0 else named[evictions:],
            named[:evictions],
            dict(zip(map(NamedRequest, entries[tokens::2]), entries[tokens + 1 :: 2], strict=True)),
        )

    def _here(self) -> _Window:
        """What has been told of the run that is going on."""
        run = _RUN.get()
        if run is None:
            raise Refused("a policy that is apart was asked outside of a run of the cluster")
        if self._window is None or self._window.run is not run:
            self._window = _Window(run, self._methods)
        return self._window

    def _asked(self, window: _Window, call: str, now: float, *given: Any) -> bytes:
        return self._ask(marshal.dumps((call, now, window.beginning(), *window.news(), given)))


class _Window:
    """What a policy's process knows of a run, and what has changed since it was told."""

    def __init__(self, run: _Observed, methods: Collection[str]) -> None:
        self.run = run
        self._dispatch, state = run.dispatch, run.state
        self._all = {each.index: each for each in run.dispatch.all_replicas}
        names = set[str]()
        if set(methods) - {"plan"}:
            names |= set(_PUBLISHED if len(state.seen_known) else _LIVE)
        if "plan" in methods:
            names |= {*_LIVE, "work"}
        self._arrays = {name: _array(state, name) for name in sorted(names)}
        self._told = {name: _full(name, each.shape) for name, each in self._arrays.items()}
        most = max(each.size for each in self._arrays.values())
        self._places, self._values = np.zeros(most, np.int64), np.zeros(most, np.int64)
        rows = max(_ROWS, 1 << (len(state.known) - 1).bit_length())
        shape = (rows, state.limits.shape, state.seats.shape[1])
        self._beginning: Any = (*shape, state.limits.tobytes(), [*self._arrays])
        self._views: set[int] = set()
        self._from = self._until = 0
        """Rows of requests that may have changed: from the first not finished when it was told last."""

    def beginning(self) -> Any:
        """What is said once, before anything else; None from then on."""
        said, self._beginning = self._beginning, None
        return said

    def news(self) -> tuple[list[Any], list[int], list[Any]]:
        """Requests that have come, those that have gone, and what has changed in memory."""
        views = self._dispatch.views
        come: list[Any] = []
        for number in reversed(views):
            if number < self._until:
                break
            come.append(views[number])
        come.reverse()
        gone: list[int] = []
        if len(self._views) + len(come) != len(views):
            gone = [*(self._views - views.keys())]
            self._views.difference_update(gone)
        if come:
            self._until = come[-1].id + 1
            self._views.update(each.id for each in come)
        changed = [*self._changes()]
        self._from = next(iter(views), self._until)
        return list(map(_said, come)), gone, changed

    def _changes(self) -> Iterator[tuple[str, bytes, bytes]]:
        """By array, places (over all entries) and values of what is another."""
        places, values = self._places, self._values
        for name, now in self._arrays.items():
            begin, end = (self._from, self._until) if name in _BY_REQUEST else (0, len(now))
            count = _compare(now, self._told[name], begin, end, places, values)
            if count:
                yield name, places[:count].tobytes(), values[:count].tobytes()

    def requests(self, shown: Sequence[RequestView]) -> list[int]:
        """The numbers of requests of this run."""
        numbers = [each.id for each in shown]
        if tuple(map(self._dispatch.views.get, numbers)) != tuple(shown):
            raise Refused(_NOT_ITS_OWN)
        return numbers

    def replicas(self, shown: Sequence[ReplicaView]) -> list[int]:
        """The numbers of replicas of this run."""
        numbers = [each.index for each in shown]
        if any(self._all.get(number) is not each for number, each in zip(numbers, shown, strict=True)):
            raise Refused(_NOT_ITS_OWN)
        return numbers

    def pair(self, named: Any) -> tuple[RequestView, ReplicaView]:
        """The views that two numbers name; a run checks the rest."""
        views = self._dispatch.views
        match named:
            case [int(request), int(replica)] if request in views and replica in self._all:
                return views[request], self._all[replica]
        raise Refused(f"the router's answer {named!r:.60} names no request and replica that are there")


class _Answering:
    """Has the policy, and the copy of what it may observe."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._copy: _Copy | None = None
        self._pairs: Iterator[Any] = iter(())

    def answer(self, question: bytes) -> bytes:
        """The policy's decision."""
        call, *told = marshal.loads(question)
        if call == "methods":
            return json.dumps(self._said(), default=repr).encode()
        now, beginning, come, gone, changed, given = told
        if beginning is not None or self._copy is None:
            self._copy = _Copy(self._policy, *beginning)
        self._copy.update(come, gone, changed)
        answer = getattr(self, f"_{call}")(self._copy, now, *given)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def _said(self) -> dict[str, Any]:
        return {
            "name": type(self._policy).__name__,
            "methods": [each for each in _METHODS if callable(getattr(self._policy, each, None))],
            "plans_decodes": getattr(self._policy, "plans_decodes", True),
        }

    def _route(self, copy: _Copy, now: float, queue: Sequence[int], replicas: Sequence[int]) -> Any:
        pairs = self._policy.route(
            tuple(map(copy.requests.__getitem__, queue)),
            tuple(map(copy.replicas.__getitem__, replicas)),
            now,
        )
        self._pairs = iterated(pairs)
        if isinstance(pairs, list | tuple):
            return [*map(_numbers, pairs)], False
        return self._next(copy, now)

    def _next(self, copy: _Copy, now: float) -> Any:
        """The next pair of a generator: before it is asked for, the one before must have taken effect."""
        pairs = [_numbers(pair) for pair in islice(self._pairs, 1)]
        return pairs, bool(pairs)

    def _completed(self, copy: _Copy, now: float, request: int) -> None:
        self._policy.completed(copy.requests[request], now)

    def _target(self, copy: _Copy, now: float, replicas: Sequence[int], counts: Sequence[int]) -> int:
        view = ClusterView(tuple(map(copy.replicas.__getitem__, replicas)), *counts)
        target = self._policy.target(view, now)
        if isinstance(target, bool) or not isinstance(target, int | np.integer):
            raise Refused(
                f"the autoscaler returned {shown(target)} where a whole number of replicas is expected"
            )
        return int(target)

    def _plan(self, copy: _Copy, now: float, replica: int) -> bytes:
        return copy.plan(replica, now)


class _Copy:
    """The memory behind the views of a run, as far as its policy may look, and the views."""

    def __init__(
        self,
        policy: Any,
        rows: int,
        limits: tuple[int, int],
        seats: int,
        settings: bytes,
        names: Sequence[str],
    ) -> None:
        replicas, stale = limits[0], _PUBLISHED[0] in names
        widths = {
            "known": 2,
            "place": 3,
            "work": WORK,
            "gauges": GAUGES,
            "seats": seats,
            "ends": 2,
            "behind": 1,
        }
        arrays: dict[str, Any] = dict.fromkeys(State._fields, np.zeros((0, 0), np.int64))
        arrays["limits"] = np.frombuffer(settings, np.int64).reshape(limits).copy()
        arrays["plan"] = np.zeros(ENTRIES + 6 * seats, np.int64)
        for name in names:
            shape = (rows if name in _BY_REQUEST else replicas, widths[name.removeprefix("seen_")])
            arrays[name] = _full(name, shape)
        self._state = State(**arrays)
        self._flat = {name: arrays[name].reshape(-1) for name in names}
        self.requests: dict[int, RequestView] = {}
        """All that have arrived."""
        self._views: dict[int, RequestView] = {}
        known, behind, *others = _PUBLISHED if stale else _LIVE
        gauges, seats_of, ends = (arrays[name] for name in others)
        chain = arrays[behind][:, 0 if stale else BEHIND]
        self.replicas = replica_views(
            arrays["limits"], gauges, ends, seats_of, memory(chain), MappingProxyType(self._views)
        )
        self._known = [memory(arrays[known][:, column]).toreadonly() for column in (TOKENS_DONE, STATE)]
        self._planner = Planner(self._state, self._views, policy) if "work" in names else None

    def update(
        self,
        come: Sequence[Sequence[Any]],
        gone: Sequence[int],
        changed: Sequence[tuple[str, bytes, bytes]],
    ) -> None:
        """Take in what is new (`_Window.news`)."""
        for name, places, values in changed:
            self._flat[name][np.frombuffer(places, np.int64)] = np.frombuffer(values, np.int64)
        for number, arrival, prompt_tokens, priority, session, *more in come:
            self.requests[number] = self._views[number] = RequestView(
                number, arrival, prompt_tokens, priority, session, self._known[0], self._known[1], *more
            )
        for number in gone:
            del self._views[number]
            if self._planner is not None:
                self._planner.requests.pop(number, None)

    def plan(self, replica: int, now: float) -> bytes:
        """What the policy plans for a replica's next step, as the kernel would get it."""
        assert self._planner is not None
        self._planner.plan(replica, now)
        plan = self._state.plan
        entries = plan[EVICTIONS] + max(plan[ADMISSIONS], 0) + 2 * plan[COUNTS]
        return plan[: ENTRIES + entries].tobytes()


@njit
def _compare(now: Ints, told: Ints, begin: int, end: int, places: Ints, values: Ints) -> int:
    """Bring these rows of `told` up to date; writes where it was another, and what it is, and returns how
    often."""
    count, width = 0, now.shape[1]
    for row in range(begin, end):
        for column in range(width):
            value = now[row, column]
            if value != told[row, column]:
                told[row, column] = value
                places[count], values[count] = row * width + column, value
                count += 1
    return count


def _array(state: State, name: str) -> Ints:
    """An array of the state in rows."""
    array: Ints = getattr(state, name)
    return array[:, np.newaxis] if array.ndim == 1 else array


def _full(name: str, shape: tuple[int, ...]) -> Ints:
    """The array of that name before the first event."""
    return np.full(shape, NOBODY, np.int64) if name in _FROM_NOBODY else np.zeros(shape, np.int64)


def _said(view: RequestView) -> list[Any]:
    """What of a request never changes."""
    fixed = (view.id, view.arrival, view.prompt_tokens, view.priority, view.session)
    return [*fixed, view.prefix, view.ttft_slo, view.tpot_slo]


def _numbers(pair: Any) -> tuple[int, int]:
    """Of the request and the replica of a pair."""
    try:
        request, replica = pair
        return int(request.id), int(replica.index)
    except (TypeError, ValueError, AttributeError):
        raise no_pair(pair) from None


def _read(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise Refused(f"the policy's answer {answer[:60]!r} cannot be read") from None
