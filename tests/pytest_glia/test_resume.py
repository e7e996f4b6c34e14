"""A search with a model that is killed goes on: the same commits, and no question is asked twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.project import Project
from tests.pytest_glia.pumps import Team, command, pumps, record
from tests.scripted_model import ScriptedModel

LONGEST = 3.5
"""Seconds within which a search is killed, if it is not over by then."""

SIMULATIONS = {1: 200, 4: 400}
BUDGETS = {contexts: f"{most} sims, 200 s, 2M tokens" for contexts, most in SIMULATIONS.items()}
"""By the number of contexts."""


def has_ended(project: Project) -> bool:
    """Whether a run has written down how it ended, though its process may have been killed after that."""
    if not (project.folder / ".glia/ledger.db").exists():
        return False
    return bool(record(project, "SELECT 1 FROM sqlite_master WHERE name = 'runs'")) and bool(
        record(project, "SELECT 1 FROM runs WHERE outcome IS NOT NULL")
    )


def killed_until_done(project: Project, search: list[str], rng: random.Random, kills: int) -> int:
    """Run a search, killed so many times at most; then to its end. Returns how many kills struck."""
    struck = 0
    for _ in range(kills):
        process = project.start(*search)
        deadline = time.monotonic() + rng.uniform(0.3, LONGEST)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            struck += 1
        process.communicate()
        if process.returncode == 0 or has_ended(project):
            return struck
    ran = project.pytest(*search)
    assert ran.code == 0, ran.out
    return struck


def went_on(folder: Path, seed: int, kills: int, contexts: int = 1) -> int:
    """Kill a search at random moments; what must be so in the end."""
    project = pumps(folder / "project", seed)
    with ScriptedModel(Team()) as model:
        search = [*command(model.url, BUDGETS[contexts]), f"--glia-contexts={contexts}"]
        struck = killed_until_done(project, search, random.Random(seed), kills)
    [(run, asked, dollars)] = record(
        project, "SELECT run, count(*), sum(dollars) FROM exchanges GROUP BY run"
    )
    # What was under way when it was killed, in each context, may have been answered without being heard.
    assert asked <= len(model.requests) <= asked + contexts * struck
    assert dollars == 0
    [(simulations,)] = record(project, f"SELECT count(*) FROM payments WHERE run = '{run}'")
    assert simulations <= SIMULATIONS[contexts]
    contexts_tried = {each.rpartition("/")[2] for each in project.branches("glia/")} - {"best"}
    assert contexts_tried == {str(number) for number in range(1, contexts + 1)}
    again = project.command("replay", run)
    assert again.code == 0, again.out
    assert project.processes() == []
    return struck


@pytest.mark.slow
def test_a_killed_search_asks_nothing_twice(tmp_path: Path) -> None:
    """Killed twice, it comes to commits that its record repeats byte for byte."""
    went_on(tmp_path, seed=11, kills=2)


@pytest.mark.slow
def test_a_killed_search_of_several_contexts_asks_nothing_twice(tmp_path: Path) -> None:
    """The same of four side by side, each with a conversation and a branch of its own."""
    went_on(tmp_path, seed=11, kills=2, contexts=4)


@pytest.mark.storm
@pytest.mark.parametrize("contexts", SIMULATIONS)
@pytest.mark.parametrize("seed", range(10))
def test_fifty_kills(tmp_path: Path, seed: int, contexts: int) -> None:
    """Up to eight kills each at random moments of a run."""
    print(f"{went_on(tmp_path, seed, kills=8, contexts=contexts)} kills")
