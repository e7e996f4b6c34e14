"""The search for counterexamples: it finds them, shrinks them, keeps them, and says where it found none."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs import families
from specs.families import FAMILIES
from specs.hunt import main

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
    """All on one of two replicas: what is kept are requests that come at once, and it replays as it was."""
    file = tmp_path / "last.py"
    file.write_text(LAST, "utf-8")
    arguments = ["router", "--candidate", str(file), "--cluster", "tight"]
    assert main([*arguments, "--examples", "60", "--save", "a router of one replica"]) == 1
    printed = capsys.readouterr().out
    assert "beyond its margins in world" in printed
    assert "saved in specs/counterexamples/router.json" in printed
    [found] = FAMILIES["router"].saved()
    world = found.world
    assert isinstance(world, families.Episode)
    assert len(world.gaps) <= 30
    assert max(world.gaps) == 0
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
