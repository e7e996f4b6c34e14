"""The designer without a model: how much of its budget one idea may cost."""

from __future__ import annotations

import re

import pytest

from tests.project import PACKER_IDEAS, PACKING, MakeProject

IDEA = '''\


class OpenEarly(LargestFirst):
    name = "open early"
    claim = "Large items get bins of their own."
    numbers = {"SPLIT": LIMITS}
    defaults = {"SPLIT": DEFAULT}

    def apply(self, source, numbers):
        return source.replace("SPLIT = 0.9", f"SPLIT = {numbers['SPLIT']}")
'''


@pytest.mark.parametrize(
    ("limits", "default", "settings"),
    [
        pytest.param((0.05, 0.4), 0.2, 3, id="harmful at all of three"),
        pytest.param((0.05, 0.6), 0.48, 6, id="worth a closer look at one of them"),
    ],
)
def test_an_idea_that_only_harms_is_left_after_three_settings(
    make_project: MakeProject, limits: tuple[float, float], default: float, settings: int
) -> None:
    """The budget is for ideas of which at least one setting is no worse than what there is."""
    idea = IDEA.replace("LIMITS", str(limits)).replace("DEFAULT", str(default))
    ideas = PACKER_IDEAS.replace("\n\n@pluggy", f"{idea}\n\n@pluggy").replace(
        "[LargestFirst()", "[OpenEarly(), LargestFirst()"
    )
    project = make_project({**PACKING, "conftest.py": ideas})
    result = project.pytest("--glia-optimize", "--glia-budget=120 sims, 300 s")
    assert result.code == 0, result.out
    branch = project.best().replace("/best", "/1")
    titles = project.git("log", "--reverse", "--format=%s", branch)
    assert len(set(re.findall(r"open early (0\.\d+)", titles))) == settings, titles
