"""The designer that needs no model: diagnose, hypothesise, experiment, analyse - with a domain's ideas.

It works like a systems researcher with a notebook of known mechanisms. From the evidence of the current
candidate it takes an idea that the evidence calls for, works it into the source, and keeps it only if paired
replications show that it helps: with numbers that are usual for it or, if those do not do, with others. Where
no further idea is called for it looks for better numbers for those that were kept as they were, and, if specs
may yet be missed, again at what few replications have not decided. In the end it takes each kept idea out
again, and drops those that the rest does not need.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from pytest_glia.budget import BudgetExhausted
from pytest_glia.designers import Claim, Proposal, Rejected
from pytest_glia.designers.constants import tune_constants
from pytest_glia.designers.source import Number, constants, docstring, with_docstring
from pytest_glia.designers.tuning import bracket, tune
from pytest_glia.hookspecs import Mechanism
from pytest_glia.lab import Lab
from pytest_glia.merit import Evaluation
from pytest_glia.misuse import Misuse
from pytest_glia.settings import Settings
from pytest_glia.statistics import Interval
from pytest_glia.trials import Hypothesis, Trial

_TUNING_TRIALS = 6
_ENOUGH = 3
"""Settings of an idea, all worse than what there is, after which no other is tried."""

Key = tuple[str, str]
"""A mechanism in a search: the path of its candidate, and its name."""

Shown = tuple[str, str]
"""The id of the experiment for which an idea was kept, and what it shows if that is not a lower loss."""


@dataclass(frozen=True)
class _Applied:
    """A mechanism in the design, with its numbers and the evidence that called for it."""

    path: str
    mechanism: Mechanism
    numbers: Mapping[str, Number]
    reason: str

    @property
    def key(self) -> Key:
        return self.path, self.mechanism.name

    @property
    def label(self) -> str:
        """The name, and the numbers as they are tried."""
        return " ".join([self.mechanism.name, *(f"{value:g}" for value in self.numbers.values())])


@dataclass(frozen=True)
class _Design:
    """The starting sources with mechanisms applied in order."""

    start: Mapping[str, bytes]
    entries: Mapping[str, str]
    applied: tuple[_Applied, ...] = ()

    def plus(self, applied: _Applied) -> _Design:
        """With one mechanism more, or with other numbers of one that it has."""
        if all(each.key != applied.key for each in self.applied):
            return replace(self, applied=(*self.applied, applied))
        return replace(
            self, applied=tuple(applied if each.key == applied.key else each for each in self.applied)
        )

    def without(self, *keys: Key) -> _Design:
        return replace(self, applied=tuple(each for each in self.applied if each.key not in keys))

    def build(self, *, lenient: bool = False) -> tuple[dict[str, bytes], tuple[_Applied, ...]]:
        """The sources, and the mechanisms that found no place in them; `_Fault` if one of them fails, which
        is to have found no place if `lenient`."""
        sources, homeless = dict(self.start), []
        for path in self.start:
            text = self.start[path].decode("utf-8", "replace")
            claims = []
            for each in (each for each in self.applied if each.path == path):
                edited = None
                with suppress(*([_Fault] if lenient else [])), _blamed():
                    edited = each.mechanism.apply(text, each.numbers)
                    str.encode(edited or "")  # what is no text would fail far from here
                if edited is None:
                    homeless.append(each)
                else:
                    text = edited
                    claims.append(each.mechanism.claim)
            if claims:
                entry = self.entries[path]
                text = with_docstring(text, entry, _docstring(docstring(text, entry), claims))
                sources[path] = text.encode()
        return sources, tuple(homeless)


@dataclass
class _State:
    """How far a search has come."""

    lab: Lab
    design: _Design
    best: Evaluation
    shown: dict[Key, Shown] = field(default_factory=dict)
    untuned: list[Key] = field(default_factory=list)
    rejected: dict[Key, Rejected] = field(default_factory=dict)
    tuning: dict[Key, list[tuple[Mapping[str, float], float]]] = field(default_factory=dict)
    undecided: list[tuple[_Applied, Trial]] = field(default_factory=list)
    """Settings that a few seeds have neither shown to help nor to harm."""
    homeless: dict[Key, str] = field(default_factory=dict)
    """Names of ideas that were called for and did not change the source."""


class _Fault(Exception):
    """An idea's own code has failed: it is code of the domain or the user."""


