"""Replicas that come, go and fail, told plainly: the reference stepper's timers, autoscaling and payment."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim import Cluster
from sim.scaling import ClusterView

if TYPE_CHECKING:
    from tests.sim.reference import Replica, Request


class Fleet:
    """What each replica is - active, starting, draining, down or off - and what will change it when."""

    def __init__(self, cluster: Cluster, replicas: list[Replica], autoscaler: Any, begin: float) -> None:
        self.scaling, self.replicas, self.autoscaler = cluster.autoscaling, replicas, autoscaler
        self.status = {r.index: "active" if r.index < cluster.replicas else "off" for r in replicas}
        self.since = {r.index: 0.0 for r in replicas if r.index < cluster.replicas}
        self.back: dict[int, float] = {}
        self.bills: list[tuple[float, float]] = []
        self.timers: list[tuple[float, int, Callable[[float], list[Request]]]] = []
        self.set = 0
        self.arrived = self.completed = 0
        for failure in cluster.failures:
            self.at(failure.at, lambda now, failure=failure: self.fail(failure, now))  # type: ignore[misc]
        if autoscaler is not None:
            assert self.scaling is not None
            self.at((begin // self.scaling.interval + 1) * self.scaling.interval, self.scale)
        self.view: Callable[[], tuple[list[Any], int]] = lambda: ([], 0)

    def at(self, moment: float, action: Callable[[float], list[Request]]) -> None:
        self.set += 1
        self.timers.append((moment, self.set, action))
        self.timers.sort(key=lambda timer: timer[:2])

    def are(self, *statuses: str) -> list[int]:
        return [index for index, status in self.status.items() if status in statuses]

    def fire(self, now: float) -> tuple[list[Request], bool]:
        """All that is due: the requests that were lost, and whether the router has to know."""
        before, lost = self.are("active"), []
        while self.timers and self.timers[0][0] <= now:
            lost += self.timers.pop(0)[2](now)
        return lost, bool(lost) or before != self.are("active")

    def fail(self, failure: Any, now: float) -> list[Request]:
        index = failure.replica
        if self.status[index] not in ("active", "draining", "down"):
            return []
        lost: list[Request] = self.replicas[index].fail(now)
        if self.status[index] == "draining" or failure.duration == math.inf:
            self.stop(index, now)
        else:
            so_far = self.back[index] if self.status[index] == "down" else 0.0
            self.status[index] = "down"
            self.outage(index, max(so_far, now + failure.duration))
        return lost

    def outage(self, index: int, until: float) -> None:
        self.back[index] = until

        def recover(now: float) -> list[Request]:
            over = self.status[index] == "down" and self.back[index] <= now
            return self.activate(index) if over else []

        self.at(until, recover)

    def activate(self, index: int) -> list[Request]:
        self.status[index] = "active"
        return []

    def scale(self, now: float) -> list[Request]:
        """The autoscaler's word: draining ones come back, others start; or go those that are down, those
        that start and the emptiest."""
        assert self.scaling is not None
        offered, queued = self.view()
        starting, draining, down = (len(self.are(one)) for one in ("starting", "draining", "down"))
        seen = ClusterView(tuple(offered), starting, draining, down, queued, self.arrived, self.completed)
        target = self.autoscaler.target(seen, now)
        target = max(min(target, self.scaling.max_replicas), self.scaling.min_replicas)
        there = len(self.are("active", "starting", "down"))
        for _ in range(target - there):
            if self.are("draining"):
                self.status[self.are("draining")[0]] = "active"
            else:
                self.start(self.are("off")[0], now)
        for _ in range(there - target):
            if self.are("down"):
                self.stop(max(self.are("down"), key=lambda index: (self.back[index], index)), now)
            elif self.are("starting"):
                self.stop(max(self.are("starting"), key=lambda index: (self.since[index], index)), now)
            elif self.are("active"):
                index = min(self.are("active"), key=lambda i: (len(self.replicas[i].requests), -i))
                self.status[index] = "draining"
                self.after_completion(now)
        self.at(now + self.scaling.interval, self.scale)
        return []

    def start(self, index: int, now: float) -> None:
        assert self.scaling is not None
        self.status[index], self.since[index] = "starting", now

        def ready(later: float) -> list[Request]:
            same = self.status[index] == "starting" and self.since[index] == now
            return self.activate(index) if same else []

        self.at(now + self.scaling.provisioning_time + self.scaling.load_time, ready)

    def stop(self, index: int, now: float) -> None:
        self.status[index] = "off"
        self.bills.append((self.since.pop(index), now))

    def after_completion(self, now: float) -> None:
        """What has drained stops, and forgets its cache."""
        for index in self.are("draining"):
            if not self.replicas[index].requests:
                self.stop(index, now)
                self.replicas[index].forget()

    def bill(self, begin: float, end: float) -> float:
        """Replica-seconds between two moments."""
        bills = [*self.bills, *((since, end) for since in self.since.values())]
        return sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in bills)
