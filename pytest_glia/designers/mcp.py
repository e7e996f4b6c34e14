"""The designer mcp: the playground of a search as tools, for whoever is at the other end of a channel.

That is ``python -m pytest_glia mcp``, which speaks MCP with a client: see `pytest_glia.commands.mcp`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from pytest_glia.agents.experimenter import RUN, run, told
from pytest_glia.agents.skills import Said, Skill, ToolFailed, arguments, tool
from pytest_glia.agents.toolbox import CONCLUDING, DESIGNING, Toolbox, refusals_told
from pytest_glia.budget import Account, BudgetExhausted
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
    "Run code on the tables of an experiment that kept them, in a process of its own: those of the variant "
    "named, by default the first. `tables` has the pandas data frames of its first run, `runs` a list of "
    "those of each; `printed` is what that variant has printed. Leave the numbers that answer the question "
    "in the dictionary `findings`.",
    ["experiment", "question", "code"],
    experiment={"type": "string"},
    variant={"type": "string"},
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
        tools, client = Toolbox(Playground(lab, lab.name)), _Client(lab.account)
        try:
            reason = _served(tools, client)
        finally:
            client.close()
        lab.say(f"The search ended because {reason}.")
        return proposal(lab, [Ended(tools.playground, tuple(tools.concluded or ()), reason)])


class _Client:
    """Whoever is at the other end of the channel, which is opened when it is first needed."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._channel: Channel | None = None

    def next(self) -> dict[str, Any]:
        """The tool that it asks for, with its arguments; or why there will be no more, as `end`."""
        if ENVIRONMENT not in os.environ:
            return {"end": "the record of what the client has asked for ends here"}
        try:
            if self._channel is None:
                self._channel = Channel.from_descriptor(os.dup(int(os.environ[ENVIRONMENT])))
                with contextlib.suppress(TimeoutError):
                    # What was meant for a search before this one.
                    while True:
                        self._channel.receive(0.01)
                self._channel.send(ready=True)
            left = self._account.seconds_left()
            return self._channel.receive(None if math.isinf(left) else left)
        except ChannelClosed:
            return {"end": "the client has gone"}
        except TimeoutError:
            reason = str(self._account.exhausted("seconds"))
            self.tell(f"{reason}: the best candidate so far stands", failed=True, over=True)
            return {"end": reason}

    def tell(self, text: str, *, failed: bool, over: bool) -> None:
        """Answer it, if it was it that asked, and is still there."""
        if self._channel is not None:
            with contextlib.suppress(ChannelClosed):
                self._channel.send(text=text, failed=failed, over=over)

    def close(self) -> None:
        """Leave it."""
        if self._channel is not None:
            self._channel.close()


def _served(tools: Toolbox, client: _Client) -> str:
    """Do what the client asks for, or has asked for if a run goes on; why there is no more to do."""
    skills = {each.tool.name: each for each in _skills(tools)}
    for number in itertools.count(1):
        asked = json.loads(tools.playground.lab.recorded(f"call {number}", lambda: json.dumps(client.next())))
        if "end" in asked:
            return str(asked["end"])
        text, failed = _answer(skills, str(asked["name"]), asked["arguments"])
        client.tell(text, failed=failed, over=tools.concluded is not None)
        if tools.concluded is not None:
            break
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


def _skills(tools: Toolbox) -> list[Skill]:
    playground = tools.playground

    def problem() -> Said:
        return Said(playground.lab.statement)

    def notebook() -> Said:
        account = playground.lab.account
        return Said(f"{playground.notebook()}\n\nSpent: {account}, {account.own['seconds']:.0f} s.")

    def measured(**given: Any) -> Said:
        return told(playground, run(playground, **given))

    def analyse(experiment: str, question: str, code: str, variant: str = "") -> Said:
        looked_at, variant = playground.inspected(experiment, variant)
        analysis = playground.analyse(looked_at, variant, code)
        if not analysis.findings:
            return Said(f"{analysis.describe()}\n\n(It left no figure in `findings`, so it is not kept.)")
        answer = figures(analysis.findings)
        name = playground.keep(Analysed(experiment, variant, question, code, answer, analysis.findings))
        return Said(f"Analysis {name} of {experiment}: {answer}\n\n{analysis.describe()}")

    return [
        Skill(PROBLEM, problem),
        Skill(NOTEBOOK, notebook),
        *tools.skills(DESIGNING),
        Skill(RUN, refusals_told(measured)),
        Skill(ANALYSE, refusals_told(analyse)),
        *tools.skills(CONCLUDING),
    ]
