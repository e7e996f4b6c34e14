"""A policy in another process: what it would see goes there as bytes, and what it decides comes back.

`answering` is for the process that has the policy, `asking` for the one that serves requests. Questions and
answers are JSON. Only numbers that name requests and replicas are taken from an answer: whoever wrote it
may not be trusted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sim.policies import ReplicaView, RequestView
from sim.routing import iterated, no_pair
from sim.scaling import ClusterView

__all__ = ["METHODS", "answering", "asking"]

METHODS = ("route", "plan", "target")
_STATES = ("not arrived", "queued", "waiting", "running", "finished", "rejected")
_ONCE = ("id", "arrival", "prompt_tokens", "priority", "session", "prefix", "ttft_slo", "tpot_slo")
"""What of a request never changes, and is said once."""
_FIXED = ("index", "blocks_total", "block_size")
_GAUGES = ("waiting", "running", "waiting_prompt_tokens", "blocks_used", "preemptions")


def asking(ask: Callable[[bytes], bytes]) -> Any:
    """A policy with the methods of the one that `ask` leads to; ValueError if that is none."""
    methods = json.loads(ask(b'{"call": "methods"}'))
    known = [each for each in (*METHODS, "completed") if each in methods]
    if not set(known) & set(METHODS):
        raise ValueError(
            "the spec asks the candidate for decisions, but it is nothing that could make them: give its "
            "class the methods of its layer"
        )
    return _Asking(ask, known)


def answering(policy: Any) -> Callable[[bytes], bytes]:
    """What answers a question to the policy; it raises what the policy raises."""
    return _Answering(policy).answer


class _Asking:
    """Stands for a policy. It has those of the methods that the policy has."""

    def __init__(self, ask: Callable[[bytes], bytes], methods: Sequence[str]) -> None:
        self._ask = ask
        self._said: set[int] = set()
        for name in methods:
            setattr(self, name, getattr(self, f"_{name}"))

    def _route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> list[tuple[RequestView, ReplicaView]]:
        answer = self._asked("route", now, queue, replicas, queue=[request.id for request in queue])
        held, known = {each.id: each for each in queue}, {each.index: each for each in replicas}
        try:
            return [(held[request], known[replica]) for request, replica in answer]
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"the router's answer {answer!r:.60} names what is not in `queue` or `replicas`"
            ) from None

    def _completed(self, request: RequestView, now: float) -> None:
        self._asked("completed", now, [request], [], request=request.id)

    def _target(self, cluster: ClusterView, now: float) -> int:
        counts = list(cluster[1:])
        answer = self._asked("target", now, [], cluster.replicas, counts=counts)
        if type(answer) is not int:
            raise ValueError(f"the autoscaler's answer is {answer!r:.60}; expected a whole number")
        return answer

    def _plan(self, engine: Any, now: float) -> Any:
        raise ValueError(
            "a batch scheduler decides inside the servers, at every step of their engines; expected a router "
            "or an autoscaler"
        )

    def _asked(
        self,
        call: str,
        now: float,
        requests: Iterable[RequestView],
        replicas: Sequence[ReplicaView],
        **more: Any,
    ) -> Any:
        held = [(replica, replica.requests) for replica in replicas]
        seen = {request.id: request for request in requests}
        for _, inside in held:
            seen.update({request.id: request for request in inside})
        new = [each for name, each in seen.items() if name not in self._said]
        self._said.update(seen)
        question = {
            "call": call,
            "now": now,
            "new": [[getattr(each, name) for name in _ONCE] for each in new],
            "live": [[each.id, each.tokens_done, _STATES.index(each.state)] for each in seen.values()],
            "replicas": [
                [
                    [getattr(replica, name) for name in _FIXED],
                    [getattr(replica, name) for name in _GAUGES],
                    [request.id for request in inside],
                ]
                for replica, inside in held
            ],
            **more,
        }
        try:
            return json.loads(self._ask(json.dumps(question).encode()))
        except RecursionError:
            raise ValueError("the policy's answer is nested too deeply") from None


class _Answering:
    """Has the policy, and views of what it is told of."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._requests: dict[int, RequestView] = {}
        self._replicas: dict[int, _Replica] = {}
        self._tokens: dict[int, int] = {}
        self._states: dict[int, int] = {}

    def answer(self, question: bytes) -> bytes:
        """The policy's decision."""
        asked = json.loads(question)
        if asked["call"] == "methods":
            known = (*METHODS, "completed")
            return json.dumps(
                [name for name in known if callable(getattr(self._policy, name, None))]
            ).encode()
        replicas = self._see(asked)
        return json.dumps(getattr(self, asked["call"])(asked, replicas)).encode()

    def route(self, asked: dict[str, Any], replicas: list[_Replica]) -> list[list[int]]:
        """Pairs of numbers; each takes effect on the views before the next is asked for."""
        queue = [self._requests[number] for number in asked["queue"]]
        pairs: list[list[int]] = []
        for pair in iterated(self._policy.route(queue, replicas, asked["now"])):
            try:
                request, replica = pair
                named = [int(request.id), int(replica.index)]
            except (TypeError, ValueError, AttributeError):
                raise no_pair(pair) from None
            pairs.append(named)
            if isinstance(replica, _Replica) and isinstance(request, RequestView):
                self._states[request.id] = _STATES.index("waiting")
                replica.take(request)
        return pairs

    def completed(self, asked: dict[str, Any], replicas: list[_Replica]) -> None:
        """Tell it, and forget the request."""
        request = self._requests.pop(asked["request"])
        self._policy.completed(request, asked["now"])

    def target(self, asked: dict[str, Any], replicas: list[_Replica]) -> int:
        """How many replicas it wants."""
        return int(self._policy.target(ClusterView(tuple(replicas), *asked["counts"]), asked["now"]))

    def _see(self, asked: dict[str, Any]) -> list[_Replica]:
        """Bring the views up to date; those of the replicas that take requests."""
        for number, tokens, state in asked["live"]:
            self._tokens[number], self._states[number] = tokens, state
        for number, arrival, prompt, priority, session, prefix, ttft, tpot in asked["new"]:
            live: tuple[Any, Any] = self._tokens, self._states
            self._requests[number] = RequestView(
                number, arrival, prompt, priority, session, live[0], live[1], tuple(prefix), ttft, tpot
            )
        found = []
        for (index, total, size), gauges, inside in asked["replicas"]:
            replica = self._replicas.get(index)
            if replica is None or (replica.blocks_total, replica.block_size) != (total, size):
                replica = self._replicas[index] = _Replica(index, total, size)
            replica.see(gauges, [self._requests[number] for number in inside if number in self._requests])
            found.append(replica)
        return found


class _Replica(ReplicaView):
    """A replica as the last question showed it, and what the policy has sent there since."""

    __slots__ = ("_held",)
    _gauges: list[int]
    _held: list[RequestView]

    def __init__(self, index: int, blocks_total: int, block_size: int) -> None:
        nothing: Any = None
        super().__init__(
            index,
            blocks_total,
            block_size,
            gauges=nothing,
            seats=nothing,
            ends=nothing,
            behind=nothing,
            views={},
        )

    def see(self, gauges: list[int], held: list[RequestView]) -> None:
        """What there is now."""
        object.__setattr__(self, "_gauges", gauges)
        object.__setattr__(self, "_held", held)

    def take(self, request: RequestView) -> None:
        """One more, which waits."""
        self._gauges[0] += 1
        self._gauges[2] += request.prompt_tokens
        self._held.append(request)

    @property
    def requests(self) -> tuple[RequestView, ...]:
        return tuple(self._held)
