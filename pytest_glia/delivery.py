"""The end of a search: the winner confirmed on sealed seeds, ablated there, and committed with its note."""

from __future__ import annotations

import hmac
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pytest_glia import seeds
from pytest_glia.budget import BudgetExhausted
from pytest_glia.candidate import Candidate
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.decisions import CHANGES, PROBED
from pytest_glia.delivered import KEY, Delivered, ablated
from pytest_glia.designers import Proposal
from pytest_glia.lab import Lab
from pytest_glia.ledger import Run
from pytest_glia.merit import Evaluation
from pytest_glia.note import Record, design_note
from pytest_glia.payer import Payer
from pytest_glia.rationale import Inquiry, Rationale
from pytest_glia.retesting import SealedLook
from pytest_glia.sequential import confirmation_confidence, confirmation_seeds
from pytest_glia.trials import measured_table

if TYPE_CHECKING:
    from pytest_glia.repository import Repository
    from pytest_glia.search import Search


_UNSEEN = "None: no domain records what this candidate decides."

# A design of which more than this share of the gain is lost in other draws of its worlds knew them.
_LOST = 0.25


@dataclass(frozen=True)
class Confirmation:
    """What a design was confirmed with: which attempt it was, and seeds that ``secret`` and ``content`` give.

    ``content`` is the hash of the candidate's text (`pytest_glia.seeds.sealed`).
    """

    attempt: int
    confidence: float
    seeds: tuple[int, ...]
    secret: bytes
    content: str