@contextmanager
def _blamed() -> Iterator[None]:
    """Within it what fails is an idea's fault."""
    try:
        yield
    except Exception as error:
        raise _Fault(f"{type(error).__name__}: {error}") from error


class _NoUse(Exception):
    """The first settings of an idea were all worse than what there is: the budget is for other ideas."""


class OfflineDesigner:
    """Glia's way of working without a model; see the module."""

    def check(self, settings: Settings) -> None:
        """Raise `Misuse` where the library that tunes numbers is missing."""
        if importlib.util.find_spec("optuna") is None:
            raise Misuse(
                "the offline designer tunes numbers with Optuna, which is not installed: pip install "
                '"pytest-glia[sim]"'
            )

    def design(self, lab: Lab) -> Proposal:
        """Search until no idea is called for, or the budget is spent."""
        if not any(lab.mechanisms.values()):
            return tune_constants(lab)
        state = _State(lab, _Design(lab.start.sources, {e.path: e.entry for e in lab.candidates}), lab.start)
        remark = "The search ended when no further idea was called for."
        try:
            # Ideas that promise only what the specs have wait until the kept ones have their best numbers.
            while (
                _improve(state, to_the_point=True)
                or _refine(state)
                or _improve(state, to_the_point=False)
                or _look_again(state)
            ):
                # An ablation of each kept idea must stay affordable, and of one more; but a design that may
                # yet miss its specs needs ideas first.
                lab.hold(1 + len(state.design.applied) if lab.aim.assured(state.best) else 0)
            _prune(state)
        except BudgetExhausted as error:
            remark = f"The search ended because {error}."
        if state.homeless and not lab.aim.assured(state.best):
            names = ", ".join(dict.fromkeys(state.homeless.values()))
            remark += f" Called for, but in the source already or without a place there: {names}."
        if state.untuned:
            remark += " Other numbers were not looked for."
        lab.say(remark)
        kept = [each.key for each in state.design.applied]
        return Proposal(
            state.best,
            [_claim(state.design, each, *state.shown[each.key]) for each in state.design.applied],
            list(state.rejected.values()),
            {name: judged for (path, name), judged in state.tuning.items() if (path, name) in kept},
            remark=f"{remark} No language model took part.",
        )


def _improve(state: _State, *, to_the_point: bool) -> bool:
    """Try the ideas that the evidence calls for until one is kept; False if none is.

    Of those that promise something that the specs still lack, or nothing that they ask, or only of those that
    promise what the specs have. First those that have no numbers to tune, for they cost least to try; last
    those that were not shown to help the design as it was before.
    """
    present = {each.key for each in state.design.applied}
    lacking = state.lab.aim.wanted(state.best)
    found = [(path, each) for path, mechanisms in state.lab.mechanisms.items() for each in mechanisms]
    found = [each for each in found if _beside_the_point(each[1], lacking) != to_the_point]
    tried = state.rejected
    found.sort(key=lambda each: ((each[0], each[1].name) in tried, bool(each[1].numbers)))
    for path, mechanism in found:
        key = (path, mechanism.name)
        if key in present or (key in state.rejected and state.rejected[key].verdict == "refuted"):
            continue
        with _sheltered(state, key, mechanism):
            with _blamed():
                reason = mechanism.called_for(state.best.evidence)
            if reason is not None and _try_idea(state, _Applied(path, mechanism, mechanism.defaults, reason)):
                return True
    return False


@contextmanager
def _sheltered(state: _State, key: Key, mechanism: Mechanism) -> Iterator[None]:
    """A fault in an idea must not end the search, but is told."""
    try:
        yield
    except _Fault as fault:
        kept = any(each.key == key for each in state.design.applied)
        left = "keeps its numbers" if kept else "is left out"
        state.lab.say(f"The mechanism {mechanism.name!r} failed ({fault}) and {left}.")
        if not kept:
            nothing = Interval(math.nan, math.nan, 0, math.nan, math.nan, math.nan)
            state.rejected[key] = _rejected(mechanism, f"it failed ({fault})", nothing, "refuted")


def _beside_the_point(mechanism: Mechanism, lacking: Mapping[str, bool]) -> bool:
    """Whether all that an idea promises the specs is what they have already."""
    promised = [lacking[metric] for metric in mechanism.predicts if metric in lacking]
    return bool(promised) and not any(promised)


