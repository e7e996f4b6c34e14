"""Results: metrics mean what they are defined to, and a run survives Parquet without loss."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Cluster, Replica, Run, Workload, costs, state, workloads
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue, RoundRobin


@pytest.fixture(scope="module")
def run() -> Run:
    """A run with restarts and a held queue."""
    workload = workloads.sharegpt_bursty(rate=12.0, duration=120, seed=4)
    return Cluster(kv_blocks=1000).run(workload, HeadRoomAdmission())


def test_metrics_follow_from_the_table(run: Run) -> None:
    """The definitions of sim.metrics, written out once more."""
    table = run.to_pandas()
    response = table.finish - table.arrival
    metrics = run.metrics
    assert metrics["mean_response_time"] == pytest.approx(response.mean())
    assert metrics["p90_response_time"] == pytest.approx(response.quantile(0.9))
    assert metrics["p99_ttft"] == pytest.approx((table.first_token - table.arrival).quantile(0.99))
    several = table[table.output_tokens > 1]
    tpot = (several.finish - several.first_token) / (several.output_tokens - 1)
    assert metrics["p50_tpot"] == pytest.approx(tpot.median())
    duration = table.finish.max() - table.arrival.min()
    assert metrics["throughput"] == pytest.approx(len(table) / duration)
    assert metrics["output_throughput"] == pytest.approx(table.output_tokens.sum() / duration)
    assert metrics["gpu_hours"] == pytest.approx(4 * duration / 3600)
    assert metrics["restarts"] == table.restarts.mean() > 0
    assert metrics["restarted_fraction"] == (table.restarts > 0).mean()
    assert metrics["router_wait_share"] == pytest.approx(
        (table.routed - table.arrival).sum() / response.sum()
    )
    assert metrics["recompute_share"] == pytest.approx(table.recompute_time.sum() / response.sum())
    assert metrics["unfinished_fraction"] == 0
    assert metrics["queue_max"] > 0
    assert metrics["mean_slowdown"] > 1
    assert (table.alone <= response + 1e-9).all()


def test_the_longest_queue_follows_from_the_table(run: Run) -> None:
    """queue_max is the most requests that had arrived and were not routed, after a call."""
    arrival, routed = run.requests["arrival"], np.sort(run.requests["routed"])
    instants = np.unique(np.concatenate([arrival, routed]))
    held = np.searchsorted(arrival, instants, "right") - np.searchsorted(routed, instants, "right")
    assert run.metrics["queue_max"] == held.max()


def test_series_agree_with_the_table(run: Run) -> None:
    """At each sample, the requests at a replica are those routed to it and not finished."""
    table, series = run.requests, run.series
    assert series["time"][1] == 1.0
    for k in range(0, len(series["time"]), 17):
        here = (table["routed"] <= series["time"][k]) & (series["time"][k] < table["finish"])
        held = np.bincount(table["replica"][here], minlength=4)
        assert (series["running"][k] + series["waiting"][k] == held).all()
    assert 0 < run.metrics["kv_use_mean"] <= run.metrics["kv_use_p99"] <= 1


def test_series_stay_small() -> None:
    """A long run is sampled more coarsely, evenly, rather than without bound."""
    arrival = np.arange(0.0, 30_000.0, 97.3)
    ones = np.ones(len(arrival), int)
    long = Cluster(replicas=1).run(
        Workload.from_arrays(arrival=arrival, prompt_tokens=ones, output_tokens=600 * ones), RoundRobin()
    )
    times = long.series["time"]
    assert len(times) <= state.SAMPLES
    assert set(np.diff(times)) == {8.0}
    assert times[-1] > 29_900
    assert long.series["running"].mean() == pytest.approx(long.metrics["busy_share"], rel=0.05)


def test_goodput() -> None:
    """Requests/s that kept every bound that was set; one-token outputs have no TPOT to break."""
    workload = Workload.from_arrays(arrival=[0.0, 0.0], prompt_tokens=[10, 10], output_tokens=[1, 50])
    run = Cluster(replicas=1).run(workload, RoundRobin())
    assert run.goodput() == run.metrics["throughput"]
    assert run.goodput(tpot=1e-9) == run.metrics["throughput"] / 2
    assert run.goodput(ttft=1e-9) == 0
    with pytest.raises(ValueError, match="ttft=0; expected a positive number of seconds"):
        run.goodput(ttft=0)


def test_parquet_loses_nothing(run: Run, tmp_path: Path) -> None:
    """Tables, series, totals, marks and so every metric come back bit by bit."""
    run.to_parquet(tmp_path / "run.parquet")
    back = Run.from_parquet(tmp_path / "run.parquet")
    assert dict(back.totals) == dict(run.totals)
    assert back.marks == run.marks == {"a10 with llama-3-8b": costs.profile("a10", "llama-3-8b").marks()}
    assert dict(back.metrics) == dict(run.metrics)
    for name in ("requests", "series", "replicas"):
        ours, theirs = getattr(run, name), getattr(back, name)
        assert list(ours) == list(theirs)
        for column in ours:
            assert ours[column].dtype == theirs[column].dtype
            assert ours[column].tobytes() == theirs[column].tobytes()


def test_a_run_pickles(run: Run) -> None:
    """Runs travel between processes, metrics and all, and metrics are plain floats."""
    assert all(type(value) is float for value in run.metrics.values())
    assert pickle.loads(pickle.dumps(run)).metrics == run.metrics


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    """A file that holds no run is named."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet' is not a run: expected a Parquet file written by"):
        Run.from_parquet(tmp_path / "other.parquet")


