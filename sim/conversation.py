"""The conversation of a run with its policies: when each is called, and what happens when one goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.complaints import cause, complaint, defined_at, named
from sim.fleet import Fleet
from sim.kernel import ARRIVAL, COMPLETION, LIVELOCK, PLAN, REFUSED, TIMED, policy_events
from sim.planning import Planner
from sim.policies import PolicyError, Router
from sim.recording import Recording
from sim.replaying import replay
from sim.routing import Dispatch, memory
from sim.state import BARREN, HELD, NOW, PERIOD, State
from sim.workloads import Clients


def converse(
    state: State,
    router: Router,
    dispatch: Dispatch,
    planner: Planner | None = None,
    fleet: Fleet | None = None,
    clients: Clients | None = None,
) -> tuple[int, int]:
    """Run the cluster to its end; return how often `route` was called and the longest queue that it left.

    `clients` are the users of a closed loop; the workload's arrivals are then found as the run goes on.

    Raises PolicyError if the router raises, gives something other than pairs of a queued request and a
    replica, or leaves requests in the queue when nothing can happen any more.
    """
    simple = planner is None and fleet is None and clients is None and not dispatch.by_priority
    if isinstance(router, Recording) and simple:
        return replay(state, router, dispatch)
    route = getattr(router, "route", None)
    if not callable(route) or isinstance(router, type):
        raise PolicyError(f"a router is an object with a method route(queue, replicas, now): got {router!r}")
    completed = getattr(router, "completed", None)
    queue = dispatch.queue
    clock, finished, turn = memory(state.clock), memory(state.completed), memory(state.turn)
    seen_by_planner = planner.requests if planner is not None else None
    requests, stale = len(state.arrival), clock[PERIOD] > 0
    calls = arrived = longest = waiting = 0
    now = 0.0
    events = policy_events(state) if clients is None else _closed_loop(state, dispatch, clients)
    for event in events:
        now = clock[NOW]
        if event == PLAN:
            assert planner is not None
            planner.plan(turn[0], now)
            continue
        if event == REFUSED:
            assert planner is not None
            raise planner.refused(turn[0], now)
        if event == LIVELOCK:
            raise PolicyError(
                f"livelock at {now:.3f} s: replica {turn[0]} has worked {BARREN} steps without computing a "
                "new token, because requests are evicted before they get as far as they were",
                place=None if planner is None else planner.where,
            )
        method, asked = "route", True
        if event == TIMED:
            assert fleet is not None
            asked = fleet.fire(now)
            if fleet.over:
                break
        try:
            if event == ARRIVAL:
                arrived += 1
                if fleet is not None:
                    fleet.arrived = arrived
                asked = dispatch.arrive(arrived - 1)
            elif event == COMPLETION:
                for request in finished[1 : finished[0] + 1].tolist():
                    view = dispatch.finish(request)
                    if seen_by_planner is not None:
                        seen_by_planner.pop(request, None)
                    if completed is not None:
                        method = "completed"
                        completed(view, now)
                method = "route"
                if fleet is not None:
                    fleet.after_completion(finished[0], now)
            if asked and dispatch.replicas:
                calls += 1
                waiting = len(queue)
                dispatch.send(route(tuple(queue.values()), dispatch.replicas, now), now)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            call = f"{named(router)}.{method}, call {calls} at {now:.3f} s with {waiting} requests queued"
            raise complaint(router, method, call, error) from cause(error)
        if len(queue) > longest:
            longest = len(queue)
        if stale:
            turn[HELD] = len(queue) > 0
        if fleet is not None and arrived == requests and not dispatch.views:
            break  # or its timers would go on
    if fleet is not None and fleet.over:
        return calls, longest
    left = int(state.gauges[:, :2].sum())
    if left and planner is not None:
        raise planner.left(left, now)
    if queue and dispatch.replicas:
        raise PolicyError(
            f"{named(router)} held {len(queue)} requests for ever: after call {calls} at {now:.3f} s there "
            "is no arrival and no completion left to call it again, and the global queue still starts with "
            f"{next(iter(queue.values()))!r}",
            place=defined_at(router, "route"),
        )
    return calls, longest


def _closed_loop(state: State, dispatch: Dispatch, clients: Clients) -> Iterator[int]:
    """The kernel's events; after each, the users whose requests have left it send their next ones.

    The kernel reads the next arrival when it is asked to go on, so it is written just before.
    """
    state.arrival[:] = np.inf
    arrival, clock, finished = memory(state.arrival), memory(state.clock), memory(state.completed)
    events, completed = policy_events(state), 0
    while True:
        while clients.finished < completed + dispatch.rejected:
            clients.finish(clock[NOW])
        if clients.arrived < len(arrival):
            arrival[clients.arrived] = clients.due
        event = next(events, None)
        if event is None:
            return
        yield event
        if event == ARRIVAL:
            clients.arrive()
        elif event == COMPLETION:
            completed += finished[0]
