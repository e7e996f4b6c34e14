"""One search: from the failing specs of a group of candidates to a branch that meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pytest_glia import seeds
from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.candidate import Candidate, fault
from pytest_glia.delivery import Delivery
from pytest_glia.designers import Designer
from pytest_glia.designers.offline import OfflineDesigner
from pytest_glia.domains import manager
from pytest_glia.estimate import Check
from pytest_glia.evaluator import Evaluator, Job
from pytest_glia.lab import Lab
from pytest_glia.ledger import Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.repository import Repository
from pytest_glia.settings import Settings

Group = tuple[Candidate, ...]


@dataclass
class Search:
    """One run: from the failing specs of one group of candidates to a branch that meets them."""

    config: pytest.Config
    settings: Settings
    ledger: Ledger
    candidates: Group
    items: list[pytest.Item]
    account: Account = field(init=False)
    outcome: str = "failed"
    delivered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        hooks, problems = manager(self.config)
        self.hooks = hooks.hook
        for problem in problems:
            self.write(f"glia: {problem}")
        self.designer = self._find_designer()
        self.repository = Repository.of(self.config.rootpath)
        self.base = self.repository.head()
        self.sources = {each.path: self._committed(each) for each in self.candidates}
        self._refuse_changes()
        self.account = Account(self.settings.budget)
        self.name = "+".join(each.name for each in self.candidates)
        self.nodeids = tuple(item.nodeid for item in self.items)
        self.evaluator = Evaluator(
            self.config,
            self.settings,
            self.repository,
            self.ledger,
            self.account,
            self.candidates,
            self.base,
            self.nodeids,
        )
        self.run_id = ""

    def close(self) -> None:
        """End the child; write down how the run ended."""
        self.evaluator.close()
        if self.run_id:
            self.ledger.end(self.run_id, self.outcome)

    def run(self) -> list[pytest.TestReport]:
        """The reports that stand at the end: of the candidates as they are, or of the winner, confirmed."""
        what = ", ".join(f"{each.path} ({each.entry})" for each in self.candidates)
        self.write("")
        self._title(f"glia: {what}")
        self.write(f"The specs at {self.base[:9]}, on guard seeds:")
        guard = seeds.known("guard", self.settings.replications)
        before = self.evaluator.run(Job(self.sources, guard, self.nodeids, charged=False, lenient=False))
        _show(self.write, before)
        failing = [report.nodeid for report in before if report.failed]
        if not failing:
            self.write("No spec fails: nothing to do, and nothing was spent.")
            return before
        least = 2 * len(self.evaluator.needed_simulations)
        if self.settings.budget.simulations < least:
            raise Misuse(
                f"the budget of {self.settings.budget} is too small: to look at the present candidate and to "
                f"confirm one takes {least} simulations"
            )
        for error in (fault(each, self.sources[each.path]) for each in self.candidates):
            if error:
                raise Misuse(f"{error}; correct and commit it, so that there is something to start from")
        return self._search(failing)

    def _search(self, failing: Sequence[str]) -> list[pytest.TestReport]:
        paths = "+".join(each.path for each in self.candidates)
        for killed in self.ledger.killed(paths):
            self.write(
                f"Run {killed} was killed. What it paid for is reused; its candidates stay on\n"
                f"  glia/{self.name}/{killed}/..."
            )
            self.ledger.end(killed, "killed")
        self.run_id, secret = self.ledger.begin(
            paths, self.base, self.settings.designer, str(self.settings.budget)
        )
        prefix = f"glia/{self.name}/{self.run_id}"
        self.write(f"Designer {self.settings.designer}; at most {self.settings.budget}; branch {prefix}/1")
        self.write("")
        try:
            lab = self._lab(failing, f"{prefix}/1")
            proposal = self.designer.design(lab)
            delivery = Delivery(self, lab, proposal, secret, prefix)
            reports = delivery.confirm()
            self.outcome = "passed" if delivery.passed else "not met"
            self.delivered += delivery.commit()
        except BudgetExhausted as error:
            raise Misuse(
                f"{error} before the first candidate was evaluated: give a larger --glia-budget"
            ) from None
        except KeyboardInterrupt:
            self.outcome = "interrupted"
            self.write(
                f"Interrupted. The candidates so far are on {prefix}/1; a new run reuses what they cost."
            )
            raise
        return reports

    def _lab(self, failing: Sequence[str], branch: str) -> Lab:
        return Lab(
            candidates=self.candidates,
            nodeids=self.nodeids,
            mechanisms={
                each.path: [
                    mechanism
                    for ideas in self.hooks.glia_mechanisms(
                        path=each.path, entry=each.entry, source=self.sources[each.path].decode()
                    )
                    for mechanism in ideas
                ]
                for each in self.candidates
            },
            evaluator=self.evaluator,
            account=self.account,
            repository=self.repository,
            settings=self.settings,
            base=self.base,
            branch=branch,
            run=self.run_id,
            failing=failing,
            sources=self.sources,
            write=self.write,
        )

    def _find_designer(self) -> Designer:
        designers: dict[str, Designer] = {"offline": OfflineDesigner()}
        for more in self.hooks.glia_designers():
            designers |= more
        if self.settings.designer not in designers:
            raise Misuse(
                f"there is no designer {self.settings.designer!r}: --glia-designer takes "
                f"{', '.join(sorted(designers))}"
            )
        return designers[self.settings.designer]

    def _committed(self, candidate: Candidate) -> bytes:
        source = self.repository.read(self.base, candidate.path)
        if source is None:
            present = (self.config.rootpath / candidate.path).exists()
            advice = (
                "commit it" if present else "create and commit it, or correct candidate=... in the marker"
            )
            raise Misuse(f"the candidate {candidate.path} is not in the commit {self.base[:9]}: {advice}")
        return source

    def _refuse_changes(self) -> None:
        """What is measured is the commit: a changed candidate or spec would not be what the user sees."""
        specs = {item.nodeid.partition("::")[0] for item in self.items}
        for path in [*(each.path for each in self.candidates), *sorted(specs)]:
            if self.repository.changed([path]):
                raise Misuse(
                    f"{path} has changes that are not committed: --glia-optimize starts from the commit "
                    f"{self.base[:9]}; commit or stash them"
                )
        others = self.repository.changed()
        if others:
            self.write(
                f"glia: {len(others)} other changed or untracked files (such as {others[0]}) play no part: "
                f"the commit {self.base[:9]} is what is evaluated"
            )

    def write(self, text: str) -> None:
        """Show a line of progress."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(text)
            terminal.flush()

    def _title(self, text: str) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_sep("=", text)


def _show(write: object, reports: Sequence[pytest.TestReport]) -> None:
    """A line a comparison, and one for a test that ended otherwise."""
    assert callable(write)
    for report in reports:
        name = report.nodeid.rpartition("::")[2]
        checks = [Check.from_json(data) for data in getattr(report, "glia", ())]
        for check in checks:
            mark = "pass" if check.outcome == "shown" else "FAIL"
            write(f"  {mark}  {name[:70]}")
            write(f"        {check.what()}")
            write(f"        {check.describe()}")
        if report.failed and all(check.outcome == "shown" for check in checks):
            write(f"  FAIL  {name}")
            write(f"        {report.longreprtext.strip().splitlines()[-1][:200]}")
        elif report.skipped:
            write(f"  skip  {name}")