def _try_idea(state: _State, idea: _Applied) -> bool:
    """Apply an idea, with other numbers if its own do not do, and keep it if it is shown to help."""
    mechanism, lab = idea.mechanism, state.lab
    sources, homeless = state.design.plus(idea).build()
    if idea in homeless or sources == state.best.sources:
        if idea.key not in state.homeless:
            state.homeless[idea.key] = mechanism.name
            lab.say(f"{idea.reason}: {mechanism.name}? The source has it, or no place for it.")
        return False
    lab.say(f"{idea.reason}: {mechanism.name}?")
    trial = _tried(state, idea)
    if _kept(state, idea, trial):
        if mechanism.numbers:
            state.untuned.append(idea.key)
        return True
    promising = trial.change.mean <= 0
    # A design that has all it needs waits for no other numbers of an idea that is worse with its own.
    if mechanism.numbers and trial.result != "broken" and (promising or not lab.aim.assured(state.best)):
        other = _tuned(state, idea, trial.evaluation, promising=promising)
        if other != idea:
            idea, trial = other, _tried(state, other)
            if _kept(state, idea, trial):
                return True
    _reject(state, idea, trial)
    return False


def _look_again(state: _State) -> bool:
    """Where all ideas have been tried and specs may yet be missed: try in full, the best first, what a few
    seeds have not decided, until some of it is kept; False if none is."""
    while state.undecided and not state.lab.aim.assured(state.best):
        chosen = min(state.undecided, key=lambda each: state.lab.aim.loss(each[1].evaluation))
        state.undecided.remove(chosen)
        idea, _ = chosen
        with _sheltered(state, idea.key, idea.mechanism):
            sources, homeless = state.design.plus(idea).build()
            seen = [each.evaluation for each in state.lab.trials] + [state.best]
            if homeless or any(
                each.sources == sources and len(each.seeds) == len(state.best.seeds) for each in seen
            ):
                continue
            state.lab.say(f"A second look at {idea.label!r}, of which a few seeds have decided nothing.")
            trial = state.lab.full(sources, _hypothesis(idea), state.best, race=False)
            if _kept(state, idea, trial):
                return True
            if all(each.key != idea.key for each in state.design.applied):
                _reject(state, idea, trial)
    return False


def _tried(state: _State, idea: _Applied, *, quick: bool = False) -> Trial:
    """What the design shows with this idea, noted if that decides nothing."""
    look = state.lab.quick if quick else state.lab.full
    trial = look(state.design.plus(idea).build()[0], _hypothesis(idea), state.best)
    few = len(trial.evaluation.seeds) < len(state.best.seeds)
    if few and trial.result == "not shown":
        state.undecided.append((idea, trial))
    return trial


def _refine(state: _State) -> bool:
    """Look for better numbers of ideas kept as they were, until some are kept; False if none are."""
    while state.untuned and state.lab.quick_looks_left():
        key = state.untuned.pop(0)
        present = next(each for each in state.design.applied if each.key == key)
        since = state.design.applied[state.design.applied.index(present) + 1 :]
        again = {name for each in since if each.path == present.path for name in each.numbers}
        if again.issuperset(present.numbers):
            continue  # later ideas have set all of them again
        state.lab.say(f"Other numbers for {present.mechanism.name!r}?")
        with _sheltered(state, key, present.mechanism):
            other = _tuned(state, present, state.best, promising=True)
            if other != present and _kept(state, other, _tried(state, other)):
                return True
    return False


def _kept(state: _State, idea: _Applied, trial: Trial) -> bool:
    """Whether an idea is taken into the design for what a trial of it shows.

    It is if its loss is lower, or if it meets all specs with enough to spare where the best so far does not:
    that is what is looked for, also where the loss differs too much between seeds to be shown to be lower.
    """
    assured = state.lab.aim.assured
    if trial.result == "better":
        shows = ""
    elif trial.change.mean < 0 and assured(trial.evaluation) and not assured(state.best):
        shows = f"loss {trial.change}, so not shown to be lower, but all specs are met with enough to spare"
    else:
        return False
    state.design, state.best = state.design.plus(idea), trial.evaluation
    state.rejected.pop(idea.key, None)
    if idea.key in state.shown:
        first, shown = state.shown[idea.key]
        state.shown[idea.key] = (
            first,
            "; ".join(filter(None, [shown, f"its numbers are those of {trial.id}"])),
        )
    else:
        state.shown[idea.key] = trial.id, shows
    return True


