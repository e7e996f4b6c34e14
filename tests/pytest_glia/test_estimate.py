"""Estimates, and the verdict that comparing one with a number gives."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_glia.estimate import Check, Estimate, NotShown, Scale, Verdict, explain_comparison
from pytest_glia.statistics import mean_interval

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
LESS = ("<", "<=")


def estimate(*samples: float, scale: Scale = "mean", **more: Any) -> Estimate:
    return Estimate("rt", mean_interval(samples, 0.95), samples, scale, **more)


def constant(*samples: float, scale: Scale = "mean") -> Estimate:
    """Of a spec that does not depend on its seed."""
    return Estimate("rt", mean_interval(samples, 0.95, deterministic=True), samples, scale)


def logs(*ratios: float, scale: Scale = "ratio", **more: Any) -> Estimate:
    return estimate(*(math.log(ratio) for ratio in ratios), scale=scale, **more)


# Working-scale samples whose interval lies about [0.55, 0.65] as a ratio, [35 %, 45 %] as a reduction.
HALVED = (0.58, 0.60, 0.62, 0.60)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    ("scale", "below", "inside", "above"),
    [
        ("ratio", 0.3, 0.6, 0.9),
        ("reduction", 0.1, 0.4, 0.7),
        ("increase", -0.7, -0.4, -0.1),
    ],
)
def test_three_outcomes_of_a_comparison(
    op: str, scale: Scale, below: float, inside: float, above: float
) -> None:
    """A threshold outside the interval is shown or refuted, one inside it is neither, on every scale."""
    value = logs(*HALVED, scale=scale)
    compare = OPERATORS[op]
    assert compare(value, above).outcome == ("shown" if op in LESS else "refuted")
    assert compare(value, below).outcome == ("refuted" if op in LESS else "shown")
    assert compare(value, inside).outcome == "not shown"


@pytest.mark.parametrize("op", OPERATORS)
def test_three_outcomes_of_a_measurement(op: str) -> None:
    """A metric measured alone is compared on its own scale."""
    value, compare = estimate(9.0, 10.0, 11.0, 10.0), OPERATORS[op]
    assert compare(value, 20).outcome == ("shown" if op in LESS else "refuted")
    assert compare(value, 5).outcome == ("refuted" if op in LESS else "shown")
    assert compare(value, 10.1).outcome == "not shown"


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.7])
def test_number_may_stand_on_the_left(op: str, threshold: float) -> None:
    """``0.3 < estimate`` means what ``estimate > 0.3`` means."""
    mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}[op]
    value = logs(*HALVED, scale="reduction")
    left, right = OPERATORS[op](threshold, value), OPERATORS[mirrored](value, threshold)
    assert left.check == right.check


def test_threshold_on_the_end_of_an_exact_interval() -> None:
    """A deterministic quantity at its threshold satisfies <= and >=, and refutes < and >."""
    exact = constant(2.0, 2.0, 2.0)
    assert [OPERATORS[op](exact, 2).outcome for op in OPERATORS] == ["refuted", "shown", "refuted", "shown"]


def test_truth_of_a_verdict() -> None:
    """Shown is true and refuted is false."""
    value = logs(*HALVED, scale="reduction")
    assert bool(value > 0.1) is True
    assert bool(value > 0.7) is False


@pytest.mark.parametrize("ask", [bool, operator.not_])
def test_neither_shown_nor_refuted_has_no_truth(ask: Callable[[Verdict], bool]) -> None:
    """Asking a verdict that is not shown, or its negation, fails the test and says what would settle it."""
    verdict = logs(*HALVED, scale="reduction") > 0.4
    with pytest.raises(NotShown, match=r"about \d+ replications would decide") as caught:
        ask(verdict)
    assert isinstance(caught.value, AssertionError)


def test_lenient_estimate_records_but_holds() -> None:
    """In a search a comparison is what its judge assumes, so that one run shows all that a spec asks."""
    kept: list[Check] = []

    def judge(check: Check) -> bool:
        kept.extend([check, check.opposite()])
        return True

    value = logs(*HALVED, scale="reduction", judge=judge)
    assert value > 0.7
    assert value > 0.4
    assert [check.op for check in kept] == [">", "<=", ">", "<="]
    assert [check.outcome for check in kept] == ["refuted", "shown", "not shown", "not shown"]
    assert kept[0].excess == tuple(-each for each in kept[1].excess)


def test_every_comparison_is_recorded_once() -> None:
    """A comparison is one check; explaining it afterwards is not another."""
    kept: list[Check] = []
    value = logs(*HALVED, scale="reduction", judge=kept.append)
    verdict = value > 0.1
    repr(value)
    explain_comparison(">", value, 0.1)
    assert kept == [verdict.check]


def test_scales_of_a_comparison_say_the_same() -> None:
    """Reduction, increase and ratio are one figure, and their intervals hold their points."""
    value = logs(*HALVED)
    ratio, reduction, increase = value.ratio, value.reduction, value.increase
    assert ratio.point == pytest.approx(0.6, rel=1e-3)
    assert reduction.point == pytest.approx(1 - ratio.point)
    assert increase.point == pytest.approx(ratio.point - 1)
    assert (reduction.low, reduction.high) == pytest.approx((1 - ratio.high, 1 - ratio.low))
    for each in (ratio, reduction, increase):
        assert each.low < each.point < each.high
        assert each.n == 4


@pytest.mark.parametrize("scale", ["reduction", "increase", "ratio"])
def test_measurement_has_no_reduction(scale: str) -> None:
    """What was measured alone is compared with nothing, and the error says how to."""
    with pytest.raises(TypeError, match=r"rt was measured alone.*glia\.compare"):
        getattr(estimate(1.0, 2.0), scale)


@pytest.mark.parametrize(
    "ask",
    [lambda e: e == 0.3, lambda e: e != 0.3, lambda e: 0.3 == e, bool],  # noqa: SIM300
)
def test_equality_and_truth_of_an_estimate_are_refused(ask: Callable[[Estimate], object]) -> None:
    """An estimate equals nothing and is not true or false; the error names the operators to use."""
    with pytest.raises(TypeError, match="<, <=, > or >= and a number"):
        ask(logs(*HALVED))


@pytest.mark.parametrize("other", [True, "0.3", None, [0.3], 1j])
def test_threshold_is_a_number(other: Any) -> None:
    """Anything else is refused with its value."""
    with pytest.raises(TypeError, match="compared with a number"):
        logs(*HALVED) < other  # noqa: B015


def test_two_estimates_are_not_compared() -> None:
    """Their difference would need pairs; the error says how to measure it."""
    with pytest.raises(TypeError, match=r"two estimates.*glia\.compare"):
        logs(*HALVED) < logs(*HALVED)  # type: ignore[operator]  # noqa: B015


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_threshold_is_finite(threshold: float) -> None:
    """A comparison with NaN or an infinity would hold or fail for ever."""
    with pytest.raises(ValueError, match=rf"{threshold!r}: give a finite number"):
        estimate(1.0, 2.0) < threshold  # noqa: B015


@pytest.mark.parametrize(
    ("scale", "threshold"), [("reduction", 1), ("reduction", 30), ("increase", -1), ("ratio", 0)]
)
def test_threshold_is_on_its_scale(scale: Scale, threshold: float) -> None:
    """A reduction of 30 (meant: 30 %) or an increase of -100 % cannot be, and is not a refutation."""
    with pytest.raises(ValueError, match=f"the threshold is {threshold!r}: "):
        logs(*HALVED, scale=scale) > threshold  # noqa: B015


def test_numpy_number_is_a_threshold() -> None:
    """A threshold that was computed with numpy is a number like any other."""
    np = pytest.importorskip("numpy")
    assert estimate(1.0, 1.1) < np.float64(3)
    assert estimate(1.0, 1.1) < np.int64(3)


@pytest.mark.parametrize(
    ("scale", "op", "threshold"),
    [("ratio", "<", 0.7), ("ratio", ">", 0.5), ("reduction", ">", 0.3), ("increase", "<", -0.3)],
)
def test_excess_is_negative_where_the_demand_is_met(scale: Scale, op: str, threshold: float) -> None:
    """Each replication's excess says how far it is on the wrong side: below zero is better than asked."""
    check = OPERATORS[op](logs(*HALVED, scale=scale), threshold).check
    assert all(excess < 0 for excess in check.excess)
    opposite = {"<": ">", ">": "<"}[op]
    assert OPERATORS[opposite](logs(*HALVED, scale=scale), threshold).check.excess == pytest.approx(
        [-each for each in check.excess]
    )


