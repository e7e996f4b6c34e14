"""``python -m pytest_glia verify``: what a run has delivered holds again, or is said not to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.project import PACKING, Project, Result
from tests.pytest_glia.pumps import record

# Whole searches; the command's words are in the ordinary suite.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project with a design of the offline designer, and the run that it is of."""
    folder = tmp_path_factory.mktemp("verify") / "project"
    folder.mkdir()
    # One idea, whose effect is large on any seeds.
    ideas = PACKING["conftest.py"].replace("[LargestFirst(), FirstFit()]", "[FirstFit()]")
    project = Project(folder).write({**PACKING, "conftest.py": ideas})
    project.commit()
    ran = project.pytest("--glia-optimize")
    assert ran.code == 0, ran.out
    return project, project.best().split("/")[-2]


def with_record(project: Project, run: str, change: Callable[[dict[str, Any]], None]) -> Result:
    """What is said of the run when its record is changed, for as long as that takes."""
    with closing(sqlite3.connect(project.folder / ".glia/ledger.db", isolation_level=None)) as db:
        where = (run, "delivered")
        [(text,)] = db.execute("SELECT value FROM records WHERE run = ? AND key = ?", where).fetchall()
        data = json.loads(text)
        change(data)
        sql = "UPDATE records SET value = ? WHERE run = ? AND key = ?"
        db.execute(sql, (json.dumps(data), *where))
        try:
            return project.command("verify", run)
        finally:
            db.execute(sql, (text, *where))


def test_claims_of_the_offline_designer(delivered: tuple[Project, str]) -> None:
    """Its ideas are ablated again on fresh seeds; the checkout, branches and attempts stay as they are."""
    project, run = delivered
    before, branches = project.fingerprint(), project.branches()
    verified = project.command("verify", run)
    assert verified.code == 0, verified.out
    [claim] = verified.lines("the claim")
    assert claim.startswith("as before: the claim 'first fit': shown; without it loss +")
    assert "as before: the specs pass" in verified.out
    assert (project.fingerprint(), project.branches()) == (before, branches)
    secret = project.show(project.best(), "candidates/packer.md").partition("secret `")[2].partition("`")[0]
    assert secret
    assert secret not in verified.out


def test_a_claim_that_does_not_hold(delivered: tuple[Project, str]) -> None:
    """An idea that changes nothing is refuted though it was shown, and one without experiment unverified."""

    def change(data: dict[str, Any]) -> None:
        data["claims"] = [data["claims"][0], {**data["claims"][0], "name": "other", "experiment": ""}]
        data["claims"][0]["without"] = data["sources"]

    verified = with_record(*delivered, change)
    assert verified.code == 1, verified.out
    assert "not as before: the claim" in verified.out
    assert "refuted; without it loss +0.000" in verified.out
    assert "unverified: the claim 'other': no experiment of the run shows it" in verified.out
    assert "not as before: the specs do not pass" in verified.out


def test_a_design_that_does_not_pass(delivered: tuple[Project, str]) -> None:
    """It is evaluated all the same, and what it lacks is told."""

    def change(data: dict[str, Any]) -> None:
        data["sources"] = {"candidates/packer.py": PACKING["candidates/packer.py"] + "\nUNUSED = 1\n"}

    verified = with_record(*delivered, change)
    assert verified.code == 1, verified.out
    assert "not as before: the specs do not pass" in verified.out
    assert verified.lines("| test_little_waste ")[0].endswith("| refuted |")


def test_a_design_that_breaks_a_rule(delivered: tuple[Project, str]) -> None:
    """It is not run, and the rule is told."""

    def change(data: dict[str, Any]) -> None:
        data["sources"] = {"candidates/packer.py": "import socket\n\ndef pack(items):\n    return 1\n"}

    verified = with_record(*delivered, change)
    assert verified.code == 4, verified.out
    assert "what was delivered breaks a rule by now: candidates/packer.py:1" in verified.text
    assert "the specs could not be run again: pytest ended with exit code 4" in verified.text


def test_what_there_is_not(delivered: tuple[Project, str], tmp_path: Path) -> None:
    """A run that is unknown or delivered nothing, and a deleted ledger, are told in a sentence."""
    project, run = delivered
    unknown = project.command("verify", "19990101-000000-abcd")
    assert (unknown.code, "there is no run '19990101-000000-abcd'" in unknown.text) == (4, True)
    deleted = project.command("verify", run, "--root", str(tmp_path))
    assert deleted.code == 4
    assert "has no .glia/ledger.db: give --root the folder in which the run was made" in deleted.text
    project.command("prompt", "-p", "no:hypothesispytest", "-p", "no:xdist")
    [(other,)] = record(project, "SELECT run FROM runs WHERE designer = 'prompt'")
    nothing = project.command("verify", other)
    assert nothing.code == 4
    assert f"the run {other} has delivered no design, so there is nothing to verify" in nothing.text
