"""Where the time of a simulated request goes: `python -m sim bench --stages`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from sim import conversation, kernel
from sim.bench import AZURE_CLUSTER, ReadingLeastLoadedQueue, azure
from sim.cluster import warm_up
from sim.metrics import measure
from sim.policies import ReplicaView, RequestView
from sim.state import State

__all__ = ["stages"]


class Replay:
    """Sends every request where it went before: a router that reads nothing and thinks nothing."""

    def __init__(self, replica: Sequence[int]) -> None:
        self._replica = replica

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float
    ) -> Iterable[tuple[RequestView, ReplicaView]]:
        return [(request, replicas[self._replica[request.id]]) for request in queue]


class Core:
    """Counts the seconds in the compiled core, and how often it is resumed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.resumptions = 0

    def __call__(self, state: State) -> Iterator[int]:
        clock = time.perf_counter
        events = iter(kernel.policy_events(state))
        while True:
            began = clock()
            event = next(events, None)
            self.seconds += clock() - began
            self.resumptions += 1
            if event is None:
                return
            yield event


def stages(trace: Path, repeats: int) -> Iterator[str]:
    """The lines on workload W, least of so many runs each: the core by a clock around each resumption, the
    router against one that replays its decisions, the rest by what is left."""
    warm_up()
    workload = azure(trace)
    run = AZURE_CLUSTER.run(workload, ReadingLeastLoadedQueue())
    totals = run.totals
    decided: list[int] = run.requests["replica"].tolist()
    assert totals["queue_max"] == 0  # or the replay would send what was held

    def core() -> float:
        counted = Core()
        with patch.object(conversation, "policy_events", counted):
            AZURE_CLUSTER.run(workload, Replay(decided))
        return counted.seconds - counted.resumptions * tick

    def whole() -> None:
        AZURE_CLUSTER.run(workload, ReadingLeastLoadedQueue()).metrics  # noqa: B018

    def replayed() -> None:
        AZURE_CLUSTER.run(workload, Replay(decided)).metrics  # noqa: B018

    def ends() -> None:
        AZURE_CLUSTER.run(workload, Replay(decided), horizon=1e-9)

    tick = min(_seconds(lambda: None) for _ in range(1000))
    total, silent, frame = (min(_seconds(one) for _ in range(repeats)) for one in (whole, replayed, ends))
    compiled = min(core() for _ in range(repeats))
    measured = min(_seconds(lambda: measure(run.requests, run.series, totals)) for _ in range(repeats))
    parts = {
        f"compiled core: {totals['steps']:,.0f} steps, {totals['decode_tokens']:,.0f} decodes": compiled,
        f"router: {totals['router_calls']:,.0f} calls that read all views": total - silent,
        "global queue, views, calls": silent - compiled - frame - measured,
        "arrays of the run, before and after": frame,
        "metrics": measured,
    }
    for name, seconds in parts.items():
        yield f"{name:60s} {seconds / len(workload) * 1e6:6.2f} us per request  {seconds / total:4.0%}"
    yield f"{'all':60s} {total / len(workload) * 1e6:6.2f} us per request"


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
