"""Candidates that were tried, what they were to show and what they have, and how that is told."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_glia.estimate import Check
from pytest_glia.merit import Evaluation, Result
from pytest_glia.statistics import Interval
from pytest_glia.visible import visible


@dataclass(frozen=True)
class Hypothesis:
    """What a candidate is to show.

    Attributes:
        name: Short; heads the commit and the line of progress.
        text: What it changes and why that should help.
        reason: The evidence that called for it.
        predicts: The metrics that should fall (-1) or rise (+1).
        sizes: Of those, by what fraction, where the designer says so: 0.4 is 40 %.

    Their control characters, which would steer a terminal or git, are kept as escapes.
    """

    name: str
    text: str = ""
    reason: str = ""
    predicts: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        predicts = {visible(metric, line=True): sign for metric, sign in self.predicts.items()}
        object.__setattr__(self, "name", visible(self.name, line=True))
        object.__setattr__(self, "text", visible(self.text))
        object.__setattr__(self, "reason", visible(self.reason))
        object.__setattr__(self, "predicts", predicts)


@dataclass(frozen=True)
class Trial:
    """A candidate that was tried out: what it showed, and the change of loss against the one before.

    ``result`` is what the paired interval of ``change`` shows at the confidence of one look of those planned,
    ``simulations`` what the search had spent when it was shown.
    """

    number: int
    hypothesis: Hypothesis
    evaluation: Evaluation
    change: Interval
    result: Result
    commit: str
    simulations: int

    @property
    def id(self) -> str:
        """Under which it is found again: its commit."""
        return f"commit {self.commit[:9]}"


def message(
    number: int, hypothesis: Hypothesis, evaluation: Evaluation, change: Interval, result: Result
) -> str:
    """What the commit of a candidate says, but for its trailers."""
    paragraphs = [f"glia {number}: {hypothesis.name}"]
    if hypothesis.text:
        paragraphs.append(f"Hypothesis: {hypothesis.text}")
    if hypothesis.reason:
        paragraphs.append(f"Called for by: {hypothesis.reason}")
    if hypothesis.predicts:
        paragraphs.append(f"Predicted: {predictions(hypothesis.predicts, hypothesis.sizes)}")
    paragraphs.append(f"Result: {result}. {describe_change(change)}")
    text = "\n\n".join(textwrap.fill(paragraph, 72) for paragraph in paragraphs)
    table = "\n".join(measured_table(evaluation.checks)) or "no comparison was reached"
    errors = "".join(f"\n\nFailed: {message}" for message in evaluation.reasons)
    return f"{text}\n\n{table}{errors}"


def distinct(checks: Sequence[Check]) -> list[Check]:
    """The checks without those that ask the same of the same quantity again."""
    return list({(check.what(), check.demand()): check for check in checks}.values())


def measured_table(checks: Mapping[tuple[str, int], Check]) -> list[str]:
    """A Markdown table of what was measured, asked and decided."""
    rows = [
        f"| {nodeid.rpartition('::')[2]} | {check.what()} | {check.measured()} | {check.demand()} "
        f"| {check.outcome} |"
        for (nodeid, _), check in checks.items()
    ]
    return (
        ["| spec | quantity | measured | asked | verdict |", "|---|---|---|---|---|", *rows] if rows else []
    )


def predictions(predicts: Mapping[str, int], sizes: Mapping[str, float]) -> str:
    """Predicted signs and sizes in words."""
    return ", ".join(
        f"{metric} {'falls' if sign < 0 else 'rises'}"
        + (f" by {100 * sizes[metric]:.3g} %" if metric in sizes else "")
        for metric, sign in predicts.items()
    )


def describe_change(change: Interval) -> str:
    """A change of loss in words."""
    if not math.isfinite(change.mean):
        return "The candidate does not work." if change.mean > 0 else "The candidate works again."
    return f"Loss {change} against the candidate before (paired, n={change.n}; below zero is better)."


def short(value: float) -> float:
    """A figure with four significant digits."""
    return float(f"{value:.4g}")
