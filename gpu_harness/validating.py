"""The command that runs one workload on servers and in the simulator, under several routers, and compares."""

from __future__ import annotations

import argparse
import csv
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_harness import clusters
from gpu_harness.agreement import order, tau_b
from gpu_harness.calibrating import SECONDS, TOKENS, Floats, check_logs, seconds_of
from gpu_harness.servers import check_versions
from gpu_harness.testbed import Testbed
from sim import costs, naming
from sim.baselines import RoundRobin
from sim.cluster import Cluster
from sim.costs.sources.steps import read
from sim.layers import NamedPolicy, policy
from sim.results import Run
from sim.workloads import Workload

__all__ = ["Measured", "add_arguments", "report", "times", "validate"]

METRICS = ("ttft", "tpot", "response")
_ALONE = 12


@dataclass(frozen=True)
class Measured:
    """One run of a policy on both testbeds; mean seconds, by name of METRICS."""

    rate: float
    seed: int
    policy: str
    servers: dict[str, float]
    simulator: dict[str, float]
    paced: dict[str, float]
    """The simulator again, its steps as fast as those of the servers in this run."""
    steps: float
    """Measured time of the servers' steps over what the profile says of the very same steps; NaN if they do
    not log them, and `paced` is as `simulator` then."""
    late: float
    """Seconds by which a request was sent late at most: more than a few milliseconds say that the load
    generator had no core, and that TTFT is of that, too."""


def times(run: Run, latency: float = 0.0) -> dict[str, float]:
    """Mean TTFT, TPOT and response time of a run; `latency` seconds pass between client and engine outside of
    steps. ValueError if a request did not finish, for its times are not known."""
    table = run.requests
    lost = int(np.isnan(table["finish"]).sum())
    if lost:
        raise ValueError(f"{lost} of {len(table['finish'])} requests did not finish; nothing to compare")
    made = table["output_tokens"] > 1
    first, finish = table["first_token"], table["finish"]
    tpot = (finish - first)[made] / (table["output_tokens"][made] - 1)
    return {
        "ttft": float((first - table["arrival"]).mean()) + latency,
        "tpot": float(tpot.mean()) if made.any() else float("nan"),
        "response": float((finish - table["arrival"]).mean()) + latency,
    }


def shrunk(workload: Workload, by: float) -> Workload:
    """The same arrivals with prompts and outputs so many times shorter, at least one token each."""

    def shorter(tokens: Any) -> Any:
        return np.maximum(1, np.round(tokens / by)).astype(np.int64)

    return Workload.from_arrays(
        arrival=workload.arrival,
        prompt_tokens=shorter(workload.prompt_tokens),
        output_tokens=shorter(workload.output_tokens),
    )


def alone(cluster: Cluster, workload: Workload) -> Workload:
    """Requests like the workload's, from the shortest to the longest prompt, for the replicas in turn: each
    alone at its own, and not long after the one before, for after a pause servers are slow."""
    ranked = np.argsort(workload.prompt_tokens, kind="stable")
    rows = ranked[np.linspace(0, len(ranked) - 1, _ALONE).astype(int)]
    prompts = workload.prompt_tokens[rows]
    outputs = np.minimum(workload.output_tokens[rows], 16)
    run = cluster.run(
        Workload.from_arrays(arrival=np.zeros(len(rows)), prompt_tokens=prompts, output_tokens=outputs),
        RoundRobin(),
    )
    gap = 2.0 * float(run.requests["alone"].max()) / cluster.replicas + 0.02
    return Workload.from_arrays(arrival=np.arange(_ALONE) * gap, prompt_tokens=prompts, output_tokens=outputs)


def outside(seen: Run, told: Run, steps: Sequence[Floats] = ()) -> tuple[float, str]:
    """Seconds of TTFT that are not in steps - HTTP, the proxy, tokens on their way - and how that is known.

    Of requests alone the median of what is left without the steps of their prompts, where each server has
    logged its steps; else of what they take longer than in the simulator.
    """
    real, ours = (run.requests["first_token"] - run.requests["arrival"] for run in (seen, told))
    inside = _prefills(seen, steps) if steps else None
    left = real - (ours if inside is None else inside)
    how = "by the simulator, for the steps are not known" if inside is None else "by the logged steps"
    return max(0.0, float(np.nanmedian(left))), how


def _prefills(seen: Run, steps: Sequence[Floats]) -> Floats | None:
    """Of each request alone the seconds of the steps that computed its prompt; None if these steps are not
    those of these requests."""
    table, found = seen.requests, np.zeros(len(seen.requests["arrival"]))
    for replica, rows in enumerate(steps):
        left = iter(rows)
        for number in np.flatnonzero(table["replica"] == replica):
            tokens = int(table["prompt_tokens"][number])
            while tokens > 0:
                step = next(left, None)
                if step is None:
                    return None
                tokens -= int(step[TOKENS])
                found[number] += step[SECONDS]
            after = int(table["output_tokens"][number]) - 1
            decodes = [step for step in itertools.islice(left, after) if step[TOKENS] == 1]
            if tokens < 0 or len(decodes) < after:
                return None
        if next(left, None) is not None:
            return None
    return found