def test_excess_of_a_comparison_is_a_log_ratio() -> None:
    """Twice the ratio that was asked for is log 2 on the wrong side."""
    check = (logs(0.8, 0.2) < 0.4).check
    assert check.excess == pytest.approx([math.log(2), -math.log(2)])


def test_excess_of_a_measurement_is_a_share_of_its_threshold() -> None:
    """One and a half times what was asked for is one half too much; at a threshold of zero, it is itself."""
    assert (estimate(15.0, 5.0) < 10).check.excess == pytest.approx([0.5, -0.5])
    assert (estimate(15.0, 5.0) < 0).check.excess == pytest.approx([15, 5])
    assert (estimate(-15.0, -5.0) < -10).check.excess == pytest.approx([-0.5, 0.5])


finite = st.floats(-50, 50)
checks = st.builds(
    lambda samples, scale, op, threshold: OPERATORS[op](estimate(*samples, scale=scale), threshold).check,
    st.lists(finite, min_size=1, max_size=6),
    st.sampled_from(["mean", "ratio", "reduction", "increase"]),
    st.sampled_from(sorted(OPERATORS)),
    st.floats(0.01, 0.9),
)


@settings(max_examples=40, deadline=None)
@given(checks)
def test_check_survives_json(check: Check) -> None:
    """A check travels in a report as strict JSON (no NaN, no Infinity) and comes back the same."""
    text = json.dumps(check.as_json(), allow_nan=False)
    assert Check.from_json(json.loads(text)) == check


