"""Experiments: paired effects with intervals, and what comes of making them again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_glia.agents.experimenter import told
from pytest_glia.draft import Refused
from pytest_glia.experiments import Effect, Experiment, Shown, Variant, effects
from pytest_glia.playground import Playground
from pytest_glia.retesting import AnalysisAgain, ExperimentAgain, retest_from
from pytest_glia.statistics import Interval
from tests.pytest_glia.stand_in import PATH, PUMP, Fresh, StandIn, measured, playground, pressed

START, LESS = Variant("start", {PATH: PUMP}), Variant("less", pressed(3))


def experiment(folder: Path, *variants: Variant, **asked: object) -> tuple[Experiment, StandIn]:
    """One on four seeds, and the lab that it was made in."""
    play, lab = playground(folder)
    return play.experiment("why?", variants, **{"replications": 4, **asked}), lab  # type: ignore[arg-type]


def test_positive_metrics_change_by_ratios(tmp_path: Path) -> None:
    """In per cent, paired by seed; the first variant is what the others are compared with."""
    made, _ = experiment(tmp_path, START, LESS)
    first, less = made.effect("start", "waste"), made.effect("less", "waste")
    assert first is not None
    assert first.change is None
    assert first.describe() == ""
    assert first.mean == pytest.approx(6.025)
    assert less is not None
    assert less.ratio
    assert less.shown == "lower"
    assert less.change is not None
    expected = [math.log((4 + seed / 100) / (6 + seed / 100)) for seed in range(1, 5)]
    assert less.change.mean == pytest.approx(math.fsum(expected) / 4)
    assert less.describe().startswith("-33.2 % [-33.")


def test_other_metrics_change_by_differences(tmp_path: Path) -> None:
    """Where a metric may be zero or below, and one whose interval contains zero shows nothing."""
    made, _ = experiment(tmp_path, START, LESS)
    noise = made.effect("less", "noise")
    assert noise is not None
    assert not noise.ratio
    assert noise.shown == "no difference shown"
    assert made.effect("less", "speed") is None
    assert made.summary().startswith("waste of 'less' -33.2 %")
    assert "noise" not in made.summary()


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(-2, -1, "lower"), (1, 2, "higher"), (-1, 1, "no difference shown"), (0, 2, "no difference shown")],
)
def test_what_an_interval_shows(low: float, high: float, shown: str) -> None:
    """Its sign, where it has one throughout."""
    change = Interval((low + high) / 2, 0.1, 4, 0.95, low, high)
    assert Effect("less", "waste", 1.0, change, ratio=False).shown == shown


def test_one_seed_shows_nothing() -> None:
    """A difference needs two."""
    found = {each.label: measured(each.sources, [1], {}) for each in (START, LESS)}
    assert [each.change for each in effects(found, ["waste"])] == [None, None]


def test_a_variant_that_fails_is_told(tmp_path: Path) -> None:
    """The others are measured all the same, and the table says why it was not."""
    broken = Variant("broken", {PATH: b"def pump(seed):\n    return 1 / 0\n"})
    made, _ = experiment(tmp_path, START, broken, LESS, metrics=["waste"])
    assert [each.label for each in made.effects] == ["start", "less"]
    assert made.errors == {"broken": "ZeroDivisionError: division by zero"}
    assert made.table().endswith("broken failed: ZeroDivisionError: division by zero")


def test_its_table_says_what_was_done(tmp_path: Path) -> None:
    """Id, question, seeds, scenario, and a row a metric and variant."""
    made, _ = experiment(tmp_path, START, LESS, metrics=["waste"], scenario={"load": 2.0})
    head, seeds, _, _, _, first, other = made.table().splitlines()
    assert head == "Experiment 1.E1: why?"
    assert seeds == "4 seeds, with load x 2; changes against 'start', paired, with 95 % intervals"
    assert first == "| waste | start | 12.05 |  |  |"
    assert other.startswith("| waste | less | 8.05 | -33.2 % ")
    assert other.endswith("| lower |")


def test_it_is_on_record(tmp_path: Path) -> None:
    """With its variants' sources and all effects, as JSON."""
    _, lab = experiment(tmp_path, START, LESS, scenario={"load": 2.0})
    kept = json.loads(lab.records["experiment 1.E1"])
    assert kept["variants"]["less"] == {PATH: pressed(3)[PATH].decode()}
    assert kept["scenario"] == {"load": 2.0}
    assert ["less", "waste", 8.05] in [row[:3] for row in kept["effects"]]


def test_tables_are_kept_where_asked(tmp_path: Path) -> None:
    """Only an inspected experiment has any."""
    assert not any(experiment(tmp_path, START)[0].tables.values())
    inspected, _ = experiment(tmp_path, START, replications=2, inspected=True)
    assert inspected.tables == {"start": ("table 1", "table 2")}


def test_what_was_printed_is_of_what_was_run(tmp_path: Path) -> None:
    """What is known prints nothing: the record tells it by its sources, whatever order they are run in."""
    loud, louder = (
        Variant(word, {PATH: PUMP.replace(b"    return", f"    print({word!r})\n    return".encode())})
        for word in ("loud", "louder")
    )
    first, lab = playground(tmp_path)
    for variants in ((START, loud), (START, louder)):
        first.experiment("what does it say?", variants, replications=2)
    again = Playground(first.lab, "1")
    swapped = again.experiment("and now?", (START, louder), replications=2)
    assert swapped.printed == {"louder": "louder\nlouder\n"}
    assert json.loads(lab.records["experiment 1.E1"])["variants"].keys() == {"start", "louder"}
    both = again.experiment("both?", (loud, louder), replications=2)
    assert both.printed == {"loud": "loud\nloud\n", "louder": "louder\nlouder\n"}


