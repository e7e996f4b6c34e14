"""A mechanism: one causal idea for a policy, as the hook `glia_mechanisms` of pytest-glia describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sim.mechanisms.source import PolicySource

__all__ = ["FEW", "SOME", "Evidence", "Mechanism", "Numbers", "idea"]

Numbers = Mapping[str, float]
Evidence = Mapping[str, float]
"""Means of a candidate's metrics, by name (`sim.metrics`)."""

FEW = 0.02
"""A share that is not worth a look."""
SOME = 0.10
"""A share of the response time, or of the requests, that is."""


@dataclass(frozen=True)
class Mechanism:
    """One idea: what it claims, which evidence calls for it, and its edit of a policy's source."""

    entry: str
    """The policy's class."""
    name: str
    claim: str
    predicts: Mapping[str, int]
    gate: Callable[[Evidence], str | None]
    edit: Callable[[Any, Numbers], PolicySource | None]
    """Of a source of the kind in `kind`."""
    numbers: Mapping[str, tuple[float, float]]
    """Lowest and highest value of each constant."""
    defaults: Numbers
    kind: type[PolicySource]

    def called_for(self, evidence: Evidence) -> str | None:
        """Why the evidence calls for this idea; None if it does not, or lacks what that takes."""
        try:
            return self.gate(evidence)
        except KeyError:
            return None

    def apply(self, source: str, numbers: Numbers) -> str | None:
        """The policy's source with the idea worked in; None if it has no place for it, or has it already."""
        policy = self.kind.of(source, self.entry)
        edited = None if policy is None else self.edit(policy, numbers)
        return None if edited is None else edited.text


def idea(
    kind: type[PolicySource],
    entry: str,
    name: str,
    claim: str,
    *,
    predicts: Mapping[str, int],
    gate: Callable[[Evidence], str | None],
    edit: Callable[[Any, Numbers], PolicySource | None],
    **numbers: tuple[float, float, float],
) -> Mechanism:
    """A mechanism; a number is given as lowest, default and highest value."""
    ranges = {key: (low, high) for key, (low, _, high) in numbers.items()}
    defaults = {key: default for key, (_, default, _) in numbers.items()}
    return Mechanism(entry, name, claim, predicts, gate, edit, ranges, defaults, kind)
