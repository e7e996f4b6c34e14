"""Where the policy is: a copy of the memory that it may look at, views of it, and calls of the policy."""

from __future__ import annotations

import inspect
import json
import marshal
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np

from sim.apart.memory import BY_REQUEST, LIVE, METHODS, PUBLISHED, blank
from sim.complaints import Refused, cause, complaint, named, shown
from sim.planning import Planner
from sim.policies import PolicyError, ReplicaView, RequestView
from sim.routing import iterated, memory, no_pair, replica_views
from sim.scaling import ClusterView
from sim.state import (
    ADMISSIONS,
    BEHIND,
    COUNTS,
    ENTRIES,
    EVICTIONS,
    GAUGES,
    HEAD,
    NOBODY,
    QUEUED,
    STATE,
    TAIL,
    TOKENS_DONE,
    WAITING,
    WAITING_COUNT,
    WAITING_PROMPT_TOKENS,
    WORK,
    State,
)


def answering(policy: Any) -> Callable[[bytes], bytes]:
    """What answers a question to the policy; it raises what the policy raises."""
    return _Answering(policy).answer


class _Answering:
    """Has the policy, and a copy for each run that is going on."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._lazy = inspect.isgeneratorfunction(getattr(policy, "route", None))
        """Whether `route` does nothing before its first pair is asked for."""
        self._copies: dict[int, _Copy] = {}
        self._pairs: dict[int, Iterator[Any]] = {}

    def answer(self, question: bytes) -> bytes:
        """The policy's decision."""
        call, *told = marshal.loads(question)
        if call == "methods":
            return json.dumps(self._said(), default=repr).encode()
        run, beginning, come, gone, changed, now, given = told
        if beginning is not None:
            self._copies[run] = _Copy(self._policy, *beginning)
        copy = self._copies[run]
        copy.update(come, gone, changed)
        if call == "end":
            del self._copies[run]
            return b""
        try:
            answer = getattr(self, f"_{call}")(copy, now, *given)
        except PolicyError:
            raise
        except Exception as error:
            method = "route" if call == "next" else call
            where = f"{named(self._policy)}.{method} at {now:.3f} s"
            raise complaint(self._policy, method, where, error) from cause(error)
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def _said(self) -> dict[str, Any]:
        policy = self._policy
        return {
            "name": type(policy).__name__,
            "methods": [each for each in METHODS if callable(getattr(policy, each, None))],
            "plans_decodes": getattr(policy, "plans_decodes", True),
            "lazy": self._lazy,
        }

    def _route(
        self, copy: _Copy, now: float, call: int, queue: Sequence[int], replicas: Sequence[int] | None
    ) -> Any:
        pairs = copy.route(copy.queue(queue), copy.shown(replicas), now)
        if isinstance(pairs, list | tuple):
            return [*map(copy.numbers, pairs)], False
        if copy.foreseen:
            return copy.all_of(iterated(pairs)), False
        self._pairs[call] = iterated(pairs)
        return self._next(copy, now, call) if self._lazy else ([], True)

    def _next(self, copy: _Copy, now: float, call: int) -> Any:
        """The next pair of a call: before it is asked for, the one before must have taken effect."""
        pairs = [copy.numbers(pair) for pair in islice(self._pairs[call], 1)]
        if not pairs:
            del self._pairs[call]
        return pairs, bool(pairs)

    def _completed(self, copy: _Copy, now: float, request: int) -> None:
        copy.completed(copy.requests[request], now)

    def _target(self, copy: _Copy, now: float, replicas: Sequence[int] | None, counts: Sequence[int]) -> int:
        target = self._policy.target(ClusterView(copy.shown(replicas), *counts), now)
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
        foreseen: bool,
    ) -> None:
        self.foreseen = foreseen
        """Whether a pair changes the views as `all_of` has it."""
        replicas, stale = limits[0], PUBLISHED[0] in names
        # A run looks them up once.
        self.route: Any = getattr(policy, "route", None)
        self.completed: Any = getattr(policy, "completed", None)
        widths = {"known": 2, "place": 3, "work": WORK, "gauges": GAUGES, "seats": seats, "ends": 2}
        arrays: dict[str, Any] = dict.fromkeys(State._fields, np.zeros((0, 0), np.int64))
        arrays["limits"] = np.frombuffer(settings, np.int64).reshape(limits).copy()
        arrays["plan"] = np.zeros(ENTRIES + 6 * seats, np.int64)
        for name in names:
            shape = (rows if name in BY_REQUEST else replicas, widths.get(name.removeprefix("seen_"), 1))
            arrays[name] = blank(name, shape)
        self._state = State(**arrays)
        self._flat = {name: arrays[name].reshape(-1) for name in names}
        self.requests: dict[int, RequestView] = {}
        """Those that have arrived; of those that have ended, the ones that the last question has told of."""
        self._open: dict[int, RequestView] = {}
        known, behind, *others = PUBLISHED if stale else LIVE
        gauges, seats_of, ends = (arrays[name] for name in others)
        self._behind = memory(arrays[behind][:, 0 if stale else BEHIND])
        self._states = memory(arrays[known][:, STATE])
        self._ends, self._gauges = list(map(memory, ends)), list(map(memory, gauges))
        self._replicas = replica_views(
            arrays["limits"], gauges, ends, seats_of, self._behind, MappingProxyType(self._open)
        )
        self._shown: tuple[ReplicaView, ...] = ()
        self._gone: Sequence[int] = ()
        self._known = [memory(arrays[known][:, column]).toreadonly() for column in (TOKENS_DONE, STATE)]
        self._planner = Planner(self._state, self._open, policy) if "work" in names else None

    def update(
        self,
        come: Sequence[Sequence[Any]],
        gone: Sequence[int],
        changed: Sequence[tuple[str, bytes, bytes]],
    ) -> None:
        """Take in what is new."""
        for name, places, values in changed:
            self._flat[name][np.frombuffer(places, np.int64)] = np.frombuffer(values, np.int64)
        for number in self._gone:
            del self.requests[number]
        self._gone = gone
        for number, arrival, prompt_tokens, priority, session, *more in come:
            self.requests[number] = self._open[number] = RequestView(
                number, arrival, prompt_tokens, priority, session, self._known[0], self._known[1], *more
            )
        for number in gone:
            del self._open[number]
            if self._planner is not None:
                self._planner.requests.pop(number, None)

    def queue(self, numbers: Sequence[int]) -> tuple[RequestView, ...]:
        """Requests that the policy is shown."""
        return tuple(map(self._open.__getitem__, numbers))

    def shown(self, numbers: Sequence[int] | None) -> tuple[ReplicaView, ...]:
        """Replicas that the policy is shown; None for the tuple of the last time."""
        if numbers is not None:
            self._shown = tuple(map(self._replicas.__getitem__, numbers))
        return self._shown

    def numbers(self, pair: Any) -> tuple[int, int]:
        """Of the request and the replica of a pair."""
        try:
            request, replica = pair
            numbers = int(request.id), int(replica.index)
        except (TypeError, ValueError, AttributeError):
            raise no_pair(pair) from None
        if self.requests.get(numbers[0]) is not request or replica not in self._replicas:
            raise Refused(
                f"the router gave {shown(pair)}, which is not of the requests and replicas of this run"
            )
        return numbers

    def all_of(self, pairs: Iterator[Any]) -> list[tuple[int, int]]:
        """The numbers of all pairs; each takes effect (as in `Dispatch.send`) before the next is asked for.

        In the end all is as it was: what has become of them is told with the next question.
        """
        found = []
        before: list[tuple[memoryview[int], int, int]] = []

        def write(array: memoryview[int], place: int, value: int) -> None:
            before.append((array, place, array[place]))
            array[place] = value

        for pair in pairs:
            request, replica = numbers = self.numbers(pair)
            found.append(numbers)
            if self._states[request] != QUEUED:
                break  # the run refuses it
            ends, gauges = self._ends[replica], self._gauges[replica]
            write(self._states, request, WAITING)
            write(self._behind, request, NOBODY)
            if ends[TAIL] == NOBODY:
                write(ends, HEAD, request)
            else:
                write(self._behind, ends[TAIL], request)
            write(ends, TAIL, request)
            write(gauges, WAITING_COUNT, gauges[WAITING_COUNT] + 1)
            prompt = self.requests[request].prompt_tokens
            write(gauges, WAITING_PROMPT_TOKENS, gauges[WAITING_PROMPT_TOKENS] + prompt)
        for array, place, value in reversed(before):
            array[place] = value
        return found

    def plan(self, replica: int, now: float) -> bytes:
        """What the policy plans for a replica's next step, as the kernel would get it."""
        assert self._planner is not None
        self._planner.plan(replica, now)
        plan = self._state.plan
        entries = plan[EVICTIONS] + max(plan[ADMISSIONS], 0) + 2 * plan[COUNTS]
        return plan[: ENTRIES + entries].tobytes()
