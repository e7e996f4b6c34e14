"""The Experimenter: turns a question of the Researcher's into runs, and gives back tables."""

from __future__ import annotations

from typing import Any

from pytest_glia.agents.conversation import Conversation
from pytest_glia.agents.skills import Said, Skill, tool
from pytest_glia.agents.toolbox import EDITS, refusals_told
from pytest_glia.budget import BudgetExhausted
from pytest_glia.draft import Edit
from pytest_glia.experiments import Experiment, Variant
from pytest_glia.markdown import fenced
from pytest_glia.models import Model
from pytest_glia.models.settings import ModelSettings
from pytest_glia.playground import Playground

_TURNS = 6
"""Replies that the Experimenter may take to answer one question."""

_PRINTED = 3_000
"""Characters of what a variant prints that it is shown; the Analyst gets all."""

_ELSEWHERE = "It ran elsewhere, where what variants print is not seen: with `inspect` they run here."

RUN = tool(
    "run",
    "Run variants of the candidate side by side on the same seeds. The first is the reference; "
    "without edits a variant is the candidate as written, and `start: true` makes it the candidate "
    "that the search began with. A sweep is one variant for each value, an ablation one without the "
    "mechanism. A variant may print lines (instrumentation); with `inspect` the tables behind the "
    "metrics are kept for analysis: then use 1 or 2 replications.",
    ["purpose", "variants", "replications"],
    purpose={"type": "string", "description": "The question that this run answers, in one line."},
    variants={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "start": {"type": "boolean"},
                "edits": EDITS,
            },
            "required": ["label"],
        },
    },
    replications={"type": "integer"},
    metrics={"type": "array", "items": {"type": "string"}},
    scenario={"type": "object", "additionalProperties": {"type": "number"}},
    inspect={"type": "boolean"},
)


class Experimenter:
    """Answers questions by experiments, each question in a conversation of its own."""

    def __init__(self, playground: Playground, model: Model, limits: ModelSettings) -> None:
        self._playground = playground
        self._model = model
        self._limits = limits

    def answer(self, question: str) -> str:
        """The tables of what was run, and how the Experimenter reads them.

        Raises:
            BudgetExhausted: and nothing of what was asked was run.
            ModelFailed: the model gave no reply.
        """
        tables: list[str] = []

        def measured(**given: Any) -> Said:
            experiment = run(self._playground, **given)
            tables.append(experiment.table())
            return told(self._playground, experiment)

        conversation = Conversation(
            self._model,
            "experimenter",
            self._opening(question),
            [Skill(RUN, refusals_told(measured))],
            limits=self._limits,
        )
        reading = ""
        try:
            for turn in range(_TURNS):
                reply = conversation.ask()
                reading = reply.text
                if not reply.calls:
                    if tables or turn:
                        break
                    conversation.say("Nothing was run yet. Answer with experiments, not from memory.")
                for call in reply.calls:
                    conversation.use(call)
        except BudgetExhausted as error:
            if not tables:
                raise
            reading = f"The rest was not run, as {error}."
        return "\n\n".join([*tables, reading.strip() or "(the Experimenter said no more)"])

    def _opening(self, question: str) -> str:
        playground = self._playground
        sources = [f"`{path}`:\n\n{fenced(playground.read(path), 'python')}" for path in playground.sources]
        seeds = f"At most {playground.lab.settings.replications} a variant. {playground.spending()}"
        return "\n\n".join(
            [
                playground.lab.statement,
                "# The candidate as it is being written",
                *sources,
                f"# Seeds\n\n{seeds}",
                f"# The question\n\n{question}",
            ]
        )


def run(
    playground: Playground,
    purpose: str,
    variants: list[dict[str, Any]],
    replications: int,
    metrics: list[str] | None = None,
    scenario: dict[str, float] | None = None,
    inspect: bool = False,
) -> Experiment:
    """What the tool `RUN` does; raises as `Playground.experiment` and `Playground.edited` do."""
    built = [
        Variant(
            each["label"],
            playground.edited(
                [Edit(**edit) for edit in each.get("edits", ())],
                playground.lab.start.sources if each.get("start") else None,
            ),
        )
        for each in variants
    ]
    return playground.experiment(
        purpose,
        built,
        replications=replications,
        metrics=metrics or (),
        scenario=scenario,
        inspected=inspect,
    )


def told(playground: Playground, experiment: Experiment) -> Said:
    """An experiment's table, and what its variants have printed."""
    printed = [f"{label} printed:\n{fenced(text[:_PRINTED])}" for label, text in experiment.printed.items()]
    kept = ["Its tables were kept for analysis."] if any(experiment.tables.values()) else []
    elsewhere = [_ELSEWHERE] if playground.lab.settings.executor != "local" and not kept else []
    return Said("\n\n".join([experiment.table(), *printed, *kept, *elsewhere]))
