"""How much timings of the same code scatter on this machine: prints the figures of docs/specs.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, stdev

import pytest

from pytest_glia.timing import Code, Stopwatch, noise

_SEEDS = 100


def _loop() -> Callable[[int], Callable[[], int]]:
    def prepare(seed: int) -> Callable[[], int]:
        numbers = [seed % 1000] * 1_000_000

        def loop() -> int:
            total = 0
            for number in numbers:
                total += number
            return total

        return loop

    return prepare


@pytest.mark.slow
def test_no_side_is_favoured() -> None:
    """Of the same code on both sides the log-ratios have mean zero, whichever way two runs are merged."""
    watch = Stopwatch(60.0, (), None, lambda: None)
    timings = watch.time(range(_SEEDS), Code("one", _loop), Code("other", _loop), paired=True)
    print(f"noise {100 * noise(timings):.2g} %")
    for merge in (fmean, min):
        logs = [math.log(merge(each.candidate) / merge(each.baseline)) for each in timings]
        print(f"{merge.__name__}: log-ratios {fmean(logs):+.3f}, standard deviation {stdev(logs):.3f}")
        assert abs(fmean(logs)) < 4 * stdev(logs) / math.sqrt(_SEEDS)
