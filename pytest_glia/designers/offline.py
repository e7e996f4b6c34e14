"""The designer that needs no model: diagnose, hypothesise, experiment, analyse - with a domain's ideas.

It works like a systems researcher with a notebook of known mechanisms. From the evidence of the current
candidate it takes an idea that the evidence calls for, works it into the source, tunes its numbers, and
keeps it only if paired replications show that it helps. In the end it takes each kept idea out again, and
drops those that the rest does not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pytest_glia.budget import BudgetExhausted
from pytest_glia.designers import Claim, Finding, Proposal
from pytest_glia.designers.source import Number, constants, with_constants, with_docstring
from pytest_glia.designers.tuning import around, tune
from pytest_glia.hookspecs import Mechanism
from pytest_glia.lab import Hypothesis, Lab, Trial
from pytest_glia.merit import Evaluation

_TUNING_TRIALS = 5
_ONLY_CONSTANTS = (
    "No domain has ideas for this candidate, so all that the offline designer can do is to tune the "
    "numeric constants of its file."
)


@dataclass(frozen=True)
class _Applied:
    """A mechanism in the design, with its numbers and the evidence that called for it."""

    path: str
    mechanism: Mechanism
    numbers: Mapping[str, Number]
    reason: str


@dataclass(frozen=True)
class _Design:
    """The starting sources with mechanisms applied in order."""

    start: Mapping[str, bytes]
    entries: Mapping[str, str]
    applied: tuple[_Applied, ...] = ()

    def plus(self, applied: _Applied) -> _Design:
        return replace(self, applied=(*self.applied, applied))

    def without(self, name: str) -> _Design:
        return replace(self, applied=tuple(each for each in self.applied if each.mechanism.name != name))

    def build(self) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """The sources, and the names of mechanisms that found no place."""
        sources, homeless = dict(self.start), []
        for path in self.start:
            text = self.start[path].decode()
            claims = []
            for each in self.applied:
                if each.path != path:
                    continue
                edited = each.mechanism.apply(text, each.numbers)
                if edited is None:
                    homeless.append(each.mechanism.name)
                else:
                    text = edited
                    claims.append(each.mechanism.claim)
            if claims:
                text = with_docstring(text, self.entries[path], _docstring(claims))
            sources[path] = text.encode()
        return sources, tuple(homeless)


@dataclass
class _Search:
    """The state of one search."""

    lab: Lab
    design: _Design
    best: Evaluation
    findings: dict[str, Finding] = field(default_factory=dict)
    sensitivity: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


class OfflineDesigner:
    """Glia's way of working without a model; see the module."""

    def design(self, lab: Lab) -> Proposal:
        """Search until no idea is called for, or the budget is spent."""
        if not any(lab.mechanisms.values()):
            lab.say(_ONLY_CONSTANTS)
            return _tune_constants(lab)
        entries = {each.path: each.entry for each in lab.candidates}
        search = _Search(lab, _Design(lab.start.sources, entries), lab.start)
        remark = "The search ended when no further idea was called for."
        try:
            while _improve(search):
                _hold(search)
            _prune(search)
        except BudgetExhausted as error:
            remark = f"The search ended because {error}."
        lab.say(remark)
        claims = [_claim(search.design, each) for each in search.design.applied]
        return Proposal(search.best, claims, list(search.findings.values()), search.sensitivity, remark)


def _improve(search: _Search) -> bool:
    """Try the ideas that the evidence calls for until one is kept; False if none is."""
    evidence = search.best.evidence
    present = {each.mechanism.name for each in search.design.applied}
    for path, mechanisms in search.lab.mechanisms.items():
        for mechanism in mechanisms:
            if mechanism.name in present or _is_refuted(search, mechanism):
                continue
            reason = mechanism.called_for(evidence)
            if reason is not None and _try_idea(
                search, _Applied(path, mechanism, mechanism.defaults, reason)
            ):
                return True
    return False


def _is_refuted(search: _Search, mechanism: Mechanism) -> bool:
    finding = search.findings.get(mechanism.name)
    return finding is not None and finding.verdict == "refuted"


def _try_idea(search: _Search, idea: _Applied) -> bool:
    """Apply, tune, and keep an idea if it is shown to help."""
    mechanism, lab = idea.mechanism, search.lab
    design = search.design.plus(idea)
    sources, homeless = design.build()
    if mechanism.name in homeless or sources == search.best.sources:
        return False
    lab.say(f"{idea.reason}: {mechanism.name}?")
    hypothesis = Hypothesis(mechanism.name, mechanism.claim, idea.reason, mechanism.predicts)
    if mechanism.numbers:
        first = lab.quick(sources, replace(hypothesis, name=_label(mechanism.name, design)), search.best)
        if first.result != "broken":
            numbers = _tuned(search, design, first, mechanism.name, hypothesis)
            design = search.design.plus(replace(idea, numbers=numbers))
    trial = lab.full(design.build()[0], replace(hypothesis, name=_label(mechanism.name, design)), search.best)
    if trial.result == "better":
        search.design, search.best = design, trial.evaluation
        search.findings.pop(mechanism.name, None)
        return True
    verdict = "refuted" if trial.result in ("worse", "broken") else "not shown to help"
    search.findings[mechanism.name] = Finding(
        mechanism.name, mechanism.claim, idea.reason, mechanism.predicts, trial.change, verdict
    )
    return False


