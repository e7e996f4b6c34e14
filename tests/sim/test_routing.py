"""The conversation with a router: when it is called, what its pairs do, and what it gets wrong."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from sim import Cluster, PolicyError, Replica, Workload, workloads
from sim.baselines import LeastLoadedQueue, RoundRobin

WORKLOAD = Workload.from_arrays(arrival=[0.0, 0.0, 0.5], prompt_tokens=[5, 6, 7], output_tokens=[3, 3, 1])


def router(route: Callable[..., Any]) -> Any:
    """A router with this method."""
    return type("Mine", (), {"route": staticmethod(route)})()


def told(error: PolicyError) -> str:
    """The text on one line, once it is seen to fit a traceback of 80 columns and to survive pickling."""
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    first, *others = str(error).splitlines()
    assert len("E   sim.policies.PolicyError: " + first) <= 80 or " " not in first
    assert all(len("E   " + line) <= 80 for line in others)
    return " ".join(str(error).split())


def twice(queue: Any, replicas: Any, now: float) -> Any:
    return [(queue[0], replicas[0]), (queue[0], replicas[1])] if queue else []


def raises(queue: Any, replicas: Any, now: float) -> Any:
    raise KeyError("my bug")


def raises_in_a_generator(queue: Any, replicas: Any, now: float) -> Any:
    yield queue[0], replicas[0]
    raise ZeroDivisionError("my late bug")


def writes(queue: Any, replicas: Any, now: float) -> Any:
    replicas[0].waiting = 0
    return []


MEMORY: list[Any] = []


def a_finished_one(queue: Any, replicas: Any, now: float) -> Any:
    MEMORY.extend(queue)
    return [(MEMORY[0], replicas[0])] if now >= 0.5 else [(request, replicas[0]) for request in queue]


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            twice,
            "the router sent <request 0.*sent before.*once in Mine.route, call 1 at 0.000 s with 1 r",
        ),
        (lambda queue, replicas, now: None, "the router returned None where an iterable of pairs"),
        (lambda queue, replicas, now: [None], "the router gave None where a pair"),
        (lambda queue, replicas, now: [(1, 2, 3)], r"the router gave \(1, 2, 3\) where a pair"),
        (lambda queue, replicas, now: [(queue[0], 0)], "sent request 0 to 0, .* 4 objects in `replicas`"),
        (lambda queue, replicas, now: [(0, replicas[0])], "does not start with a request of `queue`"),
        (raises, r"test_routing.py:\d+: KeyError: 'my bug' in Mine.route, call 1"),
        (raises_in_a_generator, r"test_routing.py:\d+: ZeroDivisionError: my late bug"),
        (writes, r"test_routing.py:\d+: AttributeError: a view is read-only: ReplicaView.waiting"),
        (a_finished_one, "the router sent <request 0: .*once"),
        (lambda queue, replicas, now: [], "Mine held 3 requests for ever: after call 3 at 0.500 s"),
    ],
)
def test_a_broken_router_is_told_what_it_did(route: Callable[..., Any], message: str) -> None:
    """Every breach ends in a PolicyError that shows the call, never in a wrong result or a hang."""
    with pytest.raises(PolicyError) as caught:
        Cluster().run(WORKLOAD, router(route))
    assert re.search(message, told(caught.value))


@pytest.mark.parametrize(
    ("route", "below"), [(raises, 1), (raises_in_a_generator, 2), (writes, 1), (twice, 0)]
)
def test_the_line_named_is_the_policys(route: Callable[..., Any], below: int) -> None:
    """The line that raised, or the first of `route` where its result is at fault."""
    with pytest.raises(PolicyError) as caught:
        Cluster().run(WORKLOAD, router(route))
    assert caught.value.place is not None
    assert caught.value.place[:2] == (__file__, route.__code__.co_firstlineno + below)


def test_the_error_of_a_router_is_chained() -> None:
    """The policy's own exception, with its traceback, is the cause."""
    with pytest.raises(PolicyError) as caught:
        Cluster().run(WORKLOAD, router(raises))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("thing", [LeastLoadedQueue, object(), None, lambda: None])
def test_what_is_no_router_is_refused(thing: Any) -> None:
    """A class in place of an object, or anything without `route`, is named."""
    with pytest.raises(PolicyError) as caught:
        Cluster().run(WORKLOAD, thing)
    assert "a router is an object with a method route(queue, replicas, now)" in told(caught.value)


def test_an_interrupt_is_not_the_policys_fault() -> None:
    """Ctrl-C in a policy stays a KeyboardInterrupt."""

    def interrupted(queue: Any, replicas: Any, now: float) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cluster().run(WORKLOAD, router(interrupted))


