"""How good a candidate is, and whether one is shown to be better than another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import pytest

from pytest_glia.estimate import Estimate
from pytest_glia.merit import Aim, Evaluation, Result, result_of, spreads_to_spare
from pytest_glia.statistics import Interval, mean_interval

SEEDS = (11, 12, 13, 14)
MAIN, RARE = ("spec.py::test_main", 0), ("spec.py::test_rare", 0)
TEN = range(10)
AIM = Aim(primary=MAIN, known=(MAIN, RARE), spreads=1.2)


@dataclass
class Report:
    """As much of a test's report as an evaluation reads."""

    nodeid: str
    glia: list[dict[str, Any]] = field(default_factory=list)
    failed: bool = False
    longreprtext: str = ""
    capstdout: str = ""


def checked(
    which: tuple[str, int],
    *samples: float,
    evidence: Mapping[str, tuple[float, ...]] = {},
    quantity: str = "rt",
) -> Report:
    """A test that asked for less than 1 and measured these."""
    value = Estimate(quantity, mean_interval(samples, 0.95), samples, "mean", dict(evidence))
    return Report(which[0], [(value < 1.0).check.as_json()])


def evaluation(*reports: Report, seeds: Sequence[int] = SEEDS) -> Evaluation:
    return Evaluation.of({"a.py": b""}, tuple(seeds), reports)  # type: ignore[arg-type]


def both(main: float, rare: float = 0.9, step: float = 0.01) -> Evaluation:
    """A candidate whose replications spread a little about two means."""
    spread = [step * each for each in (-1.5, -0.5, 0.5, 1.5)]
    return evaluation(
        checked(MAIN, *(main + each for each in spread)), checked(RARE, *(rare + each for each in spread))
    )


def test_loss_is_the_main_goal_and_ten_times_what_falls_short() -> None:
    """One number a replication; a margin of 0.5 % belongs to what is asked."""
    given = evaluation(checked(MAIN, 1.5, 1.5, 1.5, 1.5), checked(RARE, 1.1, 1.1, 1.1, 1.1))
    assert AIM.losses(given) == pytest.approx([0.5 + 5.05 + 1.05] * 4)
    assert AIM.loss(given) == pytest.approx(6.6)


def test_a_demand_is_asked_of_the_mean() -> None:
    """Replications beyond a threshold cost nothing where the mean meets it with enough to spare, and all of
    them count where it does not."""
    met = evaluation(checked(MAIN, 0.5, 0.5, 0.5, 0.5), checked(RARE, 0.2, 0.3, 0.2, 1.1))
    assert AIM.losses(met) == pytest.approx([-0.5] * 4)
    rare = (0.2, 0.9, 0.9, 1.6)
    missed = evaluation(checked(MAIN, 0.5, 0.5, 0.5, 0.5), checked(RARE, *rare))
    spare = 1.2 * stdev(rare)
    assert spare > 0.1
    assert AIM.losses(missed) == pytest.approx([-0.5 + 10 * (each - 1 + spare) for each in rare])


@pytest.mark.parametrize(("rare", "lacks"), [(0.9, False), (0.999, True), (1.1, True)])
def test_metrics_that_specs_want_better(rare: float, lacks: bool) -> None:
    """The first goal's always; another's until it is met with enough to spare."""
    metrics = {"rt": (0.0,) * 4, "rt p99": (0.0,) * 4}
    of_main = checked(MAIN, *[0.2] * 4, quantity="rt against base", evidence=metrics)
    of_rare = checked(RARE, *[rare] * 4, quantity="rt p99", evidence=metrics)
    assert AIM.wanted(evaluation(of_main, of_rare)) == {"rt": True, "rt p99": lacks}


@pytest.mark.parametrize(("rare", "assured"), [(0.9, True), (0.997, False), (1.1, False)])
def test_specs_are_assured_with_something_to_spare(rare: float, assured: bool) -> None:
    """Half a per cent at least: what is met by less may be missed on other seeds."""
    given = both(0.2, rare, step=0.001)
    assert given.met() == (rare < 1)
    assert AIM.assured(given) == assured