def _tuned(
    search: _Search, design: _Design, first: Trial, name: str, hypothesis: Hypothesis
) -> dict[str, Number]:
    """The best of a few settings of one mechanism's numbers, by quick looks."""
    lab = search.lab
    [idea] = [each for each in design.applied if each.mechanism.name == name]
    judged = [(dict(idea.numbers), lab.aim.loss(first.evaluation))]

    def judge(numbers: dict[str, Number]) -> float:
        setting = design.without(name).plus(replace(idea, numbers=numbers))
        trial = lab.quick(setting.build()[0], replace(hypothesis, name=_label(name, setting)), search.best)
        return lab.aim.loss(trial.evaluation)

    judged += tune(idea.mechanism.numbers, idea.numbers, judge, trials=_TUNING_TRIALS)
    for number in idea.numbers:
        search.sensitivity[number] = sorted((numbers[number], loss) for numbers, loss in judged)
    return min(judged, key=lambda each: each[1])[0]


def _prune(search: _Search) -> None:
    """Drop each idea that the others do not need: taking it out makes nothing worse."""
    for each in list(search.design.applied):
        name = each.mechanism.name
        if len(search.design.applied) < 2 or name not in [a.mechanism.name for a in search.design.applied]:
            continue
        fewer = search.design.without(name)
        sources, homeless = fewer.build()
        for other in homeless:
            fewer = fewer.without(other)
        hypothesis = Hypothesis(f"without: {name}", f"The design needs {name!r} no longer.")
        trial = search.lab.quick(sources, hypothesis, search.best)
        if trial.change.mean > 0:
            continue
        trial = search.lab.full(sources, hypothesis, search.best)
        if trial.change.mean <= 0:
            search.findings[name] = Finding(
                name,
                each.mechanism.claim,
                each.reason,
                each.mechanism.predicts,
                trial.change,
                "not needed in the end",
            )
            search.design, search.best = fewer, trial.evaluation


def _hold(search: _Search) -> None:
    """Keep enough of the budget for an ablation of each kept idea, and of one more."""
    search.lab.hold(1 + len(search.design.applied))


def _claim(design: _Design, applied: _Applied) -> Claim:
    mechanism = applied.mechanism
    # A later idea may have tuned a number of an earlier one again: the winner's text has the last word.
    final = constants(design.build()[0][applied.path].decode())
    sources, homeless = design.without(mechanism.name).build()
    return Claim(
        mechanism.name,
        mechanism.claim,
        applied.reason,
        mechanism.predicts,
        {name: final.get(name, value) for name, value in applied.numbers.items()},
        sources,
        homeless,
    )


def _label(name: str, design: _Design) -> str:
    [numbers] = [each.numbers for each in design.applied if each.mechanism.name == name]
    return " ".join([name, *(f"{value:g}" for value in numbers.values())])


def _docstring(claims: list[str]) -> str:
    if len(claims) == 1:
        return claims[0]
    return "\n".join(["In this design:", "", *(f"- {claim}" for claim in claims)])


def _tune_constants(lab: Lab) -> Proposal:
    """The designer for a candidate of which nothing is known: better values for its constants."""
    found = {
        (path, name): value
        for path, source in lab.start.sources.items()
        for name, value in constants(source.decode()).items()
    }
    best, best_loss = lab.start, lab.aim.loss(lab.start)
    if not found:
        return Proposal(best, remark=_ONLY_CONSTANTS + " It has none.")
    names = {f"{path}:{name}" if len(lab.start.sources) > 1 else name: (path, name) for path, name in found}
    remark = _ONLY_CONSTANTS

    def build(numbers: Mapping[str, Number]) -> dict[str, bytes]:
        return {
            path: with_constants(
                source.decode(),
                {names[label][1]: value for label, value in numbers.items() if names[label][0] == path},
            ).encode()
            for path, source in lab.start.sources.items()
        }

    def judge(numbers: dict[str, Number]) -> float:
        label = " ".join(f"{name}={value:g}" for name, value in numbers.items())
        trial = lab.quick(build(numbers), Hypothesis(label), lab.start)
        judged[label] = (trial, numbers)
        return lab.aim.loss(trial.evaluation)

    judged: dict[str, tuple[Trial, dict[str, Number]]] = {}
    start = {label: found[place] for label, place in names.items()}
    try:
        tune({label: around(value) for label, value in start.items()}, start, judge, trials=30)
    except BudgetExhausted as error:
        remark += f" The search ended because {error}."
    ranked = sorted(judged.values(), key=lambda each: lab.aim.loss(each[0].evaluation))
    claims: list[Claim] = []
    for trial, numbers in ranked[:3]:
        try:
            full = lab.full(build(numbers), Hypothesis("the best constants"), lab.start)
        except BudgetExhausted:
            full = trial
        if lab.aim.loss(full.evaluation) < best_loss:
            best, best_loss = full.evaluation, lab.aim.loss(full.evaluation)
            claims = [
                Claim(
                    f"{label} = {value:g}",
                    f"{label} is {value:g} instead of {start[label]:g}.",
                    "it is a constant of the file",
                    {},
                    {label: value},
                    build({**numbers, label: start[label]}),
                )
                for label, value in numbers.items()
                if value != start[label]
            ]
    return Proposal(best, claims, remark=remark)
