"""Tuning numbers: one in a bracket, several with Optuna."""

from __future__ import annotations

import math

import pytest

from pytest_glia.designers.source import Number, constants, rounded
from pytest_glia.designers.tuning import around, bracket, tune

RANGES = {"SIZE": (1, 64), "SHARE": (0.01, 0.9), "SHIFT": (-5.0, 5.0)}
START: dict[str, Number] = {"SIZE": 8, "SHARE": 0.1, "SHIFT": 0.0}


def bowl(numbers: dict[str, Number]) -> float:
    return (math.log(numbers["SIZE"] / 20)) ** 2 + (numbers["SHARE"] - 0.3) ** 2 + abs(numbers["SHIFT"] - 1)


def test_same_losses_give_the_same_proposals() -> None:
    """A search can be repeated to the last number."""
    assert tune(RANGES, START, bowl, trials=12) == tune(RANGES, START, bowl, trials=12)


def test_every_proposal_is_in_its_range_and_of_its_kind() -> None:
    """Limits hold, two ints make an int, and a value is what the source will say."""
    judged = tune(RANGES, START, bowl, trials=30)
    assert len(judged) == 30
    for numbers, _ in judged:
        assert numbers.keys() == RANGES.keys()
        assert isinstance(numbers["SIZE"], int)
        for name, (low, high) in RANGES.items():
            assert low <= numbers[name] <= high
            assert numbers[name] == rounded(numbers[name])


def test_limits_that_are_not_round_hold_too() -> None:
    """Rounding to three digits does not lead out of a narrow range."""
    for numbers, _ in tune({"X": (0.12345, 0.12349)}, {"X": 0.12347}, lambda numbers: 0.0, trials=3):
        assert 0.12345 <= numbers["X"] <= 0.12349


def test_nothing_is_judged_twice() -> None:
    """Neither the start, which is known, nor an earlier proposal costs again."""
    seen: list[dict[str, Number]] = []

    def judge(numbers: dict[str, Number]) -> float:
        assert numbers not in [*seen, {"SIZE": 2}]
        seen.append(numbers)
        return float(numbers["SIZE"])

    tune({"SIZE": (1, 4)}, {"SIZE": 2}, judge, trials=20)
    assert sorted(numbers["SIZE"] for numbers in seen) == [1, 3, 4]


@pytest.mark.parametrize("worst", [math.inf, math.nan])
def test_settings_that_do_not_work_are_survived(worst: float) -> None:
    """A broken candidate has no finite loss; the search goes on and returns it as judged."""
    judged = tune({"SIZE": (1.0, 50.0)}, {}, lambda n: worst if n["SIZE"] < 7 else 1.0, trials=8)
    assert len(judged) == 8
    assert any(math.isfinite(loss) for _, loss in judged)


def test_tuning_finds_the_valley() -> None:
    """Thirty looks come nearer to the best value than the first third, which is spread at random."""
    judged = tune(RANGES, START, bowl, trials=30)
    assert min(loss for _, loss in judged) < min(loss for _, loss in judged[:10])
    assert min(loss for _, loss in judged) < bowl(START)


def test_error_of_the_judge_reaches_the_caller() -> None:
    """A spent budget ends the tuning where it happens."""

    def judge(numbers: dict[str, Number]) -> float:
        raise RuntimeError("spent")

    with pytest.raises(RuntimeError, match="spent"):
        tune({"SIZE": (1, 4)}, {}, judge, trials=3)


@pytest.mark.parametrize("value", [1, 2, 7, -3, 0, 0.5, -2.5, 0.0, 1e-9, 10**9])
def test_range_around_a_constant(value: float) -> None:
    """It holds the constant, keeps its kind and its sign, and leaves room on both sides."""
    low, high = around(value)
    assert low < high
    assert low <= value <= high
    assert type(low) is type(high) is type(value)
    if value:
        assert low * value >= 0
        assert high * value >= 0


@pytest.mark.parametrize("bottom", [1.3, 7.0, 12.0, 50.0, 900.0])
def test_bracket_closes_in_on_a_dip(bottom: float) -> None:
    """Five looks of a number between 1 and 1,000 come within a factor of 1.6 of the best, wherever it is."""

    def dip(value: Number) -> float:
        return abs(math.log(value / bottom))

    judged = bracket((1.0, 1000.0), (30.0, dip(30.0)), dip, trials=5)
    assert len(judged) == 5
    assert all(loss == dip(value) for value, loss in judged)
    assert min([dip(30.0), *(loss for _, loss in judged)]) < math.log(1.6)


@pytest.mark.parametrize(
    "limits", [(1, 4), (-3, 3), (-2.0, 6.0), (-16.0, -1.0), (-16, -1), (0.12345, 0.12349), (1e200, 4e200)]
)
def test_bracket_keeps_to_its_range_and_judges_nothing_twice(limits: tuple[Number, Number]) -> None:
    """Neither the start nor an earlier value costs again; whole numbers stay whole; it ends where none is
    left."""
    low, high = limits
    start = high if isinstance(high, int) else (low + high) / 2
    seen: list[Number] = []

    def judge(value: Number) -> float:
        assert low <= value <= high
        assert value not in [*seen, start]
        assert isinstance(value, type(high))
        seen.append(value)
        return -float(value)

    bracket(limits, (start, 0.0), judge, trials=20)
    assert 1 <= len(seen) <= 20


def test_bracket_ends_where_looks_no_longer_part_its_values() -> None:
    """The neighbours of the best are within 15 % of it, and no nearer than a fifth of that."""
    judged = bracket((1.0, 1000.0), (30.0, 3.4), lambda value: abs(math.log(value / 7)), trials=50)
    best = min(judged, key=lambda each: each[1])[0]
    beside = sorted(abs(math.log(value / best)) for value, _ in judged if value != best)
    assert math.log(1.03) < beside[0] <= beside[1] < math.log(1.15)
    assert len(judged) < 12


def test_bracket_looks_beside_the_best_alone() -> None:
    """Where the lowest value is the best, what is beyond its neighbour is not looked at again."""
    assert bracket((1, 64), (2, 2.0), float, trials=6) == [(1, 1.0), (11, 11.0)]


def test_bracket_survives_what_does_not_work() -> None:
    """A broken setting has no finite loss, and is never the best."""
    judged = bracket((1, 64), (8, 1.0), lambda n: math.nan if n > 8 else 1 / n, trials=5)
    assert all(loss == math.inf for value, loss in judged if value > 8)
    assert min(judged, key=lambda each: each[1])[0] < 8


def test_constants_that_are_no_quantity_are_left_alone() -> None:
    """What cannot be a literal, though it looks like one, is none."""
    assert constants("X = {[]: 1}\nY = 3\n") == {"Y": 3}
