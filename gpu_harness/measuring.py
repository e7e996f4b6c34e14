"""From what a load generator, a proxy and servers saw to the simulator's `Run`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_harness.load import Answer
from gpu_harness.sampling import Samples
from sim.results import STATUSES, Run
from sim.workloads import Workload

__all__ = ["Alone", "Inside", "Place", "as_run", "inside"]

Floats = NDArray[np.float64]
NAN = math.nan


@dataclass(frozen=True)
class Alone:
    """The response time of a request alone on an idle replica: first + per_prompt_token x prompt + tpot x
    (output - 1) seconds, from probes; the yardstick of slowdowns."""

    first: float
    per_prompt_token: float
    tpot: float

    @classmethod
    def fitted(cls, probes: Sequence[tuple[int, Answer]]) -> Alone:
        """Least squares through probes (prompt tokens, answer) that were alone."""
        prompts = np.array([prompt for prompt, _ in probes], np.float64)
        ttft = np.array([answer.token_times[0] - answer.due for _, answer in probes])
        slope = first = 0.0
        if np.ptp(prompts) > 0:
            slope, first = (float(value) for value in np.polyfit(prompts, ttft, 1))
        if slope <= 0:
            slope, first = 0.0, float(ttft.mean())
        gaps = [
            (answer.token_times[-1] - answer.token_times[0]) / (len(answer.token_times) - 1)
            for _, answer in probes
            if len(answer.token_times) > 1
        ]
        return cls(max(first, 1e-6), slope, float(np.mean(gaps)) if gaps else 0.0)

    def seconds(self, workload: Workload) -> Floats:
        """For each request."""
        found: Floats = (
            self.first
            + self.per_prompt_token * workload.prompt_tokens
            + self.tpot * (workload.output_tokens - 1)
        )
        return found


@dataclass(frozen=True)
class Place:
    """What the proxy knows of a request: when it left the global queue, and for which replica."""

    routed: float = NAN
    replica: int = -1


@dataclass(frozen=True)
class Inside:
    """What only the engine knows of a request (`gpu_harness.request_log`); seconds since the start."""

    admitted: float
    cached_tokens: int
    restarts: int
    recompute_time: float


def inside(lines: Iterable[str], run: str, start: float, ends: Mapping[int, float]) -> dict[int, Inside]:
    """By number of the request what lines of a request log say of this run's; `start` of the workload on
    `time.monotonic()`, `ends` of requests in seconds since then. A line that is cut off says nothing."""
    found = {}
    for line in lines:
        try:
            story = json.loads(line)
        except ValueError:
            continue
        _, mark, rest = story["request"].partition(f"glia-{run}-")
        number = rest.partition("-")[0]
        if not mark or not number.isdigit():
            continue
        end = ends.get(int(number), NAN)
        lost = [(a - start, end if b is None else b - start) for a, b in story["evictions"]]
        found[int(number)] = Inside(
            story["admitted"] - start, int(story["cached"]), len(lost), _covered(lost)
        )
    return found


def _covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals that are in order of their beginnings."""
    total, until = 0.0, -math.inf
    for begin, end in intervals:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def as_run(
    workload: Workload,
    answers: Sequence[Answer],
    *,
    samples: Samples,
    alone: Alone,
    end: float,
    places: Mapping[int, Place],
    insides: Mapping[int, Inside] | None,
    totals: Mapping[str, float],
    paid: Sequence[float],
    gpus: int,
) -> Run:
    """The run: one row a request that was sent, in order of arrival.

    Without `insides` (None) restarts and recompute_time are NaN, for the servers do not tell them, and so are
    the metrics made from them. Requests that failed are unfinished.
    """
    count = len(answers)
    arrival = workload.arrival[:count]

    def column(values: Iterable[float], kind: type = np.float64) -> NDArray[Any]:
        return np.fromiter(values, kind, count)

    known = insides or {}
    places = {number: places.get(number, Place(answers[number].sent)) for number in range(count)}
    first = [answer.token_times[0] if answer.token_times else NAN for answer in answers]
    admitted = [
        known[number].admitted if number in known else (NAN if math.isnan(first[number]) else place.routed)
        for number, place in places.items()
    ]
    # Clocks of two processes: nothing is admitted before it was sent, nor after its first token.
    admitted = [
        NAN if math.isnan(when) else max(places[number].routed, min(when, first[number]))
        for number, when in enumerate(admitted)
    ]
    none = insides is None
    slo = {
        name: np.full(count, NAN) if values is None else values[:count]
        for name, values in (("ttft_slo", workload.ttft_slo), ("tpot_slo", workload.tpot_slo))
    }
    requests = {
        "arrival": arrival,
        "routed": column(place.routed for place in places.values()),
        "admitted": column(admitted),
        "first_token": column(first),
        "finish": column(NAN if answer.error else answer.finish for answer in answers),
        "prompt_tokens": workload.prompt_tokens[:count],
        "output_tokens": workload.output_tokens[:count],
        "tokens_made": column((len(answer.token_times) for answer in answers), np.int64),
        "replica": column((place.replica for place in places.values()), np.int64),
        "restarts": column(
            (NAN if none else (known[n].restarts if n in known else 0) for n in range(count)),
            np.float64 if none else np.int64,
        ),
        "recompute_time": column(
            NAN if none else (known[n].recompute_time if n in known else 0.0) for n in range(count)
        ),
        "cached_tokens": column(
            (known[n].cached_tokens if n in known else answers[n].cached_tokens for n in range(count)),
            np.int64,
        ),
        "rejected": np.zeros(count, np.int64),
        "alone": alone.seconds(workload)[:count],
        **slo,
    }
    return _with_series(requests, samples, paid=paid, end=end, totals=totals, gpus=gpus)


