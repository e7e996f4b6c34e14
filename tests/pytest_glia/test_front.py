"""The Pareto set: which candidates there are to choose from, as far as what was measured shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_glia.estimate import Check, Estimate
from pytest_glia.front import Contender, Front
from pytest_glia.merit import Aim, CheckId, Evaluation
from pytest_glia.statistics import mean_interval
from pytest_glia.tradeoffs import trade_offs

MARGIN = 0.02
N = 4

Samples = Sequence[Sequence[float]]
"""What a candidate measured: of each objective, a number a seed."""


def objective(place: int) -> CheckId:
    return f"spec.py::test_{place}", 0


def checked(name: str, samples: Sequence[float], *, more: bool = False) -> Check:
    """What a spec makes of a metric of which it asks for less than 1, or for more."""
    value = Estimate(name, mean_interval(samples, 0.95), tuple(samples), "mean")
    return (value > 1.0 if more else value < 1.0).check


def contender(number: int, samples: Samples, *, refuted: bool = False, more: bool = False) -> Contender:
    """A candidate of its own that measured this."""
    checks = {
        objective(place): checked(f"metric {place}", each, more=more) for place, each in enumerate(samples)
    }
    seeds = tuple(range(len(samples[0])))
    return Contender(number, "", "", Evaluation({"a.py": b"%d" % number}, seeds, checks), refuted)


def steady(*means: float) -> Samples:
    """Objectives that measure the same for every seed."""
    return [[mean] * N for mean in means]


def front(contenders: Sequence[Contender], primary: int = 0) -> Front:
    """Of contenders, for specs whose first unmet one is in that place."""
    most = max(len(each.evaluation.checks) for each in contenders)
    aim = Aim(objective(primary), tuple(objective(place) for place in range(most)), spreads=1.0)
    return Front.of(contenders, aim, MARGIN, 0.95)


def numbers(contenders: Sequence[Contender]) -> set[int]:
    return {each.number for each in contenders}


@st.composite
def fields(draw: st.DrawFn) -> list[Contender]:
    """Some candidates with the same objectives, which often measure the same, or nearly so."""
    objectives = draw(st.integers(1, 4))
    value = st.sampled_from([0.5, 0.51, 0.53, 0.55, 0.7, 1.2])
    samples = st.lists(st.lists(value, min_size=N, max_size=N), min_size=objectives, max_size=objectives)
    return [
        contender(number, each) for number, each in enumerate(draw(st.lists(samples, min_size=1, max_size=8)))
    ]


# Each gains in one objective by twice what it loses in either of the others.
RING = [
    contender(0, steady(0.50, 0.52, 0.51)),
    contender(1, steady(0.51, 0.50, 0.52)),
    contender(2, steady(0.52, 0.51, 0.50)),
]


@settings(max_examples=80)
@given(fields())
@example(RING)
def test_no_member_beats_another(field: list[Contender]) -> None:
    """Each of them leaves a reason to choose the other."""
    found = front(field)
    assert not any(found.beats(one, other) for one in found.members for other in found.members)


@settings(max_examples=80)
@given(fields())
@example(RING)
def test_whatever_is_no_member_is_beaten_by_one(field: list[Contender]) -> None:
    """So nobody who keeps to the set misses anything; and it is never empty."""
    found = front(field)
    assert numbers(found.members) | numbers(found.others) == numbers(field)
    assert all(any(found.beats(one, other) for one in found.members) for other in found.others)


@settings(max_examples=80)
@given(fields(), st.randoms(use_true_random=False))
def test_order_of_trials_does_not_matter(field: list[Contender], random: object) -> None:
    """Whichever was tried first."""
    other = list(field)
    random.shuffle(other)  # type: ignore[attr-defined]
    assert numbers(front(other).members) == numbers(front(field).members)


@settings(max_examples=80)
@given(fields())
def test_one_objective_gives_the_best(field: list[Contender]) -> None:
    """The one that measured least, and those of which it is not shown that they are worse."""
    only = objective(0)
    one = [
        replace(each, evaluation=replace(each.evaluation, checks={only: each.evaluation.checks[only]}))
        for each in field
    ]
    found = front(one)
    best = min(one, key=lambda each: math.fsum(each.evaluation.checks[only].excess))
    assert best.number in numbers(found.members)
    assert all(found.change(only, each, best).low <= MARGIN for each in found.members)


def test_noise_takes_no_candidate_out() -> None:
    """One that is better on average is not shown to be, where replications differ more than that."""
    loud = contender(1, [[0.5, 0.9, 0.5, 0.9], [0.6] * N])
    quiet = contender(2, [[0.6, 0.7, 0.9, 0.8], [0.6] * N])
    assert numbers(front([loud, quiet]).members) == {1, 2}


def test_what_is_lost_within_the_margin_is_nothing() -> None:
    """A gain that is shown is not outweighed by a loss that is shown to be next to none."""
    assert numbers(front([contender(1, steady(0.5, 0.51)), contender(2, steady(0.6, 0.5))]).members) == {1}
    assert numbers(front([contender(1, steady(0.5, 0.53)), contender(2, steady(0.6, 0.5))]).members) == {1, 2}


def test_better_is_where_the_spec_asks_for_more() -> None:
    """An objective has the direction of its threshold."""
    low, high = contender(1, steady(1.1), more=True), contender(2, steady(1.4), more=True)
    assert numbers(front([low, high]).members) == {2}


def test_refuted_candidate_takes_none_out() -> None:
    """What it has shown on development seeds says nothing of it."""
    lucky, honest = contender(1, steady(0.1, 0.1), refuted=True), contender(2, steady(0.5, 0.5))
    found = front([lucky, honest])
    assert (numbers(found.members), numbers(found.others)) == ({2}, {1})


@pytest.mark.parametrize(
    "broken",
    [
        contender(2, [[0.1], [0.1]]),
        replace(
            contender(2, steady(0.1, 0.1)),
            evaluation=replace(contender(2, steady(0.1, 0.1)).evaluation, errors={"t": "died"}),
        ),
        contender(2, [[0.1] * N, [0.1]]),
        contender(1, steady(0.1, 0.1)),
    ],
    ids=["first look only", "error", "a check of fewer replications", "tried before"],
)
def test_only_what_works_and_came_to_its_end_takes_part(broken: Contender) -> None:
    """Each once; others are not in the way of any."""
    found = front([contender(1, steady(0.5, 0.5)), broken])
    assert (numbers(found.members), found.others) == ({1}, ())


def test_one_metric_against_two_baselines_is_one_objective() -> None:
    """Candidates differ in both alike; the one that the search improves stands for them, and comes first."""
    field = []
    for number, less in enumerate((0.0, 0.1, 0.3)):
        one, other = ([each - less for each in than] for than in ([0.6, 0.7, 0.8, 0.9], [0.5, 0.9, 0.6, 0.7]))
        field.append(contender(number, [one, [0.5 + less] * N, other]))
    assert front(field, primary=2).objectives == (objective(2), objective(1))


def test_nothing_is_told_where_there_is_no_choice() -> None:
    """One member, or one objective: no line for the terminal."""
    field = [contender(1, steady(0.5, 0.9)), contender(2, steady(0.9, 0.5))]
    assert "2 candidates" in front(field).told()[0]
    assert front(field[:1]).told() == []
    assert front([contender(1, steady(0.5)), contender(2, steady(0.5))]).told() == []


def test_note_has_a_few_of_many() -> None:
    """Of the others the best in sum; how many more there are is said."""
    field = [contender(number, steady(0.1 + number / 10, 1 - number / 9)) for number in range(9)]
    found = trade_offs(front(field), field[0].evaluation.sources)
    assert found.count("Gained: metric 1 ") == found.count("Given up: metric 0 ") == 6
    assert "- 2 more: see the report of the run" in found


def test_note_has_no_other_that_is_not_shown_to_be_better() -> None:
    """Those that cannot be told from the winner are no trade-off; none is, if the winner was not tried."""
    loud, quiet = (
        contender(1, [[0.5, 0.9, 0.5, 0.9], [0.6] * N]),
        contender(2, [[0.6, 0.7, 0.9, 0.8], [0.6] * N]),
    )
    found = front([loud, quiet, contender(3, steady(0.9, 0.3))])
    told = trade_offs(found, loud.evaluation.sources)
    assert told.count("Gained") == told.count("metric 1 0.3 instead of 0.6") == 1
    assert trade_offs(found, {"a.py": b"unknown"}) == ""
