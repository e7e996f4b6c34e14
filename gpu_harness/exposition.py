"""The proxy's own /metrics, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from gpu_harness.guarding import GuardedRouter
from gpu_harness.replicas import Replica
from gpu_harness.views import Flight

__all__ = ["Exposition"]

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        if value == value:
            self._counts[bisect_left(_BOUNDS, value)] += 1
            self._sum += value

    def lines(self, name: str, about: str) -> Iterable[str]:
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} histogram"
        below = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self._sum!r}"
        yield f"{name}_count {below}"


class Exposition:
    """Counts of what has passed; all else is read when asked for."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.retries = 0
        self.tokens = 0
        self._seconds = {name: _Histogram() for name in ("ttft", "response_time", "queued", "staleness")}

    def over(self, flight: Flight) -> None:
        """A request is over."""
        self.outcomes[flight.outcome] += 1
        self.tokens += flight.made
        self._seconds["ttft"].add(flight.first_token - flight.arrival)
        self._seconds["response_time"].add(flight.finish - flight.arrival)
        self._seconds["queued"].add(flight.routed - flight.arrival)
        self._seconds["staleness"].add(flight.staleness)

    def text(self, queued: int, router: GuardedRouter, replicas: Iterable[Replica], now: float) -> str:
        """All metrics."""
        lines = [
            *_family(
                "glia_requests_total", "counter", "Requests that are over.", _by("outcome", self.outcomes)
            ),
            *_family(
                "glia_retries_total", "counter", "Requests sent to a second replica.", {"": self.retries}
            ),
            *_family("glia_output_tokens_total", "counter", "Tokens streamed.", {"": self.tokens}),
            *_family("glia_queue_length", "gauge", "Requests in the global queue.", {"": queued}),
            *_family("glia_router_calls_total", "counter", "Calls of the candidate.", {"": router.calls}),
            *_family("glia_router_seconds_total", "counter", "That they took.", {"": router.seconds}),
            *_family(
                "glia_router_fallbacks_total",
                "counter",
                "Calls in which LLQ decided.",
                _by("kind", router.fallbacks),
            ),
        ]
        here = [replica for replica in replicas if not replica.leaving]
        for name, about, value in (
            ("up", "Whether it takes requests.", lambda replica: int(replica.healthy)),
            ("waiting", "Requests in its queue.", lambda replica: replica.waiting),
            ("running", "Requests in its batch.", lambda replica: replica.running),
            ("blocks_used", "KV blocks in use.", lambda replica: replica.blocks_used),
            ("blocks_total", "KV blocks.", lambda replica: replica.gauges.blocks_total),
            ("view_age_seconds", "Since its last scrape.", lambda replica: now - replica.scraped),
        ):
            values = {f'{{replica="{each.index}",url="{each.url}"}}': value(each) for each in here}
            lines += _family(f"glia_replica_{name}", "gauge", about, values)
        for name, histogram in self._seconds.items():
            lines += histogram.lines(f"glia_{name}_seconds", f"Of requests: {name.replace('_', ' ')}.")
        return "\n".join(lines) + "\n"


def _by(label: str, counts: Counter[str]) -> dict[str, float]:
    return {f'{{{label}="{name}"}}': count for name, count in sorted(counts.items())}


def _family(name: str, kind: str, about: str, values: dict[str, float]) -> list[str]:
    shown = [
        f"{name}{labels} {'+Inf' if value == float('inf') else value}" for labels, value in values.items()
    ]
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *shown]