@pytest.mark.parametrize(("spreads", "assured"), [(1.0, False), (1.3, True)])
def test_specs_are_assured_where_other_seeds_show_them(spreads: float, assured: bool) -> None:
    """By more than half an interval: the mean of others differs, too."""
    spread = [0.1 * each for each in range(10)]
    rare = [1 - fmean(spread) - spreads * stdev(spread) + each for each in spread]
    given = evaluation(checked(MAIN, *[0.5] * 10), checked(RARE, *rare), seeds=range(10))
    assert given.met()
    assert (AIM.loss(given) == pytest.approx(-0.5)) == assured
    assert AIM.assured(given) == assured


def test_what_cannot_be_met_with_more_is_assured() -> None:
    """A threshold at the metric's bound, which every seed meets: others will, too."""
    value = Estimate("violations", mean_interval([0.0] * 10, 0.95), (0.0,) * 10, "mean")
    bound = Report(RARE[0], [(value <= 0).check.as_json()])
    given = evaluation(checked(MAIN, *[0.5] * 10), bound, seeds=range(10))
    assert AIM.assured(given)
    assert AIM.losses(given) == pytest.approx([-0.5] * 10)


@pytest.mark.parametrize(
    ("replications", "confidence", "spreads"), [(10, 0.95, 1.163), (10, 0.9696, 1.258), (40, 0.95, 0.543)]
)
def test_how_much_is_to_spare(replications: int, confidence: float, spreads: float) -> None:
    """Half an interval's width, and by how much two means differ, in standard deviations."""
    assert spreads_to_spare(replications, confidence) == pytest.approx(spreads, abs=0.001)


def test_values_without_a_name_are_no_metrics() -> None:
    """What a spec measured of a replication that returns one number."""
    assert AIM.wanted(evaluation(checked(MAIN, *[0.2] * 4, quantity="value"))) == {}


def test_only_the_primary_check_counts_without_limit() -> None:
    """Being better than asked is no merit where it is not the main goal, and pays for nothing."""
    lavish, enough = both(1.0, rare=0.1), both(1.0, rare=0.9)
    assert AIM.loss(lavish) == pytest.approx(AIM.loss(enough), abs=1e-9)
    assert AIM.loss(both(0.1, rare=0.5)) < AIM.loss(both(0.5, rare=0.5)) - 0.3


@pytest.mark.parametrize(
    "broken",
    [
        evaluation(),
        evaluation(checked(MAIN, 0.1, 0.1, 0.1, 0.1)),
        evaluation(checked(MAIN, 0.1, 0.1), checked(RARE, 0.1, 0.1)),
        Evaluation({"a.py": b""}, SEEDS, {}, {"": "breaks a rule"}),
        evaluation(
            checked(MAIN, 0.1, 0.1, 0.1, 0.1),
            Report(RARE[0], checked(RARE, 0.1, 0.1, 0.1, 0.1).glia, failed=True, longreprtext="E   died"),
        ),
    ],
    ids=["no check", "one check missing", "too few replications", "a rule", "test died after its check"],
)
def test_candidate_that_does_not_work_is_infinitely_bad(broken: Evaluation) -> None:
    """Whatever it has measured, a candidate with a spec that did not run to its end has lost."""
    assert AIM.losses(broken) == [math.inf] * 4
    assert AIM.loss(broken) == math.inf


def test_nothing_works_by_having_no_comparisons() -> None:
    """Where specs have plain asserts alone, a source that breaks a rule is no better than one that fails."""
    plain = Aim(primary=None, known=(), spreads=1.2)
    failing = Evaluation(
        {"a.py": b""}, SEEDS, {}, {"spec.py::test_one": "assert", "spec.py::test_two": "assert"}
    )
    broken = Evaluation({"a.py": b""}, SEEDS, {}, {"": "it imports os"})
    assert plain.loss(failing) == 20
    assert plain.loss(broken) == math.inf


