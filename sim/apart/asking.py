"""Where the simulator is: what stands for a policy that is in another process, and what is told to it."""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from sim.apart.memory import BY_REQUEST, METHODS, blank, visible
from sim.compiled import njit
from sim.complaints import Refused
from sim.policies import ReplicaView, RequestView
from sim.recording import NamedPlan, NamedRequest
from sim.routing import Dispatch
from sim.scaling import ClusterView
from sim.state import ENTRIES, Ints, State

_ROWS = 1 << 16
"""Rows that the copy has at least, else a power of two: it is not to tell how many requests there will be."""

_DENSE = 8
"""Rows are compared one after another, unless so many times as many have ended as are open."""

_LONGEST_NAME = 100

_NOT_ITS_OWN = (
    "views that are not the run's own were handed to a policy that is in another process, where they are not "
    "known: hand it those that the run gives"
)


class _Run:
    """A run in which policies are asked, and what each of them has been told of it."""

    def __init__(self, state: State, dispatch: Dispatch, router: object) -> None:
        self.state, self.dispatch, self.router = state, dispatch, router
        self.windows: dict[int, _Window] = {}


_RUN: ContextVar[_Run | None] = ContextVar("run", default=None)


@contextmanager
def observed(state: State, dispatch: Dispatch, router: object) -> Iterator[None]:
    """While a run's policies are called: what those that are apart are told of.

    At the end they are told the rest, for a policy may have kept views.
    """
    run = _Run(state, dispatch, router)
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)
        for window in run.windows.values():
            with suppress(Exception):  # who does not answer any more needs no views
                window.ask("end", 0.0)


def asking(ask: Callable[[bytes], bytes]) -> Any:
    """A policy with the methods of the one that `ask` leads to."""
    said = _read(ask(marshal.dumps(("methods",))))
    match said:
        case {"name": str(name), "methods": list(methods), "plans_decodes": decodes, "lazy": bool(lazy)}:
            known = [each for each in METHODS if each in methods]
            if not known:
                raise Refused(
                    "the replication asks the candidate for decisions, but it is nothing that could make "
                    "them: give its class the methods of its layer"
                )
            return _Asking(ask, name[:_LONGEST_NAME], known, decodes, lazy=lazy)
    raise Refused(f"{said!r:.60} does not say which methods the policy has")


class _Asking:
    """Stands for a policy. It has those of the methods that the policy has."""

    def __init__(
        self,
        ask: Callable[[bytes], bytes],
        name: str,
        methods: Sequence[str],
        plans_decodes: object,
        *,
        lazy: bool,
    ) -> None:
        """`lazy`: whether `route` does nothing before its first pair is asked for."""
        self.__wrapped__ = type(name, (), {})()
        self.plans_decodes = plans_decodes
        self._ask, self._methods, self._lazy = ask, methods, lazy
        self._runs = self._calls = 0
        for method in methods:
            setattr(self, method, getattr(self, f"_{method}"))

    def _route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterator[tuple[RequestView, ReplicaView]]:
        window = self._here()
        self._calls += 1
        ask = partial(self._first, window, now, self._calls, window.requests(queue), replicas)
        if self._lazy:
            return self._pairs(window, now, self._calls, ask)
        answer = ask()
        return self._pairs(window, now, self._calls, lambda: answer)

    def _first(
        self, window: _Window, now: float, call: int, queue: Sequence[int], replicas: Sequence[ReplicaView]
    ) -> bytes:
        return window.ask("route", now, call, queue, window.replicas(replicas))

    def _pairs(
        self, window: _Window, now: float, call: int, first: Callable[[], bytes]
    ) -> Iterator[tuple[RequestView, ReplicaView]]:
        """Pairs as they are taken; what the taken one has changed is told before the next is asked for."""
        answer = first()
        while True:
            match _read(answer):
                case [list(pairs), bool(more)]:
                    for pair in pairs:
                        yield window.pair(pair)
                case other:
                    raise Refused(f"the router's answer {other!r:.60} is not a list of pairs")
            if not more:
                return
            answer = window.ask("next", now, call)

    def _completed(self, request: RequestView, now: float) -> None:
        self._here().ask("completed", now, request.id)

    def _target(self, cluster: ClusterView, now: float) -> int:
        window = self._here()
        target = _read(window.ask("target", now, window.replicas(cluster.replicas), list(cluster[1:])))
        if type(target) is not int:
            raise Refused(f"the autoscaler's answer is {target!r:.60}; expected a whole number of replicas")
        return target

    def _plan(self, engine: Any, now: float) -> NamedPlan:
        answer = self._here().ask("plan", now, engine.index)
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
            raise Refused("a policy that is in another process was asked outside of a run of the cluster")
        window = run.windows.get(id(self))
        if window is None:
            self._runs += 1
            direct = run.router is self
            window = _Window(run, self._ask, self._runs, self._methods, direct=direct)
            run.windows[id(self)] = window
        return window


