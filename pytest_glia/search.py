"""One search: from the failing specs of a group of candidates to a branch that meets them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import pytest

from pytest_glia import seeds
from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.candidate import Candidate, fault
from pytest_glia.decisions import probes_of
from pytest_glia.delivery import Delivery
from pytest_glia.designers import Designer, Proposal
from pytest_glia.designers.best_of_n import BestOfN
from pytest_glia.designers.command import CommandDesigner
from pytest_glia.designers.eoh import EoH
from pytest_glia.designers.funsearch import FunSearch
from pytest_glia.designers.glia import GliaDesigner
from pytest_glia.designers.mcp import McpDesigner
from pytest_glia.designers.offline import OfflineDesigner
from pytest_glia.designers.openevolve import OpenEvolveDesigner
from pytest_glia.designers.problem import problem_statement
from pytest_glia.domains import manager, mechanisms
from pytest_glia.evaluator import SLOWER, Evaluator
from pytest_glia.hookspecs import Mechanism
from pytest_glia.lab import Lab
from pytest_glia.last_stage import on_hardware
from pytest_glia.ledger import Command, Ledger, Run
from pytest_glia.merit import Evaluation, recorded_by
from pytest_glia.misuse import Misuse
from pytest_glia.models import ModelFailed
from pytest_glia.models.threads import Threads, asked_by
from pytest_glia.models.transcript import write_conversation
from pytest_glia.next_best import next_confirmed
from pytest_glia.payer import Payer
from pytest_glia.repository import Repository
from pytest_glia.sequential import confirmation_seeds
from pytest_glia.settings import Settings
from pytest_glia.summary import show
from pytest_glia.visible import visible

REPLAYED = "PYTEST_GLIA_REPLAYED"
"""The environment variable that names the run that a process repeats from its record."""

_PATIENCE = 10.0
"""Seconds that a replication may take at least: then a slow machine is no reason to kill it."""


class Search:
    """One run: from the failing specs of some candidates to a branch that meets them.

    Args:
        candidates: What the specs name, each file and entry once.
        items: The specs.
        account: Of the budget, with what earlier searches of the same command have spent.
        hardware: The testbed on which a confirmed design is run at last; empty for none.

    What it has come to at any time is in its attributes, for a report: ``outcome``, the reports ``before``
    it began, its ``lab`` and its ``delivery``.

    Raises:
        Misuse: something must be changed before a search can begin.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        ledger: Ledger,
        candidates: tuple[Candidate, ...],
        items: list[pytest.Item],
        account: Account,
        hardware: str = "",
    ) -> None:
        self.hardware = hardware
        self.config = config
        self.settings = settings
        self.ledger = ledger
        self.candidates = candidates
        self.items = items
        self.outcome = "failed"
        self.delivered: list[str] = []
        self.opened: Run | None = None
        self._goes_on = False
        self.before: list[pytest.TestReport] = []
        self.lab: Lab | None = None
        self.delivery: Delivery | None = None
        self.paths = "+".join(dict.fromkeys(each.path for each in candidates))
        self.name = "+".join(dict.fromkeys(each.name for each in candidates))
        self.nodeids = tuple(item.nodeid for item in items)
        domains, problems = manager(config)
        self._hooks = domains.hook
        for problem in problems:
            self.write(f"glia: {problem}")
        # A replay asks nobody, and no clock: it does what is on record.
        self._replayed = os.environ.get(REPLAYED)
        self.designer = self._find_designer()
        self._model = None if self._replayed else asked_by(self.designer, settings, account)
        account.timed = not self._replayed
        self.repository = Repository(config.rootpath)
        self.base = self.repository.head()
        self.sources = {each.path: self._committed(each) for each in candidates}
        self._refuse_changes()
        if self.repository.tip("glia"):
            raise Misuse(
                'there is a branch "glia", so git cannot make branches "glia/...": rename it (git '
                "branch -m glia another-name)"
            )
        self.account = account
        self.evaluator = Evaluator(
            config,
            settings,
            self.repository,
            ledger,
            self.account,
            candidates,
            self.base,
            self.nodeids,
            self.write,
        )

    def close(self) -> None:
        """End the child, and contexts that are still at work; write down how the run ended."""
        self.account.closed = True
        self.evaluator.close()
        if self.opened:
            self.ledger.end(self.opened.id, self.outcome)
            write_conversation(self.ledger, self.opened.id)

    def run(self) -> list[pytest.TestReport]:
        """The reports that stand at the end: of the candidates as they are, or of the winner, confirmed."""
        what = ", ".join(f"{each.path} ({each.entry})" for each in self.candidates)
        self.write("")
        self._title(f"glia: {what}")
        exposed = partial(self.repository.read, self.base)
        for each in self.candidates:
            if error := fault(each, self.sources[each.path], self.settings.allow_imports, exposed):
                raise Misuse(f"{error}; correct and commit it, so that there is something to start from")
        self.write(f"The specs at {self.base[:9]}, on guard seeds:")
        try:
            chosen = seeds.guard(self.settings.guard_seeds, self.settings.replications)
            before = self.evaluator.first_look(self.sources, chosen)
        except BudgetExhausted as error:
            raise Misuse(_too_small(error, "the present candidate was seen")) from None
        show(self.write, before)
        self.before = before
        failing = [report.nodeid for report in before if report.failed]
        if not failing:
            self.outcome = "nothing to do"
            self.write("No spec fails: nothing to do, and nothing of the budget was spent.")
            return before
        self._refuse_to_start(before)
        return self._search(failing, before)

    def _search(self, failing: Sequence[str], before: list[pytest.TestReport]) -> list[pytest.TestReport]:
        opened = self.opened = self._begin()
        self.account.follows(
            {
                kind: self.ledger.once(opened.id, f"before: {kind}", self.account.spent.get(kind, 0.0))
                for kind in ("simulations", "tokens", "dollars", "gpu_minutes")
            }
        )
        payer = Payer(opened.id, self.account)
        prefix = f"glia/{self.name}/{opened.id}"
        asks = f", model {self._model.name}" if self._model else ""
        self.write(f"Designer {self.settings.designer}{asks}; at most {self.settings.budget}")
        contexts = ", and so on, one a context" if self.settings.contexts != "1" else ""
        self.write(f"Each candidate is a commit on {prefix}/1{contexts}")
        self.write("")
        try:
            lab = self.lab = self._lab(failing, prefix, opened, payer, recorded_by(before))
            pace = self.evaluator.pace
            if pace is not None or self._goes_on:
                longest = max(_PATIENCE, SLOWER * (pace or 0.0) * self.settings.workers)
                # The same in each process of the run: what is killed at its deadline is told with it.
                longest = self.ledger.once(opened.id, "timeout", longest)
                self.evaluator.timeout = min(self.settings.timeout, longest)
            if lab.apart:
                self._rehearse(lab, opened)
            proposal = self._design(lab)
            deliver = partial(Delivery, self, lab, run=opened, payer=payer, prefix=prefix)
            delivery = self.delivery = deliver(proposal)
            reports = delivery.confirm(before)
            if delivery.refuted and (found := next_confirmed(lab, proposal, deliver, before, self.write)):
                delivery, reports = found
                self.delivery = delivery
            self.outcome = "passed" if delivery.passed else "not met"
            self.delivered += [*delivery.deliver(), *lab.front().told()]
            # A replay repeats what the record determines; hardware is not of that.
            if self.hardware and delivery.passed and delivery.improved and not self._replayed:
                reports = on_hardware(self, delivery, reports)
                if any(report.failed for report in reports):
                    self.outcome = "not met"
        except BudgetExhausted as error:
            self.outcome = "budget spent"
            self.delivered.append(f"{self.name}: {_too_small(error, 'the first candidate was tried')}")
            return before
        except ModelFailed as error:
            raise Misuse(f"{error}; no candidate was tried") from None
        except KeyboardInterrupt:
            self.outcome = "interrupted"
            self.account.closed = True
            tried = len(self.lab.trials) if self.lab else 0
            branches = ", ".join(sorted(self.repository.branches(f"{prefix}/")))
            where = f"the candidates so far are on {branches}; " if tried else ""
            self.write(f"Interrupted after {tried} candidates: {where}a new run reuses what they cost.")
            raise
        return reports

    def _rehearse(self, lab: Lab, run: Run) -> None:
        """See how long the confirmation takes, and whether it can be: the present candidate, on two seeds.

        Raises `Misuse` if what can be evaluated elsewhere cannot be there.
        """
        known = self.ledger.recall(run.id, "pace apart")
        if known is None:
            if problem := self.evaluator.rehearse(self.sources, run.secret).problem:
                raise Misuse(problem)
            known = str(self.evaluator.pace_apart)
            self.ledger.remember(run.id, "pace apart", known)
        self.evaluator.take_pace_apart(None if known == "None" else float(known))
        if (seconds := lab.confirmation_seconds) >= 1:
            lab.say(f"Rehearsed: to confirm a design will take some {seconds:.0f} s.")

    def _begin(self) -> Run:
        """Open a run, or go on with one that was killed."""
        invocation = self.config.invocation_params
        folder = Path(os.path.relpath(Path(invocation.dir).resolve(), self.repository.top)).as_posix()
        addopts = os.environ.get("PYTEST_ADDOPTS", "")
        command = Command(tuple(map(str, invocation.args)), folder, addopts)
        for killed in () if hasattr(self.designer, "tries_nothing") else self.ledger.killed(self.paths):
            if (killed.base, killed.designer) == (self.base, self.settings.designer):
                self.write(f"Run {killed.id} was killed. It goes on: what it paid for is not paid again.")
                self.account.earlier = self.ledger.once(killed.id, "elapsed", 0.0)
                self._goes_on = True
                self.ledger.goes_on(killed.id, command)
                return killed
            self.write(f"Run {killed.id} was killed; its candidates stay on glia/{self.name}/{killed.id}/1")
            self.ledger.end(killed.id, "killed")
        return self.ledger.begin(self.paths, self.base, self.settings.designer, command)

    def _design(self, lab: Lab) -> Proposal:
        try:
            return self.designer.design(lab)
        except (BudgetExhausted, ModelFailed) as error:
            if not lab.trials:
                raise
            self.write(f"      The search ended because {error}.")
            return Proposal(lab.best(), remark=f"The search ended because {error}.")

    def _lab(
        self, failing: Sequence[str], prefix: str, run: Run, payer: Payer, domains: Collection[str]
    ) -> Lab:
        ideas: dict[str, list[Mechanism]] = {path: [] for path in self.sources}
        for each in self.candidates:
            source = self.sources[each.path].decode("utf-8", "replace")
            ideas[each.path] += mechanisms(self._hooks, each.path, each.entry, source)
        settings = self.settings
        attempts = self.ledger.attempts(self.paths, run)
        return Lab(
            candidates=self.candidates,
            nodeids=self.nodeids,
            mechanisms=ideas,
            evaluator=self.evaluator,
            ledger=self.ledger,
            payer=payer,
            repository=self.repository,
            settings=settings,
            base=self.base,
            prefix=prefix,
            run=run,
            failing=failing,
            domains=domains,
            sealed=confirmation_seeds(settings.replications, settings.confidence, attempts + 1),
            sources=self.sources,
            statement=self._statement,
            write=self.write,
            models=self._threads(run),
        )

    @cached_property
    def _statement(self) -> Callable[[Evaluation, Mapping[str, str], Sequence[str]], str]:
        """The problem in words, once it is known what the start measures and what can be changed."""
        settings = self.settings
        return partial(
            problem_statement,
            self.candidates,
            self.items,
            exposed=self._exposed(),
            timeout=settings.timeout,
            budget=settings.budget,
            replications=settings.replications,
            allow_imports=settings.allow_imports,
        )

    def _exposed(self) -> dict[str, str]:
        """The texts of the files that the specs expose, as far as the base commit has them."""
        paths = dict.fromkeys(path for each in self.candidates for path in each.exposes)
        found = {path: self.repository.read(self.base, path) for path in paths}
        return {path: text.decode("utf-8", "replace") for path, text in found.items() if text is not None}

    def _threads(self, run: Run) -> Threads | None:
        if self._model is None and not (self._replayed and getattr(self.designer, "uses_model", False)):
            return None
        return Threads(self.settings.model, self._model, self.ledger, self.account, run.id)

    def _refuse_to_start(self, before: Sequence[pytest.TestReport]) -> None:
        """A search needs specs that can be evaluated, and a budget that can confirm a winner.

        And a model must have room for the problem, what is measured of it apart.
        """
        if self._model:
            unseen = Evaluation(self.sources, (), {}, {})
            self.settings.model.refuse_statement(self._statement(unseen, {}, []))
        for report in before:
            broken = getattr(report, "glia_broken", None)
            if report.failed and report.when == "setup":
                broken = report.longreprtext.strip().splitlines()[-1]
            if broken and report.failed:
                name = report.nodeid.rpartition("::")[2]
                raise Misuse(
                    f"the spec {name} cannot be evaluated for the present candidate, so there is nothing to "
                    f"start from; correct and commit that first. {broken}"
                )
        look = len(self.evaluator.needed_simulations)
        least = 2 * look
        if recorded_by(before):
            least += look + probes_of(look, self.settings.replications)
        if self.settings.budget.simulations < least:
            raise Misuse(
                f"the budget of {self.settings.budget} is too small: to look at the present candidate and to "
                f"confirm one takes {least} simulations"
            )

    def _find_designer(self) -> Designer:
        designers: dict[str, Designer] = {
            "offline": OfflineDesigner(),
            "glia": GliaDesigner(),
            "best-of-n": BestOfN(),
            "funsearch": FunSearch(),
            "eoh": EoH(),
            "openevolve": OpenEvolveDesigner(),
            "command": CommandDesigner(),
            "mcp": McpDesigner(),
        }
        for more in self._hooks.glia_designers():
            designers |= more
        if self.settings.designer not in designers:
            raise Misuse(
                f"there is no designer {self.settings.designer!r}: --glia-designer takes "
                f"{', '.join(sorted(designers))}"
            )
        designer = designers[self.settings.designer]
        check = getattr(designer, "check", None)
        if check and not self._replayed:
            check(self.settings)
        return designer

    def _committed(self, candidate: Candidate) -> bytes:
        source = self.repository.read(self.base, candidate.path)
        if source is None:
            present = (self.config.rootpath / candidate.path).exists()
            advice = (
                "commit it" if present else "create and commit it, or correct candidate=... in the marker"
            )
            raise Misuse(f"the candidate {candidate.path} is not in the commit {self.base[:9]}: {advice}")
        if self.repository.is_link(self.base, candidate.path):
            raise Misuse(
                f"the candidate {candidate.path} is a symbolic link: name the file that it points to"
            )
        try:
            source.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Misuse(
                f"the candidate {candidate.path} is not UTF-8 ({error}): save it as UTF-8, so that it can be "
                "edited"
            ) from None
        if source.startswith(b"\xef\xbb\xbf"):
            raise Misuse(f"the candidate {candidate.path} begins with a byte-order mark: save it without")
        return source

    def _refuse_changes(self) -> None:
        """What is measured is the commit: a changed candidate or spec would not be what the user sees."""
        changed = self.repository.changed()
        specs = [item.nodeid.partition("::")[0] for item in self.items]
        root = self.config.rootpath
        loaded = [
            getattr(plugin, "__file__", None) or "" for plugin in self.config.pluginmanager.get_plugins()
        ]
        conftests = [
            Path(file).relative_to(root).as_posix()
            for file in loaded
            if Path(file).name == "conftest.py" and Path(file).is_relative_to(root)
        ]
        for path in [*self.sources, *specs, *conftests]:
            if self.repository.inside(path) in changed:
                raise Misuse(
                    f"{path} has changes that are not committed: --glia-optimize starts from the commit "
                    f"{self.base[:9]}; commit or stash them"
                )
        if changed:
            self.write(
                f"glia: {len(changed)} other changed or untracked files (such as {changed[0]}) play no part: "
                f"the commit {self.base[:9]} is what is evaluated"
            )

    def write(self, text: str) -> None:
        """Show a line of progress, in which no words of a designer or a model steer the terminal."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(visible(text))
            terminal.flush()

    def _title(self, text: str) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_sep("=", text)


def _too_small(error: BudgetExhausted, event: str) -> str:
    return f"{error} before {event}: give a larger --glia-budget"
