"""What the simulator gives to pytest-glia, without importing it: testbed, audit, and ideas for policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from sim import metrics
from sim.mechanisms import Mechanism, mechanisms_of
from sim.recording import record, recording
from sim.scenarios import KNOBS, scenario
from sim.worlds import future_changed, varied

hookimpl = pluggy.HookimplMarker("glia")


@hookimpl
def glia_mechanisms(path: str, entry: str, source: str) -> Sequence[Mechanism]:
    """Those of the candidate's layer: a class with route(self, queue, replicas, now), plan(self, engine, now)
    or target(self, cluster, now)."""
    return mechanisms_of(source, entry)


class _Audit:
    """Routers, batch schedulers and autoscalers are recorded, replayed, and met with other worlds."""

    name = "sim"
    record = staticmethod(record)
    recording = staticmethod(recording)
    varied = staticmethod(varied)
    future_changed = staticmethod(future_changed)
    knobs = KNOBS
    metrics = metrics.__doc__ or ""
    scenario = staticmethod(scenario)

    # What is imported here loads Numba, which pytest need not for being started.
    def answering(self, policy: Any) -> Callable[[bytes], bytes]:
        from sim.apart import answering

        return answering(policy)

    def asking(self, ask: Callable[[bytes], bytes]) -> Any:
        from sim.apart import asking

        return asking(ask)


@hookimpl
def glia_audits() -> _Audit:
    """Decisions by the call; see `sim.recording` and `sim.worlds`."""
    return _Audit()


@hookimpl
def glia_testbed(name: str) -> Callable[..., Any] | None:
    """`sim` is the simulated cluster, its kernel compiled and loaded."""
    if name == "sim":
        from sim.cluster import Cluster, warm_up

        warm_up(replays=True)
        return Cluster
    return None
