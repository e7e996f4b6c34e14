"""The simulator against measured vLLM runs: `python -m sim validate`.

Each run is simulated from its workload and its engine's configuration, with a profile fitted to operator
times only. Nothing here or in the profiles is tuned on the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sim.baselines import RoundRobin
from sim.cluster import Cluster
from sim.costs import Batch, DecodeRow, Profile, step_seconds
from sim.ground_truth import Case, Times, read_cases
from sim.prefixes import Prefixes
from sim.vllm_steps import serve
from sim.workloads import Workload

__all__ = ["ENGINES", "Served", "report", "simulate"]

WITHIN = 0.05
"""The errors that we promise: mean and P90 of TTFT, TPOT and response time."""

STATISTICS: dict[str, float | None] = {"mean": None, "P50": 0.5, "P90": 0.9, "P99": 0.99}
PROMISED = ("mean", "P90")


@dataclass(frozen=True, eq=False)
class Served:
    """A simulated run."""

    times: Times
    steps: int
    preemptions: int
    cached_tokens: int
    """Tokens found in the prefix cache."""


def simulate(case: Case, *, cuda_graphs: bool | None = None, hide_cpu: bool | None = None) -> Served:
    """The run on the plain Python engine, `sim.vllm_steps`; CPU work is hidden by the GPU's if scheduling is
    asynchronous, unless told otherwise."""
    settings = case.settings
    tables = case.profile.tables(
        settings.max_num_batched_tokens,
        settings.max_num_seqs,
        cuda_graphs=cuda_graphs,
        async_scheduling=settings.async_scheduling if hide_cpu is None else hide_cpu,
    )
    steps = 0

    def seconds(batch: Batch) -> float:
        nonlocal steps
        steps += 1
        return step_seconds(tables, *batch)

    timings = serve(
        case.arrival.tolist(),
        case.prompt_tokens.tolist(),
        case.output_tokens.tolist(),
        settings=settings,
        seconds=seconds,
        prefix_keys=case.prefix_keys,
    )
    first, last = (np.array([getattr(one, name) for one in timings]) for name in ("first_token", "finish"))
    return Served(
        Times.of(case.arrival, first, last, case.output_tokens),
        steps,
        sum(one.preemptions for one in timings),
        sum(one.cached_tokens for one in timings),
    )


def simulate_compiled(case: Case) -> Served:
    """The run on the compiled core, which schedules in step and hides CPU work behind the GPU's."""
    settings = case.settings
    cluster = Cluster(
        replicas=1,
        gpu=case.profile.gpu,
        model=case.profile.model,
        engine="vllm",
        kv_blocks=settings.kv_blocks,
        block_size=settings.block_size,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        prefix_caching=settings.enable_prefix_caching,
    )
    numbers: dict[Hashable, int] = {}
    rows: list[ArrayLike] = [
        [numbers.setdefault(key, len(numbers)) for key in keys] for keys in case.prefix_keys
    ]
    workload = Workload.from_arrays(
        arrival=case.arrival,
        prompt_tokens=case.prompt_tokens,
        output_tokens=case.output_tokens,
        prefixes=Prefixes.from_rows(rows, settings.block_size),
    )
    run = cluster.run(workload, RoundRobin())
    columns = run.requests
    return Served(
        Times.of(case.arrival, columns["first_token"], columns["finish"], case.output_tokens),
        int(run.totals["steps"]),
        int(columns["restarts"].sum()),
        int(run.totals["hit_tokens"]),
    )


ENGINES: dict[str, Callable[[Case], Served]] = {"steps": simulate, "cluster": simulate_compiled}
"""What a run can be simulated with."""