def report(runs: Sequence[Measured]) -> Iterator[str]:
    """For each rate a table of both testbeds' means with their errors, and the agreement on the ranking."""
    for rate, group in itertools.groupby(runs, key=lambda run: run.rate):
        of = list(group)
        names = list(dict.fromkeys(run.policy for run in of))
        seeds = len({run.seed for run in of})
        yield f"{rate:g} requests/s, {seeds} seeds; mean on servers, in the simulator, error"
        width = max(map(len, [*names, "all"]))
        yield f"  {'':{width}s}" + "".join(f"{name:>36s}" for name in METRICS)
        for name in [*names, "all"]:
            mine = [run for run in of if name in (run.policy, "all")]
            yield f"  {name:{width}s}" + "".join(f"{_error(mine, metric):>36s}" for metric in METRICS)
        slower = np.array([run.steps for run in of])
        if not np.isnan(slower).all():
            yield (
                f"  the servers' steps took {np.nanmean(slower) - 1:+.1%} against the profile "
                f"({np.nanmin(slower) - 1:+.1%} to {np.nanmax(slower) - 1:+.1%} by run)"
            )
        yield f"  requests were sent up to {1e3 * max(run.late for run in of):,.0f} ms late"
        if seeds < 2 or len(names) < 2:
            yield "  no ranking: that takes at least two routers and two seeds"
            continue
        for metric in ("response", "ttft"):
            yield from _ranking(of, names, metric)


def _error(runs: Sequence[Measured], metric: str) -> str:
    real = float(np.mean([run.servers[metric] for run in runs]))
    told = float(np.mean([run.simulator[metric] for run in runs]))
    paced = float(np.mean([run.paced[metric] for run in runs]))
    return f"{1e3 * real:,.0f} {1e3 * told:7,.0f} ms {told / real - 1:+7.1%} {paced / real - 1:+7.1%}"


