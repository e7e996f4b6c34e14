"""The command that measures a server's steps and fits the simulator's cost profile to them."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpu_harness import clusters
from gpu_harness.load import Target
from gpu_harness.pool import addresses
from gpu_harness.proxy import Proxy
from gpu_harness.sampling import sampling
from gpu_harness.servers import ServerError, check_versions
from gpu_harness.shaping import Room, drive
from sim.baselines import LeastLoadedQueue
from sim.costs import DecodeRow, Profile, step_seconds, toml
from sim.costs.measured import errors
from sim.costs.sources.steps import LEAST, read
from sim.costs.step_fitting import fit_steps

__all__ = ["add_arguments", "calibrate", "check_logs", "fitted", "seconds_of"]

Floats = NDArray[np.float64]
TOKENS, SEQUENCES, DECODES, LONGEST, SECONDS = 0, 1, 2, 7, 8
"""Columns of steps (`sim.costs.sources.steps.COLUMNS`)."""
_WARM = 10.0


def fitted(
    steps: Floats, *, gpu: str, model: str, tensor_parallel: int = 1, eager: bool, source: str
) -> tuple[Profile, list[str]]:
    """The profile of measured steps, rows of `sim.costs.sources.steps.COLUMNS`; lines that tell its errors.

    The fit weighs large misses less, so it is near the median of steps that are alike; response times are
    sums of steps. So the profile is scaled to give their sum. Errors are of each half of the steps, told by
    a profile of the other half.
    """

    def fit(rows: Floats) -> Profile:
        found = fit_steps(
            rows,
            gpu=gpu,
            model=model,
            tensor_parallel=tensor_parallel,
            cuda_graphs=not eager,
            source=source,
            otherwise=None,
        ).profile
        return _times(found, float(rows[:, SECONDS].sum() / seconds_of(found, rows).sum()))

    told = np.empty(len(steps))
    for half in (0, 1):
        told[half::2] = seconds_of(fit(steps[1 - half :: 2]), steps[half::2])
    measured, decodes, chunks = steps[:, SECONDS], steps[:, DECODES] > 0, steps[:, LONGEST] > 0
    kinds = {
        "all": measured > 0,
        "decodes": decodes & ~chunks,
        "prefills": chunks & ~decodes,
        "both": decodes & chunks,
    }
    lines = []
    for kind, rows in kinds.items():
        if rows.any():
            total = told[rows].sum() / measured[rows].sum() - 1
            lines.append(f"  {kind:9s} {errors(told[rows], measured[rows])}  in sum {total:+.1%}")
    return fit(steps), lines


def seconds_of(profile: Profile, steps: Floats) -> Floats:
    """What the profile says that these steps take."""
    tables = profile.tables(int(steps[:, TOKENS].max()), int(steps[:, SEQUENCES].max()))
    return np.array([step_seconds(tables, *map(int, step[:SECONDS])) for step in steps])


def _times(profile: Profile, factor: float) -> Profile:
    """The profile with every time multiplied; files have no factor of their own."""

    def points(of: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        return tuple((at, value * factor) for at, value in of)

    def rows(of: tuple[DecodeRow, ...]) -> tuple[DecodeRow, ...]:
        return tuple(
            DecodeRow(
                row.decodes,
                row.fixed * factor,
                tuple(value * factor for value in row.per_kv_token),
                row.straggler * factor,
            )
            for row in of
        )

    terms = profile.prefill_terms
    return replace(
        profile,
        linear_points=points(profile.linear_points),
        head_points=points(profile.head_points),
        decode_rows=rows(profile.decode_rows),
        mixed_rows=rows(profile.mixed_rows),
        prefill_terms=replace(
            terms,
            per_pair=terms.per_pair * factor,
            per_key=terms.per_key * factor,
            fixed=terms.fixed * factor,
            per_token=terms.per_token * factor,
            per_grid=terms.per_grid * factor,
        ),
    )


def measured(
    urls: Sequence[str], logs: Sequence[Path], model: str, room: Room, seconds: float, *, seed: int = 0
) -> Floats:
    """Drive shapes through the servers for so long; the steps that they have logged meanwhile.

    ServerError if a log is not there, or does not grow.
    """
    asyncio.run(_driven(urls, model, room, _WARM, seed, 0))
    before = [_rows(log, url) for log, url in zip(logs, urls, strict=True)]
    asyncio.run(_driven(urls, model, room, seconds, seed, 2))
    found = []
    for log, url, rows in zip(logs, urls, before, strict=True):
        steps = read(log)[rows:]
        if len(steps) < LEAST:
            raise ServerError(
                f"{log} has got {len(steps)} steps of the server at {url} while it was driven; expected at "
                f"least {LEAST}: is it this server's GLIA_STEP_LOG?"
            )
        found.append(steps)
    return np.concatenate(found)


async def _driven(
    urls: Sequence[str], model: str, room: Room, seconds: float, seed: int, rounds: int
) -> None:
    """`drive`, each server behind a proxy of its own and sampled, as in a run: what streams, and each scrape,
    takes its part of the processors of servers on this machine."""
    async with AsyncExitStack() as stack:
        proxies = [Proxy(LeastLoadedQueue(), addresses([url])) for url in urls]
        fronts = [await stack.enter_async_context(proxy.serving()) for proxy in proxies]
        await stack.enter_async_context(sampling(lambda: urls, time.monotonic, tuple))
        await drive([Target(front, model) for front in fronts], room, seconds, seed=seed, rounds=rounds)


def _rows(log: Path, url: str) -> int:
    try:
        with log.open(encoding="utf-8") as file:
            return sum(1 for _ in file) - 1
    except FileNotFoundError:
        raise ServerError(
            f"the step log of the server at {url} is not at {str(log)!r}; start it with GLIA_STEP_LOG=FILE "
            "and --scheduler-cls gpu_harness.step_log.LoggingScheduler, and give --steps FILE for each --url"
        ) from None


def check_logs(logs: Sequence[Path], urls: Sequence[str]) -> None:
    """ValueError if running servers have not a step log each, ServerError if one is not there."""
    if len(logs) != len(urls):
        raise ValueError(
            f"{len(logs)} --steps with {len(urls)} --url; expected the step log of each running server"
        )
    for log, url in zip(logs, urls, strict=True):
        _rows(log, url)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `calibrate`."""
    clusters.add_arguments(parser)
    parser.add_argument(
        "--steps",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="the step log of each running server, in their order",
    )
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="of measuring, at least two rounds (240)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the shapes (0)")
    parser.add_argument("--gpu", required=True, help="what the profile is called: the hardware's name")
    parser.add_argument(
        "--eager", action="store_true", help="the servers run without CUDA graphs (as on a CPU)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.toml", help="the profile")