def test_an_analysis_is_of_one_variant(tmp_path: Path) -> None:
    """It gets the tables of the variant named, and what that has printed; by default of the first."""
    loud = Variant("loud", {PATH: PUMP.replace(b"    return", b"    print('loud')\n    return")})
    play, _ = playground(tmp_path)
    play.experiment("?", (START, loud), replications=1, inspected=True)
    assert play.inspected("1.E1")[1] == "start"
    made, label = play.inspected("1.E1", "loud")
    said = [play.analyse(made, each, "print(repr(printed))").printed for each in ("start", label)]
    assert said == ["''\n", "'loud\\n'\n"]
    with pytest.raises(Refused, match=r"1.E1 kept no tables of 'quiet': it kept those of start, loud"):
        play.inspected("1.E1", "quiet")


def test_what_is_not_seen_is_told(tmp_path: Path) -> None:
    """Of a run on other machines what was printed, unless it was inspected: that is run here."""
    play, lab = playground(tmp_path)
    made = [play.experiment("?", (START,), replications=1, inspected=each) for each in (False, True)]
    said = "where what variants print is not seen: with `inspect` they run here"
    assert [said in told(play, each).text for each in made] == [False, False]
    lab.settings.executor = "ray"
    assert [said in told(play, each).text for each in made] == [True, False]


def test_only_what_is_compared_is_run_again(tmp_path: Path) -> None:
    """Of a sweep the reference, and the variant that the finding names or those that differ."""
    more = Variant("more", pressed(9))
    made, _ = experiment(tmp_path, START, LESS, Variant("same", pressed(5)), more)
    assert list(ExperimentAgain.of(made).variants) == ["start", "less", "more"]
    assert list(ExperimentAgain.of(made.about("more", "waste")).variants) == ["start", "more"]


def test_what_it_has_shown_is_shown_again(tmp_path: Path) -> None:
    """On other seeds, in its scenario; a difference that it has not shown is not asked for."""
    made, _ = experiment(tmp_path, START, LESS, scenario={"load": 2.0})
    again = retest_from(json.loads(json.dumps(ExperimentAgain.of(made).as_json())))
    assert again == ExperimentAgain.of(made)
    retested = again(Fresh())
    assert retested.verdict == "as before"
    assert retested.text.startswith("waste of 'less' -2")
    assert "noise" not in retested.text


@pytest.mark.parametrize(
    ("metric", "before", "less", "says"),
    [
        ("waste", "higher", LESS.sources, "**not** higher as before"),
        ("noise", "lower", LESS.sources, "**not** lower as before"),
        ("speed", "lower", LESS.sources, "speed of 'less' is not reported, **not** lower as before"),
        ("waste", "lower", {PATH: b"def pump(seed): raise OSError('dry')\n"}, "it failed: OSError: dry"),
    ],
)
def test_what_is_not_shown_again_is_told(
    metric: str, before: Shown, less: Mapping[str, bytes], says: str
) -> None:
    """Another sign, no difference, a metric that is gone and a failure are not as before."""
    variants = {"start": START.sources, "less": less}
    retested = ExperimentAgain(variants, {}, (("less", metric, before),))(Fresh())
    assert retested.verdict == "not as before"
    assert retested.text.endswith(says)


def test_nothing_shown_is_nothing_to_show_again() -> None:
    """A finding that rests on no comparison stays unverified."""
    retested = ExperimentAgain({"start": START.sources}, {}, ())(Fresh())
    assert (retested.verdict, retested.text) == ("unverified", "it had compared nothing")


def analysis(figure: float, code: str = "findings['w'] = waste", replications: int = 2) -> AnalysisAgain:
    """Of the start, whose waste is about 7 on fresh seeds."""
    variants = {"the start": START.sources, "the design": LESS.sources}
    return AnalysisAgain(code, {"w": figure}, variants, {}, replications)


@pytest.mark.parametrize(
    ("figure", "verdict"), [(7.0, "as before"), (7.13, "as before"), (7.2, "not as before")]
)
def test_a_figure_is_where_others_of_its_kind_are(figure: float, verdict: str) -> None:
    """Four looks say where the next one is to be expected; what was found is there, or is not as before."""
    again = analysis(figure)
    assert retest_from(json.loads(json.dumps(again.as_json()))) == again
    retested = again(Fresh())
    assert retested.verdict == verdict
    assert retested.text == "the start: w = 7.045 (7.015 to 7.075 in 4 looks); the design: w = 5.015"


def test_a_figure_that_never_varies_is_the_same_or_not() -> None:
    """Such as which valve leaks least."""
    assert analysis(3.0, "findings['w'] = 3")(Fresh()).verdict == "as before"
    assert analysis(2.0, "findings['w'] = 3")(Fresh()).verdict == "not as before"


def test_a_figure_that_is_gone_is_not_as_before() -> None:
    """The code no longer finds it."""
    retested = analysis(3.0, "findings['v'] = 3")(Fresh())
    assert (retested.verdict, retested.text) == ("not as before", "the start: no figure 'w'")


def test_too_few_seeds_for_an_analysis() -> None:
    """One look does not say how a figure varies."""
    retested = analysis(7.0, replications=8)(Fresh())
    assert retested.verdict == "unverified"
    assert retested.text == "there are too few seeds to see how its figures vary"
