"""The Researcher: reads, reasons, states hypotheses, writes the candidate, and asks for experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from pytest_glia.agents.analyst import Analyst
from pytest_glia.agents.conversation import Conversation
from pytest_glia.agents.experimenter import EDITS, Experimenter
from pytest_glia.agents.skills import Said, Skill, ToolFailed, Use, skill
from pytest_glia.lab import Hypothesis
from pytest_glia.models import Model
from pytest_glia.models.settings import ModelSettings
from pytest_glia.playground import Edit, Playground, Refused
from pytest_glia.visible import visible

_TURN = 25
"""Replies after which a turn ends by itself: then it is the Supervisor's."""

_TEXT = {"type": "string"}
_PREDICTS = {
    "type": "object",
    "additionalProperties": {"type": "number"},
    "description": "By metric, by how many per cent it will rise (above zero) or fall (below).",
}


@dataclass(frozen=True)
class Part:
    """One idea of the design as the Researcher concludes it: what it claims, and the design without it.

    Attributes:
        experiment: The id of what shows it; empty if the Researcher named none.
        shown: What that has shown.
        edits: That take it out of the best candidate.
    """

    name: str
    text: str
    reason: str
    predicts: dict[str, float]
    experiment: str
    shown: str
    edits: list[Edit]


@dataclass
class Researcher:
    """Works in a playground, with a conversation that lasts as long as its context.

    Attributes:
        concluded: The parts of the design, once it has concluded.
        heard: What it has said, and the gist of what its tools have, since this was last emptied.
    """

    playground: Playground
    model: Model
    limits: ModelSettings
    handed_over: str = ""
    concluded: list[Part] | None = None
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._experimenter = Experimenter(self.playground, self.model, self.limits)
        self._analyst = Analyst(self.playground, self.model, self.limits)
        opening = "\n\n".join(filter(None, [self.playground.lab.statement, self.handed_over]))
        self._conversation = Conversation(
            self.model,
            "researcher",
            opening,
            self._skills(),
            context=self.limits.context,
            max_tokens=self.limits.max_tokens,
            notebook=self.playground.notebook,
        )

    def hear(self, question: str) -> None:
        """Be asked something by the Supervisor."""
        self._conversation.say(question)

    def turn(self) -> None:
        """Work until it says something without using a tool, concludes, or has taken its time.

        Raises:
            BudgetExhausted, ModelFailed: as its model, or what it asks for, does.
        """
        for _ in range(_TURN):
            reply = self._conversation.ask()
            if reply.text.strip():
                self.heard.append(reply.text)
                self.playground.lab.say(reply.text.strip().splitlines()[0][:300])
            if not reply.calls:
                return
            for call in reply.calls:
                said = self._conversation.use(call)
                self.heard.append(f"[{call.name}: {said.gist or said.text[:200]}]")
                if self.concluded is not None:
                    # What it has concluded is about the best of now: nothing else of this reply is done.
                    return

    def _skills(self) -> list[Skill]:
        return [
            skill("list_files", "The files that you may read, with a word on each.", _told(self._list)),
            skill(
                "read_file",
                "Lines of a file.",
                _told(self._read),
                ["path"],
                path=_TEXT,
                first={"type": "integer"},
                count={"type": "integer"},
            ),
            skill(
                "search_files",
                "Lines of all readable files that hold a text.",
                _told(self._search),
                ["text"],
                text=_TEXT,
            ),
            skill(
                "write_file",
                "Replace the whole text of a candidate file. Runs nothing.",
                _told(self._write),
                ["path", "text"],
                path=_TEXT,
                text=_TEXT,
            ),
            skill(
                "edit_files",
                "Replace texts, each of which occurs once, in candidate files: all or none. Runs nothing.",
                _told(self._edit),
                ["edits"],
                edits=EDITS,
            ),
            skill(
                "evaluate",
                "Try the candidate as written against the specs: a commit, a table, the best if better.",
                _told(self._evaluate),
                ["name", "hypothesis", "reason", "predicts", "refuted_by"],
                name={"type": "string", "description": "A few words."},
                hypothesis={"type": "string", "description": "What it changes, and why that should help."},
                reason={
                    "type": "string",
                    "description": "The measurement that calls for it, with its figures.",
                },
                predicts=_PREDICTS,
                refuted_by={"type": "string", "description": "The measurement that would refute it."},
            ),
            skill(
                "ask_experimenter",
                "Have a question answered by runs of variants of the candidate: replications, sweeps over a "
                "constant, ablations, instrumented runs that print what you ask for, changed scenarios.",
                _told(self._experiment),
                ["question"],
                question=_TEXT,
            ),
            skill(
                "ask_analyst",
                "Have a question answered from the tables of an experiment whose tables were kept.",
                _told(self._analyse),
                ["question", "experiment"],
                question=_TEXT,
                experiment=_TEXT,
            ),
            skill(
                "record_finding",
                "Keep what you have learnt about the workload or the system, with the experiment or analysis "
                "that shows it; it is tested again on fresh seeds in the end.",
                _told(self._find),
                ["finding", "source"],
                finding=_TEXT,
                source=_TEXT,
            ),
            skill(
                "conclude",
                "End with the best candidate. Name each idea in it, the experiment that shows it, and the "
                "edits that take just that idea out again: each is ablated on fresh seeds.",
                _told(self._conclude),
                ["claims"],
                claims={
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": _TEXT,
                            "claim": _TEXT,
                            "reason": _TEXT,
                            "predicts": _PREDICTS,
                            "experiment": {"type": "string", "description": "1.E2, or candidate 3."},
                            "edits_that_remove_it": EDITS,
                        },
                        "required": ["name", "claim", "edits_that_remove_it"],
                    },
                },
            ),
        ]

    def _list(self) -> Said:
        return Said("\n".join(f"{path}: {word}" for path, word in self.playground.files().items()))

    def _read(self, path: str, first: int = 1, count: int = 400) -> Said:
        return Said(self.playground.shown(path, first, count), f"{path}, from line {first}")

    def _search(self, text: str) -> Said:
        return Said(self.playground.search(text))

    def _write(self, path: str, text: str) -> Said:
        self.playground.write(path, text)
        return Said(f"{path} is written: {len(text.splitlines())} lines")

    def _edit(self, edits: list[dict[str, str]]) -> Said:
        self.playground.edit([Edit(**edit) for edit in edits])
        return Said(f"{len(edits)} edits are made")

    def _evaluate(
        self, name: str, hypothesis: str, reason: str, predicts: dict[str, float], refuted_by: str
    ) -> Said:
        self._known(predicts)
        text = f"{hypothesis} Refuted by: {refuted_by}"
        before = self.playground.best.evidence
        idea = Hypothesis(name, text, reason, signs(predicts), sizes(predicts))
        trial = self.playground.evaluate(idea)
        after, described = trial.evaluation.evidence, self.playground.describe(trial)
        missed = [
            f"{metric} was to {'fall' if change < 0 else 'rise'}, and went from {before[metric]:.4g} to "
            f"{after[metric]:.4g}"
            for metric, change in predicts.items()
            if metric in before and metric in after and (after[metric] - before[metric]) * change <= 0
        ]
        if missed:
            described += f"\n\nNot as predicted: {'; '.join(missed)}. Explain it before you go on."
        return Said(described, described.splitlines()[0])

    def _experiment(self, question: str) -> Said:
        answer = self._experimenter.answer(question)
        return Said(answer, f"{question[:60]}: {answer.strip().splitlines()[-1][:160]}")

    def _analyse(self, question: str, experiment: str) -> Said:
        answer = self._analyst.answer(question, experiment)
        return Said(answer, answer.strip().splitlines()[0][:200])

    def _find(self, finding: str, source: str) -> Said:
        self.playground.find(finding, source)
        return Said("kept")

    def _conclude(self, claims: list[dict[str, Any]]) -> Said:
        best = self.playground.best.sources
        if dict(best) == dict(self.playground.lab.start.sources):
            raise Refused("nothing better than the start was found yet: there is nothing to conclude")
        names = [visible(claim["name"], line=True) for claim in claims]
        if twice := next((each for each in names if names.count(each) > 1), None):
            raise Refused(
                f"two claims are called {twice!r}: give each a name, by which its ablation is known"
            )
        parts = []
        for claim in claims:
            self._known(claim.get("predicts", {}))
            edits = [Edit(**edit) for edit in claim["edits_that_remove_it"]]
            without = self.playground.edited(edits, best)
            if broken := self.playground.lab.fault(without):
                raise Refused(f"without {claim['name']!r} the candidate is none: {broken}")
            if without == dict(best):
                raise Refused(f"the edits of {claim['name']!r} change nothing: give those that take it out")
            parts.append(
                Part(
                    claim["name"],
                    claim["claim"],
                    claim.get("reason", ""),
                    claim.get("predicts", {}),
                    *self._shown_by(claim.get("experiment", ""), claim.get("predicts", {})),
                    edits,
                )
            )
        self.concluded = parts
        return Said("concluded")

    def _known(self, predicts: Mapping[str, float]) -> None:
        known = self.playground.lab.start.metrics
        if unknown := [metric for metric in predicts if metric not in known]:
            raise Refused(f"there is no metric {unknown[0]!r} to predict: there are {', '.join(known)}")

    def _shown_by(self, named: str, predicts: Mapping[str, float]) -> tuple[str, str]:
        """The id of what shows a claim, and what that has shown; both empty if none is named."""
        trials = {str(each.number): each for each in self.playground.lab.trials}
        candidate = trials.get(named.removeprefix("candidate ").strip())
        experiment = self.playground.experiments.get(named)
        if not named:
            return "", ""
        if experiment and experiment.shows(predicts):
            return named, experiment.summary()
        if candidate and candidate.result == "better":
            return candidate.id, f"better, loss {candidate.change}"
        if experiment or candidate:
            of = f" of {', '.join(predicts)}" if experiment and predicts else ""
            raise Refused(
                f"{named!r} shows no difference{of}: name what does, with 2 replications or more, or "
                "nothing: then the claim is unverified"
            )
        there = ", ".join([*self.playground.experiments, *(f"candidate {each}" for each in trials)])
        raise Refused(f"there is no experiment {named!r} that shows a claim: there are {there}")


def signs(predicts: Mapping[str, float]) -> dict[str, int]:
    """Whether metrics are predicted to fall (-1) or rise (1)."""
    return {metric: 1 if change > 0 else -1 for metric, change in predicts.items() if change}


def sizes(predicts: Mapping[str, float]) -> dict[str, float]:
    """By what fraction."""
    return {metric: abs(change) / 100 for metric, change in predicts.items() if change}


def _told(use: Use) -> Use:
    """The same, with what the playground refuses told to the model."""

    @wraps(use)
    def told(**given: Any) -> Said:
        try:
            return use(**given)
        except Refused as refused:
            raise ToolFailed(str(refused)) from None

    return told
