"""Where a designer tries out candidates: each is evaluated, judged, and committed with what it showed."""

from __future__ import annotations

import copy
import json
import math
import textwrap
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pytest_glia import seeds
from pytest_glia.budget import Account
from pytest_glia.candidate import Candidate, fault
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.decisions import probes_of
from pytest_glia.ends import on_record
from pytest_glia.estimate import Check
from pytest_glia.evaluator import Evaluator
from pytest_glia.front import AS_IT_IS, Contender, Front
from pytest_glia.hookspecs import Mechanism
from pytest_glia.ledger import Ledger, Run
from pytest_glia.merit import Aim, Evaluation, Result, result_of, spreads_to_spare
from pytest_glia.models.threads import Threads
from pytest_glia.payer import Payer
from pytest_glia.repository import Repository
from pytest_glia.sequential import confirmation_confidence, pocock
from pytest_glia.settings import Settings
from pytest_glia.statistics import Interval
from pytest_glia.trials import Hypothesis, Trial, distinct, message, short

# The winner may be slower than what was run on the way to it.
_MARGIN = 1.5

# The width of a candidate's name, with which a line of progress fits into 80 columns.
_NAME = 31

# The share of the development replications after which a candidate without promise is stopped.
_FIRST_LOOK = 0.3


class Lab:
    """Evaluates candidates on development seeds within the budget of a run.

    ``domains`` are those that record the candidates' decisions; ``sealed`` is how many seeds its end is
    expected to have: more than the development seeds, perhaps.

    Attributes:
        candidates: Under design.
        start: What the candidates of the base commit have shown.
        aim: What the specs ask, the failing ones first.
        failing: The tests that the present candidates fail.
        statement: The problem in words, as every designer that reads gets it.
        settings: Of the plugin.
        knobs: What a scenario may change of the domain's runs, by a factor, each with a word on it.
        audited: Whether a domain records the candidates' decisions, so that a design can be audited.
        apart: Whether it can be confirmed in another process than it is simulated in (`Job`).
        models: What a designer that `uses_model` asks; None for any other.
        trials: All candidates tried so far, in order.
        refuted: The sources of those that have not held in an audit, or on confirmation seeds.
        name: Of the context, a number from 1.
        started: The simulations that `start` took.
        first_look: How many replications a `quick` look has.
    """

    def __init__(
        self,
        *,
        candidates: tuple[Candidate, ...],
        nodeids: tuple[str, ...],
        mechanisms: Mapping[str, Sequence[Mechanism]],
        evaluator: Evaluator,
        ledger: Ledger,
        payer: Payer,
        repository: Repository,
        settings: Settings,
        base: str,
        prefix: str,
        run: Run,
        failing: Sequence[str],
        domains: Collection[str],
        sealed: int,
        sources: Mapping[str, bytes],
        statement: Callable[[Evaluation, Mapping[str, str], Sequence[str]], str],
        write: Callable[[str], None],
        models: Threads | None = None,
    ) -> None:
        self.candidates = candidates
        self.models = models
        self.mechanisms = mechanisms
        self.account = payer.account
        self.trials: list[Trial] = []
        self.refuted: list[dict[str, bytes]] = []
        self._run_lab: Lab | None = None
        self._keeping = threading.Lock()
        self._nodeids = nodeids
        self._evaluator = evaluator
        self._ledger = ledger
        self._repository = repository
        self.settings = settings
        self._base = base
        # A run that goes on after a kill makes the same commits again.
        self._tip = base
        self._prefix = prefix
        self.name = "1"
        self._branch = f"{prefix}/1"
        self._run = run
        self._payer = payer
        self._whole = payer.account
        self._write = write
        self.audited = bool(domains)
        self.apart = evaluator.apart(domains)
        self._sealed = sealed
        self._seeds = seeds.known("development", settings.replications)
        first = max(2, math.ceil(settings.replications * _FIRST_LOOK))
        self._looks = tuple(sorted({first, settings.replications}))
        self.first_look = self._looks[0]
        self._confidence = pocock(settings.confidence, self._looks)
        self.start = self._evaluate(sources, self._seeds)
        self.started = self._simulations
        words = evaluator.words(domains)
        self.knobs = {name: word for each in words for name, word in each.knobs.items()}
        self.statement = statement(self.start, self.knobs, [each.metrics for each in words if each.metrics])
        self._evaluation_runs = len(evaluator.needed)
        # A start that fails early asks for less than its successors will.
        self._evaluation_simulations = max(len(self._seeds), len(evaluator.needed_simulations))
        known = sorted(self.start.checks, key=lambda each: (nodeids.index(each[0]), each[1]))
        goals = [which for which in known if which[0] in failing]
        unmet = [which for which in goals if math.fsum(self.start.checks[which].excess) >= 0]
        spreads = spreads_to_spare(
            settings.replications, confirmation_confidence(settings.confidence, attempt=1)
        )
        self.aim = Aim(next(iter([*unmet, *goals]), None), tuple(known), spreads)
        self.failing = frozenset(failing)
        self.hold(0)
        self._legend()
        self._line("-", AS_IT_IS, self.start, "")
        goal = self.start.checks.get(self.aim.primary) if self.aim.primary else None
        asked = {"quantity": goal.what(), "op": goal.op, "threshold": goal.threshold} if goal else {}
        self.recorded("goal", lambda: json.dumps(asked))
        self._note(0, AS_IT_IS, self.start, "")

    def quick(self, sources: Mapping[str, bytes], hypothesis: Hypothesis, against: Evaluation) -> Trial:
        """Try out a candidate with a first few replications only."""
        return self._try(sources, hypothesis, against, self._looks[:1])

    def full(
        self, sources: Mapping[str, bytes], hypothesis: Hypothesis, against: Evaluation, *, race: bool = True
    ) -> Trial:
        """Try out a candidate with all development replications.

        In a `race`, one that is worse or no better after the first look is stopped there.
        """
        return self._try(sources, hypothesis, against, self._looks if race else self._looks[-1:])

    def quick_looks_left(self) -> float:
        """How many first looks can be had before a full one that the budget then still has room for."""
        left = self.account.left("simulations")
        if math.isinf(left):
            return left
        each = self._evaluation_simulations / len(self._seeds)
        quick, full = (math.ceil(look * each) for look in (self.first_look, self._looks[-1]))
        return max(0, (left - (full - quick)) // quick)

    def unreadable(self, hypothesis: Hypothesis, reason: str) -> Trial:
        """A reply that holds no candidate: counted as one that does not work, for that reason."""
        look = self.first_look
        evaluation = Evaluation(self.start.sources, self._seeds[:look], {}, {"": reason})
        return self._kept(self._new_number(), hypothesis, evaluation, self.start, look)

    def hold(self, ablations: int) -> None:
        """Set aside what the end of the run will cost: audit, confirmation and that many ablations.

        Ablations get no more than a quarter of the simulations.
        """
        more = self._sealed / len(self._seeds)
        sealed = math.ceil(more * self._evaluation_simulations)
        quarter = self._whole.budget.simulations / 4
        if ablations * sealed > quarter:
            ablations = int(quarter // sealed)
        self._ablations = ablations
        probes = probes_of(self._evaluation_simulations, len(self._seeds)) if self.audited else 0
        audit = self._evaluation_simulations + probes if self.audited else 0
        runs = self.audited * self._evaluation_runs + probes + ablations * sealed
        pace = self._evaluator.pace or 0.0
        self._whole.held = {
            "simulations": (1 + ablations) * sealed + audit,
            "seconds": _MARGIN * (self.confirmation_seconds + pace * runs),
        }

    @property
    def confirmation_seconds(self) -> float:
        """That the replications of the confirmation will take, by their pace so far."""
        runs = self._sealed / len(self._seeds) * self._evaluation_runs
        return runs * max(self._evaluator.pace or 0.0, self._evaluator.pace_apart or 0.0)

    def context(self, number: int, account: Account) -> Lab:
        """A place to work of its own: another branch, other trials, another account; the same start.

        What is tried there joins the trials here as it comes.
        """
        other = copy.copy(self)
        other.account = account
        other.trials = []
        other._run_lab = self
        other._payer = self._payer.beside(account, str(number))
        other.models = self.models and self.models.paid_from(account)
        other._tip = self._base
        other._branch = f"{self._prefix}/{number}"
        other.name = str(number)
        return other

    def recorded(self, key: str, make: Callable[[], str]) -> str:
        """What this run has on record under a key, or what `make` gives, which is kept.

        For what would not come out the same again, so that a run can go on, or be replayed.
        """
        key = f"{self.name} {key}"
        known = self._ledger.recall(self._run.id, key)
        if known is None:
            known = make()
            self._ledger.remember(self._run.id, key, known)
        return known

    def remember(self, key: str, value: str) -> None:
        """Put something on record that comes out the same again, in the place of what stood there."""
        self._ledger.remember(self._run.id, f"{self.name} {key}", value)

    def ending(self, place: str) -> AbstractContextManager[None]:
        """Around what may come to the end of the budget: as it came out before (`pytest_glia.ends`)."""
        return on_record(self._ledger, self._run.id, f"{self.name} {place}", self.account)

    @property
    def folder(self) -> Path:
        """Where what belongs to this run is kept for people to read; it may not exist yet."""
        return self._ledger.folder / "runs" / self._run.id

    def tables(self, key: str) -> Path:
        """The file of the tables with that key (`Evaluation.tables`), NumPy's npz."""
        return self._ledger.tables / f"{key}.npz"

    def look(
        self,
        sources: Mapping[str, bytes],
        replications: int,
        *,
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
    ) -> Evaluation:
        """What some sources show on the first development seeds, in a scenario; no candidate comes of it.

        A source that breaks a rule is an evaluation with that error. `inspected`: its tables are kept.
        """
        on = self._seeds[:replications]
        if broken := self.fault(sources):
            return Evaluation(sources, on, {}, {"": broken})
        try:
            return self._evaluator.look(sources, on, self._payer, scenario=scenario, inspected=inspected)
        except EvaluatorFailed as error:
            return Evaluation(sources, on, {}, {"": str(error).splitlines()[0]})

    def fault(self, sources: Mapping[str, bytes]) -> str | None:
        """The rule that some sources break, in a sentence; None if they break none."""
        allowed = self.settings.allow_imports
        faults = (fault(each, sources[each.path], allowed, self.read) for each in self.candidates)
        return next((each for each in faults if each), None)

    def read(self, path: str) -> bytes | None:
        """A file of the base commit that the specs expose; None for any other."""
        exposed = {path for each in self.candidates for path in each.exposes}
        return self._repository.read(self._base, path) if path in exposed else None

    def best(self) -> Evaluation:
        """Of the candidates with the most replications the one of least loss, or the start.

        Those that meet all specs here, shown, come first: they will most likely do so on other seeds.
        """
        most = max((len(trial.evaluation.seeds) for trial in self.trials), default=0)
        tried = [trial.evaluation for trial in self.trials if len(trial.evaluation.seeds) == most]
        best = min(tried, key=lambda each: (not each.met(), self.aim.loss(each)), default=self.start)
        return best if self._change(best, self.start).mean < 0 else self.start

    def front(self) -> Front:
        """Of the present candidate and all that were tried, those that no other is shown to beat."""
        contenders = [Contender(0, AS_IT_IS, self._base, self.start)]
        for each in self.trials:
            refuted = dict(each.evaluation.sources) in self.refuted
            contenders.append(
                Contender(each.number, each.hypothesis.name, each.commit, each.evaluation, refuted)
            )
        return Front.of(contenders, self.aim, self.settings.margin, self.settings.confidence)

    def say(self, text: str) -> None:
        """Show a line of the designer's reasoning with the progress."""
        for line in textwrap.wrap(text, 74):
            self._write(f"      {line}")

    def _try(
        self, sources: Mapping[str, bytes], hypothesis: Hypothesis, against: Evaluation, looks: Sequence[int]
    ) -> Trial:
        broken = self.fault(sources)
        evaluation = Evaluation(sources, self._seeds[: looks[0]], {}, {"": broken} if broken else {})
        for n in looks if broken is None else ():
            try:
                evaluation = self._evaluate(sources, self._seeds[:n])
            except EvaluatorFailed as error:
                evaluation = Evaluation(sources, self._seeds[:n], {}, {"": str(error).splitlines()[0]})
            if self._change(evaluation, against).mean >= 0:
                break
        return self._kept(self._number(sources), hypothesis, evaluation, against, looks[-1])

    def _kept(
        self, number: int, hypothesis: Hypothesis, evaluation: Evaluation, against: Evaluation, look: int
    ) -> Trial:
        """A candidate that was tried, judged, committed and shown; `look` is how far it was to go."""
        # By now the pace is known better.
        self.hold(self._ablations)
        change = self._change(evaluation, against)
        result = result_of(change, self.settings.margin)
        commit = self._commit(number, evaluation, hypothesis, change, result)
        # Contexts side by side: in the order in which the run had paid for them.
        with self._keeping:
            trial = Trial(number, hypothesis, evaluation, change, result, commit, self._simulations)
            self.trials.append(trial)
            if self._run_lab is not None:
                self._run_lab.trials.append(trial)
        self._note(number, hypothesis.name, evaluation, result)
        decided = look == len(self._seeds) or result == "broken"
        self._line(str(number), hypothesis.name, evaluation, result if decided else "")
        return trial

    def _note(self, number: int, name: str, evaluation: Evaluation, result: str) -> None:
        """Put on record what a candidate has shown, and what the run had spent by then."""
        check = evaluation.checks.get(self.aim.primary) if self.aim.primary else None
        loss = self.aim.loss(evaluation)
        row = {
            "number": number,
            "name": name,
            "seeds": len(evaluation.seeds),
            "loss": loss if math.isfinite(loss) else None,
            "measured": check.point if check and math.isfinite(loss) else None,
            "result": result,
            "spent": self._whole.own,
        }
        self.recorded(f"trial {len(self.trials)}", lambda: json.dumps(row))

    @property
    def _simulations(self) -> int:
        """That the run has paid for, in all of its contexts."""
        return int(self._whole.own.get("simulations", 0))

    def _change(self, of: Evaluation, against: Evaluation) -> Interval:
        return self.aim.change(of, against, self._confidence)

    def _evaluate(self, sources: Mapping[str, bytes], on: tuple[int, ...]) -> Evaluation:
        return self._evaluator.look(sources, on, self._payer)

    def _number(self, sources: Mapping[str, bytes]) -> int:
        """The candidate's number: its first, if it is evaluated again with more replications."""
        for trial in self.trials:
            if dict(trial.evaluation.sources) == dict(sources) != dict(self.start.sources):
                return trial.number
        return self._new_number()

    def _new_number(self) -> int:
        return 1 + max((trial.number for trial in self.trials), default=0)

    def _commit(
        self, number: int, evaluation: Evaluation, hypothesis: Hypothesis, change: Interval, result: Result
    ) -> str:
        told = message(number, hypothesis, evaluation, change, result)
        trailers = {
            "Glia-Run": self._run.id,
            "Glia-Candidate": ", ".join(each.path for each in self.candidates),
            "Glia-Replications": f"{len(evaluation.seeds)} on development seeds",
            "Glia-Evidence": json.dumps({name: short(value) for name, value in evaluation.evidence.items()}),
        }
        footer = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        self._tip = self._repository.commit(
            self._tip,
            self._base,
            evaluation.sources,
            f"{told}\n\n{footer}\n",
            self._branch,
            self._run.started,
        )
        return self._tip

    def _legend(self) -> None:
        """The head of the table of candidates: its columns are what the failing specs measure."""
        columns = list(zip("ab", self._columns(self.start), strict=False))
        for letter, check in columns:
            self._write(f"  ({letter}) {check.what()}, asked {check.demand()}")
        letters = "".join(f"     ({letter})" for letter, _ in columns)
        self._write(f"{'#':>3} {'seeds':>5} {'sims':>5} {'time':>5} {'what was tried':<{_NAME}}{letters}")

    def _line(self, number: str, name: str, evaluation: Evaluation, result: str) -> None:
        spent = f"{len(evaluation.seeds):5} {self._simulations:5} {self._whole.own['seconds']:3.0f} s"
        shown = "".join(f" {check.estimate():>7}" for check in self._columns(evaluation))
        self._write(f"{number:>3} {spent} {_fitted(name, _NAME)}{shown} {result}".rstrip())
        for reason in evaluation.reasons:
            self.say(reason)

    def _columns(self, evaluation: Evaluation) -> list[Check]:
        """The first two of the failing specs' different quantities."""
        goals = [which for which in self.aim.known if which[0] in self.failing]
        return distinct([evaluation.checks[which] for which in goals if which in evaluation.checks])[:2]


def _fitted(label: str, width: int) -> str:
    """A label cut to a width so that the numbers at its end stay."""
    if len(label) <= width:
        return label.ljust(width)
    words = label.split()
    numbers = [word for word in words if word[:1].isdigit()]
    tail = " ".join(["", *numbers]) if len(numbers) < len(words) else ""
    return (label[: width - len(tail) - 1].rstrip() + "~" + tail).ljust(width)[:width]
