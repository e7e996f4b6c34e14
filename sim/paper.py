"""The published routing problem, run again: `python -m sim paper`.

The Glia paper (arXiv 2510.27176) reports one trace: 7,859 requests in 1,000 s, mean response times of 63.3 s
for Round Robin and 54.6 s for LLQ. The arrivals are regenerated from their seed. Of the lengths the first
3,973 are public; the rest are drawn anew from those, several times, so that every figure here is a median
with quantiles. The one free constant, the profile's time scale, is calibrated on LLQ's 54.6 s alone; RR's
63.3 s is then a prediction.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import baselines, costs
from sim.cluster import Cluster
from sim.results import Run
from sim.workloads import Workload

TRACE = Path("traces") / "sharegpt_inflated_12qps_300s.csv"
REQUESTS, LAST_ARRIVAL = 7859, 999.79995
PUBLISHED = {"RoundRobin": 63.3, "LeastLoadedQueue": 54.6}
"""Mean response times in seconds; of the others only pictures are published."""
ROUTERS = (
    baselines.Random,
    baselines.RoundRobin,
    baselines.LeastLoadedQueue,
    baselines.LeastOutstandingRequests,
    baselines.Expert,
    baselines.HeadRoomAdmission,
)
GRID = np.arange(0.98, 1.0751, 0.005)
"""Absolute time scales that the calibration tries."""


def arrivals() -> NDArray[np.float64]:
    """The paper's arrival times in seconds: log-normal gaps of sigma 2 at 7.5 requests/s, 1,000 s, seed
    192."""
    gaps = np.random.RandomState(192).lognormal(np.log(1 / 7.5) - 2, 2, 9000)
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    times = times[times < 1000]
    if len(times) != REQUESTS or abs(times[-1] - LAST_ARRIVAL) > 1e-5:
        raise RuntimeError(
            f"numpy {np.__version__} gives {len(times)} arrivals up to {times[-1]:.5f} s; the "
            f"paper's trace has {REQUESTS} up to {LAST_ARRIVAL} s. The generator changed: use another numpy"
        )
    return times


def read_lengths(data: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and output tokens of the public part of the trace; FileNotFoundError if it is not there."""
    path = data / TRACE
    if not path.is_file():
        raise FileNotFoundError(
            f"the paper's lengths are not at {str(path)!r}; give the folder that holds "
            f"{str(TRACE)!r} with --data (the file is in github.com/pouyahmdn/vidur)"
        )
    with path.open(newline="") as file:
        rows = [
            (float(row["num_prefill_tokens"]), float(row["num_decode_tokens"]))
            for row in csv.DictReader(file)
        ]
    prompts, outputs = np.array(rows).astype(np.int64).T
    return prompts, outputs


def traces(data: Path, resamplings: int) -> list[Workload]:
    """The paper's trace, its unknown lengths drawn with the seeds 0, 1, ..."""
    times = arrivals()
    prompts, outputs = read_lengths(data)
    result = []
    for seed in range(resamplings):
        drawn = np.random.default_rng(seed).integers(0, len(prompts), len(times) - len(prompts))
        rows = np.concatenate([np.arange(len(prompts)), drawn])
        result.append(
            Workload.from_arrays(arrival=times, prompt_tokens=prompts[rows], output_tokens=outputs[rows])
        )
    return result


def replicate(
    router: Callable[[], Any], workloads: list[Workload], time_scale: float, metric: Callable[[Run], float]
) -> NDArray[np.float64]:
    """The metric of each trace under a fresh router; `time_scale` is relative to the profile's."""
    cluster = Cluster(time_scale=time_scale)
    return np.array([metric(cluster.run(workload, router())) for workload in workloads])


def _mean_response_time(run: Run) -> float:
    return run.metrics["mean_response_time"]


def report(data: Path, resamplings: int) -> Iterator[str]:
    """The lines of the report, as they are measured."""
    workloads = traces(data, resamplings)
    yield (
        f"{REQUESTS} arrivals up to {LAST_ARRIVAL} s as published; "
        f"{resamplings} resamplings of the unknown lengths"
    )
    yield from _calibration(workloads)
    yield ""
    yield "mean response time in s: median [5 %, 95 %] over resamplings; restarted fraction: median"
    yield (
        f"{'router':26s} {'as calibrated':>21s} {'published':>10s} {'off':>6s} {'restarted':>10s} "
        f"{'-5 % time':>10s} {'+5 % time':>10s}"
    )
    for router in ROUTERS:
        yield _line(router, workloads)


def _calibration(workloads: list[Workload]) -> Iterator[str]:
    own = costs.profile("a10", "llama-3-8b").time_scale
    target = PUBLISHED["LeastLoadedQueue"]
    yield f"calibration on LLQ's {target} s (median over resamplings), by absolute time scale:"
    medians = []
    for scale in GRID:
        means = replicate(baselines.LeastLoadedQueue, workloads, scale / own, _mean_response_time)
        medians.append(float(np.median(means)))
        yield f"  {scale:.3f}  {medians[-1]:5.1f} s"
    best = GRID[np.argmin(np.abs(np.array(medians) - target))]
    yield f"  nearest: {best:.3f}; the profile has {own:.3f}"


def _line(router: Callable[[], Any], workloads: list[Workload]) -> str:
    name = router.__name__
    means = replicate(router, workloads, 1.0, _mean_response_time)
    restarted = replicate(router, workloads, 1.0, lambda run: run.metrics["restarted_fraction"])
    slower, faster = (
        float(np.median(replicate(router, workloads, scale, _mean_response_time))) for scale in (1.05, 0.95)
    )
    low, median, high = np.quantile(means, (0.05, 0.5, 0.95))
    published = PUBLISHED.get(name)
    known = f"{published:10.1f} {median / published - 1:+6.1%}" if published else f"{'-':>10s} {'-':>6s}"
    return (
        f"{name:26s} {median:6.1f} [{low:5.1f}, {high:5.1f}] {known} {np.median(restarted):10.1%} "
        f"{faster:10.1f} {slower:10.1f}"
    )
