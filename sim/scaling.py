"""The autoscaler's side of the cluster: the protocol that it follows, the view that it reads, and how
replicas come, go and fail.

An autoscaler is any class with a method `target`; nothing needs to be imported or inherited:

    class TwoPerHundredWaiting:
        def target(self, cluster, now):
            return 1 + sum(replica.waiting for replica in cluster.replicas) // 50
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sim.policies import ReplicaView
from sim.settings import check

__all__ = ["Autoscaler", "Autoscaling", "ClusterView", "Failure"]


class ClusterView(NamedTuple):
    """The cluster as an autoscaler sees it."""

    replicas: tuple[ReplicaView, ...]
    """Those that take requests, by index."""
    starting: int
    """Replicas asked for that are not ready yet."""
    draining: int
    """Replicas that finish what they have and then stop."""
    down: int
    """Replicas that failed and will come back."""
    queued: int
    """Requests in the global queue."""
    arrived: int
    """Requests since the start."""
    completed: int
    """Requests since the start."""


class Autoscaler(Protocol):
    """Decides how many replicas there should be."""

    def target(self, cluster: ClusterView, now: float) -> int:
        """How many replicas should exist, those that start or are down included; called every
        `Autoscaling.interval` seconds. Held between `min_replicas` and `max_replicas`."""
        ...


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """How a cluster scales; ValueError if a setting is out of its range."""

    max_replicas: int = 8
    min_replicas: int = 1
    interval: float = 15.0
    """Seconds between two calls of the autoscaler; the first is at the first multiple after an arrival."""
    provisioning_time: float = 30.0
    """Seconds until a machine is there; it is paid for from the moment it is asked for."""
    load_time: float = 30.0
    """Seconds from then until the model is loaded and the replica takes requests."""

    def __post_init__(self) -> None:
        check("max_replicas", self.max_replicas, 1, 10_000, "replicas", whole=True)
        check("min_replicas", self.min_replicas, 1, self.max_replicas, "replicas", whole=True)
        check("interval", self.interval, 1e-3, 1e6, "seconds between two calls", whole=False)
        check("provisioning_time", self.provisioning_time, 0, 1e6, "seconds", whole=False)
        check("load_time", self.load_time, 0, 1e6, "seconds", whole=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """A replica fails at a moment and comes back, empty, after a while; ValueError if a field is out of
    range.

    Its requests go back to the global queue, to be computed again with what they have already streamed. One
    that is down already stays so until the last of its failures is over; one that starts or is off has
    nothing to fail.
    """

    replica: int
    at: float
    """Seconds."""
    duration: float = 60.0
    """Seconds until it takes requests again, model load included, for which it is paid; infinite if it is
    gone for ever (an autoscaler may start another in its place)."""

    def __post_init__(self) -> None:
        check("replica", self.replica, 0, 10_000, "as an index", whole=True)
        check("at", self.at, 0, math.inf, "seconds", whole=False)
        if self.duration != math.inf:
            check("duration", self.duration, 0, math.inf, "seconds", whole=False)
