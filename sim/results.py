"""The result of a run: a table of requests, series of replicas, and the metrics made from them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim import state as layout
from sim.metrics import measure

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STATUSES", "Run", "collect"]

STATUSES = ("active", "starting", "draining", "down")
"""What a replica can be, besides off."""


@dataclass(frozen=True, eq=False)
class Run:
    """What happened. All times in seconds since the start of the workload."""

    requests: Mapping[str, NDArray[Any]]
    """Columns, one entry a request that arrived, in order of arrival: arrival, routed (left the global
    queue), admitted (first entered a batch), first_token, finish (each NaN if it never happened),
    prompt_tokens, output_tokens, tokens_made (of the output, by the end), replica (-1 if none), restarts
    (evictions), recompute_time (from each eviction until the lost tokens are computed again), cached_tokens
    (found in the prefix cache), rejected (0 or 1), alone (response time it would have had alone), ttft_slo,
    tpot_slo (NaN for none)."""
    series: Mapping[str, NDArray[Any]]
    """time[k]; [k, replica]: running, waiting (requests), blocks_used; [k]: how many replicas are active
    (take requests), starting, draining (finish what they have) and down (failed)."""
    replicas: Mapping[str, NDArray[Any]]
    """Columns, one entry a replica: kv_blocks (that requests can have), gpus, paid (seconds, of those from
    the first arrival to the end, for which it existed: starting, draining and down included)."""
    totals: Mapping[str, float]
    """What is counted during the run rather than per request: replicas (at the start), replica_time
    (replica-seconds paid for), gpu_time (the same, each replica times its GPUs), end (seconds), router_calls,
    scheduler_calls, autoscaler_calls, requeued (requests that failures put back), queue_max (requests left in
    the global queue), busy_time, batch_full_time (replica-seconds), steps, prefill_tokens, decode_tokens,
    looked_up_tokens and hit_tokens (of the prefix cache), kv_use_mean, kv_use_p99 (fractions of the blocks,
    weighted by the time of steps). Of a step that a failure or the horizon cuts off counts the time until
    then, and no token."""
    marks: Mapping[str, str]
    """By name of each cost profile in use, what of it is not measured but from a data sheet or assumed; empty
    if all is measured (`sim.costs.Profile.marks`)."""

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """All metrics by name; `sim.metrics` defines each."""
        return measure(self.requests, self.series, self.totals)

    @property
    def tables(self) -> Mapping[str, Mapping[str, NDArray[Any]]]:
        """What an analysis may look at: requests, replicas, the cluster over time, and each replica over time
        (a row a replica and moment)."""
        time = self.series["time"]
        by_replica = {name: values for name, values in self.series.items() if values.ndim == 2}
        width = max((values.shape[1] for values in by_replica.values()), default=0)
        return {
            "requests": self.requests,
            "replicas": self.replicas,
            "cluster_over_time": {n: values for n, values in self.series.items() if values.ndim == 1},
            "replicas_over_time": {
                "time": np.repeat(time, width),
                "replica": np.tile(np.arange(width), len(time)),
                **{name: values.ravel() for name, values in by_replica.items()},
            },
        }

    def goodput(self, *, ttft: float | None = None, tpot: float | None = None) -> float:
        """Requests/s that kept the SLO: first token within `ttft`, then at most `tpot` per output token, in
        seconds.

        None sets no bound. Counted over the time from the first arrival to the last completion.
        """
        for name, bound in {"ttft": ttft, "tpot": tpot}.items():
            if bound is not None and not bound > 0:
                raise ValueError(
                    f"{name}={bound!r}; expected a positive number of seconds, or None for no bound"
                )
        columns = self.requests
        kept = np.isfinite(columns["finish"])
        if ttft is not None:
            kept &= columns["first_token"] - columns["arrival"] <= ttft
        if tpot is not None:
            kept &= columns["finish"] - columns["first_token"] <= tpot * (columns["output_tokens"] - 1)
        span = self.metrics["duration"]
        return float(kept.sum() / span) if span > 0 else 0.0

    def to_pandas(self) -> pd.DataFrame:
        """The table of requests as a data frame."""
        import pandas as pd

        return pd.DataFrame(dict(self.requests))

    def to_parquet(self, path: str | Path) -> None:
        """Write the run, losing nothing: the requests as the table, all else in its metadata."""
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
        import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

        rest = {
            "totals": dict(self.totals),
            "marks": dict(self.marks),
            "series": {name: _encode(array) for name, array in self.series.items()},
            "replicas": {name: _encode(array) for name, array in self.replicas.items()},
        }
        table = pa.table(dict(self.requests), metadata={_KEY: json.dumps(rest).encode()})
        pq.write_table(table, path)

    @classmethod
    def from_parquet(cls, path: str | Path) -> Run:
        """Read what `to_parquet` wrote; ValueError if the file is something else."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if _KEY not in metadata:
            raise ValueError(f"{str(path)!r} is not a run: expected a Parquet file written by Run.to_parquet")
        rest = json.loads(metadata[_KEY])
        return cls(
            requests={name: table[name].to_numpy() for name in table.column_names},
            series={name: _decode(text) for name, text in rest["series"].items()},
            replicas={name: _decode(text) for name, text in rest["replicas"].items()},
            totals=rest["totals"],
            marks=rest["marks"],
        )


