"""The autoscaler under design: how many replicas there should be."""

import math

TARGET_USE = 0.773  # share of the KV blocks that is to be in use


class Autoscaler:
    """In this design:

    - Replicas are counted by the KV cache that requests need: a rate says nothing of their size.
    """

    def target(self, cluster, now):
        """How many replicas should exist."""
        return math.ceil(self.demand(cluster, now) / TARGET_USE)

    def demand(self, cluster, now):
        """Replicas whose KV blocks hold all requests; those at the router are taken for average ones."""
        blocks = held = flying = 0
        for replica in cluster.replicas:
            blocks += replica.blocks_total
            held += replica.blocks_used + replica.waiting_prompt_tokens / replica.block_size
            flying += replica.running + replica.waiting
        each = held / max(flying, 1)
        return (held + each * cluster.queued) * len(cluster.replicas) / max(blocks, 1)
