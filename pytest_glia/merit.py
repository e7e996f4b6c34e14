"""How good a candidate is at what its specs ask, and whether one is shown to be better than another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from pytest_glia.estimate import Check
from pytest_glia.statistics import Interval, mean_interval

CheckId = tuple[str, int]
"""A test's node id, and the ordinal of the comparison in it."""

Result = Literal["better", "worse", "equivalent", "not shown", "broken"]
"""What the interval of a change of loss says of a candidate."""

# A check is to be met with this much to spare (a log-ratio, or a share of its threshold), or with so many
# standard deviations of its replications if that is more: what is met by a hair on some seeds is not shown on
# others. 0.72 of them are half of a 95 % interval's width at ten replications, and 0.45 by how much the means
# of ten and of ten others differ: what is met by both together is shown again five times in six.
_TO_SPARE = 0.005
_SPREADS = 0.72 + 0.45

# What falls short weighs this much more than what the main goal gains: no gain pays for a broken demand.
SHORTFALL = 10.0


@dataclass(frozen=True)
class Evaluation:
    """What running the specs for one candidate on some seeds has shown.

    ``checks`` holds every comparison that the specs made; ``errors`` the tests that failed for another
    reason (a plain assert, a replication that raised), with the message. ``tables`` has the keys of the
    replications whose tables were kept, and ``printed`` what the replications that were run have printed.
    """

    sources: Mapping[str, bytes]
    seeds: tuple[int, ...]
    checks: Mapping[CheckId, Check]
    errors: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    printed: str = ""

    @classmethod
    def of(
        cls, sources: Mapping[str, bytes], seeds: tuple[int, ...], reports: Sequence[pytest.TestReport]
    ) -> Evaluation:
        """Read the tests' reports of a job that only looks: whatever fails in it is an error."""
        checks: dict[CheckId, Check] = {}
        errors: dict[str, str] = {}
        tables: dict[str, None] = {}
        for report in reports:
            made = [Check.from_json(data) for data in getattr(report, "glia", ())]
            checks |= {(report.nodeid, ordinal): check for ordinal, check in enumerate(made)}
            if report.failed:
                errors[report.nodeid] = message_of(report)
            tables |= dict.fromkeys(getattr(report, "glia_tables", ()))
        # The last report of a test has what was printed in all of its phases.
        printed = "".join({report.nodeid: report.capstdout for report in reports}.values())
        return cls(sources, seeds, checks, errors, tuple(tables), printed)

    def met(self) -> bool:
        """Whether all that the specs compare is shown, and nothing fails."""
        return not self.errors and all(check.outcome == "shown" for check in self.checks.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not work, each reason once however many tests failed for it."""
        return tuple(dict.fromkeys(self.errors.values()))

    def directed_as(self, other: Evaluation) -> Evaluation:
        """The same with each check in the direction in which the other evaluation has it."""
        checks = {
            which: check.opposite()
            if which in other.checks and check.opposite().op == other.checks[which].op
            else check
            for which, check in self.checks.items()
        }
        return replace(self, checks=checks)

    @property
    def metrics(self) -> dict[str, tuple[float, ...]]:
        """Every metric that the candidate's replications reported, one number a seed, over all specs."""
        merged: dict[str, tuple[float, ...]] = {}
        for check in self.checks.values():
            merged = {**check.metrics, **merged}
        return merged

    @property
    def evidence(self) -> dict[str, float]:
        """The means of `metrics`."""
        merged: dict[str, float] = {}
        for check in self.checks.values():
            merged = {**check.evidence, **merged}
        return merged


@dataclass(frozen=True)
class Aim:
    """What the search wants: the checks of the specs, the first failing one first.

    Attributes:
        primary: The check that the search keeps improving after it is met: the first of the failing specs
            that is not met at the start; None if no failing spec makes a comparison.
        known: All checks that the starting candidate's specs made.
    """

    primary: CheckId | None
    known: tuple[CheckId, ...]

    def losses(self, evaluation: Evaluation, first: int | None = None) -> list[float]:
        """One number a replication, smaller is better; infinite if the candidate does not work. Of the
        `first` replications alone if so many are given.

        How far the primary check is on the wrong side of its threshold (below zero if it is met), and ten
        times what any check, the primary one included, lacks on the mean of all replications to meet its
        threshold with enough to spare. (Replications that miss a threshold are no fault where the mean meets
        it: the mean is what a spec asks about.)
        """
        checks = [evaluation.checks.get(each) for each in self.known]
        n = len(evaluation.seeds)
        count = n if first is None else first
        # An error of no test is one of the candidate: its source, or its evaluation as a whole.
        if "" in evaluation.errors or any(check is None or len(check.excess) != n for check in checks):
            return [math.inf] * count
        measured = {nodeid for nodeid, _ in self.known}
        unmeasured = float(sum(nodeid not in measured for nodeid in evaluation.errors))
        if len(evaluation.errors) > unmeasured:
            return [math.inf] * count
        losses = [SHORTFALL * unmeasured] * count
        for which, check in zip(self.known, checks, strict=True):
            assert check is not None
            every = check.excess[:count]
            spare = _to_spare(every)
            falls_short = _mean(every) + spare > 0
            for replication, excess in enumerate(every):
                if falls_short:
                    losses[replication] += SHORTFALL * (excess + spare)
                if which == self.primary:
                    losses[replication] += excess
        return losses

    def loss(self, evaluation: Evaluation, first: int | None = None) -> float:
        """The mean of `losses`."""
        losses = self.losses(evaluation, first)
        return _mean(losses) if losses else math.inf

    def wanted(self, evaluation: Evaluation) -> dict[str, bool]:
        """Of each metric that a spec asks about, whether a better one would lower the loss.

        It would where the check is the primary one, or is not met with enough to spare.
        """
        wanted: dict[str, bool] = {}
        for which, check in evaluation.checks.items():
            if check.metric is not None and check.excess:
                better = which == self.primary or _lacks(check.excess)
                wanted[check.metric] = wanted.get(check.metric, False) or better
        return wanted

    def assured(self, evaluation: Evaluation) -> bool:
        """Whether all specs are met with enough to spare to expect that they are shown on other seeds."""
        checks = evaluation.checks.values()
        return evaluation.met() and not any(check.excess and _lacks(check.excess) for check in checks)

    def change(self, of: Evaluation, against: Evaluation, confidence: float) -> Interval:
        """How much larger the loss of one candidate is than another's, paired on their common seeds.

        `result_of` says what it shows.
        """
        n = min(len(of.seeds), len(against.seeds))
        if of.seeds[:n] != against.seeds[:n]:
            raise ValueError("the evaluations have no seeds in common")
        pairs = zip(self.losses(of, n), self.losses(against, n), strict=True)
        differences = [
            ours - theirs for ours, theirs in pairs if not (math.isinf(ours) and math.isinf(theirs))
        ]
        if not differences or any(math.isinf(each) for each in differences):
            worst = math.inf if not differences or differences[0] > 0 else -math.inf
            return Interval(worst, 0.0, n, confidence, worst, worst)
        for which in self.known:
            corrections = _paired(of.checks[which].excess[:n], against.checks[which].excess[:n])
            differences = [each + more for each, more in zip(differences, corrections, strict=True)]
        return mean_interval(differences, confidence, deterministic=True)


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """What to add to differences of losses, none on the mean, for a check that only one side falls short in.

    The loss has the replications of that side alone, with all the noise that both sides share. Here they are
    paired, and count for the part of the way from one side to the other on which the check is not met.
    """
    sides = [[excess + _to_spare(side) for excess in side] for side in (ours, theirs)]
    us, them = map(_mean, sides)
    if (us > 0) == (them > 0):
        return [0.0] * len(ours)
    part = (max(us, 0.0) - max(them, 0.0)) / (us - them)
    alone = sides[0] if us > 0 else [-each for each in sides[1]]
    return [
        SHORTFALL * (part * (our - their) - counted)
        for our, their, counted in zip(*sides, alone, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _to_spare(excess: Sequence[float]) -> float:
    """By how much a check is to be met, on the mean of its replications."""
    return max(_TO_SPARE, _SPREADS * statistics.stdev(excess) if len(excess) > 1 else 0.0)


def _lacks(excess: Sequence[float]) -> bool:
    """Whether a check is not met with enough to spare."""
    return _mean(excess) + _to_spare(excess) > 0


def result_of(change: Interval, margin: float) -> Result:
    """What a change of loss shows: better or worse by more than `margin`, or less than that either way.

    "broken" if the candidate does not work, "not shown" if its interval has `margin` or -`margin` inside.
    """
    if change.mean == math.inf:
        return "broken"
    if change.high < -margin:
        return "better"
    if change.low > margin:
        return "worse"
    return "equivalent" if max(-change.low, change.high) <= margin else "not shown"


def message_of(report: pytest.TestReport) -> str:
    """The line of a failure that says why."""
    text = report.longreprtext.strip()
    lines = [line for line in text.splitlines() if line.startswith("E  ")] or text.splitlines()
    return lines[0].removeprefix("E").strip() if lines else "failed"
