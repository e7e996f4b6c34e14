"""Autoscalers to compare with: what is deployed. Plain Python over the view of `sim.scaling`."""

from __future__ import annotations

import math

from sim.scaling import ClusterView
from sim.settings import check

__all__ = ["ConcurrencyTarget", "Fixed", "KvUtilisation", "QueueLength", "ThroughputThreshold"]


class Fixed:
    """Always so many replicas."""

    def __init__(self, replicas: int) -> None:
        check("replicas", replicas, 1, 10_000, "replicas", whole=True)
        self._replicas = replicas

    def target(self, cluster: ClusterView, now: float) -> int:
        return self._replicas


class ThroughputThreshold:
    """The off-the-shelf one: a replica for every `per_replica` requests/s that arrive, over the last `window`
    seconds. What a replica can do must be measured beforehand, and holds for one mix of requests."""

    def __init__(self, per_replica: float, window: float = 60.0) -> None:
        check("per_replica", per_replica, 1e-9, 1e9, "requests/s", whole=False)
        check("window", window, 1e-3, 1e6, "seconds", whole=False)
        self._per_replica, self._window = per_replica, window
        self._seen = [(0.0, 0)]

    def target(self, cluster: ClusterView, now: float) -> int:
        self._seen.append((now, cluster.arrived))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window:
            self._seen.pop(0)
        then, arrived = self._seen[0]
        rate = (cluster.arrived - arrived) / (now - then) if now > then else 0.0
        return math.ceil(rate / self._per_replica)


class QueueLength:
    """Like KEDA's queue triggers: a replica for every `per_replica` requests that wait, at the router and at
    the replicas, but one down at a time, and only when nothing waits for `cooldown` seconds."""

    def __init__(self, per_replica: float = 5.0, cooldown: float = 60.0) -> None:
        check("per_replica", per_replica, 1e-9, 1e9, "waiting requests", whole=False)
        check("cooldown", cooldown, 0, 1e6, "seconds", whole=False)
        self._per_replica, self._cooldown = per_replica, cooldown
        self._busy_at = 0.0

    def target(self, cluster: ClusterView, now: float) -> int:
        exist = len(cluster.replicas) + cluster.starting + cluster.down
        waiting = cluster.queued + sum(replica.waiting for replica in cluster.replicas)
        if waiting:
            self._busy_at = now
            return max(exist, math.ceil(waiting / self._per_replica))
        return exist - (now - self._busy_at >= self._cooldown)


class ConcurrencyTarget:
    """Like Knative's: as many replicas as keep the requests in flight at `target` each, averaged over the
    calls of the last `window` seconds; at once where a short window (a tenth) asks for twice what there
    is."""

    def __init__(self, target: float = 32.0, window: float = 60.0) -> None:
        check("target", target, 1e-9, 1e9, "requests in flight per replica", whole=False)
        check("window", window, 1e-3, 1e6, "seconds", whole=False)
        self._target, self._window = target, window
        self._seen: list[tuple[float, int]] = []

    def target(self, cluster: ClusterView, now: float) -> int:
        flying = cluster.queued + sum(replica.waiting + replica.running for replica in cluster.replicas)
        self._seen = [one for one in self._seen if one[0] > now - self._window] + [(now, flying)]
        recent = [count for then, count in self._seen if then > now - self._window / 10]
        panic = math.ceil(sum(recent) / len(recent) / self._target)
        stable = math.ceil(sum(count for _, count in self._seen) / len(self._seen) / self._target)
        exist = len(cluster.replicas) + cluster.starting + cluster.down
        return max(panic, stable) if panic >= 2 * exist else stable


class KvUtilisation:
    """In proportion, as Kubernetes' HPA on vLLM's KV-cache use: replicas x mean use / `target`, kept where
    that is within `tolerance`; waiting requests count as full."""

    def __init__(self, target: float = 0.7, tolerance: float = 0.1) -> None:
        check("target", target, 0.01, 1.0, "as a fraction of the blocks", whole=False)
        check("tolerance", tolerance, 0.0, 1.0, "as a fraction of the target", whole=False)
        self._target, self._tolerance = target, tolerance

    def target(self, cluster: ClusterView, now: float) -> int:
        exist = len(cluster.replicas) + cluster.starting + cluster.down
        if not cluster.replicas:
            return exist
        uses = [
            1.0 if replica.waiting else replica.blocks_used / replica.blocks_total
            for replica in cluster.replicas
        ]
        ratio = sum(uses) / len(uses) / self._target
        if abs(ratio - 1) <= self._tolerance:
            return exist
        return math.ceil(len(uses) * ratio)