def calibrate(args: argparse.Namespace) -> int:
    """Measure, fit, write and tell; the exit code is 0."""
    if args.out.suffix != ".toml":
        raise ValueError(f"--out {args.out}; expected a name that ends in .toml")
    if not args.seconds >= 0:
        raise ValueError(f"--seconds {args.seconds:g}; expected a number of at least 0")
    with clusters.testbed_of(args) as testbed:
        check_logs(args.steps, args.url)
        testbed.start()
        check_versions(testbed.urls)
        tokens = min(blocks * size for blocks, size in testbed.caches())
        room = Room(args.max_num_seqs, args.max_num_batched_tokens, tokens, args.max_model_len)
        logs = args.steps or testbed.step_logs
        steps = measured(testbed.urls, logs, args.name, room, args.seconds, seed=args.seed)
        count = len(testbed.urls)
    profile, lines = fitted(
        steps,
        gpu=args.gpu,
        model=Path(args.model or args.name).name,
        tensor_parallel=args.tensor_parallel,
        eager=args.eager,
        source=f"{len(steps)} engine steps of {count} servers, gpu_harness calibrate",
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(toml.text(profile), "utf-8")
    beside = ", about half of them beside busy neighbours" if count > 1 else ""
    print(f"{len(steps)} steps of {count} server{'s' * (count > 1)}{beside}")
    print("errors of each half of the steps, told by a profile of the other half:")
    print(*lines, sep="\n")
    print(f"-> {args.out}")
    return 0