def test_a_full_batch_is_seen() -> None:
    """With two seats and a crowd waiting the batch is full nearly all the time."""
    workload = workloads.sharegpt_bursty(rate=8.0, duration=20, seed=1)
    assert Cluster(max_num_seqs=2).run(workload, LeastLoadedQueue()).metrics["batch_full_share"] > 0.8


def test_rejected_requests_wait_nowhere() -> None:
    """They are in no share of the time, and count as if served after the end, alone, one after the other."""
    workload = Workload.from_arrays(
        arrival=[0, 0, 1, 2], prompt_tokens=[10, 4000, 10, 5000], output_tokens=[5, 5, 5, 5]
    )
    run = Cluster(replicas=1, kv_blocks=100).run(workload, RoundRobin())
    served = Cluster(replicas=1, kv_blocks=100).run(
        Workload.from_arrays(arrival=[0, 1], prompt_tokens=[10, 10], output_tokens=[5, 5]), RoundRobin()
    )
    for share in ("router_wait_share", "replica_wait_share", "recompute_share", "service_share"):
        assert run.metrics[share] == pytest.approx(served.metrics[share])
    alone, end = run.requests["alone"], run.totals["end"]
    rejected = [end + alone[1], end - 2 + alone[1] + alone[3]]
    assert run.metrics["mean_response_time"] == pytest.approx(
        (2 * served.metrics["mean_response_time"] + sum(rejected)) / 4
    )


class _Sends:
    """Each request to the replica of its number in a list."""

    def __init__(self, to: list[int]) -> None:
        self.to = to

    def route(self, queue: Sequence[Any], replicas: Sequence[Any], now: float) -> Any:
        return [(request, replicas[self.to[request.id]]) for request in queue]


class _Holds(_Sends):
    """The same, but what the list sends to replica 1 is held, and served last, one by one, on replica 0."""

    def route(self, queue: Sequence[Any], replicas: Sequence[Any], now: float) -> Any:
        sent = [(request, replicas[0]) for request in queue if self.to[request.id] == 0]
        yield from sent
        left = [request for request in queue if self.to[request.id] == 1]
        if left and left[-1].id == len(self.to) - 1 and not replicas[0].running + replicas[0].waiting:
            yield left[0], replicas[0]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(100, 400), st.integers(2, 20)), max_size=12))
def test_nothing_is_gained_by_rejection(rows: list[tuple[int, int, int]]) -> None:
    """Whoever has requests rejected by a replica that is too small has no better mean than by holding them to
    the end."""
    rows = [*rows, (1, 200, 10)]
    to, prompts, outputs = map(list, zip(*rows, strict=True))
    workload = Workload.from_arrays(
        arrival=np.arange(len(rows)) * 1e-3, prompt_tokens=prompts, output_tokens=outputs
    )
    cluster = Cluster(replicas=2, each=(Replica(), Replica(kv_blocks=3)))
    cheating, honest = (cluster.run(workload, policy) for policy in (_Sends(to), _Holds(to)))
    assert cheating.requests["rejected"].tolist() == to
    assert honest.metrics["unfinished_fraction"] == 0
    assert cheating.metrics["mean_response_time"] >= honest.metrics["mean_response_time"] * (1 - 1e-9)


def test_an_unknown_metric_names_those_like_it(run: Run) -> None:
    """A KeyError with near names; of an SLO that no request has, it says so."""
    with pytest.raises(
        KeyError, match="no metric is called 'mean_respons_time'; expected mean_response_time"
    ):
        run.metrics["mean_respons_time"]
    with pytest.raises(KeyError, match="no request of the workload has an SLO to attain; give it ttft_slo"):
        run.metrics["slo_attainment"]
