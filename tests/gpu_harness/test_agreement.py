"""Agreement of two testbeds on a ranking: ties by intervals, Kendall's tau-b."""

from __future__ import annotations

import itertools
import math

import pytest

from gpu_harness.agreement import order, tau_b


def ranks(*places: float) -> dict[tuple[str, str], int]:
    """The order of policies with these places, the same place a tie."""
    named = dict(zip("abcdef", places, strict=False))
    return {
        (one, other): (named[one] > named[other]) - (named[one] < named[other])
        for one, other in itertools.combinations(named, 2)
    }


def test_what_the_interval_of_pairs_shows_is_an_order() -> None:
    """b is 5 % above a on every seed, though the seeds differ by far more; c differs from both at random."""
    seeds = [1.0, 2.0, 4.0, 1.5]
    found = order(
        {
            "a": seeds,
            "b": [
                1.05 * value * wobble for value, wobble in zip(seeds, (1, 1.002, 0.999, 1.001), strict=True)
            ],
            "c": [value * wobble for value, wobble in zip(seeds, (0.7, 1.3, 1.1, 0.9), strict=True)],
        }
    )
    assert found == {("a", "b"): -1, ("a", "c"): 0, ("b", "c"): 0}


def test_tau_b_is_kendalls() -> None:
    """Values worked out by hand from (C - D) / sqrt((n - ties) (n - ties))."""
    assert tau_b(ranks(1, 2, 3, 4), ranks(10, 20, 30, 40)) == 1
    assert tau_b(ranks(1, 2, 3, 4), ranks(4, 3, 2, 1)) == -1
    assert tau_b(ranks(1, 2, 3, 4), ranks(1, 2, 4, 3)) == pytest.approx(4 / 6)
    assert tau_b(ranks(1, 1, 2, 3), ranks(1, 2, 3, 4)) == pytest.approx(5 / math.sqrt(5 * 6))
    assert tau_b(ranks(1, 1, 2, 3), ranks(1, 1, 2, 3)) == 1


def test_where_all_are_tied_there_is_nothing_to_rank() -> None:
    """On both testbeds: they agree. On one: no figure."""
    assert tau_b(ranks(1, 1, 1), ranks(2, 2, 2)) == 1
    assert math.isnan(tau_b(ranks(1, 1, 1), ranks(1, 2, 3)))


@pytest.mark.parametrize(
    "values", [{"a": [1.0, 2.0]}, {"a": [1.0], "b": [2.0]}, {"a": [1.0, 2.0], "b": [1.0]}]
)
def test_too_few_to_rank(values: dict[str, list[float]]) -> None:
    """Fewer than two policies or seeds, or not the same seeds, are refused."""
    with pytest.raises(
        ValueError, match="expected at least two policies and at least two seeds, the same for"
    ):
        order(values)
