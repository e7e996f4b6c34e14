"""The designer mcp: the playground of a search as tools, for whoever is at the other end of a channel.

That is ``python -m pytest_glia mcp``, which speaks MCP with a client: see `pytest_glia.commands.mcp`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from pytest_glia.agents.bench import CONCLUDING, DESIGNING, Bench, refusals_told
from pytest_glia.agents.experimenter import RUN, run, told
from pytest_glia.agents.skills import Said, Skill, ToolFailed, arguments, tool
from pytest_glia.budget import BudgetExhausted
from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.designers import Proposal
from pytest_glia.designers.glia import Ended, proposal
from pytest_glia.lab import Lab
from pytest_glia.misuse import Misuse
from pytest_glia.models import Call
from pytest_glia.playground import Analysed, Playground, figures
from pytest_glia.settings import Settings

ENVIRONMENT = "PYTEST_GLIA_MCP"
"""The variable with the descriptor of the channel."""

PROBLEM = tool("problem", "What is to be designed, and by which rules. Read it first.")
NOTEBOOK = tool("notebook", "What was tried, measured and found so far, and what is left of the budget.")
ANALYSE = tool(
    "analyse",
    "Run code on the tables of an experiment that kept them, in a process of its own. `tables` has the "
    "pandas data frames of its first run, `runs` a list of those of each; `printed` is what the candidate "
    "has printed. Leave the numbers that answer the question in the dictionary `findings`.",
    ["experiment", "question", "code"],
    experiment={"type": "string"},
    question={"type": "string"},
    code={"type": "string"},
)
TOOLS = (PROBLEM, NOTEBOOK, *DESIGNING, RUN, ANALYSE, *CONCLUDING)
"""All that a client can use."""


class McpDesigner:
    """Does what a client asks for, until it concludes or goes, or the time is over."""

    def check(self, settings: Settings) -> None:
        """Raise `Misuse` where there is nobody at the other end."""
        if ENVIRONMENT not in os.environ:
            raise Misuse(
                "the designer 'mcp' serves an MCP client, and there is none: have one start "
                "python -m pytest_glia mcp -- followed by the arguments of pytest"
            )

    def design(self, lab: Lab) -> Proposal:
        """The best candidate that the client has found."""
        channel = Channel.from_descriptor(os.dup(int(os.environ[ENVIRONMENT])))
        bench = Bench(Playground(lab, session_name(lab.name, lab.recorded)))
        try:
            reason = _served(bench, channel)
        finally:
            channel.close()
        lab.say(f"The search ended because {reason}.")
        return proposal(lab, [Ended(bench.playground, tuple(bench.concluded or ()), reason)])


def session_name(context: str, recorded: Callable[[str, Callable[[], str]], str]) -> str:
    """Of a context: another one each time that a run goes on, for the client is another one.

    `recorded` is `Lab.recorded`.
    """
    own, number = secrets.token_hex(8), 1
    while recorded(f"session {number}", lambda: own) != own:
        number += 1
    return context if number == 1 else f"{context}-{number}"


def _served(bench: Bench, channel: Channel) -> str:
    """Answer the client; why there is no more to answer."""
    lab = bench.playground.lab
    skills = {each.tool.name: each for each in _skills(bench)}
    try:
        with contextlib.suppress(TimeoutError):
            # What was meant for a search before this one.
            while True:
                channel.receive(0.01)
        channel.send(ready=True)
        while bench.concluded is None:
            left = lab.account.seconds_left()
            asked = channel.receive(None if math.isinf(left) else left)
            text, failed = _answer(skills, str(asked["name"]), asked["arguments"])
            channel.send(text=text, failed=failed, over=bench.concluded is not None)
    except ChannelClosed:
        return "the client has gone"
    except TimeoutError:
        reason = str(lab.account.exhausted("seconds"))
        with contextlib.suppress(ChannelClosed):
            channel.send(text=f"{reason}: the best candidate so far stands", failed=True, over=True)
        return reason
    return "the client concluded"


def _answer(skills: Mapping[str, Skill], name: str, given: Any) -> tuple[str, bool]:
    """What a tool says, and whether it failed."""
    try:
        if name not in skills:
            raise ToolFailed(f"there is no tool {name!r}: there are {', '.join(skills)}")
        checked = arguments(Call("", name, json.dumps(given)), skills[name].tool.parameters)
        return skills[name].use(**checked).text or "(nothing)", False
    except ToolFailed as failed:
        return str(failed), True
    except BudgetExhausted as exhausted:
        return f"not done, as {exhausted}: conclude with the best so far, or do what costs less", True


def _skills(bench: Bench) -> list[Skill]:
    playground = bench.playground

    def problem() -> Said:
        return Said(playground.lab.statement)

    def notebook() -> Said:
        account = playground.lab.account
        return Said(f"{playground.notebook()}\n\nSpent: {account}, {account.seconds:.0f} s.")

    def measured(**given: Any) -> Said:
        return told(run(playground, **given))

    def analyse(experiment: str, question: str, code: str) -> Said:
        analysis = playground.analyse(playground.inspected(experiment), code)
        if not analysis.findings:
            return Said(f"{analysis.describe()}\n\n(It left no figure in `findings`, so it is not kept.)")
        answer = figures(analysis.findings)
        name = playground.keep(Analysed(experiment, question, code, answer, analysis.findings))
        return Said(f"Analysis {name} of {experiment}: {answer}\n\n{analysis.describe()}")

    return [
        Skill(PROBLEM, problem),
        Skill(NOTEBOOK, notebook),
        *bench.skills(DESIGNING),
        Skill(RUN, refusals_told(measured)),
        Skill(ANALYSE, refusals_told(analyse)),
        *bench.skills(CONCLUDING),
    ]
