"""The designer best-of-n: one prompt, many programs, every failure among them."""

from __future__ import annotations

import pytest

from tests.rivals import Played, costing, play
from tests.scripted_model import Says

pytestmark = pytest.mark.slow

REPLIES = [
    costing(8.0),
    Says("Sorry."),
    Says("```python\nimport os\n\ndef answer():\n    return 1.0\n```"),
    Says("```python\ndef answer():\n    raise ValueError('no')\n```"),
    Says("```python\ndef answer(:\n```"),
    costing(2.0),
    costing(7.0),
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A search whose model has no more to say after seven programs."""
    gone = Says(status=400, error="no more")
    return play(
        tmp_path_factory.mktemp("best") / "project",
        "best-of-n",
        lambda number, _: REPLIES[number] if number < len(REPLIES) else gone,
    )


def test_all_programs_come_from_one_prompt(played: Played) -> None:
    """No request has anything of an earlier program: all are the same, with the file and how to answer."""
    assert len(set(played.prompts)) == 1
    assert "return 9.0" in played.prompts[0]
    assert (
        played.prompts[0]
        .rstrip()
        .endswith("Give the whole file `candidate.py` in one fenced block of Python. Do not explain it.")
    )


def test_failures_are_candidates(played: Played) -> None:
    """What cannot be read, breaks a rule, raises or does not parse is counted, with the reason."""
    assert played.trials() == [f"program {n} of 100" for n in range(1, 8)]
    [branch] = [each for each in played.project.branches() if each.endswith("/1")]
    bodies = played.project.git("log", "--reverse", "--format=%b%x00", f"main..{branch}").split("\0")
    results = [body.partition("Result: ")[2].partition(".")[0] for body in bodies[:-1]]
    assert results == ["better", *["broken"] * 4, "better", "better"]
    assert "no fenced block of code" in bodies[1]
    assert "imports os" in bodies[2] or "import os" in bodies[2]
    assert "ValueError" in bodies[3]


def test_best_of_them_is_kept(played: Played) -> None:
    """The program of least loss is confirmed and delivered, without a claim."""
    assert played.ran.code == 0, played.ran.out
    assert "return 2.0" in played.project.show(played.project.best(), "candidate.py")
    assert "made no claim" in played.project.show(played.project.best(), "candidate.md")
