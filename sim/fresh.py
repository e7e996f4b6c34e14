"""What it takes a fresh process to measure: `python -m sim bench --large` and `--start`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.baselines import LeastLoadedQueue
from sim.bench import AZURE_CLUSTER, AZURE_RATE, ReadingLeastLoadedQueue, azure
from sim.cluster import warm_up
from sim.workloads import Workload

__all__ = ["LARGE", "large", "start"]

LARGE = (10_000, 100_000, 1_000_000)
"""Requests of the large runs."""
REPLICAS = 64
RATE = AZURE_RATE / 2 * REPLICAS / AZURE_CLUSTER.replicas
"""Requests/s of the large runs, half of workload W's per replica: the replicas fill within seconds, so that
10,000 requests are like a million."""


def large(trace: Path, sizes: tuple[int, ...]) -> Iterator[str]:
    """The lines on runs of so many requests on 64 replicas of workload W's kind, each in a fresh process:
    time and CPU time from the workload to its metrics, and the most memory that the process held."""
    azure(trace)  # or say at once that it is not there
    yield (
        f"{REPLICAS} replicas of workload W's kind at {RATE:g} requests/s, half of W's load; "
        "LeastLoadedQueue over all of them"
    )
    yield "   requests  engine steps  mean response      time  CPU per request  peak memory"
    for size in sizes:
        seconds, cpu, steps, response, peak = _in_fresh_process("large_run", str(trace), size)
        yield (
            f"{size:11,}  {steps:12,.0f}  {response:12.1f} s  {seconds:6.2f} s  "
            f"{cpu / size * 1e6:12.1f} us  {peak / 1e6:8,.0f} MB"
        )


def start(trace: Path, repeats: int) -> Iterator[str]:
    """The lines on how soon a simulator is ready, in a fresh process and in a fork of a warm one, and the
    memory of workload W."""
    azure(trace)
    _in_fresh_process("ready")  # leaves the compiled code in the disk cache
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        _in_fresh_process("ready")
        seconds.append(time.perf_counter() - began)
    yield f"fresh process, from its start to the end of a first run: {_spread(seconds, 1, 's', 2)}"
    forks, peak = _in_fresh_process("forks", str(trace), repeats)
    yield f"fork of a warm process, to the end of a first run: {_spread(forks, 1e3, 'ms', 1)}"
    yield f"peak memory of a process that ran workload W: {peak / 1e6:.0f} MB"


def large_run(trace: str, requests: int) -> tuple[float, float, float, float, int]:
    """Seconds, CPU seconds, engine steps, mean response time in s and peak memory in bytes of a run."""
    warm_up()
    workload = _larger(azure(Path(trace)), requests)
    cluster = replace(AZURE_CLUSTER, replicas=REPLICAS)
    began, cpu = time.perf_counter(), time.process_time()
    run = cluster.run(workload, LeastLoadedQueue())
    metrics = run.metrics
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return seconds, cpu, run.totals["steps"], metrics["mean_response_time"], _peak_memory()


def ready() -> None:
    """A run of one request."""
    warm_up()


def forks(trace: str, repeats: int) -> tuple[list[float], int]:
    """Seconds until forks of this process, warm, have run one request, and this one's peak memory in bytes
    after workload W."""
    AZURE_CLUSTER.run(azure(Path(trace)), ReadingLeastLoadedQueue()).metrics  # noqa: B018
    return [_forked() for _ in range(repeats)], _peak_memory()


def _larger(workload: Workload, requests: int) -> Workload:
    """So many requests at RATE, their lengths drawn from a workload's."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(workload), size=requests)
    return Workload.from_arrays(
        arrival=np.cumsum(rng.exponential(1 / RATE, requests)),
        prompt_tokens=workload.prompt_tokens[drawn],
        output_tokens=workload.output_tokens[drawn],
    )


def _forked() -> float:
    told, tell = os.pipe()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        warm_up()
        os.write(tell, b".")
        os._exit(0)
    os.read(told, 1)
    seconds = time.perf_counter() - began
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)
    return seconds


def _in_fresh_process(function: str, *arguments: object) -> Any:
    """What a function of this module returns in a process of its own."""
    code = f"import json; from sim import fresh; print(json.dumps(fresh.{function}(*{arguments!r})))"
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # That NumPy has threads, of which Python warns at a fork, is harmless: a run uses none.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _peak_memory() -> int:
    """The most bytes that this process ever held."""
    status = Path("/proc/self/status")
    if status.is_file():  # what `getrusage` says starts with the parent's peak
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS


def _spread(values: list[float], factor: float, unit: str, digits: int) -> str:
    low, middle, high = (f"{one(values) * factor:.{digits}f}" for one in (min, statistics.median, max))
    return f"{middle} {unit} (median of {len(values)}; {low} to {high})"
