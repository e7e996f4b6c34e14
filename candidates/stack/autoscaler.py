"""The autoscaler under design: how many replicas there should be."""

import math

PER_REPLICA = 0.525  # requests/s that a replica is trusted with
WINDOW = 60.0  # seconds over which arrivals are counted


class Autoscaler:
    """Counts replicas by the rate of arrivals."""

    def __init__(self):
        self.seen = [(0.0, 0)]

    def target(self, cluster, now):
        """How many replicas should exist."""
        return math.ceil(self.demand(cluster, now) / PER_REPLICA)

    def demand(self, cluster, now):
        """Requests that arrive in a second."""
        self.seen.append((now, cluster.arrived))
        while len(self.seen) > 2 and self.seen[1][0] <= now - WINDOW:
            self.seen.pop(0)
        then, arrived = self.seen[0]
        return (cluster.arrived - arrived) / max(now - then, 1.0)