def test_failing_test_without_comparison_costs_ten() -> None:
    """A plain assert that fails from the start is a goal too, and no other gain pays for it."""
    plain = Report("spec.py::test_plain", failed=True, longreprtext="E   assert 1 == 2")
    fine, failing = (
        both(1.0, step=0.0),
        evaluation(*[checked(MAIN, 1.0, 1.0, 1.0, 1.0), checked(RARE, 0.9, 0.9, 0.9, 0.9)], plain),
    )
    assert AIM.loss(failing) == pytest.approx(AIM.loss(fine) + 10)


def test_change_is_paired() -> None:
    """A small gain that every seed shows is shown, though seeds differ far more than that."""
    before, after = both(0.8, step=0.1), both(0.75, step=0.1)
    change = AIM.change(after, before, 0.95)
    assert change.mean == pytest.approx(-0.05)
    assert change.high < 0


@pytest.mark.parametrize("gain", [0.08, 0.3])
def test_change_is_paired_also_where_one_side_lacks_nothing(gain: float) -> None:
    """Noise that both share shows nothing of the gain, whichever of them meets what is asked."""
    noise = (0.2, -0.3, 0.1, 0.0)
    before = evaluation(checked(MAIN, *[0.5] * 4), checked(RARE, *(0.99 + each for each in noise)))
    after = evaluation(checked(MAIN, *[0.5] * 4), checked(RARE, *(0.99 - gain + each for each in noise)))
    for ours, theirs in ((after, before), (before, after)):
        change = AIM.change(ours, theirs, 0.95)
        assert change.mean == pytest.approx(AIM.loss(ours) - AIM.loss(theirs))
        assert change.high - change.low < 1e-6


def test_one_seed_shows_nothing() -> None:
    """Of two that differ on one seed alone none is better, though it makes one of them spread far more."""
    noise = (0.02, -0.01, 0.0, 0.01, -0.02, 0.015, -0.015, 0.005, -0.005, 0.0)
    wild = [*noise[:-1], 0.2]
    before = evaluation(checked(MAIN, *[0.5] * 10), checked(RARE, *(1.1 + each for each in wild)), seeds=TEN)
    after = evaluation(checked(MAIN, *[0.5] * 10), checked(RARE, *(1.1 + each for each in noise)), seeds=TEN)
    assert AIM.loss(after) < AIM.loss(before)
    assert result_of(AIM.change(after, before, 0.95), 0.01) == "not shown"


def test_first_step_from_the_baseline_itself() -> None:
    """A start that is its own baseline does not spread, and is no better for that than what meets a spec."""
    noise = (0.5, -0.5, 0.4, -0.4, 0.3, -0.3, 0.2, -0.2, 0.1, -0.1)
    start = evaluation(checked(MAIN, *[1.05] * 10), checked(RARE, *[0.5] * 10), seeds=TEN)
    step = evaluation(checked(MAIN, *(0.55 + x for x in noise)), checked(RARE, *[0.5] * 10), seeds=TEN)
    assert AIM.loss(step) < AIM.loss(start)
    assert result_of(AIM.change(step, start, 0.95), 0.01) == "better"


def test_noise_makes_nothing_better() -> None:
    """A candidate that spreads far more asks no more of another, and gains nothing by that."""
    noise = (0.5, -0.5, 0.4, -0.4, 0.3, -0.3, 0.2, -0.2, 0.1, -0.1)
    rival = evaluation(checked(MAIN, *[0.5] * 10), checked(RARE, *[0.9] * 10), seeds=TEN)
    noisy = evaluation(checked(MAIN, *[0.61] * 10), checked(RARE, *(0.4 + x for x in noise)), seeds=TEN)
    assert AIM.assured(rival)
    assert AIM.loss(noisy) > AIM.loss(rival)
    assert AIM.change(noisy, rival, 0.95).mean >= AIM.loss(noisy) - AIM.loss(rival) - 1e-9
    assert result_of(AIM.change(noisy, rival, 0.95), 0.01) != "better"


