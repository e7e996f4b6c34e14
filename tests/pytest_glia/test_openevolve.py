"""The designer openevolve: the real library, whose model and whose evaluations are those of the run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_glia.designers.openevolve import OpenEvolveDesigner
from pytest_glia.misuse import Misuse
from tests.rivals import Played, costing, play
from tests.scripted_model import Says

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("openevolve") is None,
    reason='OpenEvolve is not installed, so it is NOT TESTED here: pip install "pytest-glia[openevolve]"',
)


def replies(number: int, _: str) -> Says:
    """Each costs less than the one before; each fifth is a program that raises."""
    if number % 5 == 4:
        return Says("```python\ndef answer():\n    raise ValueError('no')\n```")
    return costing(round(8.5 - number / 10, 2))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A search until its budget is spent."""
    folder = tmp_path_factory.mktemp("openevolve") / "project"
    return play(folder, "openevolve", replies, budget="60 sims, 120 s, 10M tokens")


@needs_library
def test_library_asks_the_run_s_model_for_full_rewrites(played: Played) -> None:
    """Its prompts hold the problem statement, its own words, and earlier programs with their scores."""
    assert len(played.prompts) > 10, played.ran.out
    for text in played.prompts:
        assert text.startswith("# The problem")
        assert "Provide the complete new program code" in text
        assert len(re.findall(r"^### Program \d", text, re.MULTILINE)) <= 3 + 2
        assert len(re.findall(r"^### Attempt \d", text, re.MULTILINE)) <= 3
    first = re.findall(r"Metrics: combined_score: ([\d.]+)", played.prompts[0])
    assert first == ["1.0000"]
    assert "return 8.5" in "\n".join(played.prompts[6:])


@needs_library
def test_programs_are_tried_by_the_run_within_its_budget(played: Played) -> None:
    """Each program is a candidate with a commit, a broken one too; at the end the best is confirmed."""
    assert played.trials() == [f"program {n}" for n in range(1, len(played.trials()) + 1)]
    assert "the budget of 60 simulations is spent" in played.ran.text
    assert "ValueError" in played.ran.out
    costs = [
        float(cost)
        for cost in re.findall(r"return ([\d.]+)", played.project.show(played.project.best(), "candidate.py"))
    ]
    assert costs[0] < 7.6


@needs_library
def test_nothing_of_it_is_left(played: Played) -> None:
    """Its processes end with the search."""
    assert played.project.processes() == []


@needs_library
def test_a_second_search_asks_the_same(played: Played, tmp_path: Path) -> None:
    """Names and draws of the library are the same from run to run, so that one can go on or be replayed."""
    again = play(tmp_path / "project", "openevolve", replies, budget="60 sims, 120 s, 10M tokens")
    assert again.prompts == played.prompts


@needs_library
def test_model_that_only_repeats_ends_with_the_start(tmp_path: Path) -> None:
    """The library tries no program twice: after its 120 iterations nothing better was found."""
    played = play(tmp_path / "project", "openevolve", lambda number, _: costing(9.0))
    assert len(played.prompts) == 120, played.ran.out
    assert "no better candidate than the present one was found" in played.ran.text


def test_several_files_are_refused() -> None:
    """The library evolves one file."""
    lab = SimpleNamespace(start=SimpleNamespace(sources={"a.py": b"", "b.py": b""}))
    with pytest.raises(Misuse, match=r"the specs name a\.py, b\.py"):
        OpenEvolveDesigner().design(cast(Any, lab))
