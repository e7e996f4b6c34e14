"""Budgets, and the account that reserves before it spends."""

from __future__ import annotations

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_glia.budget import Account, Budget, BudgetExhausted, Kind
from pytest_glia.ledger import Ledger
from pytest_glia.payer import Payer


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("100 sims, 2 min", Budget(100, 120)),
        ("1 sim", Budget(1, math.inf)),
        ("90 s", Budget(math.inf, 90)),
        ("1.5 minutes,20simulations", Budget(20, 90)),
        (" 30 sec , ", Budget(math.inf, 30)),
        ("30 min, 0.5 usd, 200k tokens", Budget(seconds=1800, dollars=0.5, tokens=200_000)),
        ("1.5M tokens, 90 gpu-min", Budget(tokens=1_500_000, gpu_minutes=90)),
    ],
)
def test_budget_reads_what_people_write(text: str, budget: Budget) -> None:
    """Each kind in its units, in any order; what is not named is not limited."""
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
        ("5 eur", "'5 eur'"),
        ("1e3 sims", "'1e3 sims'"),
        ("100 sims 2 min", "'100 sims 2 min'"),
        ("1 s, 2 min", "limits"),
        ("5 sims, 6 sims", "limits simulations twice"),
        ("nan s", "'nan s'"),
        ("5K tokens", "'5K tokens'"),
        ("5 gpu_min", "'5 gpu_min'"),
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
    assert str(Budget(tokens=2e6, dollars=0.25, gpu_minutes=90)) == "2000000 tokens, 0.25 usd, 90 gpu-min"


def test_spend_beyond_the_budget_is_refused_and_not_booked() -> None:
    """A refused spend takes nothing: what still fits can be taken afterwards."""
    account = Account(Budget(simulations=10))
    account.spend({"simulations": 7})
    with pytest.raises(BudgetExhausted, match="the budget of 10 simulations is spent") as caught:
        account.spend({"simulations": 4})
    assert caught.value.kind == "simulations"
    account.spend({"simulations": 3})
    assert account.simulations == 10


def test_held_simulations_are_kept_from_the_search() -> None:
    """What is set aside for the confirmation can be spent only when it is released."""
    account = Account(Budget(simulations=10), held={"simulations": 4})
    account.spend({"simulations": 6})
    with pytest.raises(BudgetExhausted):
        account.spend({"simulations": 1})
    account.held = {}
    account.spend({"simulations": 4})
    assert account.left("simulations") == 0


def test_exhaustion_tells_what_is_kept() -> None:
    """A search that stops before its budget is gone says for what; one second is no seconds."""
    account = Account(Budget(simulations=10, seconds=1), held={"simulations": 4})
    with pytest.raises(BudgetExhausted, match="10 simulations is spent, but for 4 simulations kept"):
        account.spend({"simulations": 7})
    account.started -= 2
    with pytest.raises(BudgetExhausted, match=r"^the budget of 1 second is spent$"):
        account.spend({})


def test_no_spend_after_time_is_over() -> None:
    """Once the seconds are gone, less what is held, even one simulation is refused."""
    account = Account(Budget(seconds=1000))
    account.spend({"simulations": 1})
    account.held = {"seconds": 1000}
    with pytest.raises(BudgetExhausted, match="1000 seconds"):
        account.spend({"simulations": 1})
    account.held = {}
    account.started -= 1001
    with pytest.raises(BudgetExhausted):
        account.spend({"simulations": 1})


def test_exhaustion_names_the_limit_after_a_journey() -> None:
    """The error's arguments, sent as JSON from one process to another, make the same error again."""
    account = Account(Budget(simulations=2))
    with pytest.raises(BudgetExhausted) as caught:
        account.spend({"simulations": 3})
    again = BudgetExhausted(*caught.value.args)
    assert (str(again), again.kind) == (str(caught.value), "simulations")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("tokens", "the budget of 100 tokens is spent, but for 40 tokens, less than the next call may take"),
        (
            "dollars",
            "the budget of 100 dollars is spent, but for 40 dollars, less than the next call may take",
        ),
        ("gpu_minutes", "the budget of 100 GPU-minutes is spent, but for 40 GPU-minutes, less than"),
    ],
)
def test_what_is_left_of_a_budget_may_be_too_little(kind: Kind, sentence: str) -> None:
    """A refusal names the kind of the budget, and what is left of it, which does not reach."""
    account = Account(Budget(**{kind: 100}))
    account.spend({kind: 60})
    with pytest.raises(BudgetExhausted, match=sentence) as caught:
        account.reserve({kind: 41})
    assert caught.value.kind == kind
    account.reserve({kind: 40})


def test_what_is_in_flight_is_counted_until_it_is_settled() -> None:
    """A reservation keeps others out; settled, only what was spent is gone."""
    account = Account(Budget(tokens=100))
    account.reserve({"tokens": 90})
    with pytest.raises(BudgetExhausted):
        account.reserve({"tokens": 20})
    assert account.spent == {}
    account.settle({"tokens": 90}, {"tokens": 30})
    account.reserve({"tokens": 70})
    assert account.spent == {"tokens": 30}


def test_refusal_of_one_kind_takes_nothing_of_another() -> None:
    """A reservation is of all its kinds or of none."""
    account = Account(Budget(tokens=100, dollars=1))
    with pytest.raises(BudgetExhausted, match="1 dollar "):
        account.reserve({"tokens": 50, "dollars": 2})
    account.reserve({"tokens": 100, "dollars": 1})


def test_threads_together_keep_to_the_budget() -> None:
    """However many threads reserve at once, no more is given than there is."""
    account = Account(Budget(tokens=1000))

    def take() -> int:
        taken = 0
        with contextlib.suppress(BudgetExhausted):
            while True:
                account.reserve({"tokens": 3})
                taken += 1
                account.settle({"tokens": 3}, {"tokens": 2})
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(lambda _: take(), range(8)))
    assert account.spent == {"tokens": 2 * taken}
    assert 990 <= 2 * taken <= 1000


def test_account_tells_what_was_spent() -> None:
    """Simulations always, and of the other kinds those of which something was spent."""
    account = Account(Budget())
    assert str(account) == "0 simulations"
    account.spend({"simulations": 12, "tokens": 3456, "dollars": 0.123456})
    assert str(account) == "12 simulations, 3456 tokens, 0.1235 usd"


def test_what_another_context_has_paid_for_is_refused_beyond_the_part(tmp_path: Path) -> None:
    """Each context counts it, so that it comes to the same in whatever order they work; but not beyond what
    is its own, which would be taken from what is kept for the end."""
    ledger, keys = Ledger(tmp_path), {str(number) for number in range(30)}
    whole = Account(Budget(simulations=100), held={"simulations": 40})
    first, second = (Payer("run", whole.part(2), name) for name in "12")
    first.charge(keys, ledger)
    for key in keys:
        ledger.keep(key, {"rt": 1.0})
    second.charge({f"own {number}" for number in range(20)}, ledger)
    with pytest.raises(BudgetExhausted, match="simulations is spent"):
        second.charge(keys, ledger)
    assert second.charge({"0", "1"}, ledger) == {"0", "1"}
    assert second.account.left("simulations") == 8
    ledger.close()
