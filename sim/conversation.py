"""The conversation of a run with its policies: when each is called, and what happens when one goes wrong."""

from __future__ import annotations

from sim.complaints import complaint, defined_at
from sim.kernel import ARRIVAL, COMPLETION, policy_events
from sim.policies import PolicyError, Router
from sim.routing import Dispatch, memory
from sim.state import NOW, State


def converse(state: State, router: Router, dispatch: Dispatch) -> tuple[int, int]:
    """Run the cluster to its end; return how often `route` was called and the longest queue that it left.

    Raises PolicyError if the router raises, gives something other than pairs of a queued request and a
    replica, or leaves requests in the queue when nothing can happen any more.
    """
    route = getattr(router, "route", None)
    if not callable(route) or isinstance(router, type):
        raise PolicyError(f"a router is an object with a method route(queue, replicas, now): got {router!r}")
    completed = getattr(router, "completed", None)
    queue = dispatch.queue
    clock, finished = memory(state.clock), memory(state.completed)
    calls = arrived = longest = waiting = 0
    now = 0.0
    for event in policy_events(state):
        now = clock[NOW]
        method = "route"
        try:
            if event == ARRIVAL:
                arrived += 1
                if not dispatch.arrive(arrived - 1):
                    continue
            elif event == COMPLETION:
                for request in finished[1 : finished[0] + 1].tolist():
                    view = dispatch.finish(request)
                    if completed is not None:
                        method = "completed"
                        completed(view, now)
                method = "route"
            calls += 1
            waiting = len(queue)
            dispatch.send(route(tuple(queue.values()), dispatch.replicas, now), now)
        except Exception as error:
            call = f"{_name(router)}.{method}, call {calls} at {now:.3f} s with {waiting} requests queued"
            raise PolicyError(complaint(router, method, call, error)) from error
        if len(queue) > longest:
            longest = len(queue)
    if queue:
        raise PolicyError(
            f"{_name(router)} held {len(queue)} requests for ever: after call {calls} at {now:.3f} s there "
            "is no arrival and no completion left to call it again, and the global queue still starts with "
            f"{next(iter(queue.values()))!r}{defined_at(router, 'route')}"
        )
    return calls, longest


def _name(policy: object) -> str:
    return type(policy).__name__
