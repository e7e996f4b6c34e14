"""The Analyst: answers a question about the tables of an experiment by writing and running code."""

from __future__ import annotations

from pytest_glia.agents.conversation import Conversation
from pytest_glia.agents.skills import Said, skill
from pytest_glia.experiments import Experiment
from pytest_glia.models import Model
from pytest_glia.models.settings import ModelSettings
from pytest_glia.playground import Analysed, Playground, figures
from pytest_glia.workbench import Analysis

_TURNS = 6
"""Replies that the Analyst may take to answer one question."""

_LOOK = """\
for name, frame in tables.items():
    print(f"{name}: {len(frame)} rows; {', '.join(map(str, frame.columns))}")
"""


class Analyst:
    """Answers questions about tables, each in a conversation of its own: raw tables stay out of others'."""

    def __init__(self, playground: Playground, model: Model, limits: ModelSettings) -> None:
        self._playground = playground
        self._model = model
        self._limits = limits

    def answer(self, question: str, experiment: str, variant: str = "") -> str:
        """A finding with its figures, and the id under which the analysis is kept.

        Raises:
            Refused: there is no such experiment, it kept no tables (of that variant), or code cannot be
                confined here.
            BudgetExhausted, ModelFailed: the model was not asked, or gave no reply.
        """
        looked_at, variant = self._playground.inspected(experiment, variant)
        last = ("", Analysis("", {}))

        def python(code: str) -> Said:
            nonlocal last
            analysis = self._playground.analyse(looked_at, variant, code)
            if analysis.findings:
                last = code, analysis
            return Said(analysis.describe())

        conversation = Conversation(
            self._model,
            "analyst",
            self._opening(question, looked_at, variant),
            [
                skill(
                    "python",
                    "Run code in a fresh process. `tables` has the pandas data frames of the first run, "
                    "`runs` a list of those of each; `printed` is what the candidate has printed. Leave the "
                    "numbers that answer the question in the dictionary `findings`, each under a name.",
                    python,
                    ["code"],
                    code={"type": "string"},
                )
            ],
            limits=self._limits,
        )
        finding = ""
        for _ in range(_TURNS):
            reply = conversation.ask()
            finding = reply.text
            if not reply.calls:
                break
            for call in reply.calls:
                conversation.use(call)
        code, analysis = last
        if not analysis.findings:
            return f"{finding}\n\n(No analysis left a figure in `findings`: this is unverified.)".strip()
        analysed = Analysed(experiment, variant, question, code, finding, analysis.findings)
        name = self._playground.keep(analysed)
        return f"{finding}\n\nAnalysis {name} of {experiment}: {figures(analysis.findings)}"

    def _opening(self, question: str, experiment: Experiment, variant: str) -> str:
        look = self._playground.analyse(experiment, variant, _LOOK)
        held = f"Those of the variant {variant!r}, of {len(experiment.tables[variant])} runs."
        return (
            f"# The question\n\n{question}\n\n# The experiment\n\n{experiment.table()}\n\n# Its tables\n\n"
            f"{held}\n\n{look.describe()}"
        )
