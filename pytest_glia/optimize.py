"""``--glia-optimize``: failing specs are goals, passing ones constraints; search, confirm, deliver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pluggy
import pytest

from pytest_glia import seeds
from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.candidate import Candidate, SpecError, fault
from pytest_glia.designers import Claim, Designer, Proposal
from pytest_glia.designers.offline import OfflineDesigner
from pytest_glia.estimate import Check
from pytest_glia.evaluator import Evaluator, EvaluatorFailed, Job
from pytest_glia.hooks import manager
from pytest_glia.lab import Lab
from pytest_glia.ledger import Ledger
from pytest_glia.merit import Evaluation
from pytest_glia.note import Ablation, Record, design_note
from pytest_glia.repository import Repository
from pytest_glia.settings import Settings

Group = tuple[Candidate, ...]


class Optimizer:
    """The plugin that takes over pytest's run loop when ``--glia-optimize`` is given."""

    def __init__(self, config: pytest.Config) -> None:
        if config.getoption("numprocesses", None):
            raise pytest.UsageError(
                "--glia-optimize does not go with -n: it runs replications in parallel itself "
                "(setting glia_workers); leave out -n, or give -n 0"
            )
        self._config = config
        self._settings = Settings.from_config(config)
        self._delivered: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Design for each group of specs that share their candidates, then run the other tests as ever."""
        if session.testsfailed or self._config.option.collectonly:
            return None
        try:
            groups, others = _grouped(session.items)
            if not groups:
                pytest.exit(
                    "--glia-optimize: no selected test has a glia marker", pytest.ExitCode.NO_TESTS_COLLECTED
                )
            for candidates, items in groups.items():
                self._run_group(candidates, items)
        except (SpecError, EvaluatorFailed) as error:
            raise pytest.UsageError(f"--glia-optimize: {error}") from None
        for position, item in enumerate(others, start=1):
            following = others[position] if position < len(others) else None
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the designs are, and how to take one."""
        if self._delivered:
            terminalreporter.write_sep("=", "glia designs")
            for line in self._delivered:
                terminalreporter.write_line(line)

    def _run_group(self, candidates: Group, items: list[pytest.Item]) -> None:
        ledger = Ledger(self._config.rootpath)
        search = None
        try:
            ledger.lock("+".join(each.path for each in candidates))
            search = _Search(self._config, self._settings, ledger, candidates, items)
            reports = search.run()
            self._delivered += search.delivered
        finally:
            if search is not None:
                search.close()
            ledger.close()
        _replay(items, reports)


