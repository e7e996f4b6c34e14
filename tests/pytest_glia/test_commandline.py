"""The user's command line reaches the evaluating pytest as far as the specs may depend on it."""

from __future__ import annotations

import pytest

from pytest_glia.commandline import deciding, forwarded
from tests.project import MakeProject


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("specs --glia-optimize", ""),
        ("specs --load 10 --glia-optimize", "--load 10"),
        ("--load=10 specs", "--load=10"),
        ("-o xfail_strict=true -W error -p plugin", "-o xfail_strict=true -W error -p plugin"),
        ("-k fast -m slow -n 0 --maxfail 1 --junitxml out.xml", ""),
        ("-kfast -mslow -n0 --maxfail=1 --junitxml=out.xml", ""),
        ("-x -xvs -q", "-vs -q"),
        ("--glia-budget 9sims --glia-testbed gpu", ""),
    ],
)
def test_what_specs_may_depend_on_is_kept(given: str, kept: str) -> None:
    """Options of conftests and plugins pass; selection, reports and the search's own do not."""
    assert forwarded(given.split(), ["specs"]) == kept.split()


CONFTEST = """\
def pytest_addoption(parser):
    parser.addoption("--load", type=int, default=1)
"""

SPEC = """\
import pytest

pytestmark = [pytest.mark.glia(candidate="c.py", entry="cost"), pytest.mark.slow]


def test_cost(glia, pytestconfig):
    load = pytestconfig.getoption("load")
    assert glia.measure(lambda cost, seed: cost() * load) < 5
"""


@pytest.mark.slow
def test_options_of_a_conftest_decide_what_is_measured(make_project: MakeProject) -> None:
    """A spec that fails for the option that was given fails in the search's first look, too."""
    project = make_project(
        {
            "pytest.ini": "[pytest]\nmarkers = slow\naddopts = -m 'not slow'\n",
            "conftest.py": CONFTEST,
            "c.py": "COST = 1.0\n\n\ndef cost():\n    return COST\n",
            "test_c.py": SPEC,
        }
    )
    light = project.pytest("--glia-optimize", "-m", "slow")
    assert light.code == 0
    assert "nothing to do" in light.out
    heavy = project.pytest("--glia-optimize", "-m", "slow", "--load", "10")
    assert heavy.code == 0, heavy.out
    assert "10 [10, 10]" in heavy.out
    assert "c: meets its specs" in heavy.out


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("-q", ""),
        ("-qvv -p no:xdist", "-p no:xdist"),
        ("--tb=short --tb no --color yes", ""),
        ("-rA -r f -s -o glia_margin=0", "-o glia_margin=0"),
        ("--site=paris --region eu -v", "--site=paris --region eu"),
    ],
)
def test_what_only_changes_what_is_shown_decides_nothing(given: str, kept: str) -> None:
    """What was paid for is known, however much the same command is to say."""
    assert deciding(given.split()) == kept.split()
