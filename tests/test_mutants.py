"""The mutants by which the guard is tested: every idea of a candidate has one, and every number two."""

from __future__ import annotations

import pytest

from tests.mutants import CANDIDATES, REMOVALS, ideas, mutants, scaled, without

SOURCE = '''\
"""A candidate."""

ROOM, SHARES = 3, (0.25, 1.5)  # not a name alone: left as it is
SHARE: float = 0.5  # of é
WHOLE = 60 * 7
FEW = [1, -2]
NAMES = ("a", "b")
SWITCH = True
NONE = 0


def answer():
    LOCAL = 4
    return LOCAL
'''


@pytest.mark.parametrize("layer", REMOVALS)
def test_every_idea_can_be_removed(layer: str) -> None:
    """What the design note says that the candidate is made of is listed in REMOVALS, and is in its text."""
    noted = ideas((CANDIDATES / f"{layer}.md").read_text("utf-8"))
    folder = layer.rpartition("/")[0]
    together = [layer] if not folder else [each for each in REMOVALS if each.startswith(f"{folder}/")]
    assert sorted(noted) == sorted(idea for each in together for idea in REMOVALS[each]), (
        f"candidates/{layer}.md tells of the ideas {noted}: have REMOVALS of tests/mutants.py say of each "
        "how the candidate loses it"
    )
    sources = [each.source for each in mutants(layer)]
    assert len({*sources, (CANDIDATES / f"{layer}.py").read_text("utf-8")}) == len(sources) + 1


def test_every_candidate_has_a_layer() -> None:
    """No candidate is left out of the tests of the guard."""
    files = {file.relative_to(CANDIDATES).with_suffix("").as_posix() for file in CANDIDATES.rglob("*.py")}
    assert {file for file in files if not file.startswith("start/")} == set(REMOVALS)


def test_removal_of_what_is_not_there_says_where_to_list_it() -> None:
    """A candidate that was replaced needs other removals: the error names text, idea and table."""
    with pytest.raises(LookupError, match=r"^candidates/router\.py has .* 0 times.* REMOVALS of tests/mut"):
        without("router", "shortest prompt first", "class Router: ...")


def test_numbers_are_doubled_and_halved() -> None:
    """Those at the top of the module, computed and in sequences, too; whole ones stay whole."""
    changes = {change: text.splitlines() for change, text in scaled(SOURCE)}
    lines = SOURCE.splitlines()
    changed = {
        change: [line for line, was in zip(text, lines, strict=True) if line != was]
        for change, text in changes.items()
    }
    assert changed == {
        "SHARE x 2": ["SHARE: float = 1.0  # of é"],
        "SHARE / 2": ["SHARE: float = 0.25  # of é"],
        "WHOLE x 2": ["WHOLE = 840"],
        "WHOLE / 2": ["WHOLE = 210"],
        "FEW x 2": ["FEW = [2, -4]"],
        "FEW / 2": ["FEW = [0, -1]"],
    }
