"""Findings tested again on seeds that no search has seen, and the words in which the ledger keeps how."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pytest_glia.designers import Look, Retest, Retested
from pytest_glia.designers.source import sources_of, texts_of
from pytest_glia.evaluator import Evaluator
from pytest_glia.experiments import Experiment, Shown, analysed, effects, printing
from pytest_glia.lab import Lab
from pytest_glia.merit import Evaluation
from pytest_glia.payer import Payer
from pytest_glia.statistics import t_quantile
from pytest_glia.workbench import Analysis

_LOOKS = 4
"""Times that an analysis is made again, to see how its figures vary."""

_CONFIDENCE = 0.95
"""Of the interval in which the next figure is expected."""


@dataclass(frozen=True)
class SealedLook:
    """A `Look` on sealed `seeds`, at the confidence of their confirmation."""

    lab: Lab
    evaluator: Evaluator
    payer: Payer
    seeds: tuple[int, ...]
    confidence: float

    def __call__(
        self,
        sources: Mapping[str, bytes],
        *,
        on: slice = slice(None),
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
    ) -> Evaluation:
        found = self.evaluator.look(
            sources, self.seeds[on], self.payer, self.confidence, scenario=scenario, inspected=inspected
        )
        return printing(self.lab, found, scenario, inspected=inspected)

    def analyse(self, code: str, seen: Evaluation) -> Analysis:
        """What some code makes of the tables that an evaluation has kept."""
        return analysed(self.lab, seen.tables, seen.printed, code)


@dataclass(frozen=True)
class ExperimentAgain:
    """An experiment with the differences that it has shown.

    Attributes:
        variants: The sources of those that are compared by label, the reference first.
        shown: Label and metric of each comparison that counts, and what it has shown.
    """

    variants: Mapping[str, Mapping[str, bytes]]
    scenario: Mapping[str, float]
    shown: tuple[tuple[str, str, Shown], ...]

    @classmethod
    def of(cls, experiment: Experiment) -> ExperimentAgain:
        """With what it has shown: its differences, or that there are none."""
        compared = [(each.label, each.metric, each.shown) for each in experiment.effects if each.shown]
        shown = [each for each in compared if each[2] != "no difference shown"] or compared
        reference = experiment.variants[0].label
        compared_again = {reference, *(label for label, _, _ in shown)}
        variants = {each.label: each.sources for each in experiment.variants if each.label in compared_again}
        return cls(variants, experiment.scenario, tuple(shown))

    def __call__(self, look: Look) -> Retested:
        """As before if each comparison shows the same."""
        if not self.shown:
            return Retested("it had compared nothing", "unverified")
        found = {label: look(sources, scenario=self.scenario) for label, sources in self.variants.items()}
        if failed := next((each.reasons[0] for each in found.values() if each.reasons), None):
            return Retested(f"it failed: {failed}", "not as before")
        names = list(dict.fromkeys(metric for _, metric, _ in self.shown))
        after = {(each.label, each.metric): each for each in effects(found, names)}
        told, same = [], True
        for label, metric, before in self.shown:
            now = after.get((label, metric))
            held = now is not None and now.shown == before
            same &= held
            measured = now.describe() if now else "is not reported"
            told.append(f"{metric} of {label!r} {measured}{'' if held else f', **not** {before} as before'}")
        return Retested("; ".join(told), "as before" if same else "not as before")

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        variants = {label: texts_of(sources) for label, sources in self.variants.items()}
        return {"variants": variants, "scenario": dict(self.scenario), "shown": self.shown}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExperimentAgain:
        """What `as_json` gave."""
        variants = {label: sources_of(texts) for label, texts in data["variants"].items()}
        return cls(variants, data["scenario"], tuple(tuple(each) for each in data["shown"]))


@dataclass(frozen=True)
class AnalysisAgain:
    """An analysis with the figures that it has found.

    Attributes:
        variants: The sources by label; the figures are of the first.
        replications: That its tables are of.
    """

    code: str
    figures: Mapping[str, float]
    variants: Mapping[str, Mapping[str, bytes]]
    scenario: Mapping[str, float]
    replications: int

    def __call__(self, look: Look) -> Retested:
        """As before if each figure is where further ones are to be expected after those of a few looks."""
        told, same, looks = [], True, 0
        for place, (label, sources) in enumerate(self.variants.items()):
            made = list[Mapping[str, float]]()
            for number in range(_LOOKS if place == 0 else 1):
                on = slice(number * self.replications, (number + 1) * self.replications)
                seen = look(sources, on=on, scenario=self.scenario, inspected=True)
                if len(seen.seeds) < self.replications:
                    break
                analysis = look.analyse(self.code, seen)
                if missing := self.figures.keys() - analysis.findings.keys():
                    why = analysis.error or f"no figure {min(missing)!r}"
                    return Retested(f"{label}: {why}", "not as before")
                made.append(analysis.findings)
            if place == 0:
                looks = len(made)
            for name, before in self.figures.items() if made else ():
                values = [each[name] for each in made]
                told.append(f"{label}: {name} = {_spread(values)}")
                same &= place > 0 or len(values) < 2 or _expected(before, values)
        if looks < 2:
            return Retested("there are too few seeds to see how its figures vary", "unverified")
        return Retested("; ".join(told), "as before" if same else "not as before")

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        variants = {label: texts_of(sources) for label, sources in self.variants.items()}
        return {**asdict(self), "variants": variants}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AnalysisAgain:
        """What `as_json` gave."""
        variants = {label: sources_of(texts) for label, texts in data["variants"].items()}
        return cls(**{**data, "variants": variants})


def retest_from(data: Mapping[str, Any]) -> Retest:
    """What the ``as_json`` of either gave."""
    return AnalysisAgain.from_json(data) if "code" in data else ExperimentAgain.from_json(data)


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    if min(values) == max(values):
        return f"{mean:.6g}"
    return f"{mean:.6g} ({min(values):.6g} to {max(values):.6g} in {len(values)} looks)"


def _expected(before: float, values: list[float]) -> bool:
    """Whether a figure lies in the interval in which the next of its kind is expected."""
    if min(values) == max(values):
        return math.isclose(before, values[0], rel_tol=1e-9, abs_tol=1e-12)
    n = len(values)
    reach = t_quantile((1 + _CONFIDENCE) / 2, n - 1) * math.sqrt(1 + 1 / n) * statistics.stdev(values)
    return abs(before - statistics.fmean(values)) <= reach
