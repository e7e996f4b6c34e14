"""What a run tries where its designer's best does not hold: the next best that met the specs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest

from pytest_glia.budget import BudgetExhausted
from pytest_glia.delivery import Delivery
from pytest_glia.designers import Claim, Proposal
from pytest_glia.lab import Lab
from pytest_glia.trials import Trial

_MOST = 2
"""Further designs that are confirmed: each is asked for more confidence than the one before."""


def next_confirmed(
    lab: Lab,
    first: Proposal,
    deliver: Callable[[Proposal], Delivery],
    before: Sequence[pytest.TestReport],
    write: Callable[[str], None],
) -> tuple[Delivery, list[pytest.TestReport]] | None:
    """The next best candidate that is confirmed, with its reports; None if none is, or the budget ends.

    Candidates are those that met all specs on all development seeds: first the Pareto set of those that are
    left, whose members are good at different things, then the rest.
    """
    for trial in _others(lab)[:_MOST]:
        try:
            with lab.ending(f"confirms candidate {trial.number}"):
                _afford(lab)
        except BudgetExhausted as error:
            left = f"{max(0, math.floor(error.rest))} {error.kind}"
            write(f"To confirm the next best candidate takes more than the {left} that are left.")
            return None
        write(f"The next best that met the specs is candidate {trial.number}: {trial.hypothesis.name}")
        delivery = deliver(_proposal(trial, first, lab.start.sources))
        reports = delivery.confirm(before)
        if delivery.passed:
            return delivery, reports
        if not delivery.refuted:
            return None
    return None


def _afford(lab: Lab) -> None:
    """Raise `BudgetExhausted` if what is left does not pay for an audit and a confirmation."""
    lab.hold(0)
    account = lab.account
    needed, account.held = account.held, {}
    for kind, amount in needed.items():
        if account.left(kind) < amount:
            raise BudgetExhausted(kind, account.budget.limit(kind), account.left(kind))


def _others(lab: Lab) -> list[Trial]:
    """What met the specs and has not failed since: the Pareto set, then the rest, the best of each first."""
    front = lab.front()
    trials = {each.commit: each for each in lab.trials}
    return [
        trials[each.commit]
        for group in (front.members, front.others)
        for each in sorted(group, key=lambda each: lab.aim.loss(each.evaluation))
        if each.number and each.evaluation.met() and not each.refuted
    ]


def _proposal(trial: Trial, first: Proposal, start: Mapping[str, bytes]) -> Proposal:
    """A candidate as a design of its own, of which nobody has made more than one claim."""
    return Proposal(
        trial.evaluation,
        [Claim.whole(trial, trial.hypothesis.text, start)],
        first.rejected,
        remark="The best on the development seeds did not hold on others; this is the next best. "
        + first.remark,
    )
