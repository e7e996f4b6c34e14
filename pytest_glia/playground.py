"""What an agent may read, write and try in one context of a run, and what it has found there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_glia.designers import Finding
from pytest_glia.draft import Draft, Refused
from pytest_glia.experiments import Experiment, Variant, analysed, measure
from pytest_glia.merit import Evaluation
from pytest_glia.retesting import AnalysisAgain, ExperimentAgain
from pytest_glia.trials import Hypothesis, Trial, measured_table
from pytest_glia.visible import visible
from pytest_glia.workbench import Analysis

_CLAIMS = 2
"""Ablations for which simulations are kept once there is something to claim."""

_FIGURES = 20
"""Of an analysis that are shown."""


@dataclass(frozen=True)
class Found:
    """Something learnt, the id of what shows it, and if that is an experiment, what of it does."""

    text: str
    source: str
    experiment: Experiment | None


@dataclass
class Playground(Draft):
    """The state of one context.

    Attributes:
        name: Of the context; ids of experiments begin with it.
        best: The best candidate so far.
        experiments: By id.
        analyses: By id: the experiment that was looked at, the code, and what it found.
        found: What was learnt, in order.
    """

    name: str
    best: Evaluation = field(init=False)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    analyses: dict[str, Analysed] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.best = self.lab.start

    def evaluate(self, hypothesis: Hypothesis, *, simplifies: bool = False) -> Trial:
        """Try the candidate as written against the specs: a commit, and the new best if it is better.

        One that `simplifies` the best is the new best also if it is shown to be equivalent.
        """
        if self.sources == dict(self.best.sources):
            raise Refused("the candidate is the same as the best so far: change it first")
        for trial in self.lab.trials:
            if self.sources == dict(trial.evaluation.sources):
                raise Refused(f"that candidate was tried as number {trial.number}: {trial.result}")
        trial = self.lab.full(self.sources, hypothesis, self.best, race=not simplifies)
        complete = len(trial.evaluation.seeds) == self.lab.settings.replications
        loses = self.best.met() and not trial.evaluation.met()
        if complete and not loses and trial.result in ("better", *(("equivalent",) if simplifies else ())):
            self.best = trial.evaluation
            # What it will claim is to be ablated in the end.
            self.lab.hold(_CLAIMS)
        return trial

    def experiment(
        self,
        purpose: str,
        variants: Sequence[Variant],
        *,
        replications: int,
        metrics: Sequence[str] = (),
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
    ) -> Experiment:
        """Measure variants side by side; raises `Refused` for what cannot be run."""
        most = self.lab.settings.replications
        if not 1 <= replications <= most:
            raise Refused(f"replications is {replications}: give 1 to {most}")
        labels = [each.label for each in variants]
        if not labels or len(set(labels)) < len(labels):
            raise Refused(f"the variants are {labels}: give at least one, each with a label of its own")
        for name, factor in (scenario or {}).items():
            if name not in self.lab.knobs:
                there = ", ".join(self.lab.knobs) or "nothing"
                raise Refused(f"a scenario cannot change {name!r} here: it can change {there}")
            if not 0 < factor < 1000:
                raise Refused(f"the factor of {name!r} is {factor!r}: give a positive one, below 1000")
        unknown = [name for name in metrics if name not in self.lab.start.metrics]
        if unknown:
            known = ", ".join(self.lab.start.metrics)
            raise Refused(f"there is no metric {unknown[0]!r}: the replications report {known}")
        name = f"{self.name}.E{len(self.experiments) + 1}"
        self.experiments[name] = measure(
            self.lab,
            name,
            purpose,
            variants,
            replications=replications,
            metrics=metrics,
            scenario=scenario,
            inspected=inspected,
        )
        return self.experiments[name]

    def find(self, text: str, source: str, variant: str = "", metric: str = "") -> None:
        """Keep something learnt; raises `Refused` if there is nothing that shows it.

        Of an experiment, it may name the variant and the metric that show it.
        """
        if source not in self.experiments and source not in self.analyses:
            there = ", ".join([*self.experiments, *self.analyses]) or "none yet"
            raise Refused(f"there is no experiment or analysis {source!r} that shows it: there are {there}")
        if visible(text, line=True) in {visible(each.text, line=True) for each in self.found}:
            raise Refused(f"the finding {text[:60]!r} is kept already")
        experiment = self.experiments.get(source)
        if experiment is not None:
            if all(each.change is None for each in experiment.effects):
                raise Refused(
                    f"the experiment {source} compares nothing, so that it shows nothing: name one that "
                    "compares variants, or an analysis of its tables"
                )
            try:
                experiment = experiment.about(variant, metric)
            except LookupError as error:
                raise Refused(f"{source} {error}") from None
        self.found.append(Found(text, source, experiment))

    def findings(self) -> list[Finding]:
        """What was learnt, each with a way to test it again for the design that is the best by now."""
        return [self._finding(each) for each in self.found]

    def _finding(self, found: Found) -> Finding:
        if found.experiment is not None:
            again = ExperimentAgain.of(found.experiment)
            return Finding(found.text, found.source, found.experiment.summary(), again)
        made = self.analyses[found.source]
        return Finding(found.text, found.source, figures(made.figures), self._analysis_again(made))

    def inspected(self, name: str, variant: str = "") -> tuple[Experiment, str]:
        """An experiment and the variant whose tables code may look at, by default the first that has any.

        Raises `Refused` if there is none of that name.
        """
        if name not in self.experiments:
            there = ", ".join(self.experiments) or "none yet"
            raise Refused(f"there is no experiment {name!r}: there are {there}")
        labels = [label for label, keys in self.experiments[name].tables.items() if keys]
        if not labels:
            raise Refused(
                f"the experiment {name} kept no tables: have those inspected that you want to know of"
            )
        if variant and variant not in labels:
            raise Refused(f"{name} kept no tables of {variant!r}: it kept those of {', '.join(labels)}")
        settings = self.lab.settings
        if settings.sandbox != "off" and not settings.confined():
            raise Refused(
                "there is no sandbox here, and code of a model is not run without one: go on without "
                "analyses (who starts the search may allow them by glia_sandbox = off)"
            )
        return self.experiments[name], variant or labels[0]

    def keep(self, analysed: Analysed) -> str:
        """Put an analysis on record; gives its id."""
        name = f"{self.name}.A{len(self.analyses) + 1}"
        self.analyses[name] = analysed
        return name

    def analyse(self, experiment: Experiment, variant: str, code: str) -> Analysis:
        """What some code makes of the tables of a variant, and of what that has printed; on record."""
        return analysed(self.lab, experiment.tables[variant], experiment.printed.get(variant, ""), code)

    def _analysis_again(self, analysed: Analysed) -> AnalysisAgain:
        """The same code for what it looked at then, and for the start and the best candidate besides."""
        experiment, label = self.experiments[analysed.experiment], analysed.variant
        [looked_at] = [dict(each.sources) for each in experiment.variants if each.label == label]
        known = {"the start": dict(self.lab.start.sources), "the design": dict(self.best.sources)}
        first = next((name for name, sources in known.items() if sources == looked_at), f"variant {label!r}")
        return AnalysisAgain(
            analysed.code,
            analysed.figures,
            {first: looked_at, **known},
            experiment.scenario,
            experiment.replications,
        )

    def describe(self, trial: Trial) -> str:
        """What a trial has shown, for a conversation."""
        head = (
            f"Candidate {trial.number} ({trial.hypothesis.name}): {trial.result}; change of loss "
            f"{trial.change} on {len(trial.evaluation.seeds)} seeds (below zero is better)."
        )
        table = measured_table(trial.evaluation.checks)
        errors = [f"failed: {reason}" for reason in trial.evaluation.reasons]
        means = ", ".join(f"{name} {value:.4g}" for name, value in trial.evaluation.evidence.items())
        best = "It is the best so far." if trial.evaluation is self.best else self._where()
        return "\n".join([head, best, "", *table, *errors, "", f"Means: {means}"])

    def _where(self) -> str:
        """Which candidate is the best, where it is another one than what is being written."""
        number = next((each.number for each in self.lab.trials if each.evaluation is self.best), None)
        which = "what you began with" if number is None else f"candidate {number} (tried/{number}/...)"
        return f"The best so far is {which}; the files still hold this one."

    def spending(self) -> str:
        """What is spent of the simulations, and what is kept."""
        account = self.lab.account
        limit = account.budget.simulations
        if not math.isfinite(limit):
            return f"Simulations: {account.simulations} spent."
        kept = max(0.0, limit - account.simulations - account.left("simulations"))
        return f"Simulations: {account.simulations} of {limit:g} spent, {kept:g} kept for the end."

    def notebook(self) -> str:
        """What was tried, measured and found in this context: never to be forgotten."""
        lines = ["Notebook of this run.", "", "Candidates tried:"]
        lines += [
            f"- {each.number} {each.hypothesis.name}: {each.result} ({each.change})"
            for each in self.lab.trials
        ]
        lines += ["", "Experiments:"]
        lines += [f"- {name}: {each.purpose}" for name, each in self.experiments.items()]
        lines += [f"- {name}: {each.question}: {each.answer}" for name, each in self.analyses.items()]
        lines += ["", "Findings:", *(f"- {each.text} ({each.source})" for each in self.found)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Analysed:
    """A question about the tables of a variant, the code that answered it, and what that found."""

    experiment: str
    variant: str
    question: str
    code: str
    answer: str
    figures: Mapping[str, float]


def figures(found: Mapping[str, float]) -> str:
    """Figures by name, for a sentence."""
    shown = [f"{name} = {value:.6g}" for name, value in found.items()]
    return ", ".join(shown[:_FIGURES] + [f"and {len(shown) - _FIGURES} more"] * (len(shown) > _FIGURES))
