"""A delivered design on record: its text, its claims and findings, and what was shown of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pytest_glia.designers import Claim, Finding, Retested
from pytest_glia.designers.source import sources_of, texts_of
from pytest_glia.merit import Evaluation, Result
from pytest_glia.rationale import Rationale
from pytest_glia.retesting import retest_from

KEY = "delivered"
"""Under which a run has it in the ledger."""


@dataclass(frozen=True)
class Ablated:
    """What the design without an idea has shown of that idea.

    Attributes:
        change: Of the loss, in words.
        metrics: Of each metric that the claim is about the mean without the idea, and with it.
    """

    result: Result
    change: str
    metrics: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Delivered:
    """What a run has delivered.

    Attributes:
        sources: Of the design.
        passed: Whether it met its specs, confirmed.
        table: What the specs asked, what was measured, and what has failed.
        ablated: By the name of the claim; what was not run to its end is not there.
        retested: By the text of the finding.
    """

    sources: Mapping[str, bytes]
    passed: bool
    table: str
    claims: Sequence[Claim]
    findings: Sequence[Finding]
    ablated: Mapping[str, Ablated]
    retested: Mapping[str, Retested]

    def as_json(self) -> str:
        """For the ledger."""
        return json.dumps(
            {
                "sources": texts_of(self.sources),
                "passed": self.passed,
                "table": self.table,
                "claims": [_claim(each) for each in self.claims],
                "findings": [_finding(each) for each in self.findings],
                "ablated": {name: asdict(each) for name, each in self.ablated.items()},
                "retested": {text: asdict(each) for text, each in self.retested.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Delivered:
        """What `as_json` gave."""
        data = json.loads(text)
        return cls(
            sources_of(data["sources"]),
            data["passed"],
            data["table"],
            [
                replace(
                    Claim(**each),
                    without=sources_of(each["without"]),
                    also_without=tuple(each["also_without"]),
                )
                for each in data["claims"]
            ],
            [Finding(**{**each, "again": retest_from(each["again"])}) for each in data["findings"]],
            {name: Ablated(**each) for name, each in data["ablated"].items()},
            {text: Retested(**each) for text, each in data["retested"].items()},
        )


def ablated(claims: Sequence[Claim], rationale: Rationale, design: Evaluation) -> dict[str, Ablated]:
    """Of a rationale what is kept, by the name of the claim."""
    found = {}
    for claim in claims:
        if ablation := rationale.ablations.get(claim.name):
            without = ablation.evaluation.evidence
            metrics = {
                name: (without[name], design.evidence[name])
                for name in claim.predicts
                if name in without and name in design.evidence
            }
            found[claim.name] = Ablated(ablation.result, str(ablation.change), metrics)
    return found


def _claim(claim: Claim) -> dict[str, Any]:
    """Its mappings may be a domain's own, of any kind."""
    mappings = {name: dict(getattr(claim, name)) for name in ("predicts", "numbers", "sizes")}
    return {**vars(claim), **mappings, "without": texts_of(claim.without)}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "text": finding.text,
        "source": finding.source,
        "measured": finding.measured,
        "again": finding.again.as_json(),
    }