def _with_series(
    requests: Mapping[str, NDArray[Any]],
    samples: Samples,
    *,
    paid: Sequence[float],
    end: float,
    totals: Mapping[str, float],
    gpus: int,
) -> Run:
    running, blocks = samples.column("running"), samples.column("blocks_used")
    replicas = running.shape[1]
    series = {
        "time": np.array(samples.times, np.float64),
        "running": running,
        "waiting": samples.column("waiting"),
        "blocks_used": blocks,
        **dict(zip(STATUSES, np.array(samples.statuses, np.int64).reshape(-1, len(STATUSES)).T, strict=True)),
    }
    room = samples.column("blocks_total")
    busy = running > 0
    use = (blocks / np.maximum(room, 1))[busy]
    counted = {
        "replicas": float(sum(samples.statuses[0])) if samples.statuses else 0.0,
        "replica_time": sum(paid),
        "gpu_time": sum(paid) * gpus,
        "end": end,
        "scheduler_calls": 0.0,
        "autoscaler_calls": 0.0,
        "busy_time": float(busy.mean() * busy.shape[1] * end) if busy.size else 0.0,
        "batch_full_time": NAN,
        "steps": samples.gained("steps"),
        "prefill_tokens": samples.gained("prompt_tokens"),
        "decode_tokens": samples.gained("generation_tokens"),
        "looked_up_tokens": samples.gained("looked_up_tokens"),
        "hit_tokens": samples.gained("hit_tokens"),
        "kv_use_mean": float(use.mean()) if use.size else 0.0,
        "kv_use_p99": float(np.percentile(use, 99)) if use.size else 0.0,
        "preemptions": samples.gained("preemptions"),
        **totals,
    }
    table = {
        "kv_blocks": room.max(axis=0) if len(room) else np.zeros(replicas, np.int64),
        "gpus": np.full(replicas, gpus, np.int64),
        "paid": np.array(paid, np.float64),
    }
    return Run(requests=requests, series=series, replicas=table, totals=counted, marks={})