def _ranking(runs: Sequence[Measured], names: Sequence[str], metric: str) -> Iterator[str]:
    real, told = (
        {name: [getattr(run, side)[metric] for run in runs if run.policy == name] for name in names}
        for side in ("servers", "simulator")
    )
    one, other = order(real), order(told)
    opposed = [pair for pair in one if one[pair] * other[pair] < 0]
    tied = [pair for pair in one if (one[pair] == 0) != (other[pair] == 0)]
    both = sum(one[pair] == 0 == other[pair] for pair in one)
    yield (
        f"  ranking by {metric}: tau-b {tau_b(one, other):.2f}; of {len(one)} pairs {both} tied on both, "
        f"{len(tied)} on one, {len(opposed)} opposed"
    )
    for what, pairs in (("opposed", opposed), ("tied on one", tied)):
        if pairs:
            yield f"    {what}: " + ", ".join(f"{first} and {second}" for first, second in pairs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `validate`."""
    clusters.add_arguments(parser)
    parser.add_argument("routers", nargs="+", metavar="ROUTER", help="FILE.py[:CLASS], or a name: llq")
    parser.add_argument("--profile", required=True, metavar="FILE.toml", help="as `calibrate` wrote it")
    parser.add_argument(
        "--workload", default="sharegpt_bursty", help="a name or file, as `python -m sim run` takes it"
    )
    parser.add_argument("--rate", type=float, action="append", required=True, help="requests/s; once a load")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of a run (30)")
    parser.add_argument("--shrink", type=float, default=1.0, help="divide all token counts by it (1)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each policy and rate (3)")
    parser.add_argument("--seed", type=int, default=1, help="the first (1)")
    parser.add_argument(
        "--steps", action="append", default=[], type=Path, metavar="FILE", help="step logs of running servers"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.csv",
        help="every run's figures; what it has is not run again: a file for each command",
    )


def validate(args: argparse.Namespace) -> int:
    """Run, and tell; the exit code is 0, whatever the errors are."""
    policies = [policy("router", text) for text in args.routers]
    if len({one.label for one in policies}) < len(policies):
        raise ValueError("a router is given twice; expected different ones")
    if not args.shrink >= 1:
        raise ValueError(f"--shrink {args.shrink:g}; expected a number of at least 1")
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds}; expected at least 1")
    if not costs.is_file(args.profile):
        raise ValueError(
            f"--profile {args.profile}; expected the file of a profile, as `calibrate` writes it"
        )
    loads = [(rate, seed) for rate in args.rate for seed in range(args.seed, args.seed + args.seeds)]
    workloads = {load: _workload(args, *load) for load in loads}
    costs.profile(args.profile, "")  # is it one?
    if args.out is not None and not args.out.parent.is_dir():
        raise FileNotFoundError(f"--out {args.out}; its folder is not there: make it first")
    runs = _kept(args.out)
    if args.steps:
        check_logs(args.steps, args.url)
    with clusters.testbed_of(args) as testbed:
        testbed.start()
        check_versions(testbed.urls)
        cluster = _cluster(args, testbed)
        logs = _Logs(args.steps or testbed.step_logs, args.profile)
        probes = alone(cluster, workloads[loads[0]])
        testbed.run(probes, RoundRobin())  # what has just started is slow
        logs.skip()
        seen, told = (where.run(probes, RoundRobin()) for where in (testbed, cluster))
        latency, how = outside(seen, told, logs.new())
        tpot = [1e3 * times(run)["tpot"] for run in (seen, told)]
        print(
            f"alone: {1e3 * latency:.1f} ms of TTFT are outside of steps ({how}) and added to the "
            f"simulator's; TPOT {tpot[0]:.1f} ms, simulated {tpot[1]:.1f}",
            flush=True,
        )
        for number, load in enumerate(loads):
            turn = number % len(policies)
            # Another one first for each seed: what drifts, and what comes first, is shared by all.
            for one in [*policies[turn:], *policies[:turn]]:
                if (*load, one.label) not in runs:
                    run = _both(testbed, cluster, workloads[load], one, load, latency, logs)
                    runs[*load, one.label] = run
                    if args.out is not None:
                        _append(args.out, run)
    wanted = [runs[rate, seed, one.label] for rate, seed in loads for one in policies]
    print(*report(wanted), sep="\n")
    return 0


def _workload(args: argparse.Namespace, rate: float, seed: int) -> Workload:
    found = naming.workload(args.workload, rate, args.duration, seed)
    assert isinstance(found, Workload)  # a closed loop has no rate, and has been refused
    found = shrunk(found, args.shrink) if args.shrink > 1 else found
    longest = int((found.prompt_tokens + found.output_tokens).max())
    if longest > args.max_model_len:
        raise ValueError(
            f"the workload has a request of {longest} tokens, and --max-model-len is {args.max_model_len}; "
            "expected shorter ones: --shrink divides all token counts"
        )
    return found


def _cluster(args: argparse.Namespace, testbed: Testbed) -> Cluster:
    blocks, sizes = zip(*testbed.caches(), strict=True)
    return Cluster(
        replicas=len(testbed.urls),
        gpu=args.profile,
        engine="vllm",
        kv_blocks=min(blocks) + 1,  # vLLM keeps one
        block_size=sizes[0],
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        engine_waits=False,  # its next step has begun before the router knows
    )


def _both(
    testbed: Testbed,
    cluster: Cluster,
    workload: Workload,
    router: NamedPolicy,
    load: tuple[float, int],
    latency: float,
    logs: _Logs,
) -> Measured:
    rate, seed = load
    simulated = times(cluster.run(workload, router.new(workload, seed)), latency)
    logs.skip()
    served = testbed.run(workload, router.new(workload, seed))
    real, late = times(served), served.totals["latest_sent"]
    ratio, paced = logs.ratio(), simulated
    if not np.isnan(ratio):
        scaled = replace(cluster, time_scale=ratio)
        paced = times(scaled.run(workload, router.new(workload, seed)), latency)
    return Measured(rate, seed, router.label, real, simulated, paced, ratio, late)


class _Logs:
    """Step logs of servers, read on."""

    def __init__(self, paths: Sequence[Path], profile: str) -> None:
        self._paths, self._profile = paths, costs.profile(profile, "")
        self._seen = [0] * len(paths)

    def skip(self) -> None:
        """What is there has been seen."""
        self._seen = [len(read(path)) for path in self._paths]

    def new(self) -> list[Floats]:
        """The steps since, of each server."""
        return [read(path)[seen:] for path, seen in zip(self._paths, self._seen, strict=True)]

    def ratio(self) -> float:
        """Measured over told seconds of the steps since."""
        new = self.new()
        steps = np.concatenate(new) if new else np.empty((0, 1))
        return float(steps[:, -1].sum() / seconds_of(self._profile, steps).sum()) if len(steps) else np.nan


_SIDES = ("servers", "simulator", "paced")
_COLUMNS = (
    "rate",
    "seed",
    "policy",
    *(f"{side}_{name}" for side in _SIDES for name in METRICS),
    "steps",
    "late",
)


def _append(path: Path, run: Measured) -> None:
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(_COLUMNS)
        figures = [getattr(run, side)[name] for side in _SIDES for name in METRICS]
        rows.writerow(
            [run.rate, run.seed, run.policy, *(f"{value:.6f}" for value in (*figures, run.steps, run.late))]
        )


def _kept(path: Path | None) -> dict[tuple[float, int, str], Measured]:
    """The runs in the file, by rate, seed and policy; ValueError if it is another file."""
    if path is None or not path.exists() or not path.stat().st_size:
        return {}
    found = {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    reader = csv.DictReader(whole.decode("utf-8", "replace").splitlines())
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise ValueError(f"--out {path} is no table of `validate`; give another name, or remove it")
    os.truncate(path, len(whole))  # a row that was cut off is run again
    for row in reader:
        sides = [{name: float(row[f"{side}_{name}"]) for name in METRICS} for side in _SIDES]
        run = Measured(
            float(row["rate"]),
            int(row["seed"]),
            row["policy"],
            sides[0],
            sides[1],
            sides[2],
            float(row["steps"]),
            float(row["late"]),
        )
        found[run.rate, run.seed, run.policy] = run
    return found
