"""How good a candidate is at what its specs ask, and whether one is shown to be better than another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from pytest_glia.estimate import Check
from pytest_glia.statistics import Interval, mean_interval, t_quantile

CheckId = tuple[str, int]
"""A test's node id, and the ordinal of the comparison in it."""

Result = Literal["better", "worse", "equivalent", "not shown", "broken"]
"""What the interval of a change of loss says of a candidate."""

# A check is to be met with at least this much to spare (a log-ratio, or a share of its threshold): what is
# met by a hair on some seeds is not shown on others.
_TO_SPARE = 0.005

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


def spreads_to_spare(replications: int, confidence: float) -> float:
    """By how many standard deviations a mean is to meet a threshold, so that other seeds will show it, too.

    Half the width of an interval of as many replications, and by how much the means of two such samples
    differ: what is met by both together is shown again five times in six.
    """
    t = float(t_quantile(0.5 + confidence / 2, replications - 1)) if replications > 1 else 0.0
    return t / math.sqrt(replications) + math.sqrt(2 / replications)


@dataclass(frozen=True)
class Aim:
    """What the search wants: the checks of the specs, the first failing one first.

    Attributes:
        primary: The check that the search keeps improving after it is met: the first of the failing specs
            that is not met at the start; None if no failing spec makes a comparison.
        known: All checks that the starting candidate's specs made.
        spreads: By how many standard deviations of its replications a check is to be met.
    """

    primary: CheckId | None
    known: tuple[CheckId, ...]
    spreads: float

    def losses(self, evaluation: Evaluation, first: int | None = None) -> list[float]:
        """One number a replication, smaller is better; infinite if the candidate does not work. Of the
        `first` replications alone if so many are given.

        How far the primary check is on the wrong side of its threshold (below zero if it is met), and ten
        times what any check, the primary one included, lacks on the mean of all replications to meet its
        threshold with enough to spare. (Replications that miss a threshold are no fault where the mean meets
        it: the mean is what a spec asks about.)
        """
        count = len(evaluation.seeds) if first is None else first
        losses = [SHORTFALL * self._failures(evaluation)] * count
        if math.inf in losses:
            return losses
        for which in self.known:
            every = evaluation.checks[which].excess[:count]
            spare = self._to_spare(evaluation.checks[which], count)
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
                better = which == self.primary or self._lacks(check)
                wanted[check.metric] = wanted.get(check.metric, False) or better
        return wanted

    def assured(self, evaluation: Evaluation) -> bool:
        """Whether all specs are met with enough to spare to expect that they are shown on other seeds."""
        checks = evaluation.checks.values()
        return evaluation.met() and not any(check.excess and self._lacks(check) for check in checks)

    def change(self, of: Evaluation, against: Evaluation, confidence: float) -> Interval:
        """How much larger the loss of one candidate is than another's, paired on their common seeds.

        Both are asked to meet a check with as much to spare, the less of the two: the noise of one makes the
        other no worse, and how far replications spread is known too badly to make one better. But if its own
        spread makes its loss higher than that says, it is. A check that only one side falls short in counts
        for the part of the way from one to the other on which it is not met, so that the noise that both
        share cancels. `result_of` says what a change shows.
        """
        n = min(len(of.seeds), len(against.seeds))
        if of.seeds[:n] != against.seeds[:n]:
            raise ValueError("the evaluations have no seeds in common")
        failures, others = self._failures(of), self._failures(against)
        if math.isinf(failures) or math.isinf(others):
            worst = failures if math.isinf(failures) else -math.inf
            return Interval(worst, 0.0, n, confidence, worst, worst)
        differences = [SHORTFALL * (failures - others)] * n
        for which in self.known:
            sides = of.checks[which], against.checks[which]
            spare = min(self._to_spare(side, n) for side in sides)
            us, them = (_mean(side.excess[:n]) + spare for side in sides)
            one_short = (us > 0) != (them > 0)
            part = (max(us, 0.0) - max(them, 0.0)) / (us - them) if one_short else float(us > 0)
            weight = SHORTFALL * part + (which == self.primary)
            for replication in range(n):
                ours, theirs = (side.excess[replication] for side in sides)
                differences[replication] += weight * (ours - theirs)
        more = self.loss(of, n) - self.loss(against, n) - _mean(differences)
        differences = [each + max(0.0, more) for each in differences]
        return mean_interval(differences, confidence, deterministic=True)

    def _failures(self, evaluation: Evaluation) -> float:
        """The tests that fail and make no comparison; infinite if the candidate does not work."""
        # An error of no test is one of the candidate: its source, or its evaluation as a whole.
        if "" in evaluation.errors:
            return math.inf
        for which in self.known:
            check = evaluation.checks.get(which)
            if check is None or len(check.excess) != len(evaluation.seeds):
                return math.inf
        measured = {nodeid for nodeid, _ in self.known}
        return math.inf if measured & set(evaluation.errors) else float(len(evaluation.errors))

    def _to_spare(self, check: Check, first: int | None = None) -> float:
        """By how much a check is to be met, on the mean of its replications, or the first of them."""
        excess = check.excess[:first]
        spread = statistics.stdev(excess) if len(excess) > 1 else 0.0
        if spread == 0 and check.outcome == "shown":
            return 0.0  # other seeds show the same
        return max(_TO_SPARE, self.spreads * spread)

    def _lacks(self, check: Check) -> bool:
        """Whether a check is not met with enough to spare."""
        return _mean(check.excess) + self._to_spare(check) > 0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


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
    lines = [line[1:] for line in text.splitlines() if line.startswith("E  ")] or text.splitlines()
    return lines[0].strip() if lines else "failed"


def recorded_by(reports: Sequence[pytest.TestReport]) -> set[str]:
    """The domains that record what the specs ask of the candidate, so that an audit has something to see."""
    return {domain for report in reports for domain in getattr(report, "glia_recordable", ())}
