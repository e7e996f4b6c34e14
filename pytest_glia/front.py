"""The Pareto set of a run: the candidates that no other is shown to beat in all that the specs compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_glia.merit import Aim, CheckId, Evaluation
from pytest_glia.statistics import Interval, mean_interval

AS_IT_IS = "the candidate as it is"
"""What the present candidate is called among those that were tried."""


@dataclass(frozen=True)
class Contender:
    """A candidate, with all that it has shown on the development seeds.

    ``number`` is 0 for the present candidate, whose ``commit`` is the base. ``refuted``: it has not held in
    an audit or on confirmation seeds, so what it shows here says nothing of it.
    """

    number: int
    name: str
    commit: str
    evaluation: Evaluation
    refuted: bool = False


@dataclass(frozen=True)
class Front:
    """Which candidates a person may choose from, each better in something than any other.

    One beats another if, paired on the seeds that both have seen, it is shown to be worse by no more than
    ``margin`` in every objective, shown to be better by more than that in one, and better in sum. (What is
    lost in many objectives, by less than the margin in each, could otherwise be more than what is gained in
    one, and three candidates could beat one another in a ring.) So noise alone takes no candidate out: where
    little was run, many stay.

    Attributes:
        members: No member beats another; the best in sum comes first.
        others: That work, too, but are refuted, or beaten by a member.
        objectives: The comparisons of the specs, each in which candidates differ alike once; that which the
            search improves comes first.
        margin: A log-ratio or a share of a threshold, as `pytest_glia.estimate.Check.excess` is.
        confidence: Of each interval. That of two candidates is no claim: only the winner is confirmed.
    """

    members: tuple[Contender, ...]
    others: tuple[Contender, ...]
    objectives: tuple[CheckId, ...]
    margin: float
    confidence: float

    @classmethod
    def of(cls, contenders: Sequence[Contender], aim: Aim, margin: float, confidence: float) -> Front:
        """The front of what was tried, in whatever order; a candidate that was tried twice counts once."""
        most = max((len(each.evaluation.seeds) for each in contenders), default=0)
        working: list[Contender] = []
        seen: list[dict[str, bytes]] = []
        for each in contenders:
            sources = dict(each.evaluation.sources)
            if _works(each.evaluation, most) and sources not in seen:
                working.append(each)
                seen.append(sources)
        objectives = _objectives([each.evaluation for each in working], aim)
        front = cls((), (), objectives, margin, confidence)
        members: list[Contender] = []
        # None is beaten by one that is worse in sum, so that each meets here all that could.
        for each in sorted(working, key=lambda each: _sum(each, objectives)):
            if objectives and not each.refuted and not any(front.beats(one, each) for one in members):
                members.append(each)
        others = tuple(each for each in working if each not in members)
        return cls(tuple(members), others, objectives, margin, confidence)

    def beats(self, one: Contender, other: Contender) -> bool:
        """Whether the one leaves no reason to choose the other."""
        if _sum(one, self.objectives) >= _sum(other, self.objectives):
            return False
        better = False
        for which in self.objectives:
            high = self.change(which, one, other).high
            if high > self.margin:
                return False
            better = better or high < -self.margin
        return better

    def change(self, which: CheckId, of: Contender, against: Contender) -> Interval:
        """By how much more the one misses an objective than the other, paired; below zero is better."""
        pairs = zip(of.evaluation.checks[which].excess, against.evaluation.checks[which].excess, strict=True)
        differences = [ours - theirs for ours, theirs in pairs]
        return mean_interval(differences, self.confidence, deterministic=True)

    def find(self, sources: Mapping[str, bytes]) -> Contender | None:
        """The candidate with these sources, if it works."""
        everyone = (*self.members, *self.others)
        return next((each for each in everyone if dict(each.evaluation.sources) == dict(sources)), None)

    def told(self) -> list[str]:
        """A line that says how many there are, where there is a choice."""
        if len(self.objectives) < 2 or len(self.members) < 2:
            return []
        return [f"  Pareto set: {len(self.members)} candidates (--glia-report lists them)"]


def _works(evaluation: Evaluation, n: int) -> bool:
    """Whether it has come to its end on so many seeds."""
    runs = {len(evaluation.seeds), *(len(check.excess) for check in evaluation.checks.values())}
    return runs == {n} and not evaluation.errors


def _objectives(evaluations: Sequence[Evaluation], aim: Aim) -> tuple[CheckId, ...]:
    """The comparisons that all of them have made, without those in which they differ just as in another one.

    So the same metric against two baselines is one objective.
    """
    if not evaluations:
        return ()
    places = {which: place for place, which in enumerate(aim.known)}
    common = sorted(
        set[CheckId].intersection(*(set(each.checks) for each in evaluations)),
        key=lambda which: (which != aim.primary, places.get(which, len(places)), which),
    )
    found: list[CheckId] = []
    for which in common:
        if not any(_alike(which, other, evaluations) for other in found):
            found.append(which)
    return tuple(found)


def _alike(one: CheckId, other: CheckId, evaluations: Sequence[Evaluation]) -> bool:
    """Whether they differ from seed to seed by what no candidate changes."""
    gaps = [
        [
            ours - theirs
            for ours, theirs in zip(each.checks[one].excess, each.checks[other].excess, strict=True)
        ]
        for each in evaluations
    ]
    pairs = ((gap, first) for each in gaps for gap, first in zip(each, gaps[0], strict=True))
    return all(math.isclose(gap, first, abs_tol=1e-9) for gap, first in pairs)


def _sum(of: Contender, objectives: Sequence[CheckId]) -> float:
    """By how much it misses the objectives, all together, on average over its seeds."""
    samples = [each for which in objectives for each in of.evaluation.checks[which].excess]
    return math.fsum(samples) / max(1, len(of.evaluation.seeds))
