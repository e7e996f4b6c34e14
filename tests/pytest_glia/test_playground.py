"""What an agent may read, write and try; what it may not is refused, with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_glia.draft import Edit, Refused
from pytest_glia.experiments import Variant
from pytest_glia.playground import Analysed, Playground
from pytest_glia.trials import Hypothesis
from tests.pytest_glia.stand_in import PATH, PUMP, StandIn, playground, pressed

IDEA = Hypothesis("less pressure", "It leaks less.", "waste is high", {"waste": -1})
TEXT = PUMP.decode()


@pytest.fixture
def room(tmp_path: Path) -> tuple[Playground, StandIn]:
    """A context at its beginning, and its lab."""
    return playground(tmp_path)


def test_what_may_be_read(room: tuple[Playground, StandIn]) -> None:
    """The candidate as it is being written, what the specs expose if it is there, and what was tried."""
    play, _ = room
    assert play.files() == {PATH: "the candidate as you are writing it", "plant.py": "exposed by the specs"}
    play.write(PATH, TEXT.replace("= 5", "= 4"))
    play.evaluate(IDEA)
    play.write(PATH, TEXT.replace("= 5", "= 3"))
    assert list(play.files()) == [PATH, "plant.py", f"tried/1/{PATH}"]
    assert play.files()[f"tried/1/{PATH}"] == "less pressure: better"
    assert play.read(PATH).startswith("PRESSURE = 3")
    assert play.read(f"tried/1/{PATH}").startswith("PRESSURE = 4")
    assert play.read("plant.py") == "# Pressures go from 1 to 9.\n"


@pytest.mark.parametrize("path", ["secret.py", "gone.py", "../plant.py", "/etc/passwd", "tried/1/x.py", ""])
def test_what_may_not_be_read(room: tuple[Playground, StandIn], path: str) -> None:
    """Anything else, wherever it is, is not there."""
    with pytest.raises(Refused) as refused:
        room[0].read(path)
    assert str(refused.value) == f"there is no file {path!r} to read: there are {PATH}, plant.py"


def test_lines_have_their_numbers(room: tuple[Playground, StandIn]) -> None:
    """A part of a file, and how much is left."""
    play, _ = room
    assert play.shown(PATH, 1, 1) == "    1 PRESSURE = 5\n(4 more lines)"
    assert play.shown(PATH, 4, 9).splitlines()[0] == "    4 def pump(seed):"
    assert play.shown(PATH, 99) == ""


def test_a_long_line_is_cut(room: tuple[Playground, StandIn]) -> None:
    """In its middle, and it says how much is left out."""
    play, _ = room
    play.write(PATH, TEXT + "# " + "x" * 90_000 + " the end\n")
    last = play.shown(PATH, 6)
    assert len(last) < 2_100
    assert last.startswith("    6 # xxx")
    assert re.search(r"\(8\d{4} of 90010 characters are left out here\)", last)
    assert last.endswith("x the end")


def test_a_search_names_file_and_line(room: tuple[Playground, StandIn]) -> None:
    """Over all readable files; of many lines it shows sixty."""
    play, _ = room
    assert play.search("ressure") == "plant.py:1: # Pressures go from 1 to 9."
    assert play.search("valve") == "nothing contains 'valve'"
    play.write(PATH, TEXT + "# pressure\n" * 70)
    assert play.search("# pressure").endswith("\n(10 more)")
    with pytest.raises(Refused, match="the text to search for is empty: give some"):
        play.search("")


def test_edits_are_exact_and_all_or_none(room: tuple[Playground, StandIn]) -> None:
    """Each text occurs once, white space included; one that does not leaves the candidate as it was."""
    play, _ = room
    play.edit([Edit(PATH, "= 5", "= 4"), Edit(PATH, "= 4", "= 3")])
    assert play.read(PATH).startswith("PRESSURE = 3")
    for old, count in (("= 5", 0), ("PRESSURE", 2), ("", 0), ("PRESSURE  = 3", 0)):
        with pytest.raises(Refused) as refused:
            play.edit([Edit(PATH, "= 3", "= 2"), Edit(PATH, old, "x")])
        assert str(refused.value) == (
            f"the text to replace occurs {count} times in {PATH}: give one that occurs once, with its white "
            f"space; it begins {old!r}"
        )
    assert play.read(PATH).startswith("PRESSURE = 3")


def test_only_candidates_are_written(room: tuple[Playground, StandIn]) -> None:
    """No other file, by writing or by an edit."""
    play, _ = room
    says = f"'plant.py' is no candidate file: you may write {PATH}"
    with pytest.raises(Refused) as written:
        play.write("plant.py", "x")
    with pytest.raises(Refused) as edited:
        play.edit([Edit("plant.py", "1", "2")])
    assert (str(written.value), str(edited.value)) == (says, says)


@pytest.mark.parametrize("text", ["def pump(:\n", "import socket\n\n\ndef pump(seed): ...\n", "x = 1\n"])
def test_what_breaks_a_rule_is_not_written(room: tuple[Playground, StandIn], text: str) -> None:
    """The static rules are those of the search; the candidate stays as it was."""
    play, _ = room
    with pytest.raises(Refused, match=f"^not written: .*{PATH}"):
        play.write(PATH, text)
    assert play.read(PATH) == TEXT


def test_a_better_candidate_is_the_best(room: tuple[Playground, StandIn]) -> None:
    """A worse one is on record, and does not take its place."""
    play, _ = room
    for pressure in (3, 4):
        play.write(PATH, TEXT.replace("= 5", f"= {pressure}"))
        trial = play.evaluate(IDEA)
    assert trial.result == "worse"
    assert play.best.sources == pressed(3)
    assert "It is the best so far." in play.describe(play.lab.trials[0])
    assert "The best so far is candidate 1 (tried/1/...); the files still hold this one." in play.describe(
        trial
    )
    assert "- 1 less pressure: better" in play.notebook()
    assert "- 2 less pressure: worse" in play.notebook()


def test_it_has_met_its_specs(room: tuple[Playground, StandIn]) -> None:
    """Once every check of the best candidate is shown."""
    play, _ = room
    assert not play.best.met()
    play.write(PATH, TEXT.replace("= 5", "= 1"))
    play.evaluate(IDEA)
    assert play.best.met()


def test_nothing_is_tried_twice(room: tuple[Playground, StandIn]) -> None:
    """Neither the best so far nor anything tried before, whose result is told."""
    play, lab = room
    with pytest.raises(Refused, match="the candidate is the same as the best so far: change it first"):
        play.evaluate(IDEA)
    for pressure in (4, 3):
        play.write(PATH, TEXT.replace("= 5", f"= {pressure}"))
        play.evaluate(IDEA)
    play.write(PATH, TEXT.replace("= 5", "= 4"))
    with pytest.raises(Refused, match="that candidate was tried as number 1: better"):
        play.evaluate(IDEA)
    assert len(lab.trials) == 2


AS_IS, OTHER = Variant("as it is", {PATH: PUMP}), Variant("less", pressed(3))


@pytest.mark.parametrize(
    ("variants", "asked", "says"),
    [
        ([AS_IS], {"replications": 0}, "replications is 0: give 1 to 4"),
        ([AS_IS], {"replications": 5}, "replications is 5: give 1 to 4"),
        ([], {}, "the variants are []: give at least one, each with a label of its own"),
        ([AS_IS, AS_IS], {}, "the variants are ['as it is', 'as it is']: give at least one, each with"),
        ([AS_IS], {"scenario": {"wind": 2.0}}, "a scenario cannot change 'wind' here: it can change load"),
        (
            [AS_IS],
            {"scenario": {"load": 0.0}},
            "the factor of 'load' is 0.0: give a positive one, below 1000",
        ),
        ([AS_IS], {"scenario": {"load": 1e9}}, "the factor of 'load' is 1000000000.0: give a positive one"),
        ([AS_IS], {"metrics": ["speed"]}, "there is no metric 'speed': the replications report waste, noise"),
    ],
)
def test_an_experiment_that_cannot_be_run(
    room: tuple[Playground, StandIn], variants: list[Variant], asked: dict[str, object], says: str
) -> None:
    """It is refused before anything is spent, and there is no trace of it."""
    play, lab = room
    with pytest.raises(Refused) as refused:
        play.experiment("?", variants, **{"replications": 2, **asked})  # type: ignore[arg-type]
    assert str(refused.value).startswith(says)
    assert (lab.looks, play.experiments) == (0, {})


def test_a_domain_without_knobs(room: tuple[Playground, StandIn]) -> None:
    """There a scenario can change nothing, and says so."""
    play, lab = room
    lab.knobs = {}
    with pytest.raises(Refused, match="a scenario cannot change 'load' here: it can change nothing"):
        play.experiment("?", [AS_IS], replications=1, scenario={"load": 2.0})


def test_experiments_have_ids_of_their_context(room: tuple[Playground, StandIn]) -> None:
    """In order, on record and in the notebook."""
    play, lab = room
    for purpose in ("first", "second"):
        play.experiment(purpose, [AS_IS, OTHER], replications=4)
    assert list(play.experiments) == ["1.E1", "1.E2"]
    assert {"experiment 1.E1", "experiment 1.E2"} <= lab.records.keys()
    assert "- 1.E2: second" in play.notebook()


def test_a_finding_names_what_shows_it(room: tuple[Playground, StandIn]) -> None:
    """Without an experiment or analysis there is none."""
    play, _ = room
    with pytest.raises(Refused, match=r"no experiment or analysis '1.E1' that shows it: there are none yet"):
        play.find("Less pressure leaks less.", "1.E1")
    play.experiment("does it?", [AS_IS, OTHER], replications=4, metrics=["waste"])
    play.find("Less pressure leaks less.", "1.E1")
    [finding] = play.findings()
    assert (finding.text, finding.source) == ("Less pressure leaks less.", "1.E1")
    assert finding.measured.startswith("waste of 'less' -")
    assert "- Less pressure leaks less. (1.E1)" in play.notebook()
    with pytest.raises(Refused, match=r"'1.A1' that shows it: there are 1.E1"):
        play.find("More.", "1.A1")


def test_a_finding_is_tested_for_the_best_by_then(room: tuple[Playground, StandIn]) -> None:
    """An analysis is made again of what it looked at, of the start, and of the design as it is in the end."""
    play, _ = room
    play.experiment("tables", [OTHER], replications=1, inspected=True)
    play.analyses["1.A1"] = Analysed(
        "1.E1", "less", "How much?", "findings['w'] = waste", "That much.", {"w": 4.01}
    )
    play.find("It wastes that much.", "1.A1")
    play.write(PATH, TEXT.replace("= 5", "= 2"))
    play.evaluate(IDEA)
    [finding] = play.findings()
    again = finding.again.as_json()["variants"]
    assert list(again) == ["variant 'less'", "the start", "the design"]
    assert again["the design"] == {PATH: pressed(2)[PATH].decode()}
    assert finding.measured == "w = 4.01"
