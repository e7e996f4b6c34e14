"""The end of a search: the winner confirmed on sealed seeds, ablated there, and committed with its note."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_glia import seeds
from pytest_glia.budget import BudgetExhausted
from pytest_glia.designers import Proposal
from pytest_glia.evaluator import Job
from pytest_glia.lab import Lab
from pytest_glia.merit import Evaluation
from pytest_glia.note import Ablation, Record, design_note

if TYPE_CHECKING:
    from pytest_glia.search import Search


class Delivery:
    """What becomes of a designer's proposal. Call `confirm`, then `commit`."""

    def __init__(self, search: Search, lab: Lab, proposal: Proposal, secret: bytes, prefix: str) -> None:
        self._search = search
        self._lab = lab
        self._proposal = proposal
        self._secret = secret
        self._prefix = prefix
        self._winner = proposal.evaluation.sources
        self._improved = dict(self._winner) != search.sources
        self._blob = "+".join(search.repository.blob(self._winner[each.path]) for each in search.candidates)
        self._seeds = seeds.sealed(secret, self._blob, search.settings.replications)
        self._confirmed: Evaluation | None = None
        self.passed = False

    def confirm(self) -> list[pytest.TestReport]:
        """The specs' reports for the winner, on seeds that nobody could know before it was fixed."""
        search = self._search
        account = search.account
        account.held_simulations, account.held_seconds = 0, 0.0
        search.write("")
        search.write(f"Confirming on {len(self._seeds)} seeds that no search has seen:")
        job = Job(self._winner, self._seeds, search.nodeids, charged=True, lenient=False)
        try:
            reports = search.evaluator.run(job)
            self._confirmed = self._all_checks(self._winner)
        except BudgetExhausted as error:
            search.write(f"  not confirmed: {error}")
            return [_unconfirmed(item, str(error)) for item in search.items]
        failed = {report.nodeid for report in reports if report.failed}
        self.passed = not failed
        search.write(f"  {len(search.nodeids) - len(failed)} of {len(search.nodeids)} specs pass")
        return reports

    def commit(self) -> list[str]:
        """Commit winner and note as the base plus one commit; returns what to tell the user."""
        search = self._search
        if not self._improved:
            return [f"{search.name}: no better candidate than the present one was found: no best branch"]
        ablations = self._ablate() if self._confirmed else {}
        record = Record(
            run=search.run_id,
            designer=search.settings.designer,
            budget=search.settings.budget,
            spent=search.account,
            base=search.base,
            secret=self._secret,
            blob=self._blob,
            start=self._lab.start,
            proposal=self._proposal,
            confirmed=self._confirmed,
            passed=self.passed,
            ablations=ablations,
            trials=self._lab.trials,
            failing=self._lab.failing,
            seeds=self._seeds,
        )
        files = dict(self._winner)
        for candidate in search.candidates:
            files[candidate.note_path] = design_note(candidate, record).encode()
        verdict = "meets its specs" if self.passed else "does not meet its specs; the best so far"
        title = f"{search.name}: {verdict} ({search.settings.designer} designer)"
        message = f"{title}\n\n{record.table()}\n\nGlia-Run: {search.run_id}\n"
        branch = f"{self._prefix}/best"
        best = search.repository.commit(search.base, search.base, files, message, branch)
        note = (search.repository.prefix / search.candidates[0].note_path).as_posix()
        return [
            f"{search.name}: {verdict} ({best[:9]})",
            f"  how it works: git show {branch}:{note}",
            f"  to take it:   git merge {branch}",
        ]

    def _ablate(self) -> dict[str, Ablation]:
        """The winner without each of its ideas, on the confirmation seeds."""
        assert self._confirmed is not None
        search, ablations = self._search, dict[str, Ablation]()
        if self._proposal.claims:
            search.write("Without each idea, on the same seeds (above zero: worse without it):")
        for claim in self._proposal.claims:
            try:
                evaluation = self._all_checks(claim.without)
            except BudgetExhausted:
                search.write("  The budget is spent: the remaining ideas stay unverified.")
                break
            change = self._lab.aim.change(evaluation, self._confirmed, search.settings.confidence)
            ablations[claim.name] = Ablation(evaluation, change)
            search.write(
                f"  {claim.name[:40]:<40} {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
            )
        return ablations

    def _all_checks(self, sources: Mapping[str, bytes]) -> Evaluation:
        job = Job(sources, self._seeds, self._search.nodeids, charged=True, lenient=True)
        return Evaluation.of(sources, self._seeds, self._search.evaluator.run(job))


def _unconfirmed(item: pytest.Item, reason: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"{reason}: the best candidate was not confirmed; give a larger --glia-budget",
        when="call",
    )
