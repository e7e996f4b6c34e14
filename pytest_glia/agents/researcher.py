"""The Researcher: reads, reasons, states hypotheses, writes the candidate, and asks for experiments."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from pytest_glia.agents.analyst import Analyst
from pytest_glia.agents.conversation import Conversation
from pytest_glia.agents.experimenter import Experimenter
from pytest_glia.agents.skills import Said, Skill, skill
from pytest_glia.agents.toolbox import CONCLUDING, DESIGNING, Part, Toolbox, refusals_told
from pytest_glia.models import Model
from pytest_glia.models.settings import ModelSettings
from pytest_glia.playground import Playground
from pytest_glia.visible import abridged

_SAID = 300
"""Characters of what it says that are shown with the progress."""

_HEARD = 1_500
"""Characters of what its tools say that a Supervisor hears."""

_HANDED_OVER = 5
"""The part of what its model takes that notebooks of earlier contexts may fill."""

_TURN = 25
"""Replies after which a turn ends by itself: then it is the Supervisor's."""

_ASTRAY = 5
"""Replies in a row of which nothing could be done, after which it ends, too."""

_TEXT = {"type": "string"}


@dataclass
class Researcher:
    """Works in a playground, with a conversation that lasts as long as its context.

    Attributes:
        heard: What it has said, and the gist of what its tools have, since this was last emptied.
    """

    playground: Playground
    model: Model
    limits: ModelSettings
    handed_over: str = ""
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tools = Toolbox(self.playground)
        self._experimenter = Experimenter(self.playground, self.model, self.limits)
        self._analyst = Analyst(self.playground, self.model, self.limits)
        handed_over = abridged(self.handed_over, self.limits.room // _HANDED_OVER)
        opening = "\n\n".join(filter(None, [self.playground.lab.statement, handed_over]))
        self._conversation = Conversation(
            self.model,
            "researcher",
            opening,
            self._skills(),
            limits=self.limits,
            notebook=self.playground.notebook,
        )

    def hear(self, question: str) -> None:
        """Be asked something by the Supervisor."""
        self._conversation.say(question)

    def turn(self) -> bool:
        """Work until it says something without using a tool, concludes, or has taken its time.

        Returns:
            Whether it has said or done anything: not if each of its replies was empty, or asked for what
            cannot be done.

        Raises:
            BudgetExhausted, ModelFailed: as its model, or what it asks for, does.
        """
        something, astray = False, 0
        for _ in range(_TURN):
            reply = self._conversation.ask()
            if reply.text.strip():
                something = True
                self.heard.append(reply.text)
                self.playground.lab.say(textwrap.shorten(reply.text, _SAID, placeholder=" ..."))
            if not reply.calls:
                break
            astray += 1
            for call in reply.calls:
                said = self._conversation.use(call)
                if not said.failed:
                    something, astray = True, 0
                self.heard.append(f"[{call.name}: {textwrap.shorten(said.text, _HEARD, placeholder=' ...')}]")
                if self.concluded is not None:
                    # What it has concluded is about the best of now: nothing else of this reply is done.
                    return True
            if astray == _ASTRAY:
                break
        return something

    def _skills(self) -> list[Skill]:
        return [
            *self._tools.skills(DESIGNING),
            skill(
                "ask_experimenter",
                "Have a question answered by runs of variants of the candidate: replications, sweeps over a "
                "constant, ablations, instrumented runs that print what you ask for, changed scenarios.",
                refusals_told(self._experiment),
                ["question"],
                question=_TEXT,
            ),
            skill(
                "ask_analyst",
                "Have a question answered from the tables of an experiment whose tables were kept, and from "
                "what was printed there: those of the variant named, by default the first.",
                refusals_told(self._analyse),
                ["question", "experiment"],
                question=_TEXT,
                experiment=_TEXT,
                variant=_TEXT,
            ),
            *self._tools.skills(CONCLUDING),
        ]

    @property
    def concluded(self) -> list[Part] | None:
        """The parts of the design, once it has concluded."""
        return self._tools.concluded

    def _experiment(self, question: str) -> Said:
        answer = self._experimenter.answer(question)
        return Said(answer, f"{question[:60]}: {answer.strip().splitlines()[-1][:160]}")

    def _analyse(self, question: str, experiment: str, variant: str = "") -> Said:
        answer = self._analyst.answer(question, experiment, variant)
        return Said(answer, answer.strip().splitlines()[0][:200])
