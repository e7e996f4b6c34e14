"""The global queue: holds requests until the router gives each a replica, and keeps the books of both."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from gpu_harness.guarding import GuardedRouter
from gpu_harness.replicas import Replica
from gpu_harness.views import Flight, ServedRequest, Server, flight_of, replica_of
from sim.complaints import Refused, shown

__all__ = ["Dispatcher"]


class Dispatcher:
    """Asks the router at every arrival and completion, whenever replicas come or go, and, while it holds
    requests, at every scrape. Where it holds some while all replicas are idle, and does so for `patience`
    seconds, LLQ sends them, and that is counted ("held")."""

    def __init__(
        self,
        router: GuardedRouter,
        replicas: Callable[[], list[Replica]],
        clock: Callable[[], float],
        patience: float = 1.0,
    ) -> None:
        """`replicas` are those that take requests now, by index; `clock` gives seconds since the start."""
        self._router, self._replicas, self._clock = router, replicas, clock
        self._patience, self._held_since = patience, math.inf
        self._queue: dict[int, Flight] = {}
        self.most_queued = 0

    def __len__(self) -> int:
        """Requests in the global queue."""
        return len(self._queue)

    def __iter__(self) -> Any:
        return iter(self._queue.values())

    async def replica_for(self, flight: Flight) -> Replica:
        """Where the request goes; returns when the router has sent it. Cancelled, it leaves the queue."""
        flight.state, flight.replica = "queued", None
        flight.admission = asyncio.get_running_loop().create_future()
        last = next(reversed(self._queue), -1)
        self._queue[flight.id] = flight
        if last > flight.id:  # it comes back: its place is by arrival
            self._queue = dict(sorted(self._queue.items()))
        try:
            self.route()
            replica: Replica = await flight.admission
            return replica
        except BaseException:
            self.gone(flight)
            raise

    def gone(self, flight: Flight, *, completed: bool = False, state: str = "finished") -> None:
        """The request is over here, or on its replica: finished, failed, or given up by its client."""
        queued = self._queue.pop(flight.id, None) is not None
        replica = flight.replica
        if replica is not None:
            replica.drop(flight)
        flight.state = state
        if completed:
            self._router.completed(flight.view, self._clock())
        if replica is not None or (queued and self._queue):
            self.route()

    def scraped(self) -> None:
        """Replicas were seen anew."""
        if self._queue:
            self.route()

    def route(self) -> None:
        """Ask the router, and let its pairs take effect."""
        replicas = [replica.view for replica in self._replicas()]
        if not replicas:
            self.most_queued = max(self.most_queued, len(self._queue))
            return
        queue = tuple(flight.view for flight in self._queue.values())
        now = self._clock()
        self._router.route(queue, replicas, now, self._take)
        idle = not any(replica_of(view).flights or view.running + view.waiting for view in replicas)
        if not (self._queue and idle):
            self._held_since = math.inf
        elif now - self._held_since > self._patience:
            why = f"it holds {len(self._queue)} requests for {self._patience:g} s while all replicas are idle"
            self._router.fell("held", why)
            self._router.fall_back(
                [flight.view for flight in self._queue.values()], replicas, now, self._take
            )
            self._held_since = math.inf
        else:  # views are as old as the last scrape: the next one may change the router's mind
            self._held_since = min(self._held_since, now)
        self.most_queued = max(self.most_queued, len(self._queue))

    def _take(self, pair: Any) -> None:
        try:
            request, server = pair
        except (TypeError, ValueError):
            raise Refused(
                f"the router gave {shown(pair)} where a pair (request, replica) is expected"
            ) from None
        flight = flight_of(request) if isinstance(request, ServedRequest) else None
        if flight is None or self._queue.get(flight.id) is not flight:
            raise Refused(f"the pair {shown(pair)} does not start with a request of `queue`")
        if not isinstance(server, Server) or not replica_of(server).takes_requests:
            raise Refused(f"the pair {shown(pair)} does not end with one of `replicas`")
        del self._queue[flight.id]
        replica, now = replica_of(server), self._clock()
        replica.send(flight, now)
        flight.routed, flight.staleness = now, now - replica.scraped
        if not flight.admission.done():
            flight.admission.set_result(replica)
