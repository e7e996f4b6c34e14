"""What an agent does in a playground, as tools: reads, writes, evaluates, keeps findings, concludes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from pytest_glia.agents.skills import Said, Skill, ToolFailed, Use, tool
from pytest_glia.draft import Edit, Refused
from pytest_glia.experiments import effect
from pytest_glia.models import Tool
from pytest_glia.playground import Playground
from pytest_glia.trials import Hypothesis
from pytest_glia.visible import visible

_TEXT = {"type": "string"}
_PREDICTS = {
    "type": "object",
    "additionalProperties": {"type": "number"},
    "description": "By metric, by how many per cent it rises (above zero) or falls (below) with the "
    "idea; 0 for no change.",
}

EDITS: Mapping[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"path": _TEXT, "old": _TEXT, "new": _TEXT},
        "required": ["path", "old", "new"],
    },
}
"""The schema of exact-match edits."""

DESIGNING: tuple[Tool, ...] = (
    tool("list_files", "The files that you may read, with a word on each."),
    tool(
        "read_file",
        "Lines of a file.",
        ["path"],
        path=_TEXT,
        first={"type": "integer"},
        count={"type": "integer"},
    ),
    tool("search_files", "Lines of all readable files that hold a text.", ["text"], text=_TEXT),
    tool(
        "write_file",
        "Replace the whole text of a candidate file. Runs nothing.",
        ["path", "text"],
        path=_TEXT,
        text=_TEXT,
    ),
    tool(
        "edit_files",
        "Replace texts, each of which occurs once, in candidate files: all or none. Runs nothing.",
        ["edits"],
        edits=EDITS,
    ),
    tool(
        "evaluate",
        "Try the candidate as written against the specs: a commit, a table, the best if better.",
        ["name", "hypothesis", "reason", "predicts", "refuted_by"],
        name={"type": "string", "description": "A few words."},
        hypothesis={"type": "string", "description": "What it changes, and why that should help."},
        reason={"type": "string", "description": "The measurement that calls for it, with its figures."},
        predicts=_PREDICTS,
        refuted_by={"type": "string", "description": "The measurement that would refute it."},
        simplifies={"type": "boolean", "description": "Whether it is to be kept if it is equivalent."},
    ),
)
"""With which a candidate is written and tried."""

CONCLUDING: tuple[Tool, ...] = (
    tool(
        "record_finding",
        "Keep what you have learnt about the workload or the system, with the experiment or analysis "
        "that shows it; it is tested again on fresh seeds in the end.",
        ["finding", "source"],
        finding=_TEXT,
        source={"type": "string", "description": "1.E2, or 1.A1."},
        variant={"type": "string", "description": "Of the experiment, the one that shows it."},
        metric={"type": "string", "description": "By which it shows."},
    ),
    tool(
        "conclude",
        "End with the best candidate. Name each idea in it, the experiment that shows it, and the "
        "edits that take just that idea out again: each is ablated on fresh seeds.",
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
)
"""With which what was learnt is kept, and the design ended."""


@dataclass(frozen=True)
class Part:
    """One idea of the design as it is concluded: what it claims, and the design without it.

    Attributes:
        experiment: The id of what shows it; empty if none was named.
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
class Toolbox:
    """A playground with its tools in place.

    Attributes:
        concluded: The parts of the design, once it was concluded.
    """

    playground: Playground
    concluded: list[Part] | None = None

    def skills(self, tools: tuple[Tool, ...]) -> list[Skill]:
        """Those of the tools of `DESIGNING` and `CONCLUDING`, at work here."""
        uses: Mapping[str, Use] = {
            "list_files": self._list,
            "read_file": self._read,
            "search_files": self._search,
            "write_file": self._write,
            "edit_files": self._edit,
            "evaluate": self._evaluate,
            "record_finding": self._find,
            "conclude": self._conclude,
        }
        return [Skill(each, refusals_told(uses[each.name])) for each in tools]

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
        self,
        name: str,
        hypothesis: str,
        reason: str,
        predicts: dict[str, float],
        refuted_by: str,
        simplifies: bool = False,
    ) -> Said:
        self._known(predicts)
        text = f"{hypothesis} Refuted by: {refuted_by}"
        before = self.playground.best.metrics
        idea = Hypothesis(name, text, reason, signs(predicts), sizes(predicts))
        trial = self.playground.evaluate(idea, simplifies=simplifies)
        described = self.playground.describe(trial)
        told, missed = [], []
        for metric, change in predicts.items():
            found = effect(metric, before.get(metric, ()), trial.evaluation.metrics.get(metric, ()))
            if found is None:
                continue
            told.append(f"{metric} {found.describe()} (predicted {change:+g} %)")
            if change and found.shown != ("lower" if change < 0 else "higher"):
                missed.append(f"{metric} was to {'fall' if change < 0 else 'rise'}: {found.shown}")
        if told:
            described += f"\nAgainst the best before, on common seeds: {'; '.join(told)}."
        if missed:
            described += f"\nNot as predicted: {'; '.join(missed)}. Explain it before you go on."
        return Said(f"{described}\n{self.playground.spending()}", described.splitlines()[0])

    def _find(self, finding: str, source: str, variant: str = "", metric: str = "") -> Said:
        self.playground.find(finding, source, variant, metric)
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


def refusals_told(use: Use) -> Use:
    """The same, with what the playground refuses told to the model."""

    @wraps(use)
    def told(**given: Any) -> Said:
        try:
            return use(**given)
        except Refused as refused:
            raise ToolFailed(str(refused)) from None

    return told
