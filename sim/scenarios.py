"""Changed scenarios: the same specs' runs with another load, other lengths, or other hardware, by factors.

An experiment asks with them whether an explanation holds: more KV blocks if evictions are the cause, say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.workloads import ClosedWorkload, Workload

if TYPE_CHECKING:
    from sim.cluster import Cluster

__all__ = ["KNOBS", "scenario", "scenario_here"]

KNOBS = {
    "load": "arrivals per second (moments of arrival are divided by it)",
    "prompt_tokens": "tokens of every prompt",
    "output_tokens": "tokens of every output",
    "kv_blocks": "KV blocks of every replica",
    "gpu_time": "time of every step: 2 is a GPU that takes twice as long",
}
"""What can be changed, each by a positive factor."""

_CHANGES: ContextVar[Mapping[str, float] | None] = ContextVar("changes", default=None)


@contextmanager
def scenario(changes: Mapping[str, float]) -> Iterator[None]:
    """Run every workload and cluster with these of `KNOBS` changed by factors.

    Raises ValueError for another name, or a factor that is not positive and finite.
    """
    for name, factor in changes.items():
        if name not in KNOBS:
            raise ValueError(f"the scenario changes {name!r}; expected of {', '.join(KNOBS)}")
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(
                f"the scenario has {name}={factor!r}; expected a positive factor, 1 for no change"
            )
    token = _CHANGES.set(dict(changes))
    try:
        yield
    finally:
        _CHANGES.reset(token)


def scenario_here(
    cluster: Cluster, workload: Workload | ClosedWorkload
) -> tuple[Cluster, Workload | ClosedWorkload]:
    """Cluster and workload as they are in the scenario that the caller is in; the same outside one."""
    changes = _CHANGES.get()
    if not changes:
        return cluster, workload
    return _cluster(cluster, changes), _workload(workload, changes)


def _cluster(cluster: Cluster, changes: Mapping[str, float]) -> Cluster:
    def scaled(settings: Any) -> Any:
        blocks, scale = settings.kv_blocks, settings.time_scale
        return replace(
            settings,
            kv_blocks=None if blocks is None else max(2, round(blocks * changes.get("kv_blocks", 1.0))),
            time_scale=None if scale is None else scale * changes.get("gpu_time", 1.0),
        )

    if not {"kv_blocks", "gpu_time"} & changes.keys():
        return cluster
    return replace(scaled(cluster), each=tuple(map(scaled, cluster.each)))  # type: ignore[no-any-return]


def _workload(workload: Workload | ClosedWorkload, changes: Mapping[str, float]) -> Workload | ClosedWorkload:
    columns: dict[str, Any] = {}
    for name in ("prompt_tokens", "output_tokens"):
        if name in changes:
            tokens = np.rint(getattr(workload, name) * changes[name]).astype(np.int64)
            columns[name] = np.maximum(tokens, 1)
    if "load" in changes:
        if isinstance(workload, ClosedWorkload):
            raise ValueError(
                "the scenario changes 'load' of a closed loop, whose clients decide when requests arrive; "
                "change its lengths, or the hardware"
            )
        columns["arrival"] = workload.arrival / changes["load"]
    return replace(workload, **columns)
