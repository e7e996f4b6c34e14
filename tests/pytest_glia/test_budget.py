"""Budgets, and the account that reserves before it spends."""

from __future__ import annotations

import math

import pytest

from pytest_glia.budget import Account, Budget, BudgetExhausted


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("100 sims, 2 min", Budget(100, 120)),
        ("1 sim", Budget(1, math.inf)),
        ("90 s", Budget(math.inf, 90)),
        ("1.5 minutes,20simulations", Budget(20, 90)),
        (" 30 sec , ", Budget(math.inf, 30)),
    ],
)
def test_budget_reads_what_people_write(text: str, budget: Budget) -> None:
    """Simulations and seconds or minutes, in any order; what is not named is not limited."""
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the budget is ''"),
        (" , ", "the budget is"),
        ("0 sims", "above zero"),
        ("10 sims, 0 s", "above zero"),
        ("-5 sims", "'-5 sims'"),
        ("100", "'100'"),
        ("many sims", "'many sims'"),
        ("5 usd", "'5 usd'"),
        ("1e3 sims", "'1e3 sims'"),
        ("100 sims 2 min", "'100 sims 2 min'"),
        ("1 s, 2 min", "limits"),
        ("5 sims, 6 sims", "limits simulations twice"),
        ("nan s", "'nan s'"),
    ],
)
def test_bad_budget_is_misuse(text: str, complaint: str) -> None:
    """The error shows what was given and the form that is expected."""
    with pytest.raises(pytest.UsageError, match=complaint) as caught:
        Budget.parse(text)
    assert '"100 sims, 2 min"' in str(caught.value)


def test_budget_says_the_same_kind_twice_in_seconds_and_minutes() -> None:
    """Seconds and minutes are one limit, so both together are ambiguous."""
    with pytest.raises(pytest.UsageError, match="twice"):
        Budget.parse("60 s, 1 min")


def test_budget_prints_its_limits_only() -> None:
    """What is unlimited is not mentioned."""
    assert str(Budget(100, 90)) == "100 simulations, 90 s"
    assert str(Budget(100)) == "100 simulations"
    assert str(Budget(seconds=90)) == "90 s"


def test_spend_beyond_the_budget_is_refused_and_not_booked() -> None:
    """A refused spend takes nothing: what still fits can be taken afterwards."""
    account = Account(Budget(simulations=10))
    account.reserve(7)
    with pytest.raises(BudgetExhausted, match="the budget of 10 simulations is spent") as caught:
        account.reserve(4)
    assert caught.value.kind == "simulations"
    account.reserve(3)
    assert account.simulations == 10


def test_held_simulations_are_kept_from_the_search() -> None:
    """What is set aside for the confirmation can be spent only when it is released."""
    account = Account(Budget(simulations=10), held_simulations=4)
    account.reserve(6)
    with pytest.raises(BudgetExhausted):
        account.reserve(1)
    account.held_simulations = 0
    account.reserve(4)
    assert account.simulations_left() == 0


def test_exhaustion_tells_what_is_kept() -> None:
    """A search that stops before its budget is gone says for what; one second is no seconds."""
    account = Account(Budget(simulations=10, seconds=1), held_simulations=4)
    with pytest.raises(BudgetExhausted, match="10 simulations is spent, but for 4 simulations kept"):
        account.reserve(7)
    account.started -= 2
    with pytest.raises(BudgetExhausted, match=r"^the budget of 1 second is spent$"):
        account.reserve(0)


def test_no_spend_after_time_is_over() -> None:
    """Once the seconds are gone, less what is held, even one simulation is refused."""
    account = Account(Budget(seconds=1000))
    account.reserve(1)
    account.held_seconds = 1000
    with pytest.raises(BudgetExhausted, match="1000 seconds"):
        account.reserve(1)
    account.held_seconds = 0
    account.started -= 1001
    with pytest.raises(BudgetExhausted):
        account.reserve(1)


def test_exhaustion_names_the_limit_after_a_journey() -> None:
    """The error's arguments, sent as JSON from one process to another, make the same error again."""
    account = Account(Budget(simulations=2))
    with pytest.raises(BudgetExhausted) as caught:
        account.reserve(3)
    again = BudgetExhausted(*caught.value.args)
    assert (str(again), again.kind) == (str(caught.value), "simulations")