def test_when_the_router_is_called() -> None:
    """Once per arrival, once per step with completions (after `completed` for each), arrivals first at
    ties."""
    calls: list[tuple[str, Any]] = []

    class Listener(RoundRobin):
        def completed(self, request: Any, now: float) -> None:
            calls.append(("completed", request.id))

        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            calls.append(("route", tuple(request.id for request in queue)))
            return super().route(queue, replicas, now)

    run = Cluster(replicas=1).run(WORKLOAD, Listener())
    assert calls == [
        ("route", (0,)),
        ("route", (1,)),
        ("completed", 0),
        ("completed", 1),
        ("route", ()),
        ("route", (2,)),
        ("completed", 2),
        ("route", ()),
    ]
    assert run.metrics["router_calls"] == 5


def test_an_arrival_comes_before_a_completion_at_the_same_instant() -> None:
    """At a tie the router hears of the arrival first, and its request joins the very next step."""
    alone = Workload.from_arrays(arrival=[0.0], prompt_tokens=[5], output_tokens=[1])
    end = Cluster(replicas=1).run(alone, RoundRobin()).requests["finish"][0]
    seen: list[tuple[int, str]] = []

    class Listener(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            seen.append((len(queue), " ".join(r.state for r in replicas[0].requests)))
            return super().route(queue, replicas, now)

    both = Workload.from_arrays(arrival=[0.0, end], prompt_tokens=[5, 5], output_tokens=[1, 1])
    run = Cluster(replicas=1).run(both, Listener())
    assert seen == [(1, ""), (1, "running"), (0, "waiting"), (0, "")]
    assert run.requests["admitted"][1] == end


def test_priority_and_session_are_shown() -> None:
    """Optional columns reach the view; a session of -1 is None."""
    shown: list[tuple[int, Any]] = []

    class Listener(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            shown.extend((request.priority, request.session) for request in queue)
            return super().route(queue, replicas, now)

    columns: dict[str, Any] = {"arrival": [0, 1], "prompt_tokens": [1, 1], "output_tokens": [1, 1]}
    Cluster().run(Workload.from_arrays(**columns, priority=[2, 0], session=[-1, 7]), Listener())
    Cluster().run(Workload.from_arrays(**columns), Listener())
    assert shown == [(2, None), (0, 7), (0, None), (0, None)]


@pytest.mark.parametrize("staleness", [0.0, 1.0])
def test_a_rejected_request_says_so(staleness: float) -> None:
    """A kept view of a request that its replica could not hold tells it, also in the error if sent again."""
    kept: list[Any] = []

    class Stubborn:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            kept.extend(queue)
            for request in queue:
                yield request, replicas[0]
                if request.id == 1:
                    yield kept[0], replicas[1]

    cluster = Cluster(replicas=2, each=(Replica(kv_blocks=4), Replica()), staleness=staleness)
    workload = Workload.from_arrays(arrival=[0, 1], prompt_tokens=[160, 9], output_tokens=[2, 2])
    with pytest.raises(PolicyError, match="it is rejected") as caught:
        cluster.run(workload, Stubborn())
    assert "send each request once" in told(caught.value)
    assert kept[0].state == "rejected"


def test_views_are_read_only_and_refer_to_nothing_hidden() -> None:
    """No attribute can be set or deleted, and from a view no memory is reached that holds what is hidden."""
    workload = workloads.sharegpt_bursty(8.0, 20, seed=1)
    hidden = {int(tokens) for tokens in workload.output_tokens if tokens > 1000}
    assert hidden

    class Prober(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            for view in (*queue, *replicas):
                for name in ("id", "index", "state", "waiting", "_gauges", "anything"):
                    with pytest.raises(AttributeError, match=f"read-only: .*{name} cannot be set to 1"):
                        setattr(view, name, 1)
                with pytest.raises(AttributeError, match="cannot be deleted"):
                    del view.prompt_tokens
                for name in type(view).__slots__:
                    value = getattr(view, name)
                    if isinstance(value, memoryview):
                        assert value.readonly
                        owner: Any = value.obj
                        while owner.base is not None:
                            owner = owner.base
                        assert not hidden & set(owner.ravel().tolist())
            return super().route(queue, replicas, now)

    Cluster().run(
        Workload.from_arrays(
            arrival=workload.arrival[:30],
            prompt_tokens=workload.prompt_tokens[:30] % 500 + 1,
            output_tokens=workload.output_tokens[:30],
        ),
        Prober(),
    )


def test_views_tell_what_they_are() -> None:
    """Their repr shows what a person debugging a router wants to know."""
    said: list[str] = []

    class Talker(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            said.extend(map(repr, (*queue, replicas[0])))
            return super().route(queue, replicas, now)

    Cluster().run(WORKLOAD, Talker())
    assert said[0] == "<request 0: arrival 0.000 s, 5 prompt tokens, 0 tokens done, queued>"
    assert said[1] == "<replica 0: 0 running, 0 waiting, 0 of 2240 blocks used>"
