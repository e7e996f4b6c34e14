"""Several contexts side by side: what is told of them while they are at work."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.budget import Account, Budget
from pytest_glia.designers import glia
from pytest_glia.models import ModelFailed
from tests.blocking import until
from tests.project import Result
from tests.pytest_glia.pumps import Team, command, pumps, role_of
from tests.scripted_model import Says, ScriptedModel

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Interrupted:
    """A search with two contexts that got Ctrl-C, with its report, and how long it took to end."""

    ran: Result
    branches: list[str]
    design: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """Each context has tried a candidate, and waits for a model that does not come to an end."""
    folder = tmp_path_factory.mktemp("contexts")
    project = pumps(folder / "project", seed=3)
    team = Team()
    waiting: list[str] = []

    def replies(body: dict[str, Any]) -> Says:
        tools = [call["function"]["name"] for each in body["messages"] for call in each.get("tool_calls", ())]
        if role_of(body) == "researcher" and "evaluate" in tools:
            waiting.append("again")
            return Says(drip=0.05)
        return team(body)

    with ScriptedModel(replies) as model:
        report = f"--glia-report={folder / 'report'}"
        process = project.start(*command(model.url), "--glia-contexts=2", report)
        try:
            until(lambda: len(waiting) == 2 or process.poll() is not None, 60)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        seconds = time.monotonic() - began
    assert process.returncode == 2, out
    [design] = json.loads(Path(folder / "report/glia.json").read_text("utf-8"))["designs"]
    return Interrupted(Result(process.returncode, out), project.branches("glia/"), design, seconds)


def test_ctrl_c_waits_for_no_model(interrupted: Interrupted) -> None:
    """The search ends at once with exit code 2, though its contexts are asked for replies of minutes."""
    assert interrupted.ran.code == 2, interrupted.ran.out
    assert "Traceback (most recent call last)" not in interrupted.ran.out
    assert interrupted.seconds < 30


def test_candidates_of_all_contexts_are_told(interrupted: Interrupted) -> None:
    """How many there are, on which branches, and each in the report."""
    assert [each.rpartition("/")[2] for each in interrupted.branches] == ["1", "2"]
    where = ", ".join(interrupted.branches)
    told = f"Interrupted after 2 candidates: the candidates so far are on {where};"
    assert told in interrupted.ran.text
    assert [each["name"] for each in interrupted.design["trials"]][1:] == ["measured setting"] * 2


def test_what_was_spent_by_then_never_falls(interrupted: Interrupted) -> None:
    """Each candidate is told with what the run had paid for in all of its contexts, so no curve goes back.

    Two contexts may be at the same figure: one is told after the other's evaluation, too.
    """
    start, *spent = [each["simulations"] for each in interrupted.design["trials"]]
    assert spent == sorted(spent)
    assert start < spent[0]
    assert spent[-1] == sum(interrupted.design["spent"]["simulations"].values())


def test_a_context_that_fails_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the others have found is kept, and one line tells of it; if all fail, so does the search."""
    said: list[str] = []

    class Place:
        account = Account(Budget(simulations=8))

        def say(self, line: str) -> None:
            said.append(line)

        def context(self, number: int, account: Account) -> int:
            return number

    def context(place: int, handed_over: str) -> str:
        if place in failing:
            raise ModelFailed("HTTP 401")
        return f"found in {place}"

    monkeypatch.setattr(glia, "_context", context)
    failing = {1, 3}
    assert glia._side_by_side(Place(), 4) == ["found in 2", "found in 4"]  # type: ignore[arg-type,comparison-overlap]
    assert said == ["A context ended before it had tried anything: HTTP 401."] * 2
    failing = {1, 2, 3, 4}
    with pytest.raises(ModelFailed, match="HTTP 401"):
        glia._side_by_side(Place(), 4)  # type: ignore[arg-type]
