"""Decisions of policies: recorded call by call, and replayed where the policy itself never was.

A recording holds what a policy decided, by the ordinal of its call, and nothing of why: a run that replays
it gives the same `sim.Run` as the policy did. It is plain bytes, so that it can be taken from a process that
is not trusted, and is checked when it is read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.policies import ReplicaView, RequestView

__all__ = ["NamedPlan", "NamedRequest", "NotRecorded", "Recorder", "Recording", "record", "recording"]

_MOST = 2**31 - 1

# Of a log, in bytes: JSON takes many times its length when it is read.
_LONGEST_HEAD = 100


class NotRecorded(Exception):
    """A replay was asked for a decision that its recording does not hold."""


class Recorder:
    """Takes a policy's place in a run and notes what it decides. It has the methods that the policy has."""

    def __init__(self, policy: Any) -> None:
        self.__wrapped__ = policy
        self.policy: Any = self
        self._counts, self._requests, self._replicas = array("i"), array("i"), array("i")
        self._plans, self._targets = array("q"), array("q")
        self.planned = 0
        """Calls of plan so far."""
        noting: dict[str, Any] = {
            "route": self._routing,
            "plan": lambda decide: partial(self._plan, decide),
            "target": lambda decide: partial(self._target, decide),
        }
        for method in _methods_of(policy):
            setattr(self, method, noting[method](getattr(policy, method)))
        self.plans_decodes = getattr(policy, "plans_decodes", True)
        if callable(getattr(policy, "completed", None)):
            self.completed = policy.completed

    @property
    def calls(self) -> int:
        """Calls so far of the first of route, plan and target that the policy has."""
        return len(self._counts) or self.planned or len(self._targets)

    @property
    def place(self) -> tuple[int, int, int]:
        """How far the log has come: calls of route, numbers of plans, calls of target."""
        return len(self._counts), len(self._plans), len(self._targets)

    def log(self) -> bytes:
        """What was decided so far."""
        ends = np.array([*self._counts, len(self._requests)], np.int32)
        counts = np.diff(ends)
        lengths = [len(each) for each in (counts, self._requests, self._plans, self._targets)]
        columns = (counts, self._requests, self._replicas, self._plans, self._targets)
        lengths.append(int(bool(self.plans_decodes)))
        return json.dumps(lengths).encode() + b"\n" + b"".join(each.tobytes() for each in columns)

    def _routing(self, decide: Callable[..., Any]) -> Callable[..., Any]:
        """The method `route`, which is called so often that its names are local."""
        sent, call = self._requests, self._counts.append
        send, to = self._requests.append, self._replicas.append

        def noted(pairs: Iterator[Any]) -> Iterator[Any]:
            for pair in pairs:
                try:
                    request, replica = pair
                    send(request.id)
                    to(replica.index)
                except (TypeError, ValueError, AttributeError, OverflowError):
                    yield pair  # the run refuses it
                else:
                    yield request, replica

        def route(queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float) -> Any:
            call(len(sent))
            pairs = decide(queue, replicas, now)
            try:
                return noted(iter(pairs))
            except TypeError:
                return pairs  # the run refuses it

        return route

    def _plan(self, decide: Callable[..., Any], engine: Any, now: float) -> Any:
        self.planned += 1
        plan, begin = decide(engine, now), len(self._plans)
        try:
            admit, evict, tokens = plan.admit, plan.evict, plan.tokens
            evict = list(evict) if evict else []
            tokens = dict(tokens.items()) if tokens else {}
            noted = [len(evict), *[request.id for request in evict], len(tokens)]
            for request, number in tokens.items():
                noted += request.id, int(number)
            self._plans.extend(noted)
        except (TypeError, ValueError, AttributeError, OverflowError):
            del self._plans[begin:]
            return plan  # the run refuses it
        place = len(self._plans)
        self._plans.append(-1 if admit is None else 0)
        return NamedPlan(None if admit is None else self._admitted(admit, place), evict, tokens)

    def _admitted(self, admit: Iterable[Any], place: int) -> Iterator[Any]:
        """Admissions, noted as far as the engine takes them."""
        for request in admit:
            self._plans.append(getattr(request, "id", -1))
            self._plans[place] += 1
            yield request

    def _target(self, decide: Callable[..., Any], cluster: Any, now: float) -> Any:
        target = decide(cluster, now)
        if isinstance(target, int | np.integer) and not isinstance(target, bool):
            self._targets.append(min(max(int(target), -_MOST), _MOST))  # beyond any cluster's size
        return target


class NamedRequest:
    """A request by its number, as a replayed plan names it."""

    __slots__ = ("id",)

    def __init__(self, number: int) -> None:
        self.id = number


class NamedPlan(NamedTuple):
    """A plan whose requests need be no views."""

    admit: Iterable[Any] | None
    evict: Sequence[Any]
    tokens: Mapping[Any, int]