class _Window:
    """What a policy's process knows of a run, and what has changed since it was told."""

    def __init__(
        self,
        run: _Run,
        ask: Callable[[bytes], bytes],
        number: int,
        methods: Collection[str],
        *,
        direct: bool,
    ) -> None:
        """The run is the policy's `number`-th; `direct` if the policy is its router itself."""
        self._ask, self._number = ask, number
        self._dispatch, state = run.dispatch, run.state
        self._all: Mapping[int, ReplicaView] = {each.index: each for each in run.dispatch.all_replicas}
        self._shown: Sequence[ReplicaView] | None = None
        stale = len(state.seen_known) > 0
        names = visible(methods, stale=stale)
        self._arrays = {name: _in_rows(getattr(state, name)) for name in names}
        self._told = {name: blank(name, each.shape) for name, each in self._arrays.items()}
        most = max(each.size for each in self._arrays.values())
        self._places, self._values = np.zeros(most, np.int64), np.zeros(most, np.int64)
        self._rows = np.arange(max(len(each) for each in self._arrays.values()))
        rows = max(_ROWS, 1 << (len(state.known) - 1).bit_length())
        shape = (rows, state.limits.shape, state.seats.shape[1])
        # What a pair does to the views its process can foresee, if none is refused, and queues are simple.
        foreseen = direct and not (stale or run.dispatch.by_priority or run.dispatch.blocks_needed)
        self._beginning: Any = (*shape, state.limits.tobytes(), names, foreseen)
        self._views: set[int] = set()
        self._from = self._until = 0

    def ask(self, call: str, now: float, *given: Any) -> bytes:
        """The answer to a call, with all that is new told before; what the cluster is like at first."""
        question = (call, self._number, self._beginning, *self._news(), float(now), given)
        self._beginning = None
        return self._ask(marshal.dumps(question))

    def _news(self) -> tuple[list[Any], list[int], list[Any]]:
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
        # What may have changed is of requests that were open when it was told last, or have come.
        rows = self._rows[self._from : self._until]
        if len(rows) > _DENSE * (len(views) + len(gone)):
            rows = np.fromiter(chain(views, gone), np.int64)
        self._from = next(iter(views), self._until)
        return list(map(_said, come)), gone, [*self._changes(rows)]

    def _changes(self, requests: Ints) -> Iterator[tuple[str, bytes, bytes]]:
        """By array, places (over all entries) and values of what is another."""
        places, values = self._places, self._values
        for name, now in self._arrays.items():
            rows = requests if name in BY_REQUEST else self._rows[: len(now)]
            count = _compare(now, self._told[name], rows, places, values)
            if count:
                yield name, places[:count].tobytes(), values[:count].tobytes()

    def requests(self, shown: Sequence[RequestView]) -> list[int]:
        """The numbers of requests of this run."""
        numbers = [each.id for each in shown]
        if tuple(map(self._dispatch.views.get, numbers)) != tuple(shown):
            raise Refused(_NOT_ITS_OWN)
        return numbers

    def replicas(self, shown: Sequence[ReplicaView]) -> list[int] | None:
        """The numbers of replicas of this run; None if it is the sequence that was shown last."""
        if shown is self._shown and isinstance(shown, tuple):  # a list may have changed
            return None
        numbers = [each.index for each in shown]
        if any(self._all.get(number) is not each for number, each in zip(numbers, shown, strict=True)):
            raise Refused(_NOT_ITS_OWN)
        self._shown = shown
        return numbers

    def pair(self, named: Any) -> tuple[RequestView, ReplicaView]:
        """The views that two numbers name; a run checks the rest."""
        views = self._dispatch.views
        match named:
            case [int(request), int(replica)] if request in views and replica in self._all:
                return views[request], self._all[replica]
        raise Refused(f"the router's answer {named!r:.60} names no request and replica that are there")


@njit
def _compare(now: Ints, told: Ints, rows: Ints, places: Ints, values: Ints) -> int:
    """Bring these rows of `told` up to date; writes where it was another, and what it is, and returns how
    often."""
    count, width = 0, now.shape[1]
    for row in rows:
        for column in range(width):
            value = now[row, column]
            if value != told[row, column]:
                told[row, column] = value
                places[count], values[count] = row * width + column, value
                count += 1
    return count


def _in_rows(array: Ints) -> Ints:
    return array[:, np.newaxis] if array.ndim == 1 else array


def _said(view: RequestView) -> list[Any]:
    """What of a request never changes."""
    fixed = (view.id, view.arrival, view.prompt_tokens, view.priority, view.session)
    return [*fixed, view.prefix, view.ttft_slo, view.tpot_slo]


def _read(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise Refused(f"the policy's answer {answer[:60]!r} cannot be read") from None
