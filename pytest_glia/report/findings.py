"""What a run has found out, as plain data of JSON types: all that a report says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pytest

from pytest_glia.front import AS_IT_IS, Contender, Front
from pytest_glia.merit import Evaluation, message_of
from pytest_glia.visible import visible

if TYPE_CHECKING:
    from pytest_glia.lab import Lab
    from pytest_glia.search import Search

_LONGEST_MESSAGE = 400


def plain(value: Any) -> Any:
    """The value in JSON's types: a number that is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def verdicts(reports: Sequence[pytest.TestReport]) -> list[dict[str, Any]]:
    """What became of each spec: its comparisons, and the message of one that failed or was skipped."""
    return [
        {
            "nodeid": report.nodeid,
            "outcome": report.outcome,
            "seconds": report.duration,
            "message": None if report.passed else _message(report),
            "checks": getattr(report, "glia", []),
        }
        for report in reports
    ]


def design(search: Search) -> dict[str, Any]:
    """What a search has come to, wherever it ended."""
    lab, delivery, account = search.lab, search.delivery, search.account
    run_id = search.opened.id if search.opened else ""
    attempts = search.ledger.confirmations(search.paths, search.base)
    runs, last = [run for run, _ in attempts], search.outcome
    return {
        "name": search.name,
        "candidates": [{"path": each.path, "entry": each.entry} for each in search.candidates],
        "specs": list(search.nodeids),
        "outcome": _outcome(search),
        "told": list(search.delivered),
        "run": run_id,
        "base": search.base,
        "designer": search.settings.designer,
        "budget": str(search.settings.budget),
        "spent": {**account.own, "simulations": dict(account.spent_on)},
        "before": verdicts(search.before),
        "goal": lab and _goal(lab),
        "trials": _trials(lab) if lab else [],
        "front": _front(search),
        "audit": delivery and (delivery.refused or delivery.audited),
        "attempts": [
            # What a run has tried another design after was not confirmed.
            {"run": run, "outcome": "not met" if following == run else last if run == run_id else outcome}
            for (run, outcome), following in zip_longest(attempts, runs[1:])
        ],
        "confirmation": _confirmation(search),
        "best": _best(search),
    }


def _outcome(search: Search) -> str:
    """One of the words that docs/ci.md lists."""
    delivery = search.delivery
    if search.outcome == "passed":
        return "met"
    if search.outcome != "not met" or delivery is None:
        return search.outcome
    if delivery.refused:
        return "refused by the audit"
    if not delivery.improved:
        return "nothing better found"
    return "not met" if delivery.confirmation else "not confirmed"


def _confirmation(search: Search) -> dict[str, Any] | None:
    """With the secret, which may be known once the seeds have been used."""
    found = search.delivery and search.delivery.confirmation
    if not found:
        return None
    return {
        "attempt": found.attempt,
        "confidence": found.confidence,
        "seeds": list(found.seeds),
        "secret": found.secret.hex(),
        "content": found.content,
    }


def _best(search: Search) -> dict[str, Any] | None:
    """The branch that was delivered: what it changes, and its design notes."""
    delivery, repository = search.delivery, search.repository
    commit = delivery and repository.tip(delivery.branch)
    if not delivery or not commit:
        return None
    notes = [delivery.note_path(each) for each in search.candidates]
    return {
        "branch": delivery.branch,
        "commit": commit,
        "diff": visible(repository.diff(search.base, commit, list(search.sources))),
        "notes": {
            path: visible((repository.read(commit, path) or b"").decode("utf-8", "replace"))
            for path in dict.fromkeys(notes)
        },
    }


def _goal(lab: Lab) -> dict[str, Any]:
    """What the progress is shown in: the first unmet goal, or the loss if no spec makes a comparison."""
    check = lab.aim.primary and lab.start.checks.get(lab.aim.primary)
    if not check:
        return {"quantity": "loss", "asked": "", "threshold": None}
    return {"quantity": check.what(), "asked": check.demand(), "threshold": check.threshold}


def _trials(lab: Lab) -> list[dict[str, Any]]:
    """The start and each candidate in order, with the best so far: of those with all replications.

    In the order in which the run paid for them, whichever its context.
    """
    rows = [_row(lab, 0, AS_IT_IS, lab.start, "", lab.started)]
    rows += [
        _row(lab, each.number, each.hypothesis.name, each.evaluation, each.result, each.simulations)
        for each in sorted(lab.trials, key=lambda each: each.simulations)
    ]
    best, found = rows[0], []
    for row in rows:
        if row["seeds"] == rows[0]["seeds"] and row["loss"] < best["loss"]:
            best = row
        found.append({**row, "best": {name: best[name] for name in ("number", "measured", "shown")}})
    return found


def _front(search: Search) -> dict[str, Any] | None:
    """Which candidates there are to choose from; None if none was tried, or the specs ask one thing only."""
    lab, delivery = search.lab, search.delivery
    front = lab.front() if lab and lab.trials else None
    if front is None or len(front.objectives) < 2:
        return None
    delivered = delivery and delivery.improved and not delivery.refused
    winner = front.find(delivery.winner) if delivery and delivered else None
    everyone = (*front.members, *front.others)
    asked = [everyone[0].evaluation.checks[which] for which in front.objectives]
    return {
        "objectives": [
            {"spec": nodeid, "quantity": check.what(), "asked": check.demand(), "threshold": check.threshold}
            for (nodeid, _), check in zip(front.objectives, asked, strict=True)
        ],
        "candidates": [_contender(each, front, winner) for each in everyone],
    }


def _contender(each: Contender, front: Front, winner: Contender | None) -> dict[str, Any]:
    checks = [each.evaluation.checks[which] for which in front.objectives]
    return {
        "number": each.number,
        "name": each.name,
        "commit": each.commit,
        "member": each in front.members,
        "winner": each is winner,
        "refuted": each.refuted,
        "met": each.evaluation.met(),
        "measured": [
            {"point": check.point, "low": check.low, "high": check.high, "shown": check.measured()}
            for check in checks
        ],
    }


def _row(
    lab: Lab, number: int, name: str, evaluation: Evaluation, result: str, simulations: int
) -> dict[str, Any]:
    loss = lab.aim.loss(evaluation)
    check = evaluation.checks.get(lab.aim.primary) if lab.aim.primary else None
    measured = check.point if check else None
    return {
        "number": number,
        "name": name,
        "seeds": len(evaluation.seeds),
        "simulations": simulations,
        "loss": loss,
        "measured": loss if lab.aim.primary is None and math.isfinite(loss) else measured,
        "shown": check.estimate() if check else f"{loss:.4g}",
        "result": result,
    }


def _message(report: pytest.TestReport) -> str:
    """Why a spec failed or was skipped (then pytest has file, line and reason)."""
    said = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else message_of(report)
    return visible(said)[:_LONGEST_MESSAGE]