def test_change_compares_a_first_look_with_the_same_seeds() -> None:
    """Against a full evaluation, fewer seeds are paired with the first of it."""
    look = evaluation(checked(MAIN, 0.5, 0.6), checked(RARE, 0.9, 0.9), seeds=SEEDS[:2])
    full = evaluation(checked(MAIN, 0.85, 0.85, 9.0, 9.0), checked(RARE, 0.9, 0.9, 0.9, 0.9))
    assert AIM.change(look, full, 0.95).mean == pytest.approx(-0.3)


def test_change_without_common_seeds_is_an_error() -> None:
    """Unpaired evaluations are never compared."""
    other = evaluation(checked(MAIN, 1.0, 1.0), checked(RARE, 1.0, 1.0), seeds=(1, 2))
    with pytest.raises(ValueError, match="no seeds in common"):
        AIM.change(both(1.0), other, 0.95)


def test_change_to_and_from_a_broken_candidate() -> None:
    """Breaking is infinitely worse, mending infinitely better, and neither is a plain number."""
    assert AIM.change(evaluation(), both(1.0), 0.95).low == math.inf
    assert AIM.change(both(1.0), evaluation(), 0.95).high == -math.inf


def test_one_broken_candidate_is_not_better_than_another() -> None:
    """Between two that do not work there is nothing to choose: not shown to be better."""
    assert not AIM.change(evaluation(), evaluation(), 0.95).high < 0


@pytest.mark.parametrize(
    ("low", "high", "result"),
    [
        (-0.05, -0.02, "better"),
        (-0.05, -0.01, "not shown"),
        (-0.05, 0.03, "not shown"),
        (-0.01, 0.01, "equivalent"),
        (0.002, 0.008, "equivalent"),
        (0.0, 0.0, "equivalent"),
        (-0.005, 0.02, "not shown"),
        (0.01, 0.05, "not shown"),
        (0.02, 0.05, "worse"),
        (-math.inf, math.inf, "not shown"),
        (math.inf, math.inf, "broken"),
        (-math.inf, -math.inf, "better"),
    ],
)
def test_result_of_a_change(low: float, high: float, result: Result) -> None:
    """Only a change beyond the margin is one; within it either way there is none; else nothing is shown."""
    mean = 0.0 if low < -1e300 < 1e300 < high else (low + high) / 2
    assert result_of(Interval(mean, 0.1, 9, 0.95, low, high), 0.01) == result


def test_without_a_margin_any_shown_change_is_one() -> None:
    """Then better and worse are left to the interval alone, and equivalent is only what is exactly equal."""
    assert result_of(Interval(-0.002, 0.1, 9, 0.95, -0.003, -0.001), 0.0) == "better"
    assert result_of(Interval(0.0, 0.0, 9, 0.95, 0.0, 0.0), 0.0) == "equivalent"


def test_evidence_of_all_checks_is_gathered() -> None:
    """Metrics that only one spec reports are kept; of a metric of both, the first spec's."""
    given = evaluation(
        checked(MAIN, *[0.5] * 4, evidence={"rt": (0.5, 1.5), "kv": (0.5, 0.5)}),
        checked(RARE, *[0.5] * 4, evidence={"rt": (2.0, 2.0), "restarts": (3.0, 3.0)}),
    )
    assert given.evidence == {"rt": 1.0, "kv": 0.5, "restarts": 3.0}


def test_error_is_the_line_that_says_something() -> None:
    """Of a traceback, the first line of the error itself."""
    report = Report(
        "spec.py::test", failed=True, longreprtext="def f():\n>   raise\nE   ValueError: bad\n\nx.py:1"
    )
    assert evaluation(report).errors == {"spec.py::test": "ValueError: bad"}