_KEY = b"sim.run"


def _encode(array: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def _decode(text: str) -> NDArray[Any]:
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)  # type: ignore[no-any-return]


def collect(
    state: layout.State,
    *,
    alone: NDArray[np.float64],
    slo: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None],
    gpus: Sequence[int],
    paid: Sequence[float],
    marks: Mapping[str, str],
    counts: Mapping[str, float],
    statuses: Sequence[tuple[float, tuple[int, ...]]],
) -> Run:
    """The run that left this state behind; `slo` of each request for TTFT and TPOT, `gpus` and seconds `paid`
    of each replica, `counts` for `totals`, and from when on how many replicas were in each of STATUSES."""
    times, work = state.times, state.work
    end = float(state.clock[layout.NOW])
    recompute = times[:, layout.RECOMPUTE] + np.where(
        work[:, layout.LOST] > 0, end - times[:, layout.SINCE], 0.0
    )
    requests = {
        "arrival": state.arrival,
        "routed": times[:, layout.ROUTED],
        "admitted": times[:, layout.ADMITTED],
        "first_token": times[:, layout.FIRST_TOKEN],
        "finish": times[:, layout.FINISH],
        "prompt_tokens": state.lengths[:, layout.PROMPT_LENGTH],
        "output_tokens": state.lengths[:, layout.OUTPUT_LENGTH],
        "tokens_made": work[:, layout.MADE],
        "replica": state.place[:, layout.REPLICA],
        "restarts": work[:, layout.RESTARTS],
        "recompute_time": recompute,
        "cached_tokens": work[:, layout.CACHED],
        "rejected": (state.known[:, layout.STATE] == layout.REJECTED).astype(np.int64),
        "alone": alone,
        "ttft_slo": np.full(len(alone), np.nan) if slo[0] is None else slo[0],
        "tpot_slo": np.full(len(alone), np.nan) if slo[1] is None else slo[1],
    }
    arrived = int((state.known[:, layout.STATE] != layout.NOT_ARRIVED).sum())  # by the horizon
    samples = state.samples[: state.sampled[0]]
    time = np.arange(len(samples)) * state.clock[layout.INTERVAL]
    since = np.searchsorted([moment for moment, _ in statuses], time, side="right") - 1
    series = {
        "time": time,
        "running": samples[:, :, 0],
        "waiting": samples[:, :, 1],
        "blocks_used": samples[:, :, 2],
        **dict(zip(STATUSES, np.array([counted for _, counted in statuses])[since].T, strict=True)),
    }
    mean, p99 = _kv_use(state.kv_use)
    tally = state.tally
    replicas = {
        "kv_blocks": state.limits[:, layout.KV_BLOCKS],
        "gpus": np.array(gpus, np.int64),
        "paid": np.array(paid, np.float64),
    }
    totals = {
        **{name: float(value) for name, value in counts.items()},
        "replica_time": float(replicas["paid"].sum()),
        "gpu_time": float((replicas["paid"] * replicas["gpus"]).sum()),
        "end": end,
        "busy_time": float(tally[layout.BUSY_TIME]),
        "batch_full_time": float(tally[layout.FULL_TIME]),
        "steps": float(tally[layout.STEPS]),
        "prefill_tokens": float(tally[layout.PREFILL_TOKENS]),
        "decode_tokens": float(tally[layout.DECODE_TOKENS]),
        "looked_up_tokens": float(tally[layout.LOOKED_UP]),
        "hit_tokens": float(tally[layout.HIT]),
        "kv_use_mean": mean,
        "kv_use_p99": p99,
    }
    return Run(
        requests={name: np.ascontiguousarray(column[:arrived]) for name, column in requests.items()},
        series={name: np.ascontiguousarray(column) for name, column in series.items()},
        replicas={name: np.ascontiguousarray(column) for name, column in replicas.items()},
        totals=totals,
        marks=marks,
    )


def _kv_use(weights: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and 99th percentile of the use of the KV cache over the time of steps, to 0.1 %."""
    total = weights.sum()
    if total == 0:
        return 0.0, 0.0
    use = np.arange(len(weights)) / layout.USE_BINS
    p99 = use[np.searchsorted(np.cumsum(weights), 0.99 * total)]
    return float((weights * use).sum() / total), float(p99)
