"""``python -m pytest_glia prompt``: the statement alone, or a sentence that says why there is none."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.project import MakeProject, Project, spec
from tests.pytest_glia.pumps import record
from tests.pytest_glia.test_end_of_search import CHOOSER, COSTS, DOMAIN

BODY = """\
def test_little(glia):
    \"\"\"It is less than one.\"\"\"
    assert glia.measure(lambda answer, seed: {"cost": answer() + 0.001 * seed % 1}, metric="cost") < 1
"""
PLAIN = ("-p", "no:hypothesispytest", "-p", "no:xdist")


@pytest.fixture
def failing(make_project: MakeProject) -> Project:
    """A project whose spec fails."""
    return make_project(spec("def answer():\n    return 3\n", BODY))


@pytest.mark.slow
def test_the_statement_and_no_trace(failing: Project) -> None:
    """It tries no candidate, and a run that was killed can go on as if nothing had been."""
    first = failing.command("prompt", *PLAIN)
    assert first.code == 0, first.out
    assert "- **test_little**: It is less than one." in first.out
    assert "`answer` in `candidate.py`. At present:" in first.out
    with closing(sqlite3.connect(failing.folder / ".glia/ledger.db", isolation_level=None)) as db:
        db.execute("UPDATE runs SET designer = 'offline', outcome = NULL")
    before = failing.fingerprint()
    again = failing.command("prompt", "test_spec.py", *PLAIN)
    assert again.code == 0, again.out
    assert record(failing, "SELECT designer, outcome FROM runs ORDER BY started") == [
        ("offline", None),
        ("prompt", "not met"),
    ]
    assert record(failing, "SELECT count(*) FROM attempts") == [(0,)]
    assert failing.branches("glia/") == []
    assert failing.fingerprint() == before


@pytest.mark.slow
def test_metrics_are_explained_as_the_domain_has_it(make_project: MakeProject) -> None:
    """What a domain says of its metrics stands behind their means, where it is its candidate."""
    words = "cost: what a choice costs, in dollars."
    domain = DOMAIN.replace("    knobs = {}\n", f"    knobs = {{}}\n    metrics = {words!r}\n")
    files = {**spec(CHOOSER, COSTS.format(name="cost"), entry="Chooser"), "conftest.py": domain}
    told = make_project(files).command("prompt", *PLAIN)
    assert told.code == 0, told.out
    behind = told.out.partition("## What the present candidate does")[2].partition("## How")[0]
    assert behind.strip().endswith(words)
    others = {**spec("def answer():\n    return 3\n", BODY), "conftest.py": domain}
    other = make_project(others, name="other")
    assert words not in other.command("prompt", *PLAIN).text


@pytest.mark.slow
def test_nothing_to_design(make_project: MakeProject) -> None:
    """Where no spec fails there is no problem to state."""
    project = make_project(spec("def answer():\n    return -3\n", BODY))
    told = project.command("prompt", *PLAIN)
    assert told.code == 4
    assert "no spec fails, so there is nothing to design, and no problem statement" in told.text


def test_misuse_of_pytest(failing: Project) -> None:
    """What pytest has said stands above the sentence."""
    told = failing.command("prompt", "no_such_file.py", *PLAIN)
    assert told.code == 4
    assert "file or directory not found: no_such_file.py" in told.text
    assert "there is no problem statement: pytest ended with exit code 4, see above" in told.text


def test_help_is_of_the_command(failing: Project) -> None:
    """Though all other options are pytest's."""
    told = failing.command("prompt", "--help")
    assert (told.code, "as pytest is given them" in told.text) == (0, True)
