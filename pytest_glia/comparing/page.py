"""``compare.md``: what a comparison has shown, in tables, with its pictures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from pytest_glia.comparing.curves import best_so_far, reaching, spent, t95, tried
from pytest_glia.comparing.pictures import KINDS, Runs, kinds
from pytest_glia.comparing.runs import Goal, Measured, SearchRun
from pytest_glia.markdown import table


def page(
    runs: Runs,
    goal: Goal,
    baselines: Mapping[str, Measured],
    budget: str,
    command: str,
    pictures: Sequence[str],
) -> str:
    """As Markdown."""
    number = max(len(each) for each in runs.values())
    parts = [
        "# Designers compared",
        f"The same specs, the same budget ({budget}), {number} run{'s' if number > 1 else ''} of each, every "
        "run in a fresh clone with a ledger of its own. "
        f"The goal is {goal.quantity} {goal.op} {goal.threshold:g}.",
        _results(runs, baselines),
        "Median [least, most] over the runs. *Confirmed* is what the designs have shown on seeds that no "
        "search has seen; a run that found none better than the start has none. *T95* is the simulations "
        "until the loss had fallen by 95 % of what it fell by in the end, on development seeds.",
        "## What it cost",
        _costs(runs),
        "Until the last candidate; audit, confirmation and ablations come on top.",
    ]
    if baselines:
        parts += ["## Baselines", _baselines(baselines)]
    parts += ["## Each run", _each(runs), *_without_curve(runs)]
    parts += [f"![{name}]({name})" for name in pictures]
    parts += ["## To reproduce", f"```sh\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


def _results(runs: Runs, baselines: Mapping[str, Measured]) -> str:
    head = [
        "designer",
        "runs",
        "met",
        "confirmed",
        "T95",
        *(f"reached {name}" for name in baselines),
        "failed",
    ]
    rows = []
    for designer, each in runs.items():
        met = sum(run.outcome == "passed" for run in each)
        worked, failed = (sum(counts) for counts in zip(*(_counts(run) for run in each), strict=True))
        rows.append(
            [
                f"`{designer}`",
                str(len(each)),
                f"{met} of {len(each)}",
                _confirmed(each),
                _spread([found for run in each if (found := t95(run)) is not None], "{:.0f}"),
                *(f"{reaching(each, value.point)} of {len(each)}" for value in baselines.values()),
                f"{failed} of {worked + failed}",
            ]
        )
    return table(head, rows)


def _confirmed(runs: Sequence[SearchRun]) -> str:
    points = [run.final.point for run in runs if run.final]
    if not points:
        return "none"
    return _spread(points, "{:.4g}") + (f", {len(points)} of {len(runs)}" if len(points) < len(runs) else "")


def _counts(run: SearchRun) -> tuple[int, int]:
    """Candidates that worked, and that did not."""
    measured, failed = tried(run)
    return len(measured), failed


def _costs(runs: Runs) -> str:
    of = kinds(runs)

    def cells(each: Sequence[SearchRun]) -> list[str]:
        return [_spread([spent(run, kind) / KINDS[kind][1] for run in each], "{:.4g}") for kind in of]

    return table(
        ["designer", *(KINDS[kind][0] for kind in of)],
        [[f"`{designer}`", *cells(each)] for designer, each in runs.items()],
    )


def _baselines(baselines: Mapping[str, Measured]) -> str:
    rows = [[f"`{name}`", _interval(each), str(each.n)] for name, each in baselines.items()]
    return table(["baseline", "measured on guard seeds", "seeds"], rows)


def _each(runs: Runs) -> str:
    rows = [
        [
            f"`{designer}` {run.number}",
            run.outcome,
            _interval(run.final) if run.final else "none",
            str(len(run.rows) - 1),
        ]
        for designer, each in runs.items()
        for run in each
    ]
    return table(["run", "end", "confirmed", "candidates"], rows)


def _without_curve(runs: Runs) -> list[str]:
    """A sentence on the runs that no picture of the best so far can show; none if there are none."""
    names = [
        f"`{designer}` {run.number}"
        for designer, each in runs.items()
        for run in each
        if not best_so_far(run, "simulations").places
    ]
    return [f"No candidate was measured in all replications, so there is no curve: {', '.join(names)}."] * (
        bool(names)
    )


def _interval(of: Measured) -> str:
    low, high = ("-" if end is None else f"{end:.4g}" for end in (of.low, of.high))
    return f"{of.point:.4g} [{low}, {high}]"


def _spread(values: Sequence[float], form: str) -> str:
    show: Callable[[float], str] = form.format
    if not values:
        return "-"
    if len(values) == 1:
        return show(values[0])
    return f"{show(statistics.median(values))} [{show(min(values))}, {show(max(values))}]"