def report(data: Path, engine: str, ablate: bool) -> Iterator[str]:
    """The report: a table of errors per run; with `ablate`, what each piece of the model does."""
    cases, refused = read_cases(data)
    for case in cases:
        served = ENGINES[engine](case)
        profile = case.profile
        yield f"{case.name}: profile {profile.gpu} {profile.model}, {profile.marks() or 'all measured'}"
        if case.assumed:
            yield f"  not in meta.json: {'; '.join(case.assumed)}"
        yield (
            f"  {len(case.arrival)} requests, {served.steps} steps, {served.preemptions} preemptions, "
            f"{served.cached_tokens} tokens from the prefix cache"
        )
        yield from _table(case, served)
        if ablate:
            yield from _ablations(case)
        yield ""
    for sentence in refused:
        yield f"not simulated: {sentence}"


def _errors(case: Case, served: Served) -> dict[tuple[str, str], tuple[float, float]]:
    """(metric, statistic) -> measured and simulated."""
    found = {}
    for metric in Times._fields:
        for name, quantile in STATISTICS.items():
            measured, simulated = (
                float(np.nanmean(times) if quantile is None else np.nanquantile(times, quantile))
                for times in (getattr(case.measured, metric), getattr(served.times, metric))
            )
            found[metric, name] = measured, simulated
    return found


def _table(case: Case, served: Served) -> Iterator[str]:
    errors = _errors(case, served)
    yield f"  {'':9s}" + "".join(f"{name:>28s}" for name in STATISTICS)
    for metric in Times._fields:
        cells = (errors[metric, name] for name in STATISTICS)
        yield f"  {metric:9s}" + "".join(
            f"{1e3 * vllm:10.1f} {1e3 * ours:8.1f} {ours / vllm - 1:+7.1%} " for vllm, ours in cells
        )
    worst = max(abs(ours / vllm - 1) for (_, name), (vllm, ours) in errors.items() if name in PROMISED)
    verdict = "within" if worst <= WITHIN else "NOT within"
    yield f"  ms: vLLM, simulated, error. Mean and P90 {verdict} {WITHIN:.0%}: the worst is {worst:.1%}"


def _ablations(case: Case) -> Iterator[str]:
    """The same errors with one piece of the model changed at a time."""
    settings, profile = case.settings, case.profile
    in_time = replace(case, settings=replace(settings, async_scheduling=False))
    changed = {
        "as it is": case,
        "no prefix caching": replace(case, settings=replace(settings, enable_prefix_caching=False)),
        "no async scheduling": in_time,
        "CPU 0 ms a step": replace(case, profile=replace(profile, cpu=0.0)),
        "CPU 5 ms a step": replace(case, profile=replace(profile, cpu=5e-3)),
        "CPU 10 ms a step": replace(case, profile=replace(profile, cpu=1e-2)),
        "equal contexts": replace(case, profile=without_stragglers(profile)),
        "mixed as alone": replace(case, profile=replace(profile, mixed_rows=())),
        "3 % fewer KV blocks": replace(
            case, settings=replace(settings, kv_blocks=int(settings.kv_blocks * 0.97))
        ),
    }
    yield f"  {'ablation':22s}" + "".join(f"{m + ' ' + s:>15s}" for m in Times._fields for s in PROMISED)
    for name, other in changed.items():
        yield _ablation(name, other, simulate(other))
    yield _ablation("no async, CPU hidden", case, simulate(in_time, hide_cpu=True))
    yield _ablation("no graph padding", case, simulate(case, cuda_graphs=False))


def _ablation(name: str, case: Case, served: Served) -> str:
    errors = _errors(case, served)
    cells = (errors[metric, statistic] for metric in Times._fields for statistic in PROMISED)
    return f"  {name:22s}" + "".join(f"{ours / vllm - 1:+15.1%}" for vllm, ours in cells)


def without_stragglers(profile: Profile) -> Profile:
    """The profile as if all contexts of a step were equal."""

    def equal(rows: tuple[DecodeRow, ...]) -> tuple[DecodeRow, ...]:
        return tuple(replace(row, straggler=0.0) for row in rows)

    return replace(profile, decode_rows=equal(profile.decode_rows), mixed_rows=equal(profile.mixed_rows))
