"""The command that loads one endpoint with a workload, and measures as the simulator does."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gpu_harness.load import Target, answers, probe
from gpu_harness.measuring import Alone, as_run
from gpu_harness.prompting import Prompting
from gpu_harness.sampling import sampling
from sim.results import Run
from sim.workloads import Workload
from sim.workloads import load as read_workload

__all__ = ["add_arguments", "load", "main", "measured_alone", "probed"]

_PROBE_OUTPUT = 16
_AHEAD = 0.2

Probed = tuple[tuple[int, ...], int]
"""Prompts, each of which is sent alone, and the output of each, in tokens."""


def load(
    target: Target,
    workload: Workload,
    *,
    replicas: Sequence[str] = (),
    vocabulary: tuple[int, int] = (10, 1000),
    horizon: float | None = None,
) -> Run:
    """Send the workload to an endpoint, in real time, and measure.

    `replicas` are URLs of the vLLM servers behind it, for the series and the use of caches; none are needed.
    Which replica served a request, and what happened inside it, is not known here: NaN (see `Testbed`).
    """
    return asyncio.run(_load(target, workload, replicas, vocabulary, horizon))


async def _load(
    target: Target,
    workload: Workload,
    replicas: Sequence[str],
    vocabulary: tuple[int, int],
    horizon: float | None,
) -> Run:
    salts = itertools.count(secrets.randbits(32))
    alone = await measured_alone([target], probed(workload), salts)
    prompts = Prompting(workload, salt=next(salts), vocabulary=vocabulary)
    start = time.monotonic() + _AHEAD
    sampler = sampling(lambda: replicas, lambda: time.monotonic() - start, lambda: (len(replicas), 0, 0, 0))
    async with sampler as samples:
        seen = await answers(
            target, workload, prompts, run=secrets.token_hex(4), start=start, horizon=horizon
        )
        end = time.monotonic() - start
    return as_run(
        workload,
        seen,
        samples=samples,
        alone=alone,
        end=end,
        places={},
        insides=None,
        totals={
            "router_calls": 0.0,
            "queue_max": 0.0,
            "requeued": 0.0,
            "failed": float(sum(bool(answer.error) for answer in seen)),
            "latest_sent": max((answer.sent - answer.due for answer in seen), default=0.0),
        },
        paid=[end - float(workload.arrival[0]) if len(seen) else 0.0] * len(replicas),
        gpus=1,
    )


def probed(workload: Workload) -> Probed:
    """The shortest, the middle and the longest prompt of the workload, and an output; all in tokens."""
    ordered = np.sort(workload.prompt_tokens)
    lengths = sorted({int(ordered[at]) for at in (0, len(ordered) // 2, -1)}) if len(ordered) else [1]
    return tuple(lengths), min(_PROBE_OUTPUT, int(workload.output_tokens.max(initial=1)))


async def measured_alone(targets: Sequence[Target], requests: Probed, salts: Iterator[int]) -> Alone:
    """Warm every server up, and then measure such requests alone on the first."""
    lengths, output = requests
    for target in targets:
        for length in lengths:
            await probe(target, length, output, next(salts))
    return Alone.fitted([(each, await probe(targets[0], each, output, next(salts))) for each in lengths])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `load`."""
    parser.add_argument("url", help="the endpoint, as http://127.0.0.1:8080")
    parser.add_argument(
        "workload", type=Path, help="a workload, .csv or .parquet, as `serve --record` writes"
    )
    parser.add_argument("--model", required=True, help="its name at the server")
    parser.add_argument(
        "--replica", action="append", default=[], metavar="URL", help="vLLM servers behind it"
    )
    parser.add_argument("--key", metavar="KEY", help="sent as Authorization: Bearer KEY")
    parser.add_argument("--horizon", type=float, metavar="SECONDS", help="end then")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the run as Parquet")


def main(args: argparse.Namespace) -> int:
    """Load, print the metrics; 1 if a request failed. ValueError or FileNotFoundError for wrong arguments."""
    if not args.url.startswith(("http://", "https://")):
        raise ValueError(f"URL {args.url!r}; expected the endpoint with its scheme, as http://127.0.0.1:8080")
    if not args.workload.is_file():
        raise FileNotFoundError(
            f"the workload {str(args.workload)!r} is not there; expected a file, .csv or .parquet, as "
            "`serve --record` writes"
        )
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    target = Target(args.url.rstrip("/"), args.model, headers)
    run = load(target, read_workload(args.workload), replicas=args.replica, horizon=args.horizon)
    for name in ("mean_response_time", "p99_response_time", "mean_ttft", "p99_ttft", "mean_tpot", "p99_tpot"):
        print(f"{name:<20} {run.metrics[name]:.4f} s")
    print(f"{'throughput':<20} {run.metrics['throughput']:.3f} requests/s")
    print(f"{'unfinished':<20} {run.metrics['unfinished_fraction']:.1%}, {run.totals['failed']:.0f} failed")
    print(f"{'sent late at most':<20} {run.totals['latest_sent']:.4f} s")
    if args.out is not None:  # last, for a disk may be full
        try:
            run.to_parquet(args.out)
        except OSError as error:
            raise OSError(f"out={str(args.out)!r} cannot be written: {error}") from error
    return int(run.totals["failed"] > 0)