def _hypothesis(idea: _Applied) -> Hypothesis:
    return Hypothesis(idea.label, idea.mechanism.claim, idea.reason, idea.mechanism.predicts)


def _tuned(state: _State, idea: _Applied, known: Evaluation, *, promising: bool) -> _Applied:
    """The idea with the best of a few settings of its numbers, by quick looks; one is known already."""
    lab = state.lab
    judged = [(dict(idea.numbers), lab.aim.loss(known, lab.first_look))]

    def judge(numbers: dict[str, Number]) -> float:
        nonlocal promising
        if len(judged) >= _ENOUGH and not promising:
            raise _NoUse
        trial = _tried(state, replace(idea, numbers=numbers), quick=True)
        promising = promising or trial.change.mean <= 0
        judged.append((numbers, lab.aim.loss(trial.evaluation)))
        return judged[-1][1]

    # A setting found that cannot be tried in full is worth nothing.
    trials = int(min(_TUNING_TRIALS, lab.quick_looks_left()))
    with suppress(_NoUse):
        if trials and len(idea.numbers) == 1:
            [(name, limits)] = idea.mechanism.numbers.items()
            start = (idea.numbers[name], judged[0][1])
            bracket(limits, start, lambda value: judge({name: value}), trials=trials)
        elif trials:
            tune(idea.mechanism.numbers, idea.numbers, judge, trials=trials)
    state.tuning[idea.key] = [(dict(numbers), loss) for numbers, loss in judged]
    return replace(idea, numbers=min(judged, key=lambda each: each[1])[0])


def _prune(state: _State) -> None:
    """Drop each idea that the others do not need: taking it out changes nothing, or for the better."""
    for each in state.design.applied:
        if len(state.design.applied) < 2 or each not in state.design.applied:
            continue
        fewer = state.design.without(each.key)
        sources, homeless = fewer.build(lenient=True)
        fewer = fewer.without(*(other.key for other in homeless))
        name = each.mechanism.name
        hypothesis = Hypothesis(f"without: {name}", f"The design needs {name!r} no longer.")
        first = state.lab.quick(sources, hypothesis, state.best)
        if first.change.mean > 0 and first.result != "equivalent":
            continue
        trial = state.lab.full(sources, hypothesis, state.best, race=False)
        if trial.change.mean <= 0 or trial.result == "equivalent":
            for one in (each, *homeless):
                rests = "" if one is each else f", and {name!r}, on which it rests"
                verdict = f"not needed in the end: this is without it{rests}"
                state.rejected[one.key] = _rejected(one.mechanism, one.reason, trial.change, verdict)
            state.design, state.best = fewer, trial.evaluation


def _reject(state: _State, idea: _Applied, trial: Trial) -> None:
    verdict = {"not shown": "not shown to help", "equivalent": "shown to change nothing"}.get(
        trial.result, "refuted"
    )
    state.rejected[idea.key] = _rejected(idea.mechanism, idea.reason, trial.change, verdict)


def _rejected(mechanism: Mechanism, reason: str, change: Interval, verdict: str) -> Rejected:
    return Rejected(mechanism.name, mechanism.claim, reason, mechanism.predicts, change, verdict)


def _claim(design: _Design, applied: _Applied, experiment: str, shows: str) -> Claim:
    mechanism = applied.mechanism
    # A later idea may have tuned a number of an earlier one again: the winner's text has the last word.
    final = constants(design.build()[0][applied.path].decode())
    sources, homeless = design.without(applied.key).build(lenient=True)
    return Claim(
        mechanism.name,
        mechanism.claim,
        applied.reason,
        mechanism.predicts,
        {name: final.get(name, value) for name, value in applied.numbers.items()},
        sources,
        tuple(other.mechanism.name for other in homeless),
        experiment=experiment,
        shown=shows,
    )


_HEADING = "In this design:"


def _docstring(before: str, claims: list[str]) -> str:
    """What a design says of itself: the claims, after those of an earlier design that it began with."""
    lines = before.splitlines() if before.startswith(_HEADING) else [_HEADING, ""]
    return "\n".join([*lines, *(f"- {claim}" for claim in claims)])
