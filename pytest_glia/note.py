"""The design note of a winner: evidence, mechanisms, ablations, what was refuted, limits, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_glia.budget import Account, Budget
from pytest_glia.candidate import Candidate
from pytest_glia.designers import Claim, Proposal, Rejected, Retested
from pytest_glia.front import Front
from pytest_glia.markdown import fenced, prose
from pytest_glia.merit import Evaluation, Result
from pytest_glia.rationale import Rationale, uncovered
from pytest_glia.tradeoffs import trade_offs
from pytest_glia.trials import Trial, distinct, measured_table, predictions


@dataclass(frozen=True)
class Record:
    """All that a run has found out about its winner.

    ``attempt`` counts the confirmations of designs of these files from this base commit, and ``confidence``
    is that of this one and its ablations, both None where none was attempted; ``audit`` tells what it
    showed; ``margin`` is the change of loss that is taken for none; ``front`` has what else could be chosen.
    """

    run: str
    designer: str
    model: str
    budget: Budget
    spent: Account
    seconds: float
    base: str
    secret: bytes
    audit: str
    apart: bool
    blob: str
    start: Evaluation
    proposal: Proposal
    confirmed: Evaluation | None
    passed: bool
    rationale: Rationale
    trials: Sequence[Trial]
    failing: frozenset[str]
    seeds: tuple[int, ...]
    attempt: int | None
    confidence: float | None
    margin: float
    front: Front

    @property
    def shown(self) -> Evaluation:
        """What the design has shown: on confirmation seeds, or failing that on development seeds."""
        return self.confirmed or self.proposal.evaluation

    def table(self) -> str:
        """What the specs asked of the design, and what was measured."""
        return "\n".join(measured_table(self.shown.checks))


_UNTESTED = Retested("it was not tested again: the budget was spent", "unverified")
_BAR = 30
_LABEL = 36


def design_note(candidate: Candidate, record: Record) -> str:
    """The note as Markdown; every figure in it was measured in the run that it names."""
    n = len(record.shown.seeds)
    where = (
        f"On {n} confirmation seeds that were not known before the design was fixed. This was attempt "
        f"{record.attempt} to confirm a design from this base commit, so it was judged with "
        f"{100 * record.confidence:.4g} % confidence"
        f"{', in another process than it was simulated in' if record.apart else ''}."
        if record.confirmed and record.confidence
        else f"On {n} development seeds, which the search has used: **not confirmed**, the budget was spent."
    )
    parts = [
        f"# {candidate.entry} in `{candidate.path}`: design note",
        _verdict(record, n),
        "## Measured",
        where,
        record.table(),
        "## What was wrong",
        _evidence(record),
        "## The design",
        _claims(record, n),
    ]
    if record.rationale.ablations:
        parts += [_figure(record)]
    if left := _uncovered(candidate, record):
        parts += ["## Code that no claim covers", left]
    if record.proposal.findings:
        parts += ["## What was learnt about the workload", _findings(record)]
    if record.proposal.tuning or record.rationale.sensitivity:
        parts += ["## Sensitivity to its numbers", _sensitivity(record)]
    if others := trade_offs(record.front, record.proposal.evaluation.sources):
        parts += ["## Other trade-offs", others]
    parts += ["## Tried and not kept", _rejected(record), "## Limits", _limits(record, n)]
    parts += ["## Provenance", _provenance(candidate, record)]
    return "\n\n".join(parts) + "\n"


def _verdict(record: Record, n: int) -> str:
    claims = record.proposal.claims
    ideas = f" It is the starting candidate with {_count(len(claims), 'idea')} added." if claims else ""
    if record.passed:
        return f"It meets its specs, confirmed on {n} unseen seeds.{ideas}"
    tried = _count(len({trial.commit for trial in record.trials}), "candidate")
    return f"It does **not** meet all of its specs; it is what was kept of {tried}.{ideas}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _evidence(record: Record) -> str:
    """The metrics that the ideas are about; all of them, if no idea says which."""
    before, after = record.start.evidence, record.shown.evidence
    ideas: list[Claim | Rejected] = [*record.proposal.claims, *record.proposal.rejected]
    about = {name for idea in ideas for name in idea.predicts}
    names = [name for name in before if name in after and (name in about or not about)]
    rows = [f"| {prose(name)} | {before[name]:.4g} | {after[name]:.4g} |" for name in names]
    what = "Means, of the start over the development seeds, of the design over the seeds above:"
    return "\n".join([what, "", "| metric | start | this design |", "|---|---|---|", *rows])


def _claims(record: Record, n: int) -> str:
    if not record.proposal.claims:
        return "The designer made no claim about why it works."
    header = (
        f"The change of loss says how much worse (above zero) the design is without the idea, on the {n} "
        f"confirmation seeds, paired, with its interval; a change below {record.margin:g} is taken for none. "
        "The loss is how far the first goal is on the wrong side of its threshold, and ten times what any "
        "spec lacks on average to meet its own with enough to spare for other seeds to show it (0.5 % at "
        "least), in logarithms of a ratio or shares of the threshold."
    )
    return "\n\n".join([header, *(_claim(claim, record) for claim in record.proposal.claims)])


def _claim(claim: Claim, record: Record) -> str:
    lines = [f"### {prose(claim.name)}", "", prose(claim.text), ""]
    if claim.numbers:
        lines.append(
            "- Numbers: " + ", ".join(f"`{name}` = {value:g}" for name, value in claim.numbers.items())
        )
    if claim.reason:
        lines.append(f"- Called for by: {prose(claim.reason).rstrip('.')}.")
    unverified = "**unverified**: no experiment of the run shows it"
    shown = f": {prose(claim.shown)}" if claim.shown else ""
    lines.append(f"- Experiment: {f'`{claim.experiment}`{shown}' if claim.experiment else unverified}.")
    if claim.predicts:
        lines.append(f"- Predicted: {predictions(claim.predicts, claim.sizes)}.")
    rests = f" (and {', '.join(claim.also_without)}, which rests on it)" if claim.also_without else ""
    ablation = record.rationale.ablations.get(claim.name)
    if ablation is None:
        return "\n".join([*lines, f"- Ablation: **unverified**, it was not run to its end{rests}."])
    change = ablation.change
    lines.append(f"- Ablation: without it{rests}, loss {change}: **{_ABLATION[ablation.result]}**.")
    if ablation.result == "broken":
        lines += [f"- Without it: {prose(reason)}" for reason in ablation.evaluation.reasons[:1]]
    for metric, sign in claim.predicts.items():
        lines.append(f"- {_prediction(metric, sign, ablation.evaluation.evidence, record.shown.evidence)}")
    goals = [c for (nodeid, _), c in ablation.evaluation.checks.items() if nodeid in record.failing]
    for check in distinct(goals):
        lines.append(f"- Without it: {check.what()}: {check.measured()}.")
    return "\n".join(lines)


# What the design without an idea shows of the idea.
_ABLATION: Mapping[Result, str] = {
    "worse": "shown",
    "broken": "not shown: what is left of the design does not work",
    "better": "refuted: it does harm",
    "equivalent": "refuted: it changes nothing",
    "not shown": "not shown; it was kept for what it showed on the development seeds",
}


def _prediction(metric: str, sign: int, without: Mapping[str, float], design: Mapping[str, float]) -> str:
    if metric not in without or metric not in design:
        return f"`{metric}` was not reported."
    before, after = without[metric], design[metric]
    held = "as" if (after - before) * sign > 0 else "**not** as"
    return f"`{metric}`: {before:.4g} without, {after:.4g} with: sign {held} predicted."


def _figure(record: Record) -> str:
    """Bars: what the design loses without each idea."""
    changes = {name: each.change.mean for name, each in record.rationale.ablations.items()}
    most = max((abs(each) for each in changes.values() if math.isfinite(each)), default=0.0) or 1.0
    rows = []
    for name, change in changes.items():
        length = _BAR if not math.isfinite(change) else round(_BAR * abs(change) / most)
        rows.append(f"{name[:_LABEL]:<{_LABEL}} {'=' * length if change > 0 else '-' * length} {change:+.3f}")
    return "What the loss rises by without each idea:\n\n" + fenced("\n".join(rows))


def _uncovered(candidate: Candidate, record: Record) -> str:
    """The lines of this file that are new and that no claim takes out; empty if there are none."""
    claims = record.proposal.claims
    found = uncovered(record.proposal.evaluation.sources, record.start.sources, claims) if claims else []
    lines = [f"{number:5} {text}" for path, number, text in found if path == candidate.path]
    if not lines:
        return ""
    return "These lines are new, and no claim says why they are there:\n\n" + fenced("\n".join(lines))


def _findings(record: Record) -> str:
    lines = ["Each was tested again on seeds that the search has not seen, the start included.", ""]
    for each in record.proposal.findings:
        again = record.rationale.retested.get(each.text, _UNTESTED)
        lines.append(f"- **{prose(each.text)}** (`{each.source}`)")
        lines.append(f"  - In the search: {prose(each.measured)}.")
        lines.append(f"  - Again: **{again.verdict}**: {prose(again.text)}.")
    return "\n".join(lines)


def _sensitivity(record: Record) -> str:
    lines = []
    if record.rationale.sensitivity:
        lines = ["Change of loss on a few confirmation seeds with another value of a constant:", ""]
        lines += [
            f"- {label}: {change} ({result})"
            for label, (change, result) in record.rationale.sensitivity.items()
        ]
    if not record.proposal.tuning:
        return "\n".join(lines)
    lines += ["Loss on the first few development seeds while an idea was tuned, best first:", ""]
    for idea, judged in record.proposal.tuning.items():
        settings = [
            f"{loss:.3f} with " + ", ".join(f"`{name}` = {value:g}" for name, value in numbers.items())
            for numbers, loss in sorted(judged, key=lambda each: each[1])
        ]
        lines.append(f"- {idea}: " + "; ".join(settings))
    return "\n".join(lines)


def _rejected(record: Record) -> str:
    if not record.proposal.rejected:
        return "The designer has recorded none."
    return "\n".join(
        f"- **{prose(each.name)}** ({each.verdict}; loss {each.change}, n={each.change.n}). "
        + prose(each.text)
        + (f" Called for by: {prose(each.reason).rstrip('.')}." if each.reason else "")
        for each in record.proposal.rejected
    )


def _limits(record: Record, n: int) -> str:
    before, after = record.start.evidence, record.shown.evidence
    worse = [
        f"`{metric}` rose from {before[metric]:.4g} to {after[metric]:.4g}"
        for metric in sorted(
            {m for claim in record.proposal.claims for m, s in claim.predicts.items() if s > 0}
        )
        if metric in before and metric in after and after[metric] > before[metric]
    ]
    price = f" What it costs: {'; '.join(worse)}." if worse else ""
    return (
        f"The design was measured on the workload and system of its specs only, with {n} replications. "
        f"Elsewhere its numbers, and the ideas that they belong to, are unproven.{price} "
        f"{prose(record.proposal.remark)}"
    )


def _size(record: Record) -> str:
    """How much code the candidates' files have, before and after."""
    before, after = (
        sum(1 for text in each.sources.values() for line in text.decode().splitlines() if line.strip())
        for each in (record.start, record.proposal.evaluation)
    )
    return f"{after} lines that are not blank, {before} at the start"


def _visible(candidate: Candidate, model: str) -> str:
    exposed = "".join(f", `{path}`" for path in candidate.exposes)
    read = (
        ". A language model may have read published designs of this kind before: what it was trained on is "
        "not known"
    )
    return f"the problem statement, the candidate and what it showed{exposed}{read if model else ''}"


def _provenance(candidate: Candidate, record: Record) -> str:
    spent = record.spent
    seeds = ", ".join(map(str, record.seeds))
    return "\n".join(
        [
            f"- Run `{record.run}`, base commit `{record.base}`.",
            f"- Designer `{record.designer}`{f', model `{record.model}`' if record.model else ''}.",
            f"- Budget {record.budget}; spent {spent} in {record.seconds:.0f} s; "
            f"{_count(len({trial.commit for trial in record.trials}), 'candidate')}.",
            f"- Size: {_size(record)}.",
            f"- Visible to the designer: {_visible(candidate, record.model)}.",
            f"- Audit: {record.audit}",
            f"- Confirmation seeds: HMAC-SHA256 under the run's secret `{record.secret.hex()}` of the "
            f"candidate's git blob `{record.blob}`: {seeds}.",
        ]
    )
