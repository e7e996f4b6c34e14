"""The metrics of a run: one definition for each, in seconds unless said otherwise.

Per request: response time = finish - arrival; ttft = first token - arrival; tpot = (finish - first token) /
(output tokens - 1), over requests of at least two output tokens; slowdown = response time / the response time
that it would have had alone on an idle replica with an empty cache, of replicas that differ the fastest.
mean_, p50_, p90_, p99_ of each; tpot's are NaN where no request got as far as a second token although some
should have. A request that had not finished at the end of the run counts with the time until then, which it
took at least. Those that were rejected count as if they were served after the end of the run, alone, one
after the other: what a policy could have had by holding them, so it gains nothing by having them rejected.

duration: first arrival to last completion, or to the end of the run if a request had not finished.
throughput, output_throughput: requests completed, output tokens made per second of it. restarts: evictions
per request. restarted_fraction: share of requests evicted at least once, unrestarted_fraction: share of the
others. unfinished_fraction: share of requests that did not finish, rejected_fraction of them those that no
cache could hold. requeued: requests that failed replicas lost, counted each time. replica_hours: time that
replicas existed within the duration, starting, draining and down included; gpu_hours: the same, each replica
times its GPUs. slo_attainment: share of requests that finished, within their own SLO if they had one;
slo_violations: share of the others. Neither is there if none had one.
prefix_hit_share: share of the tokens of admitted requests that were found in the prefix cache.

Where the response time goes, as shares of its sum over requests that were not rejected, adding up to 1:
router_wait_share in the global queue; replica_wait_share in a replica's queue before the first admission;
recompute_share from an eviction until the lost tokens are computed again; service_share the rest.

kv_use_mean, kv_use_p99: fraction of a replica's blocks in use, weighted by the time of steps.
batch_full_share: share of the time of steps with a full batch. prefill_share: share of the tokens computed
that were prefill, recomputation included. replica_imbalance: coefficient of variation over replicas of the
requests at each, averaged over the samples at which there are any. busy_share: share of the replicas' time
spent in steps. mean_prompt_tokens, mean_output_tokens: of the requests. queue_max: most requests left in the
global queue after a call. router_calls: calls of `route`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray


class Metrics(dict[str, float]):
    """Values by name; a KeyError for another name says what there is like it."""

    def __missing__(self, name: object) -> NoReturn:
        if name in ("slo_attainment", "slo_violations"):
            raise KeyError(
                "no request of the workload has an SLO to attain; give it ttft_slo or tpot_slo, or ask "
                "run.goodput(ttft=..., tpot=...)"
            )
        near = " or ".join(difflib.get_close_matches(str(name), self, n=3))
        raise KeyError(f"no metric is called {name!r}; expected {near or 'one of ' + ', '.join(self)}")


def measure(
    requests: Mapping[str, NDArray[Any]], series: Mapping[str, NDArray[Any]], totals: Mapping[str, float]
) -> Metrics:
    """All metrics of a run with these requests, series and totals (see `sim.results.Run`)."""
    arrival, made = requests["arrival"], requests["tokens_made"]
    end = totals["end"]
    finished = np.isfinite(requests["finish"])
    routed, admitted, first_token, finish = (
        np.where(np.isfinite(requests[name]), requests[name], end)
        for name in ("routed", "admitted", "first_token", "finish")
    )
    rejected = requests["rejected"] > 0
    after = np.where(rejected, np.cumsum(requests["alone"] * rejected), 0.0)
    response = finish - arrival + after
    several = made > 1
    metrics = Metrics()
    for name, values in {
        "response_time": response,
        "ttft": first_token - arrival + after,
        "tpot": (finish - first_token)[several] / (made[several] - finished[several]),
        "slowdown": response / requests["alone"],
    }.items():
        metrics |= _spread(name, values)
    if not several.any() and (requests["output_tokens"] > 1).any():
        # Serving nobody is not serving at once: no spec is to be met by it.
        metrics |= {f"{kind}_tpot": math.nan for kind in ("mean", "p50", "p90", "p99")}

    count = len(arrival)
    duration = float(finish.max() - arrival[0]) if count else 0.0
    metrics["duration"] = duration
    metrics["throughput"] = _ratio(finished.sum(), duration)
    metrics["output_throughput"] = _ratio(made.sum(), duration)
    metrics["restarts"] = _ratio(requests["restarts"].sum(), count)
    # Real servers may not tell what happens inside them: NaN there is NaN here, never "no restarts".
    untold = math.nan if np.isnan(requests["restarts"]).any() else 0.0
    metrics["restarted_fraction"] = _ratio((requests["restarts"] > 0).sum(), count) + untold
    metrics["unrestarted_fraction"] = 1.0 - metrics["restarted_fraction"]
    metrics["unfinished_fraction"] = _ratio((~finished).sum(), count)
    metrics["rejected_fraction"] = _ratio(rejected.sum(), count)
    metrics["replica_hours"] = totals["replica_time"] / 3600
    metrics["gpu_hours"] = totals["gpu_time"] / 3600
    if np.isfinite(requests["ttft_slo"]).any() or np.isfinite(requests["tpot_slo"]).any():
        metrics["slo_attainment"] = _ratio((finished & _kept(requests)).sum(), count)
        metrics["slo_violations"] = 1.0 - metrics["slo_attainment"]
    metrics["requeued"] = totals["requeued"]

    total = float(response[~rejected].sum())
    shares = {
        "router_wait_share": _ratio((routed - arrival)[~rejected].sum(), total),
        "replica_wait_share": _ratio((admitted - routed)[~rejected].sum(), total) + untold,
        "recompute_share": _ratio(requests["recompute_time"].sum(), total),
    }
    metrics |= shares
    metrics["service_share"] = 1.0 - sum(shares.values()) if total > 0 else 0.0

    metrics["kv_use_mean"] = totals["kv_use_mean"]
    metrics["kv_use_p99"] = totals["kv_use_p99"]
    metrics["batch_full_share"] = _ratio(totals["batch_full_time"], totals["busy_time"])
    metrics["prefill_share"] = _ratio(
        totals["prefill_tokens"], totals["prefill_tokens"] + totals["decode_tokens"]
    )
    metrics["prefix_hit_share"] = _ratio(totals["hit_tokens"], totals["looked_up_tokens"])
    metrics["replica_imbalance"] = _imbalance(series["running"] + series["waiting"])
    metrics["busy_share"] = _ratio(totals["busy_time"], totals["replica_time"])
    metrics["mean_prompt_tokens"] = _ratio(requests["prompt_tokens"].sum(), count)
    metrics["mean_output_tokens"] = _ratio(requests["output_tokens"].sum(), count)
    metrics["queue_max"] = totals["queue_max"]
    metrics["router_calls"] = totals["router_calls"]
    return metrics


def _spread(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    if len(values) == 0:
        return {f"{kind}_{name}": 0.0 for kind in ("mean", "p50", "p90", "p99")}
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return {f"mean_{name}": float(values.mean()), f"p50_{name}": p50, f"p90_{name}": p90, f"p99_{name}": p99}


def _kept(requests: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Which requests did not break their own SLO; NaN compares as kept."""
    ttft = requests["first_token"] - requests["arrival"]
    decode = requests["finish"] - requests["first_token"]
    return ~(ttft > requests["ttft_slo"]) & ~(  # type: ignore[no-any-return]
        decode > requests["tpot_slo"] * (requests["output_tokens"] - 1)
    )


def _ratio(part: Any, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else 0.0


def _imbalance(held: NDArray[np.int64]) -> float:
    """Mean over samples of standard deviation / mean over replicas."""
    busy = held[held.sum(axis=1) > 0]
    return float((busy.std(axis=1) / busy.mean(axis=1)).mean()) if len(busy) else 0.0
