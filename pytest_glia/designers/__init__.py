"""Who designs: the protocol of a designer, and what it hands over at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pytest_glia.merit import Evaluation
from pytest_glia.statistics import Interval

if TYPE_CHECKING:
    from pytest_glia.lab import Lab


@dataclass(frozen=True)
class Claim:
    """One idea in the winner, and how to take it out again.

    Attributes:
        name: Short.
        text: What it changes and why that should help.
        reason: The evidence that called for it.
        predicts: The metrics that it said would fall (-1) or rise (+1).
        numbers: Its constants as tuned.
        without: The winner's source files without this idea.
        also_without: Ideas that rest on this one, and are gone with it.
        experiment: The id of the experiment that the designer made for it, in the run's record.
    """

    name: str
    text: str
    reason: str
    predicts: Mapping[str, int]
    numbers: Mapping[str, float]
    without: Mapping[str, bytes]
    also_without: tuple[str, ...] = ()
    experiment: str = ""


@dataclass(frozen=True)
class Rejected:
    """An idea that was tried and not kept: the change of loss it made (below zero is better), and why not."""

    name: str
    text: str
    reason: str
    predicts: Mapping[str, int]
    change: Interval
    verdict: str


Look = Callable[..., Evaluation]
"""Of sources, with ``scenario=`` and ``inspected=``: what they show on seeds that the search has not seen."""


@dataclass(frozen=True)
class Finding:
    """Something learnt about the workload or the system.

    Attributes:
        text: What.
        source: The id of the experiment or analysis that shows it, in the run's record.
        measured: Its figures.
        again: Tests it again, given how to look, and says what came of that.
    """

    text: str
    source: str
    measured: str
    again: Callable[[Look], str]


@dataclass(frozen=True)
class Proposal:
    """What a designer ends with.

    Attributes:
        evaluation: Of its best candidate.
        claims: The ideas in it.
        rejected: The ideas that were tried and are not in it.
        tuning: By idea, the settings of its numbers that were judged, each with its loss.
        findings: What was learnt on the way.
        remark: Why the search ended, and what else a reader of the design must know.
    """

    evaluation: Evaluation
    claims: Sequence[Claim] = ()
    rejected: Sequence[Rejected] = ()
    tuning: Mapping[str, Sequence[tuple[Mapping[str, float], float]]] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    remark: str = ""


class Designer(Protocol):
    """Works on the candidates of a `Lab` until they meet their specs or the budget is spent.

    One that asks a language model has an attribute ``uses_model = True``: then a search refuses to start
    without a model or without a limit to what it may cost, and the lab has `models`.
    """

    def design(self, lab: Lab) -> Proposal:
        """The best candidate found.

        `BudgetExhausted` and `ModelFailed` may be left to the caller: then the best candidate so far stands,
        without claims.
        """
        ...