@settings(max_examples=40, deadline=None)
@given(checks)
def test_check_describes_itself_on_one_line(check: Check) -> None:
    """The line holds the demand and the outcome whatever the figures are."""
    line = check.describe()
    assert "\n" not in line
    assert line.endswith(f"{check.demand()}: {check.outcome}")


def test_one_replication_shows_nothing() -> None:
    """With one replication there is no interval, so nothing is shown, and the text says so."""
    check = (logs(0.5) < 0.9).check
    assert check.outcome == "not shown"
    assert "no interval: n = 1" in check.measured()


@pytest.mark.parametrize("scale", ["mean", "ratio", "reduction", "increase"])
def test_equal_by_chance_shows_nothing_and_says_what_would(scale: Scale) -> None:
    """An event that three replications have not seen may still be: there is no interval, but a number."""
    check = (estimate(-0.5, -0.5, -0.5, scale=scale) < 0.9).check
    assert check.outcome == "not shown"
    assert "[no interval: all 3 the same] (n=3, 95 %)" in check.measured()
    assert "about 6 replications would decide" in check.advice()


def test_explanation_of_a_failed_comparison() -> None:
    """pytest's assertion shows demand, measurement with interval, and what would settle it."""
    value = logs(*HALVED, scale="reduction")
    lines = explain_comparison("<", 0.7, value)
    assert lines is not None
    assert lines[0].endswith("rt > 70.0 %")
    assert re.search(r"40\.0 % \[.* %, .* %\] \(n=4, ", lines[1])
    assert "refuted" in lines[2]
    assert explain_comparison("in", value, 0.7) is None
    assert explain_comparison("<", 0.7, 0.8) is None


def test_verdict_and_estimate_print_what_was_measured() -> None:
    """In a debugger both show figures, not addresses."""
    value = logs(*HALVED, scale="reduction")
    assert "40.0 %" in repr(value)
    assert "not shown" in repr(value > 0.4)
