"""The search for counterexamples: it finds them, shrinks them, keeps them, and says where it found none."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs import families
from specs.families import FAMILIES
from specs.hunt import main
from specs.worlds import Episode

LAST = """\
class Router:
    def route(self, queue, replicas, now):
        return [(request, replicas[-1]) for request in queue]
"""
HOARDER = """\
class Router:
    def route(self, queue, replicas, now):
        return []
"""


@pytest.fixture(autouse=True)
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where counterexamples go."""
    monkeypatch.setattr(families, "SAVED", tmp_path / "counterexamples")
    return tmp_path / "counterexamples"


def test_a_weakness_is_found_shrunk_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All on one of two replicas: what is kept are a few requests, and they replay as they were."""
    file = tmp_path / "last.py"
    file.write_text(LAST, "utf-8")
    arguments = ["router", "--candidate", str(file), "--cluster", "tight"]
    assert main([*arguments, "--examples", "60", "--save", "a router of one replica"]) == 1
    printed = capsys.readouterr().out
    assert "beyond its margins in world" in printed
    assert "saved in specs/counterexamples/router.json" in printed
    [found] = FAMILIES["router"].saved()
    world = found.world
    assert isinstance(world, Episode)
    assert len(world.gaps) <= 4
    assert main([*arguments, "--replay"]) == 0
    replayed = capsys.readouterr().out
    assert replayed == f"tight, found in a router of one replica: {found.measured}\n"


def test_a_router_that_breaks_the_protocol_is_beyond(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One request is enough where it is held for ever, and the error is told in one line."""
    file = tmp_path / "hoarder.py"
    file.write_text(HOARDER, "utf-8")
    assert main(["router", "--candidate", str(file), "--examples", "5"]) == 1
    world, told = capsys.readouterr().out.splitlines()[1:]
    assert "gaps=(0,)" in world
    assert "held 1 requests for ever" in told


def test_where_nothing_is_found_it_says_in_how_many(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the largest ratio that was seen; the same worlds again in another run."""
    arguments = ["router", "--candidate", "llq", "--examples", "15"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "within its margins in all of" in first
    assert "worst_response_time 1.000" in first
    assert not saved.exists()
    assert main(arguments) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["router", "--cluster", "large"],
            "no cluster of the family router is called 'large'; expected one of",
        ),
        (["router", "--examples", "0"], "expected at least 1 world"),
        (["router", "--margin", "-1"], "a margin of at least 0 (0.1 for 10 %)"),
        (
            ["pair", "--candidate", "llq"],
            "--candidate llq; expected one for each of router, scheduler, in this",
        ),
        (["router", "--candidate", "none"], "no router is called 'none'; expected a file"),
        (["router", "--candidate", "none.py"], "the router's file is not there: 'none.py'"),
    ],
)
def test_what_cannot_be_looked_for_is_said(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence, before any world is tried."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert told in err


def test_a_pair_is_looked_at_together(capsys: pytest.CaptureFixture[str]) -> None:
    """One policy a layer, told by both names."""
    assert main(["pair", "--candidate", "llq", "fcfs", "--examples", "5"]) == 0
    assert capsys.readouterr().out.startswith("LeastLoadedQueue + FirstComeFirstServed: within its margins")
