"""Better numbers for a candidate of which nothing is known: the offline designer's last resort."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_glia.budget import BudgetExhausted
from pytest_glia.designers import Claim, Proposal
from pytest_glia.designers.source import Number, constants, with_constants
from pytest_glia.designers.tuning import around, tune
from pytest_glia.lab import Lab
from pytest_glia.trials import Hypothesis, Trial

_LARGEST = 1e100
"""A constant from here on is no quantity, and ranges around it overflow."""
_ONLY_CONSTANTS = (
    "No domain has ideas for this candidate, so all that the offline designer can do is to tune the "
    "numeric constants of its file."
)


def tune_constants(lab: Lab) -> Proposal:
    """Tune the numeric constants of the candidates' files; each that was changed is a claim."""
    lab.say(_ONLY_CONSTANTS)
    found = {
        (path, name): value
        for path, source in lab.start.sources.items()
        for name, value in constants(source.decode()).items()
        if abs(value) < _LARGEST
    }
    best, gain = lab.start, 0.0
    lab.hold(len(found))
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
            full = lab.full(build(numbers), Hypothesis(f"in full: {trial.hypothesis.name}"), lab.start)
        except BudgetExhausted:
            full = trial
        if full.change.mean < gain:
            best, gain = full.evaluation, full.change.mean
            claims = [
                Claim(
                    f"{label} = {value:g}",
                    f"{label} is {value:g} instead of {start[label]:g}.",
                    "it is a constant of the file",
                    {},
                    {label: value},
                    build({**numbers, label: start[label]}),
                    experiment=full.id,
                )
                for label, value in numbers.items()
                if value != start[label]
            ]
    return Proposal(best, claims, remark=remark)
