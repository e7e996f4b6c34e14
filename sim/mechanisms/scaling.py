"""The mechanisms of autoscaling: what each claims, which evidence calls for it, and what it writes.

What to count, how far to look ahead and when to scale down are textbook means (resource-based against
rate-based scaling; trend extrapolation over the start-up time; scale-down stabilisation, as in Kubernetes).
Each is general: its edit is a few lines of any autoscaler whose `target` returns, in one place, a number made
from `self.demand(cluster, now) / CONSTANT`.
"""

from __future__ import annotations

import ast
from functools import partial

from sim.mechanisms.mechanism import FEW, Evidence, Mechanism, Numbers
from sim.mechanisms.mechanism import idea as mechanism
from sim.mechanisms.source import AutoscalerSource

__all__ = ["scaling_mechanisms"]

_IN_CACHE = '''
def demand(self, cluster, now):
    """Replicas whose KV blocks hold all requests; those at the router are taken for average ones."""
    blocks = held = flying = 0
    for replica in cluster.replicas:
        blocks += replica.blocks_total
        held += replica.blocks_used + replica.waiting_prompt_tokens / replica.block_size
        flying += replica.running + replica.waiting
    each = held / max(flying, 1)
    return (held + each * cluster.queued) * len(cluster.replicas) / max(blocks, 1)
'''
_IN_FLIGHT = '''
def demand(self, cluster, now):
    """Requests that have arrived and not completed."""
    return cluster.arrived - cluster.completed
'''
_AHEAD = '''
def ahead(self, demand, now):
    """The demand in LEAD seconds if it goes on rising as it did within the last LEAD seconds."""
    self.recent = [each for each in self.recent if each[0] >= now - LEAD] + [(now, demand)]
    then, before = self.recent[0]
    return demand + max(demand - before, 0) / max(now - then, 1) * LEAD
'''
_HELD = '''
def held(self, replicas, now):
    """The most replicas that were wanted within the last HOLD seconds."""
    self.wanted = [each for each in self.wanted if each[0] > now - HOLD] + [(now, replicas)]
    return max(each[1] for each in self.wanted)
'''


def scaling_mechanisms(entry: str) -> list[Mechanism]:
    """All of them for the autoscaler `entry`, in the order in which they build on one another."""
    idea = partial(mechanism, AutoscalerSource, entry)
    return [
        idea(
            "size by cache",
            "Replicas are counted by the KV cache that requests need: a rate says nothing of their size.",
            predicts={"gpu_hours": -1, "kv_use_mean": +1},
            gate=_cache_idle,
            edit=_by_cache,
            TARGET_USE=(0.2, 0.6, 0.9),
        ),
        idea(
            "size by requests in flight",
            "Replicas are counted by the requests served at once: of long ones there are more.",
            predicts={"gpu_hours": -1, "kv_use_mean": +1},
            gate=_cache_idle,
            edit=_by_flight,
            IN_FLIGHT=(4.0, 12.0, 48.0),
        ),
        idea(
            "look ahead",
            "A rising demand is followed to where it will be when a replica asked for now is ready.",
            predicts={"slo_violations": -1, "p99_ttft": -1},
            gate=_objectives_missed,
            edit=_look_ahead,
            LEAD=(10.0, 40.0, 150.0),
        ),
        idea(
            "scale down late",
            "Replicas are kept for a while after they were wanted, so that no dip costs a start.",
            predicts={"slo_violations": -1, "p99_ttft": -1},
            gate=_objectives_missed,
            edit=_scale_down_late,
            HOLD=(20.0, 60.0, 600.0),
        ),
    ]


def _cache_idle(evidence: Evidence) -> str | None:
    """Replicas are paid for whose cache is hardly used."""
    use, hours = evidence["kv_use_mean"], evidence["gpu_hours"]
    if use > 0.8:
        return None
    return f"{hours:.1f} GPU-hours are paid for, and {use:.0%} of the KV blocks are in use on average"


def _objectives_missed(evidence: Evidence) -> str | None:
    """Requests miss their objectives: there are too few replicas at times."""
    missed = evidence["slo_violations"]
    if missed < FEW / 10:
        return None
    return (
        f"{missed:.1%} of the requests miss their objectives, and one in a hundred waits over "
        f"{evidence['p99_ttft']:.1f} s for its first token"
    )


def _demand(autoscaler: AutoscalerSource) -> ast.BinOp | None:
    """`self.demand(...) / CONSTANT` in what `target` returns, perhaps with the demand looked at ahead."""
    answer = autoscaler.answer()
    found = [
        node
        for node in (ast.walk(answer) if answer is not None else ())
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Name)
        and any(isinstance(each, ast.Attribute) and each.attr == "demand" for each in ast.walk(node.left))
    ]
    return found[0] if len(found) == 1 and autoscaler.method("demand") is not None else None


def _counting(
    autoscaler: AutoscalerSource, demand: str, name: str, value: float, comment: str
) -> AutoscalerSource | None:
    """With another demand, divided by another constant."""
    division = _demand(autoscaler)
    if division is None or autoscaler.has_constant(name):
        return None
    counted = autoscaler.replaced(division.right, name).with_constant(name, value, comment)
    return counted.with_body("demand", demand)


def _by_cache(autoscaler: AutoscalerSource, numbers: Numbers) -> AutoscalerSource | None:
    comment = "share of the KV blocks that is to be in use"
    return _counting(autoscaler, _IN_CACHE, "TARGET_USE", numbers["TARGET_USE"], comment)


def _by_flight(autoscaler: AutoscalerSource, numbers: Numbers) -> AutoscalerSource | None:
    if autoscaler.has_constant("TARGET_USE"):
        return None
    comment = "requests at once that a replica is to have"
    return _counting(autoscaler, _IN_FLIGHT, "IN_FLIGHT", numbers["IN_FLIGHT"], comment)


def _look_ahead(autoscaler: AutoscalerSource, numbers: Numbers) -> AutoscalerSource | None:
    division = _demand(autoscaler)
    if division is None or autoscaler.method("ahead"):
        return None
    own, now = autoscaler.parameter(0), autoscaler.parameter(2)
    looked = f"{own}.ahead({autoscaler.source_of(division.left)}, {now})"
    return (
        autoscaler.replaced(division.left, looked)
        .with_state("recent", "[]")
        .with_method(_AHEAD)
        .with_constant("LEAD", numbers["LEAD"], "seconds that demand is looked at ahead")
    )


def _scale_down_late(autoscaler: AutoscalerSource, numbers: Numbers) -> AutoscalerSource | None:
    answer = autoscaler.answer()
    if answer is None or autoscaler.method("held"):
        return None
    own, now = autoscaler.parameter(0), autoscaler.parameter(2)
    return (
        autoscaler.replaced(answer, f"{own}.held({autoscaler.source_of(answer)}, {now})")
        .with_state("wanted", "[]")
        .with_method(_HELD)
        .with_constant("HOLD", numbers["HOLD"], "seconds for which a replica is kept though not wanted")
    )
