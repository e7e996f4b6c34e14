"""A planted domain, and a script that plays all roles: it knows no more than what agents measure for it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.project import Project, Result
from tests.scripted_model import Replies, Says, ScriptedModel

DOMAIN = '''\
"""A pump wastes least at a pressure, and with a valve, that nobody has told; no two pumps are alike."""

import random

import pytest

pytestmark = pytest.mark.glia(candidate="candidates/pump.py", entry="Pump", exposes=["plant.py"])

BEST_PRESSURE = {pressure}
RIGHT_VALVE = {valve}


class Result:
    def __init__(self, metrics, tables):
        self.metrics, self.tables = metrics, tables


def run(pump, seed):
    rng = random.Random(seed)
    waste = abs(pump.pressure() - BEST_PRESSURE) / 100 + (pump.valve() != RIGHT_VALVE)
    valves = [rng.randrange(8) for _ in range(400)]
    leaks = [1.0 + (valve != RIGHT_VALVE) + rng.uniform(-0.4, 0.4) for valve in valves]
    tables = {{"valves": {{"valve": valves, "leak": leaks}}}}
    return Result({{"waste": 1 + waste + rng.uniform(0, 0.01)}}, tables)


def test_little_waste(glia):
    """It wastes next to nothing."""
    assert glia.measure(run, metric="waste") < 1.05
'''
PUMP = """\
class Pump:
    def pressure(self):
        return 50

    def valve(self):
        return 0
"""


class Team:
    """What a model might say in each role, with its tools.

    Args:
        disabled: Roles that say that they cannot help: the others go on with what they have.
        shown: Whether both claims name what shows them.
    """

    def __init__(self, *disabled: str, shown: bool = True) -> None:
        self._disabled = disabled
        self._shown = shown

    def __call__(self, body: dict[str, Any]) -> Says:
        role = role_of(body)
        if role in self._disabled:
            return Says("I cannot help.")
        said: Says = getattr(self, role)(body)
        return said

    def researcher(self, body: dict[str, Any]) -> Says:
        heard = "\n".join(texts(body)[1:])
        tables = [*re.findall(r"Experiment (\S+): kept", heard), "none"][0]
        analysis = [*re.findall(r"Analysis (\S+) of", heard), "none"][0]
        swept = re.findall(r"\| waste \| pressure (\d+) \| ([\d.]+)", heard)
        pressure = min(swept, key=lambda each: float(each[1]))[0] if swept else "55"
        valve = [*re.findall(r"valve = (\d)", heard), "7"][0]
        steps = [
            call("read_file", path="plant.py"),
            call("ask_experimenter", question="SWEEP the pressure: where is waste least?"),
            call("ask_experimenter", question="KEEP the tables of one run"),
            call("ask_analyst", question="Which valve leaks least?", experiment=tables),
            call("edit_files", edits=[edit("50", pressure), edit("0", valve)]),
            call(
                "evaluate",
                name="measured setting",
                hypothesis="The pressure of the sweep and the valve that leaks least.",
                reason="the sweep, and the analysis",
                predicts={"waste": -50},
                refuted_by="more waste than before",
            ),
            call("record_finding", finding="One valve leaks least.", source=analysis),
            call("conclude", claims=self._claims(heard, pressure, valve)),
        ]
        done = sum(len(each.get("tool_calls") or ()) for each in body["messages"])
        return steps[done] if done < len(steps) else Says("I have tried what I know.")

    def _claims(self, heard: str, pressure: str, valve: str) -> list[dict[str, Any]]:
        sweep = [*re.findall(r"Experiment (\S+): sweep", heard), ""][0]
        first = {
            "name": "pressure",
            "claim": "The pressure at which the sweep found least waste.",
            "reason": "the sweep",
            "predicts": {"waste": -20},
            "experiment": sweep,
            "edits_that_remove_it": [edit(pressure, "50")],
        }
        second = {
            "name": "valve",
            "claim": "The valve that leaks least.",
            "edits_that_remove_it": [edit(valve, "0")],
        }
        return [first, {**second, "experiment": "candidate 1"} if self._shown else second]

    def experimenter(self, body: dict[str, Any]) -> Says:
        if any(each["role"] == "tool" for each in body["messages"]):
            return Says("That is what the runs show.")
        if "KEEP" in texts(body)[1]:
            kept = [{"label": "as it is"}]
            return call("run", purpose="kept", variants=kept, replications=1, inspect=True)
        variants = [
            {"label": f"pressure {value}", "edits": [edit("50", str(value))]} for value in range(10, 91, 10)
        ]
        purpose = "sweep of the pressure"
        return call("run", purpose=purpose, variants=variants, replications=2, metrics=["waste"])

    def analyst(self, body: dict[str, Any]) -> Says:
        if any(each["role"] == "tool" for each in body["messages"]):
            return Says("One valve leaks less than the others.")
        code = "means = tables['valves'].groupby('valve').leak.mean()\nfindings['valve'] = means.idxmin()"
        return call("python", code=code)

    def supervisor(self, body: dict[str, Any]) -> Says:
        return Says("What have you measured that you did not expect?")


def call(tool: str, /, **arguments: Any) -> Says:
    """A reply that asks for a tool."""
    return Says("", [(tool, arguments)])


def edit(old: str, new: str) -> dict[str, str]:
    """Of the number that a method returns."""
    return {"path": "candidates/pump.py", "old": f"return {old}\n", "new": f"return {new}\n"}


def texts(body: Mapping[str, Any]) -> list[str]:
    """What a conversation holds, message by message."""
    return [str(message.get("content") or "") for message in body["messages"]]


def role_of(body: Mapping[str, Any]) -> str:
    """Who is asking, by the first words of the prompt."""
    [role] = re.findall(r"^You are the (\w+)", texts(body)[0])
    return str(role).lower()


def pumps(folder: Path, seed: int) -> Project:
    """A plant in a repository, with the optimum that the seed draws."""
    rng = random.Random(seed)
    pressure, valve = rng.choice([10, 20, 30, 70, 80, 90]), rng.randrange(1, 7)
    folder.mkdir(parents=True)
    project = Project(folder)
    project.write(
        {
            "test_pump.py": DOMAIN.format(pressure=pressure, valve=valve),
            "candidates/pump.py": PUMP,
            "plant.py": "# Pressures go from 10 to 90.\n",
            "pytest.ini": "[pytest]\n",
        }
    ).commit()
    return project


BUDGET = "200 sims, 120 s, 2M tokens"


def command(url: str, budget: str = BUDGET) -> list[str]:
    """The arguments of a search with the model at that URL."""
    options = {"glia_base_url": url, "glia_price": "0 0", "glia_replications": "4"}
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return ["--glia-optimize", "--glia-model=scripted", f"--glia-budget={budget}", *given]


def played(project: Project, replies: Replies, *arguments: str, budget: str = BUDGET) -> Result:
    """A search in which a script answers."""
    with ScriptedModel(replies) as model:
        return project.pytest(*command(model.url, budget), *arguments)


def record(project: Project, sql: str) -> list[Any]:
    """Rows of the project's ledger."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(project.folder / ".glia/ledger.db")) as db:
        return db.execute(sql).fetchall()


def experiments(project: Project) -> dict[str, Any]:
    """The experiments on record, by id."""
    rows = record(project, "SELECT value FROM records WHERE key LIKE '%experiment %'")
    return {each["id"]: each for each in (json.loads(value) for (value,) in rows)}
