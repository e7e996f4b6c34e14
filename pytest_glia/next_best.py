"""What a run tries where its designer's best does not hold: the next best that met the specs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

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

    Candidates are those that met all specs on all development seeds, the best first.
    """
    for trial in _others(lab, first.evaluation.sources)[:_MOST]:
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


def _others(lab: Lab, tried: Mapping[str, bytes]) -> list[Trial]:
    """One trial of each candidate that met the specs, but for the one with these sources, the best first."""
    return list(_once(sorted(lab.trials, key=lambda each: lab.aim.loss(each.evaluation)), tried, lab))


def _once(trials: Sequence[Trial], tried: Mapping[str, bytes], lab: Lab) -> Iterator[Trial]:
    seen = [dict(tried)]
    for trial in trials:
        evaluation = trial.evaluation
        whole = len(evaluation.seeds) == lab.settings.replications
        if whole and evaluation.met() and dict(evaluation.sources) not in seen:
            seen.append(dict(evaluation.sources))
            yield trial


def _proposal(trial: Trial, first: Proposal, start: Mapping[str, bytes]) -> Proposal:
    """A candidate as a design of its own, of which nobody has made more than one claim."""
    return Proposal(
        trial.evaluation,
        [Claim.whole(trial, trial.hypothesis.text, start)],
        first.rejected,
        remark="The best on the development seeds did not hold on others; this is the next best. "
        + first.remark,
    )