@dataclass
class _Search:
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
        self._write("")
        self._title(f"glia: {what}")
        self._write(f"The specs at {self.base[:9]}, on guard seeds:")
        guard = seeds.known("guard", self.settings.replications)
        before = self._evaluate(self.sources, guard, charged=False)
        _show(self._write, before)
        failing = [report.nodeid for report in before if report.failed]
        if not failing:
            self._write("No spec fails: nothing to do, and nothing was spent.")
            return before
        for error in (fault(each, self.sources[each.path]) for each in self.candidates):
            if error:
                raise SpecError(f"{error}; correct and commit it, so that there is something to start from")
        return self._search(failing)

    def _search(self, failing: Sequence[str]) -> list[pytest.TestReport]:
        paths = "+".join(each.path for each in self.candidates)
        for killed in self.ledger.killed(paths):
            self._write(
                f"Run {killed} was killed. What it paid for is reused; its candidates stay on\n"
                f"  glia/{self.name}/{killed}/..."
            )
            self.ledger.end(killed, "killed")
        self.run_id, secret = self.ledger.begin(
            paths, self.base, self.settings.designer, str(self.settings.budget)
        )
        prefix = f"glia/{self.name}/{self.run_id}"
        self._write(f"Designer {self.settings.designer}; at most {self.settings.budget}; branch {prefix}/1")
        self._write("")
        self._write(
            f"{'#':>5} {'sims':>5} {'time':>6}  {'what was tried':<32} the first measures of the specs"
        )
        try:
            lab = self._lab(failing, f"{prefix}/1")
            proposal = self.designer.design(lab)
        except BudgetExhausted as error:
            raise SpecError(
                f"{error} before the first candidate was evaluated: give a larger --glia-budget"
            ) from None
        except KeyboardInterrupt:
            self.outcome = "interrupted"
            self._write(
                f"Interrupted. The candidates so far are on {prefix}/1; a new run reuses what they cost."
            )
            raise
        return self._deliver(lab, proposal, secret, prefix)

    def _deliver(self, lab: Lab, proposal: Proposal, secret: bytes, prefix: str) -> list[pytest.TestReport]:
        """Confirm the winner on sealed seeds, ablate it there, commit it with its note."""
        winner = proposal.evaluation.sources
        improved = dict(winner) != self.sources
        content = "+".join(self.repository.blob(winner[each.path]) for each in self.candidates)
        sealed = seeds.sealed(secret, content, self.settings.replications)
        self.account.held_simulations, self.account.held_seconds = 0, 0.0
        self._write("")
        self._write(f"Confirming on {len(sealed)} seeds that no search has seen:")
        reports = self._evaluate(winner, sealed, charged=True)
        failed = {report.nodeid for report in reports if report.failed}
        passed = not failed
        self._write(f"  {len(self.nodeids) - len(failed)} of {len(self.nodeids)} specs pass")
        self.outcome = "passed" if passed else "not met"
        if not improved:
            self.delivered.append(
                f"{self.name}: no better candidate than the present one was found, so there is no best branch"
            )
            return reports
        confirmed = Evaluation.of(winner, sealed, reports)
        ablations = self._ablate(lab, proposal.claims, confirmed, sealed)
        record = Record(
            run=self.run_id,
            designer=self.settings.designer,
            budget=self.settings.budget,
            spent=self.account,
            base=self.base,
            secret=secret,
            blob=content,
            start=lab.start,
            proposal=proposal,
            confirmed=confirmed,
            passed=passed,
            ablations=ablations,
            trials=lab.trials,
            aim=lab.aim,
        )
        files = dict(winner)
        for candidate in self.candidates:
            files[candidate.note_path] = design_note(candidate, record).encode()
        verdict = "meets its specs" if passed else "best so far"
        title = f"{self.name}: {verdict} ({self.settings.designer} designer)"
        message = f"{title}\n\n{record.summary()}\n\nGlia-Run: {self.run_id}\n"
        best = self.repository.commit(self.base, self.base, files, message, f"{prefix}/best")
        note = self._in_repository(self.candidates[0].note_path)
        self.delivered += [
            f"{self.name}: {'meets its specs' if passed else 'NOT met; the best so far'} ({best[:9]})",
            f"  how it works: git show {prefix}/best:{note}",
            f"  to take it:   git merge {prefix}/best",
        ]
        return reports

    def _ablate(
        self, lab: Lab, claims: Sequence[Claim], confirmed: Evaluation, sealed: tuple[int, ...]
    ) -> dict[str, Ablation]:
        """The winner without each of its ideas, on the confirmation seeds."""
        ablations: dict[str, Ablation] = {}
        if claims:
            self._write("Without each idea, on the same seeds (above zero: worse without it):")
        for claim in claims:
            job = Job(claim.without, sealed, self.nodeids, charged=True, lenient=True)
            try:
                evaluation = Evaluation.of(claim.without, sealed, self.evaluator.run(job))
            except BudgetExhausted:
                self._write("  The budget is spent: the remaining ideas stay unverified.")
                break
            change = lab.aim.change(evaluation, confirmed, self.settings.confidence)
            ablations[claim.name] = Ablation(evaluation, change)
            self._write(f"  {claim.name[:40]:<40} {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]")
        return ablations

    def _lab(self, failing: Sequence[str], branch: str) -> Lab:
        hooks, _ = manager(self.config)
        return Lab(
            candidates=self.candidates,
            nodeids=self.nodeids,
            mechanisms={
                each.path: [
                    mechanism
                    for ideas in hooks.hook.glia_mechanisms(
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
            write=self._write,
        )

    def _evaluate(
        self, sources: Mapping[str, bytes], on: tuple[int, ...], *, charged: bool
    ) -> list[pytest.TestReport]:
        try:
            return self.evaluator.run(Job(sources, on, self.nodeids, charged=charged, lenient=False))
        except BudgetExhausted as error:
            raise SpecError(
                f"{error} before the best candidate was confirmed: give a larger --glia-budget"
            ) from None

    def _find_designer(self) -> Designer:
        designers: dict[str, Designer] = {"offline": OfflineDesigner()}
        hooks: pluggy.PluginManager
        hooks, problems = manager(self.config)
        for more in hooks.hook.glia_designers():
            designers |= more
        for problem in problems:
            self._write(f"glia: {problem}")
        if self.settings.designer not in designers:
            raise SpecError(
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
            raise SpecError(f"the candidate {candidate.path} is not in the commit {self.base[:9]}: {advice}")
        return source

    def _refuse_changes(self) -> None:
        """What is measured is the commit: a changed candidate or spec would not be what the user sees."""
        specs = {item.nodeid.partition("::")[0] for item in self.items}
        for path in [*(each.path for each in self.candidates), *sorted(specs)]:
            if self.repository.changed([path]):
                raise SpecError(
                    f"{path} has changes that are not committed: --glia-optimize starts from the commit "
                    f"{self.base[:9]}; commit or stash them"
                )
        others = self.repository.changed()
        if others:
            self._write(
                f"glia: {len(others)} other changed or untracked files (such as {others[0]}) play no part: "
                f"the commit {self.base[:9]} is what is evaluated"
            )

    def _in_repository(self, path: str) -> str:
        return (self.repository.prefix / path).as_posix()

    def _write(self, text: str) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(text)
            terminal.flush()

    def _title(self, text: str) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_sep("=", text)


def _grouped(items: Sequence[pytest.Item]) -> tuple[dict[Group, list[pytest.Item]], list[pytest.Item]]:
    """Tests by the candidates they name, and the tests that name none."""
    groups: dict[Group, list[pytest.Item]] = {}
    others = []
    for item in items:
        candidates = Candidate.of(item)
        if candidates:
            groups.setdefault(candidates, []).append(item)
        else:
            others.append(item)
    return groups, others


def _replay(items: Sequence[pytest.Item], reports: Sequence[pytest.TestReport]) -> None:
    """Give the child's reports to pytest as if the tests had run here."""
    for item in items:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            if report.nodeid == item.nodeid:
                item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _show(write: object, reports: Sequence[pytest.TestReport]) -> None:
    """A line a comparison, and one for a test that ended otherwise."""
    assert callable(write)
    for report in reports:
        name = report.nodeid.rpartition("::")[2]
        checks = [Check.from_json(data) for data in getattr(report, "glia", ())]
        for check in checks:
            mark = "pass" if check.outcome == "shown" else "FAIL"
            write(f"  {mark}  {name[:70]}")
            write(f"        {check.quantity}")
            write(f"        {check.describe()}")
        if report.failed and all(check.outcome == "shown" for check in checks):
            write(f"  FAIL  {name}")
            write(f"        {report.longreprtext.strip().splitlines()[-1][:200]}")
        elif report.skipped:
            write(f"  skip  {name}")
