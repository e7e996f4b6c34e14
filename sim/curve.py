"""Where the routing problem has its knee: `python -m sim curve`.

Head-Room Admission against LLQ over the arrival rate, on paired seeds of `sharegpt_bursty`. A spec's load is
chosen from this table: below the knee there is nothing to gain, far beyond it nothing finishes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.baselines import HeadRoomAdmission, LeastLoadedQueue
from sim.cluster import Cluster
from sim.workloads import sharegpt_bursty

RATES = (7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0)


def report(seeds: int, duration: float, conditioned: bool) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    yield (
        f"sharegpt_bursty, {duration:g} s, conditioned={conditioned}, seeds 0 to {seeds - 1}; "
        "median [min, max]; mean response times in s; reduction = 1 - HRA/LLQ, its mean by mean log-ratio"
    )
    yield (
        f"{'rate':>5s} {'LLQ':>20s} {'HRA':>20s} {'reduction':>20s} {'mean':>6s} "
        f"{'LLQ restarted':>14s} {'HRA restarted':>20s}"
    )
    for rate in RATES:
        pairs = []
        for seed in range(seeds):
            workload = sharegpt_bursty(rate, duration, seed, conditioned)
            runs = [Cluster().run(workload, router()) for router in (LeastLoadedQueue, HeadRoomAdmission)]
            pairs.append(
                [run.metrics[name] for run in runs for name in ("mean_response_time", "restarted_fraction")]
            )
        llq, llq_restarted, hra, hra_restarted = np.array(pairs).T
        mean = 1 - np.exp(np.log(hra / llq).mean())
        yield (
            f"{rate:5.1f} {_spread(llq, '.1f')} {_spread(hra, '.1f')} "
            f"{_spread(1 - hra / llq, '.0%')} {mean:6.1%} "
            f"{np.median(llq_restarted):14.1%} {_spread(hra_restarted, '.1%')}"
        )


def _spread(values: np.ndarray, how: str) -> str:
    text = f"{np.median(values):{how}} [{values.min():{how}}, {values.max():{how}}]"
    return f"{text:>20s}"
