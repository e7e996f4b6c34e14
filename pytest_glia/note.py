"""The design note of a winner: evidence, mechanisms, ablations, what was refuted, limits, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_glia.budget import Account, Budget
from pytest_glia.candidate import Candidate
from pytest_glia.designers import Claim, Finding, Proposal
from pytest_glia.lab import Trial, distinct, measured_table, predictions
from pytest_glia.merit import Evaluation
from pytest_glia.statistics import Interval


@dataclass(frozen=True)
class Ablation:
    """What the winner does without one idea, and the change of loss that this makes."""

    evaluation: Evaluation
    change: Interval


@dataclass(frozen=True)
class Record:
    """All that a run has found out about its winner."""

    run: str
    designer: str
    budget: Budget
    spent: Account
    base: str
    secret: bytes
    blob: str
    start: Evaluation
    proposal: Proposal
    confirmed: Evaluation | None
    passed: bool
    ablations: Mapping[str, Ablation]
    trials: Sequence[Trial]
    failing: frozenset[str]
    seeds: tuple[int, ...]

    @property
    def shown(self) -> Evaluation:
        """What the design has shown: on confirmation seeds, or failing that on development seeds."""
        return self.confirmed or self.proposal.evaluation

    def table(self) -> str:
        """What the specs asked of the design, and what was measured."""
        return "\n".join(measured_table(self.shown.checks))


def design_note(candidate: Candidate, record: Record) -> str:
    """The note as Markdown; every figure in it was measured in the run that it names."""
    n = len(record.shown.seeds)
    where = (
        f"On {n} confirmation seeds that were not known before the design was fixed."
        if record.confirmed
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
    if record.proposal.sensitivity:
        parts += ["## Sensitivity to its numbers", _sensitivity(record)]
    parts += ["## Tried and not kept", _findings(record), "## Limits", _limits(record, n)]
    parts += ["## Provenance", _provenance(record)]
    return "\n\n".join(parts) + "\n"


def _verdict(record: Record, n: int) -> str:
    claims = record.proposal.claims
    ideas = f"{len(claims)} idea{'s' if len(claims) != 1 else ''}"
    if record.passed:
        return (
            f"It meets its specs, confirmed on {n} unseen seeds. "
            f"It is the starting candidate with {ideas} added."
        )
    return f"It does **not** meet all of its specs; it is the best of {len(record.trials)} candidates."


def _evidence(record: Record) -> str:
    """The metrics that the ideas are about; all of them, if no idea says which."""
    before, after = record.start.evidence, record.shown.evidence
    ideas: list[Claim | Finding] = [*record.proposal.claims, *record.proposal.findings]
    about = {name for idea in ideas for name in idea.predicts}
    names = [name for name in before if name in after and (name in about or not about)]
    rows = [f"| {name} | {before[name]:.4g} | {after[name]:.4g} |" for name in names]
    what = "Means, of the start over the development seeds, of the design over the seeds above:"
    return "\n".join([what, "", "| metric | start | this design |", "|---|---|---|", *rows])


def _claims(record: Record, n: int) -> str:
    if not record.proposal.claims:
        return "The designer made no claim about why it works."
    header = (
        f"The change of loss says how much worse (above zero) the design is without the idea, on the {n} "
        "confirmation seeds, paired, with its interval. The loss sums how far each spec is on the wrong side "
        "of its threshold, in logarithms of a ratio or shares of the threshold."
    )
    return "\n\n".join([header, *(_claim(claim, record) for claim in record.proposal.claims)])


def _claim(claim: Claim, record: Record) -> str:
    lines = [f"### {claim.name}", "", claim.text, ""]
    if claim.numbers:
        lines.append(
            "- Numbers: " + ", ".join(f"`{name}` = {value:g}" for name, value in claim.numbers.items())
        )
    lines.append(f"- Called for by: {claim.reason}.")
    if claim.predicts:
        lines.append(f"- Predicted: {predictions(claim.predicts)}.")
    rests = f" (and {', '.join(claim.also_without)}, which rests on it)" if claim.also_without else ""
    ablation = record.ablations.get(claim.name)
    if ablation is None:
        return "\n".join([*lines, f"- Ablation: **unverified**, the budget was spent{rests}."])
    change = ablation.change
    verdict = "shown" if change.low > 0 else "refuted: it does harm" if change.high < 0 else "not shown"
    lines.append(
        f"- Ablation: without it{rests}, loss {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]: "
        f"**{verdict}**."
    )
    for metric, sign in claim.predicts.items():
        lines.append(f"- {_prediction(metric, sign, ablation.evaluation.evidence, record.shown.evidence)}")
    goals = [c for (nodeid, _), c in ablation.evaluation.checks.items() if nodeid in record.failing]
    for check in distinct(goals):
        lines.append(f"- Without it: {check.what()}: {check.measured()}.")
    return "\n".join(lines)


def _prediction(metric: str, sign: int, without: Mapping[str, float], design: Mapping[str, float]) -> str:
    if metric not in without or metric not in design:
        return f"`{metric}` was not reported."
    before, after = without[metric], design[metric]
    held = "as" if (after - before) * sign > 0 else "**not** as"
    return f"`{metric}`: {before:.4g} without, {after:.4g} with: sign {held} predicted."


def _sensitivity(record: Record) -> str:
    lines = ["Loss at a first few development seeds while the number was tuned (smaller is better):", ""]
    for number, judged in record.proposal.sensitivity.items():
        lines.append(f"- `{number}`: " + ", ".join(f"{value:g}: {loss:.3f}" for value, loss in judged))
    return "\n".join(lines)


def _findings(record: Record) -> str:
    if not record.proposal.findings:
        return "Nothing: every idea that the evidence called for was kept."
    return "\n".join(
        f"- **{each.name}** ({each.verdict}; loss {each.change.mean:+.3f} [{each.change.low:+.3f}, "
        f"{each.change.high:+.3f}], n={each.change.n}). {each.text} Called for by: {each.reason}."
        for each in record.proposal.findings
    )


def _limits(record: Record, n: int) -> str:
    return (
        f"The design was measured on the workload and system of its specs only, with {n} replications. "
        "Elsewhere its numbers, and the ideas that they belong to, are unproven. " + record.proposal.remark
    )


def _provenance(record: Record) -> str:
    spent = record.spent
    seeds = ", ".join(map(str, record.seeds))
    return "\n".join(
        [
            f"- Run `{record.run}`, base commit `{record.base}`.",
            f"- Designer `{record.designer}`; no language model took part."
            if record.designer == "offline"
            else f"- Designer `{record.designer}`.",
            f"- Budget {record.budget}; spent {spent.simulations} simulations and {spent.seconds:.0f} s; "
            f"{len(record.trials)} candidates.",
            f"- Confirmation seeds: HMAC-SHA256 under the run's secret `{record.secret.hex()}` of the "
            f"candidate's git blob `{record.blob}`: {seeds}.",
        ]
    )
