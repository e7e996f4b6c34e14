"""Workloads: bad rows are named, and generators give what they promise from the seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim import Prefixes, Workload, workloads

GOOD: dict[str, Any] = {"arrival": [0.0, 1.0, 1.0], "prompt_tokens": [1, 2, 3], "output_tokens": [4, 5, 6]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrival": [0.0, float("nan"), 1.0]}, "arrival of row 1 is nan; expected a finite number"),
        ({"arrival": [-1.0, 0.0, 1.0]}, "arrival of row 0 is -1.0; expected at least 0 seconds"),
        ({"arrival": [0.0, 2.0, 1.0]}, "arrival of row 2 is 1.0; which is before the row above it"),
        ({"arrival": [[0.0]]}, r"arrival has the shape \(1, 1\); expected one number per request"),
        ({"prompt_tokens": [1, 0, 3]}, "prompt_tokens of row 1 is 0; expected at least 1 token"),
        ({"output_tokens": [1, 2, -3]}, "output_tokens of row 2 is -3; expected at least 1 token"),
        ({"output_tokens": [1, 2.5, 3]}, "output_tokens of row 1 is 2.5; expected a whole number"),
        ({"output_tokens": [1, 2, float("nan")]}, "output_tokens of row 2 is nan; expected a whole number"),
        ({"prompt_tokens": [1, 2]}, r"prompt_tokens has the shape \(2,\); expected 3 entries"),
        ({"arrival": ["soon", 1.0, 2.0]}, "arrival is no column of numbers: could not convert .*'soon'"),
        ({"arrival": [0.0, None, 1.0]}, "arrival of row 1 is nan|arrival is no column of numbers"),
        ({"arrival": [0.0, [1.0], 1.0]}, "arrival is no column of numbers"),
        ({"output_tokens": [1, 2, 2**40]}, "output_tokens of row 2 is 1099511627776; expected at most"),
        ({"prompt_tokens": [True, True, True]}, "prompt_tokens has the type bool; expected whole numbers"),
        ({"session": [0.0, 1e30, 0.0]}, "session of row 1 is 1e.30; expected a whole number of at most 63 b"),
        ({"ttft_slo": [1.0, 2.0, "fast"]}, "ttft_slo is no column of numbers"),
        ({"tpot_slo": [1.0, -2.0, 1.0]}, "tpot_slo of row 1 is -2.0; expected a positive number of seconds"),
        ({"tpot_slo": [1.0]}, r"tpot_slo has the shape \(1,\); expected 3 entries"),
        ({"priority": ["a", "b", "c"]}, "priority has the type <U1; expected whole numbers"),
        ({"session": [0, -2, 0]}, "session of row 1 is -2; expected at least -1"),
        ({"prefixes": 3}, "prefixes=3; expected sim.Prefixes"),
        ({"prefixes": Prefixes.from_rows([[1]], 16)}, "prefixes has 1 rows; expected 3, as many as arrival"),
    ],
)
def test_a_bad_row_is_named(change: dict[str, Any], message: str) -> None:
    """Column, row, value and what was expected, whichever constructor is called."""
    for make in (Workload.from_arrays, Workload):
        with pytest.raises(ValueError, match=message):
            make(**(GOOD | change))


def test_columns_are_copied_and_frozen() -> None:
    """What a caller does to its arrays later, or to the workload's, changes nothing."""
    arrival = np.array([0.0, 1.0, 2.0])
    workload = Workload.from_arrays(**(GOOD | {"arrival": arrival}))
    arrival[0] = 9
    assert workload.arrival[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        workload.prompt_tokens[0] = 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "rate=0.0; expected a positive, finite number of requests/s"),
        ({"duration": float("inf")}, "duration=inf; expected a positive, finite number of seconds"),
        ({"duration": 0.01}, "is less than one request"),
        ({"seed": -1}, "seed=-1; expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed=1.5; expected a whole number"),
    ],
)
def test_a_generators_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    """Value, expectation and unit."""
    with pytest.raises(ValueError, match=message):
        workloads.sharegpt_bursty(**({"rate": 8.0, "duration": 100.0, "seed": 1} | arguments))


@pytest.mark.parametrize("generator", [workloads.sharegpt_bursty, workloads.short_prompts_long_outputs])
def test_only_the_seed_decides(generator: Any) -> None:
    """Same seed, same bytes; another seed, another trace; another rate, the same lengths."""
    one, again, other = (generator(rate=8.0, duration=200, seed=seed) for seed in (1, 1, 2))
    for name in ("arrival", "prompt_tokens", "output_tokens"):
        assert getattr(one, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(one, name).tobytes() != getattr(other, name).tobytes()
    faster = generator(rate=16.0, duration=200, seed=1)
    assert (faster.prompt_tokens[: len(one)] == one.prompt_tokens).all()
    assert (faster.output_tokens[: len(one)] == one.output_tokens).all()


@pytest.mark.parametrize("seed", range(5))
def test_conditioned_arrivals_have_the_nominal_rate(seed: int) -> None:
    """Exactly rate x duration arrivals, the first at zero, all within the duration, bursty all the same."""
    arrival = workloads.sharegpt_bursty(rate=8.0, duration=1000, seed=seed).arrival
    gaps = np.diff(arrival)
    assert len(arrival) == 8000
    assert arrival[0] == 0
    assert arrival[-1] < 1000
    assert gaps.std() / gaps.mean() > 2


def test_unconditioned_arrivals_vary() -> None:
    """Without conditioning the realised rate differs from seed to seed."""
    counts = [len(workloads.sharegpt_bursty(8.0, 500, seed, conditioned=False)) for seed in range(12)]
    assert np.std(counts) / np.mean(counts) > 0.03
    assert 0.7 < np.mean(counts) / 4000 < 1.3


def test_sharegpt_lengths_have_the_published_marginals() -> None:
    """Mean, median and 90 % quantile of both lengths as GLIA.md tells them, and hardly any correlation."""
    workload = workloads.sharegpt_bursty(rate=100.0, duration=2000, seed=0)
    for tokens, mean, median, p90, largest in (
        (workload.prompt_tokens, 295, 76, 834, 4134),
        (workload.output_tokens, 362, 243, 628, 4096),
    ):
        assert tokens.mean() == pytest.approx(mean, rel=0.02)
        assert np.median(tokens) == pytest.approx(median, rel=0.02)
        assert np.quantile(tokens, 0.9) == pytest.approx(p90, rel=0.02)
        assert tokens.max() <= largest
    logs = np.corrcoef(np.log(workload.prompt_tokens), np.log(workload.output_tokens))
    assert abs(logs[0, 1]) < 0.02


def test_short_prompts_long_outputs() -> None:
    """Prompts of 20 to 120 tokens, outputs of about 785 on average and never beyond 4,096."""
    workload = workloads.short_prompts_long_outputs(rate=100.0, duration=1000, seed=0)
    assert (workload.prompt_tokens.min(), workload.prompt_tokens.max()) == (20, 120)
    assert workload.output_tokens.mean() == pytest.approx(785, rel=0.02)
    assert workload.output_tokens.max() == 4096
