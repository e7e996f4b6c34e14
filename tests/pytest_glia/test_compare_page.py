"""What a comparison makes of its runs: curves, tables and pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from pytest_glia.comparing.curves import Curve, band, best_so_far, reaching, t95
from pytest_glia.comparing.page import page
from pytest_glia.comparing.pictures import best_so_far_picture, direct_picture
from pytest_glia.comparing.runs import Goal, Measured, Row, SearchRun
from pytest_glia.drawing import round_steps

GOAL = Goal("share", "<", 1.1)


def row(simulations: float, loss: float | None, seeds: int = 4) -> Row:
    measured = None if loss is None else loss + 1.1
    spent = {"simulations": simulations, "seconds": simulations * 60, "tokens": simulations * 100}
    return {"seeds": seeds, "loss": loss, "measured": measured, "spent": spent}


def search_run(*rows: Row, final: float | None = 1.0, designer: str = "best-of-n") -> SearchRun:
    measured = None if final is None else Measured(final, None, None, 4)
    return SearchRun(designer, 1, "not met", "a.py", GOAL, rows, measured)


def test_best_so_far_is_of_full_looks() -> None:
    """A candidate that was stopped early, or is no better, or does not work changes nothing."""
    run = search_run(
        row(4, 0.5), row(6, 0.1, seeds=2), row(10, 0.3), row(14, 0.4), row(16, None), row(20, 0.2)
    )
    curve = best_so_far(run, "simulations")
    assert curve.places == (4, 10, 20)
    assert curve.values == pytest.approx((1.6, 1.4, 1.3))


def test_band_is_of_the_runs_themselves() -> None:
    """At each place from the least to the most of what runs had then; one that has ended keeps its last."""
    found = band([Curve((0, 4), (9, 5)), Curve((0, 8), (9, 1)), Curve((0,), (9,))])
    assert found.places == (0, 4, 8)
    assert (found.low, found.middle, found.high) == ((9, 5, 1), (9, 9, 5), (9, 9, 9))


def test_band_of_many_runs_leaves_out_a_tenth() -> None:
    """Of forty runs the two least and the two most."""
    found = band([Curve((0,), (float(n),)) for n in range(40)])
    assert (found.low, found.high) == ((2,), (37,))


def test_t95_is_when_nearly_all_was_gained() -> None:
    """The first full look with 95 % of the fall in loss; none for a run that gained nothing."""
    assert t95(search_run(row(4, 1.0), row(8, 0.06), row(12, 0.05), row(16, 0.0))) == 12
    assert t95(search_run(row(4, 1.0), row(8, 1.5))) is None


def test_reaching_a_baseline_goes_by_the_goal() -> None:
    """Smaller is better where the goal is an upper limit, larger where it is a lower one."""
    runs = [search_run(row(4, 1.0), final=final) for final in (1.0, 1.2, 1.4)]
    assert reaching(runs, 1.2) == 2
    assert Goal("gain", ">", 0.3).better(0.5, 0.4)


def test_histogram_counts_failures() -> None:
    """The programs of all runs of best-of-n, those that failed in a bar of their own."""
    run = search_run(row(4, 1.0), row(8, 0.5), row(9, None), row(12, 0.5), row(13, None), row(14, None))
    svg = direct_picture([run], {})
    assert "3 of 5 that failed" in svg
    heights = [float(each) for each in re.findall(r'height="([\d.]+)" fill="#(?:1f5fa8|b3261e)"', svg)]
    assert sorted(heights)[-2:] == pytest.approx([max(heights) * 2 / 3, max(heights)], rel=0.01)


def test_costs_of_a_model_are_shown() -> None:
    """Tokens have a column and a picture where a run has spent any; names are escaped."""
    runs = {"<b>": [search_run(row(4, 1.0), row(8, 0.5), designer="<b>")]}
    text = page(runs, GOAL, {}, "8 sims", "command", [])
    assert "| designer | simulations | minutes | tokens |" in text
    svg = best_so_far_picture(runs, GOAL, {}, "tokens")
    assert "&lt;b&gt;" in svg
    ElementTree.fromstring(svg)


def test_axes_have_round_steps() -> None:
    """Steps are 1, 2 or 5 times a power of ten."""
    assert round_steps(0, 97) == [0, 20, 40, 60, 80]
    assert round_steps(-0.03, 0.61) == [0, 0.2, 0.4, 0.6]
    assert round_steps(1234, 1236) == [1234, 1234.5, 1235, 1235.5, 1236]


def test_a_run_without_a_full_look_has_no_curve() -> None:
    """The others are drawn, and the page says which is not."""
    runs = {"a": [search_run(row(4, None), row(8, None), designer="a")], "b": [search_run(row(4, 1.0))]}
    ElementTree.fromstring(best_so_far_picture(runs, GOAL, {}, "simulations"))
    ElementTree.fromstring(best_so_far_picture({"a": runs["a"]}, GOAL, {}, "simulations"))
    text = page(runs, GOAL, {}, "8 sims", "command", [])
    assert "No candidate was measured in all replications, so there is no curve: `a` 1." in text


def test_confirmed_is_of_winners_alone() -> None:
    """A run without one says none, and a designer some of whose runs have one says of how many it is."""
    runs = {
        "a": [search_run(row(4, 1.0), final=None)],
        "b": [search_run(row(4, 1.0), final=None), search_run(row(4, 1.0), final=1.25)],
    }
    text = page(runs, GOAL, {}, "8 sims", "command", [])
    assert "| `a` | 1 | 0 of 1 | none |" in text
    assert "| `b` | 2 | 0 of 2 | 1.25, 1 of 2 |" in text
    assert "| `a` 1 | not met | none | 0 |" in text
