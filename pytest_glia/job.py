"""What the child is asked: one evaluation of a candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_glia.content import digest
from pytest_glia.context import BaseSource
from pytest_glia.payer import Payer


@dataclass(frozen=True)
class Job:
    """One evaluation of a candidate on some seeds.

    ``base`` is what ``against="base"`` means, by path. ``confidence``, if any, is in place of that of the
    settings. ``payer`` pays for the candidate's replications. ``judging`` runs the tests as they are;
    otherwise comparisons are assumed to hold. Where it is ``apart``, candidates are asked in processes that
    know neither their seeds nor their future. ``world`` is the key of another world than the seeds' own, for
    an audit; ``scenario`` and ``inspected`` (the folder of tables) are an experiment's.
    """

    sources: Mapping[str, bytes]
    seeds: Sequence[int]
    base: Mapping[str, BaseSource]
    confidence: float | None
    payer: Payer | None
    judging: bool
    apart: bool = False
    world: bytes | None = None
    scenario: Mapping[str, float] = field(default_factory=dict)
    inspected: Path | None = None

    def digest(self) -> str:
        """Stands for all that is asked."""
        how = sorted(self.scenario.items()), bool(self.inspected)
        asked = [self.seeds, self.confidence, self.judging, self.apart, how]
        return digest(json.dumps(asked), self.world or b"", *self.sources.values())