class Recording:
    """Recorded decisions, as a policy that gives them again; read with `recording`."""

    def __init__(
        self,
        counts: NDArray[np.int32],
        requests: NDArray[np.int32],
        replicas: NDArray[np.int32],
        plans: NDArray[np.int64],
        targets: NDArray[np.int64],
        plans_decodes: bool,
    ) -> None:
        self.ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        """[k] and [k + 1]: the first decision of call k of `route`, and the one after its last."""
        self.requests, self.replicas = requests, replicas
        self._plans, self._targets = plans.data, targets
        self.plans_decodes = plans_decodes
        self.policy: Any = self
        self.routed = self.planned = self.scaled = 0
        """Calls of route, plan and target so far."""
        self._at = 0
        self.asked = 0
        """Decisions asked for so far, recorded or not."""

    @property
    def calls(self) -> int:
        """Calls recorded of the first of route, plan and target that the policy has."""
        return len(self.ends) - 1 or sum(1 for _ in self._plan_starts()) or len(self._targets)

    @property
    def unused(self) -> bool:
        """Whether decisions are left that were not asked for: no recorder of this replication notes such."""
        left = (
            len(self.ends) - 1 - self.routed,
            len(self._plans) - self._at,
            len(self._targets) - self.scaled,
        )
        return any(left)

    def after(self, recorder: Recorder) -> Recording:
        """This recording, going on where a recorder of the same policy has come to."""
        self.routed, self._at, self.scaled = recorder.place
        return self

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterable[tuple[RequestView, ReplicaView]]:
        """The pairs of the next recorded call."""
        self._next("route", self.routed, len(self.ends) - 1, now)
        begin, end = self.ends[self.routed : self.routed + 2].tolist()
        self.routed += 1
        if begin == end:
            return ()
        held = {request.id: request for request in queue}
        known = {replica.index: replica for replica in replicas}
        try:
            chosen = zip(self.requests[begin:end].tolist(), self.replicas[begin:end].tolist(), strict=True)
            return [(held[request], known[replica]) for request, replica in chosen]
        except KeyError as missing:
            raise NotRecorded(f"call {self.routed} names {missing}, which is not there") from None

    def plan(self, engine: Any, now: float) -> Any:
        """The plan of the next recorded call."""
        self._next("plan", self._at, len(self._plans), now)
        self.planned += 1
        plans, at = self._plans, self._at + 1
        counts = at + plans[at - 1]
        evict = [NamedRequest(request) for request in plans[at:counts]]
        at = counts + 1
        admissions = at + 2 * plans[counts]
        tokens = dict(
            zip(map(NamedRequest, plans[at:admissions:2]), plans[at + 1 : admissions : 2], strict=True)
        )
        at = admissions + 1
        count = plans[admissions]
        self._at = at + max(count, 0)
        admit = None if count < 0 else [NamedRequest(request) for request in plans[at : self._at]]
        return NamedPlan(admit, evict, tokens)

    def target(self, cluster: Any, now: float) -> int:
        """The target of the next recorded call."""
        self._next("target", self.scaled, len(self._targets), now)
        self.scaled += 1
        return int(self._targets[self.scaled - 1])

    def differs(self, other: bytes, until: int) -> int | None:
        """The first call before `until` (from 0) in which `other` decides otherwise, or None.

        Calls are numbered over one method, the first of route, plan and target that the policy has.
        """
        mine, theirs = self._decisions(), recording(other)._decisions()
        for call, decided in zip(range(until), mine, strict=False):
            if decided != next(theirs, None):
                return call
        return None

    def _decisions(self) -> Iterator[Any]:
        if len(self.ends) > 1:
            for begin, end in pairwise(self.ends.tolist()):
                yield self.requests[begin:end].tolist(), self.replicas[begin:end].tolist()
        elif len(self._plans):
            starts = [*self._plan_starts(), len(self._plans)]
            for begin, end in pairwise(starts):
                yield self._plans[begin:end].tolist()
        else:
            yield from self._targets.tolist()

    def _plan_starts(self) -> Iterator[int]:
        at = 0
        while at < len(self._plans):
            yield at
            at += 1 + self._plans[at]
            at += 1 + 2 * self._plans[at]
            at += 1 + max(0, self._plans[at])

    def _next(self, method: str, call: int, recorded: int, now: float) -> None:
        self.asked += 1
        if call >= recorded:
            raise NotRecorded(f"{method} was asked for a decision at {now:.3f} s that was not recorded")


def record(policy: Any) -> Recorder | None:
    """A recorder around a router, a batch scheduler or an autoscaler; None if it is none of them."""
    return Recorder(policy) if not isinstance(policy, type) and _methods_of(policy) else None


def _methods_of(policy: Any) -> list[str]:
    return [name for name in ("route", "plan", "target") if callable(getattr(policy, name, None))]


def recording(log: bytes) -> Recording:
    """What a recorder has noted; nothing at all for empty bytes.

    Raises ValueError if it is not a log.
    """
    if not log:
        log = b"[0, 0, 0, 0, 1]\n"
    head, _, body = log.partition(b"\n")
    try:
        lengths = json.loads(head if len(head) <= _LONGEST_HEAD else b"")
        if any(type(length) is not int or not 0 <= length <= _MOST for length in lengths):
            raise ValueError
        calls, sent, plans, targets, plans_decodes = lengths
        cuts = [0, *accumulate((4 * calls, 4 * sent, 4 * sent, 8 * plans, 8 * targets))]
        if cuts[-1] != len(body):
            raise ValueError
        columns = [body[begin:end] for begin, end in pairwise(cuts)]
        counts, requests, replicas = (np.frombuffer(column, np.int32) for column in columns[:3])
        planned, targeted = (np.frombuffer(column, np.int64) for column in columns[3:])
        if (counts < 0).any() or int(counts.sum(dtype=np.int64)) != sent:
            raise ValueError
        if not _are_plans(planned) or plans_decodes > 1:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{log[:40]!r}... is not a log of decisions (sim.recording)") from None
    return Recording(counts, requests, replicas, planned, targeted, bool(plans_decodes))


def _are_plans(plans: NDArray[np.int64]) -> bool:
    """Whether the numbers are whole plans."""
    at, numbers = 0, plans.data
    try:
        while at < len(numbers):
            for width, least in ((1, 0), (2, 0), (1, -1)):
                count = numbers[at]
                if count < least:
                    return False
                at += 1 + width * max(0, count)
    except IndexError:
        return False
    return at == len(numbers)
