"""Which evidence calls for a routing mechanism: thresholds on the metrics of `sim.metrics`, with the reason
told.

Each function takes the means of a candidate's metrics and gives a sentence, or None. It raises KeyError where
a metric is missing. The thresholds say when an effect is large enough to be worth a look; they are not tuned
to a workload.
"""

from __future__ import annotations

from sim.mechanisms.mechanism import FEW, SOME, Evidence
from sim.mechanisms.scheduling import decodes_wait_for_prefills

FULL = 0.95
"""A KV cache is full at times if the 99th percentile of its use is above."""


def cache_runs_out(evidence: Evidence) -> str | None:
    """Requests are evicted, or wait at replicas whose cache is full."""
    restarted, waits = evidence["restarted_fraction"], evidence["replica_wait_share"]
    if evidence["kv_use_p99"] < FULL or (restarted < FEW and waits < SOME):
        return None
    return (
        f"KV caches run full ({evidence['kv_use_p99']:.0%} at the 99th percentile): {restarted:.0%} of the "
        f"requests are evicted and restarted, and {waits:.0%} of the response time is waiting at replicas"
    )


def queue_at_router(evidence: Evidence) -> str | None:
    """Requests wait at the router, and prompts are a good part of their work."""
    waits = evidence["router_wait_share"]
    prompts = evidence["mean_prompt_tokens"] / (
        evidence["mean_prompt_tokens"] + evidence["mean_output_tokens"]
    )
    if waits < SOME or prompts < SOME:
        return None
    return (
        f"{waits:.0%} of the response time is waiting at the router, "
        f"and prompts are {prompts:.0%} of all tokens"
    )


def new_requests_evicted(evidence: Evidence) -> str | None:
    """Requests are still evicted, or head-room leaves blocks idle while requests wait."""
    restarted, waits = evidence["restarted_fraction"], evidence["router_wait_share"]
    idle = 1 - evidence["kv_use_mean"]
    if waits < FEW or evidence["batch_full_share"] > SOME or (restarted < FEW and idle < SOME):
        return None
    return (
        f"{restarted:.0%} of the requests are evicted although {waits:.0%} of the response time is waiting "
        f"at the router, with {idle:.0%} of the blocks idle"
    )


def work_is_recomputed(evidence: Evidence) -> str | None:
    """Evicted requests had come far, so that much is computed again."""
    share, outputs, prompts = (
        evidence[name] for name in ("recompute_share", "mean_output_tokens", "mean_prompt_tokens")
    )
    if share < FEW:
        return None
    return (
        f"{share:.0%} of the response time is recomputation after evictions; "
        f"a request grows from {prompts:.0f} prompt tokens by {outputs:.0f}"
    )


def queue_at_replicas(evidence: Evidence) -> str | None:
    """Requests wait in the replicas' queues for a place in the batch, not for blocks."""
    waits, full, use = (evidence[name] for name in ("replica_wait_share", "batch_full_share", "kv_use_p99"))
    if waits < SOME or full < SOME or use > FULL:
        return None
    return (
        f"{waits:.0%} of the response time is waiting at replicas, whose batches are full {full:.0%} "
        f"of the time while their KV caches are never much above {use:.0%}"
    )


def sent_prompts_delay_decodes(evidence: Evidence) -> str | None:
    """Requests are held at the router anyway, and those sent delay decodes at the replicas."""
    return None if evidence["router_wait_share"] < FEW else decodes_wait_for_prefills(evidence)


def replicas_uneven(evidence: Evidence) -> str | None:
    """Replicas hold different numbers of requests."""
    imbalance = evidence["replica_imbalance"]
    if imbalance < 2 * SOME:
        return None
    return f"the number of requests differs between replicas by {imbalance:.0%} of its mean"


def idle_while_waiting(evidence: Evidence) -> str | None:
    """Blocks are free, yet requests wait at the router."""
    waits, use = evidence["router_wait_share"], evidence["kv_use_mean"]
    if waits < SOME or use > 0.8 or evidence["batch_full_share"] > SOME:
        return None
    return (
        f"{waits:.0%} of the response time is waiting at the router "
        f"while {1 - use:.0%} of the blocks are idle"
    )


def some_wait_for_ever(evidence: Evidence) -> str | None:
    """The slowest requests wait out of proportion."""
    slowest, mean = evidence["p99_response_time"], evidence["mean_response_time"]
    if evidence["router_wait_share"] < SOME or mean <= 0 or slowest < 15 * mean:
        return None
    return f"one request in a hundred takes over {slowest:.0f} s, {slowest / mean:.0f} times the mean"