class Delivery:
    """What becomes of a designer's proposal. Call `confirm`, then `deliver`.

    Attributes:
        passed: Whether it meets its specs, confirmed.
        improved: Whether it is another candidate than the present one.
        refused: Why the audit does not believe it; None if it does.
        refuted: Whether it has not held in other worlds, or on other seeds, than the search knew.
        audited: What the audit has shown, in words.
        branch: Where the winner is delivered.
        winner: Its sources.
    """

    def __init__(
        self, search: Search, lab: Lab, proposal: Proposal, run: Run, payer: Payer, prefix: str
    ) -> None:
        self._search = search
        self._lab = lab
        self._proposal = proposal
        self._run = run
        self._payer = payer
        self.branch = f"{prefix}/best"
        self.winner = proposal.evaluation.sources
        self.improved = dict(self.winner) != search.sources
        self._blob = "+".join(search.repository.blob(text) for text in self.winner.values())
        self._seeds = seeds.sealed(run.secret, self._blob, search.settings.replications, wide=lab.apart)
        self._attempt: int | None = None
        self._confirmed: Evaluation | None = None
        self.refused: str | None = None
        self.refuted = False
        self.audited = _UNSEEN
        if lab.audited:
            why = "the budget was spent" if self.improved else "it is the present candidate"
            self.audited = f"Not audited: {why}."
        self.passed = False

    def confirm(self, before: Sequence[pytest.TestReport]) -> list[pytest.TestReport]:
        """The specs' reports for the winner, on seeds that nobody could know before it was fixed.

        If nothing better than the present candidate was found, its reports from `before` stand.
        """
        search = self._search
        if not self.improved:
            return list(before)
        account = search.account
        account.held = {}
        search.write("")
        try:
            account.purpose = "audit"
            self.refused = self._audit()
            if self.refused:
                search.write(f"The audit refuses it: {self.refused}")
                self._refute()
                return list(before)
            self._attempt = search.ledger.attempt(search.paths, search.base, self._run.id, self._blob)
            settings = search.settings
            n = confirmation_seeds(settings.replications, settings.confidence, self._attempt)
            self._seeds = seeds.sealed(self._run.secret, self._blob, n, wide=self._lab.apart)
            search.write(
                f"Confirming on {len(self._seeds)} seeds that no search has seen (attempt "
                f"{self._attempt}: {100 * self._confidence:.4g} %):"
            )
            account.purpose = "confirmation"
            reports = search.evaluator.judge(self.winner, self._seeds, self._payer, self._confidence)
            failed = {report.nodeid for report in reports if report.failed}
            # A spec that failed may have stopped before its last comparison.
            self._confirmed = (
                search.evaluator.look(self.winner, self._seeds, self._payer, self._confidence, apart=True)
                if failed
                else Evaluation.of(self.winner, self._seeds, reports).directed_as(self._lab.start)
            )
        except BudgetExhausted as error:
            search.write(f"  not confirmed: {error}")
            told = f"{error}: the best candidate was not confirmed; give a larger --glia-budget"
            return [not_run(item, told) for item in search.items]
        except EvaluatorFailed as error:
            search.write(f"  not confirmed: {error}")
            self._refute()
            told = f"{str(error).splitlines()[0]}: the best candidate was not confirmed"
            return [not_run(item, told) for item in search.items]
        self.passed = not failed
        if failed:
            self._refute()
        unshown = [claim.name for claim in self._proposal.claims if not claim.experiment]
        if self.passed and unshown:
            self.passed = False
            sentence = f"the claim {unshown[0]!r} is unverified: no experiment of this run shows it"
            search.write(f"  but {sentence}")
            return [_failed(report, sentence, self._lab.failing) for report in reports]
        search.write(f"  {len(search.nodeids) - len(failed)} of {len(search.nodeids)} specs pass")
        return reports

    def deliver(self) -> list[str]:
        """Commit winner and note as the base plus one commit; returns what to tell the user."""
        search = self._search
        if self.refused:
            return [
                f"{search.name}: the audit refused the best candidate, so there is no best branch: "
                f"{self.refused}"
            ]
        if not self.improved:
            return [f"{search.name}: no better candidate than the present one was found: no best branch"]
        # First without ablations: whatever happens during those, the confirmed winner is there.
        rationale = Rationale()
        best = self._commit(rationale)
        if self._confirmed:
            search.account.purpose = "rationale"
            rationale = self._inquiry(self._confirmed).find_out()
            best = self._commit(rationale)
        self._remember(rationale)
        note = search.repository.inside(self.note_path(search.candidates[0]))
        return [
            f"{search.name}: {self._verdict} ({best[:9]}), {search.account}",
            "  how it works:",
            f"    git show {self.branch}:{note}",
            "  to take it:",
            f"    git merge {self.branch}",
        ]

    def _refute(self) -> None:
        self.refuted = True
        self._lab.refuted.append(dict(self.winner))

    def _audit(self) -> str | None:
        """Why the winner is not to be believed; None if nothing speaks against it.

        It runs again in other draws of the development seeds' worlds, which nobody knew, and some of its
        decisions are asked for again where only what comes after them is another.
        """
        search, found = self._search, self._proposal.evaluation
        if not self._lab.audited:
            return None
        search.write(f"Audit: other draws of {len(found.seeds)} development seeds, other futures of {PROBED}")
        key = hmac.new(self._run.secret, f"glia audit {self._blob}".encode(), "sha256").digest()
        there = search.evaluator.look(self.winner, found.seeds, self._payer, world=key)
        for nodeid, message in there.errors.items():
            if nodeid not in found.errors:
                return message
        confidence = search.settings.confidence
        gain = -self._lab.aim.change(found, self._lab.start, confidence).mean
        lost = self._lab.aim.change(there, found, confidence)
        self.audited = (
            f"In other draws of the same worlds the loss changed by {lost} (its gain was {gain:.3f}); with "
            f"other futures ({CHANGES} for each of {PROBED} seeds) it decided the same up to there."
        )
        if math.isfinite(gain) and lost.low > _LOST * gain:
            return (
                "its gain is not there in other draws of the same worlds, so it knew those of its seeds "
                f"(loss {lost} against what it was; its gain was {gain:.3f})"
            )
        return None

    def note_path(self, candidate: Candidate) -> str:
        """Where the design note of a candidate is delivered."""
        return note_path(self._search.repository, self._search.base, candidate)

    @property
    def confirmation(self) -> Confirmation | None:
        """What it was confirmed with; None until that is attempted."""
        if self._attempt is None:
            return None
        return Confirmation(self._attempt, self._confidence, self._seeds, self._run.secret, self._blob)

    @property
    def _confidence(self) -> float:
        """Of the confirmation, once it is attempted: each further one from the same base must show more."""
        assert self._attempt is not None
        return confirmation_confidence(self._search.settings.confidence, self._attempt)

    @property
    def _verdict(self) -> str:
        return "meets its specs" if self.passed else "does not meet its specs; the best so far"

    def _commit(self, rationale: Rationale) -> str:
        search = self._search
        record = Record(
            run=self._run.id,
            designer=search.settings.designer,
            model=self._lab.models.settings.name if self._lab.models else "",
            budget=search.settings.budget,
            spent=search.account,
            seconds=search.ledger.once(self._run.id, "seconds", round(search.account.own["seconds"])),
            base=search.base,
            secret=self._run.secret,
            audit=self.audited,
            apart=self._lab.apart,
            blob=self._blob,
            start=self._lab.start,
            proposal=self._proposal,
            confirmed=self._confirmed,
            passed=self.passed,
            rationale=rationale,
            trials=self._lab.trials,
            failing=self._lab.failing,
            seeds=self._seeds,
            attempt=self._attempt,
            confidence=None if self._attempt is None else self._confidence,
            margin=search.settings.margin,
            front=self._lab.front(),
        )
        files = dict(self.winner)
        for candidate in search.candidates:
            files[self.note_path(candidate)] = design_note(candidate, record).encode()
        title = f"{search.name}: {self._verdict} ({search.settings.designer} designer)"
        message = f"{title}\n\n{record.table()}\n\nGlia-Run: {self._run.id}\n"
        return search.repository.commit(
            search.base, search.base, files, message, self.branch, self._run.started
        )

    def _inquiry(self, confirmed: Evaluation) -> Inquiry:
        search = self._search
        return Inquiry(
            self._proposal,
            confirmed,
            self._lab.aim,
            SealedLook(self._lab, search.evaluator, self._payer, self._seeds, self._confidence),
            self._confidence,
            search.settings.margin,
            search.write,
        )

    def _remember(self, rationale: Rationale) -> None:
        """Put the design and its claims on record, to be verified by whoever wants to."""
        shown = self._confirmed or self._proposal.evaluation
        delivered = Delivered(
            self.winner,
            self.passed,
            "\n".join([*measured_table(shown.checks), *(f"failed: {each}" for each in shown.reasons)]),
            self._proposal.claims,
            self._proposal.findings,
            ablated(self._proposal.claims, rationale, shown),
            rationale.retested,
        )
        self._search.ledger.remember(self._run.id, KEY, delivered.as_json())


def _failed(report: pytest.TestReport, sentence: str, goals: Collection[str]) -> pytest.TestReport:
    """A goal's report that fails with a sentence: as long as a claim is unverified, the goal is not met."""
    if report.nodeid in goals and report.when == "call":
        report.outcome, report.longrepr = "failed", f"The design passes, but {sentence}."
    return report


def not_run(item: pytest.Item, sentence: str) -> pytest.TestReport:
    """The report of a test that did not run, which fails with this sentence."""
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={"glia": 1},
        outcome="failed",
        longrepr=sentence,
        when="call",
    )


def note_path(repository: Repository, base: str, candidate: Candidate) -> str:
    """Beside the candidate; a file of the user's that stands there already at the base is left alone."""
    there = repository.read(base, candidate.note_path)
    if there is None or there.partition(b"\n")[0].endswith(b"design note"):
        return candidate.note_path
    return str(PurePosixPath(candidate.note_path).with_suffix(".glia.md"))
