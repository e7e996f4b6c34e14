"""Who designs: the protocol of a designer, and what it hands over at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pytest_glia.merit import Evaluation
from pytest_glia.statistics import Interval
from pytest_glia.visible import visible

if TYPE_CHECKING:
    from pytest_glia.lab import Lab
    from pytest_glia.trials import Trial
    from pytest_glia.workbench import Analysis


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
        shown: What that experiment has shown, where its id does not say all.
        sizes: By what fraction it said that metrics would fall or rise.

    A designer's words may steer a terminal, so control characters in them are kept as escapes.
    """

    name: str
    text: str
    reason: str
    predicts: Mapping[str, int]
    numbers: Mapping[str, float]
    without: Mapping[str, bytes]
    also_without: tuple[str, ...] = ()
    experiment: str = ""
    shown: str = ""
    sizes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _escape(self, "text", "reason", "shown")
        _escape(self, "name", line=True)

    @classmethod
    def whole(cls, trial: Trial, text: str, start: Mapping[str, bytes]) -> Claim:
        """A candidate, as it was tried, as one idea: without it there is the start."""
        hypothesis = trial.hypothesis
        return cls(
            "the design as a whole",
            text,
            hypothesis.reason,
            hypothesis.predicts,
            {},
            dict(start),
            experiment=trial.id,
            shown=f"{trial.result}, loss {trial.change}",
        )


@dataclass(frozen=True)
class Rejected:
    """An idea that was tried and not kept: the change of loss it made (below zero is better), and why not."""

    name: str
    text: str
    reason: str
    predicts: Mapping[str, int]
    change: Interval
    verdict: str

    def __post_init__(self) -> None:
        _escape(self, "text", "reason")
        _escape(self, "name", line=True)


class Look(Protocol):
    """Sees what sources do on seeds that the search has not seen."""

    def __call__(
        self,
        sources: Mapping[str, bytes],
        *,
        on: slice = ...,
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
    ) -> Evaluation:
        """On which of the seeds, all by default; the rest is as `pytest_glia.lab.Lab.look` has it."""
        ...

    def analyse(self, code: str, seen: Evaluation) -> Analysis:
        """What some code makes of the tables that an inspected evaluation has kept."""
        ...


@dataclass(frozen=True)
class Retested:
    """What came of testing a finding again, in words, and whether it is what it was."""

    text: str
    verdict: Literal["as before", "not as before", "unverified"]


class Retest(Protocol):
    """A way to test a finding again, that can be written down (`pytest_glia.retesting`)."""

    def __call__(self, look: Look) -> Retested: ...

    def as_json(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Finding:
    """Something learnt about the workload or the system.

    Attributes:
        text: What.
        source: The id of the experiment or analysis that shows it, in the run's record.
        measured: Its figures.
        again: Tests it again, given how to look.
    """

    text: str
    source: str
    measured: str
    again: Retest

    def __post_init__(self) -> None:
        _escape(self, "text", "measured", line=True)


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


def _escape(words: object, *names: str, line: bool = False) -> None:
    """Put escapes in the place of control characters in attributes of a frozen dataclass."""
    for name in names:
        object.__setattr__(words, name, visible(getattr(words, name), line=line))


class Designer(Protocol):
    """Works on the candidates of a `Lab` until they meet their specs or the budget is spent.

    One that asks a language model has an attribute ``uses_model = True``: then a search refuses to start
    without a model or without a limit to what it may cost, and the lab has `models`. One that cannot work
    everywhere has a method ``check(settings)``, which raises `Misuse` before anything is spent. One with an
    attribute ``tries_nothing`` leaves runs that were killed for the designer that can go on with them.
    """

    def design(self, lab: Lab) -> Proposal:
        """The best candidate found.

        `BudgetExhausted` and `ModelFailed` may be left to the caller: then the best candidate so far stands,
        without claims.
        """
        ...
