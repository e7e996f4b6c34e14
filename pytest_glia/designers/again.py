"""The designer of a verification: proposes what a run has delivered, with its claims and findings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pluggy

from pytest_glia.delivered import Delivered
from pytest_glia.designers import Designer, Proposal
from pytest_glia.lab import Lab
from pytest_glia.misuse import Misuse
from pytest_glia.trials import Hypothesis

NAME = "again"

DELIVERED = "PYTEST_GLIA_DELIVERED"
"""The environment variable that names the file with what was delivered."""


class AgainDesigner:
    """Loaded as a plugin of pytest (``-p``), so that no search has it that is not a verification."""

    def design(self, lab: Lab) -> Proposal:
        """The design on record; for other candidates, which the same command designs, the start."""
        delivered = Delivered.from_json(Path(os.environ[DELIVERED]).read_text("utf-8"))
        if delivered.sources.keys() != lab.start.sources.keys():
            return Proposal(lab.start)
        if broken := lab.fault(delivered.sources):
            raise Misuse(f"what was delivered breaks a rule by now: {broken}")
        trial = lab.full(delivered.sources, Hypothesis("as delivered"), lab.start, race=False)
        # That there was some tuning keeps the constants from being varied: no claim is about that.
        tuning = {"as delivered": ()}
        return Proposal(trial.evaluation, delivered.claims, tuning=tuning, findings=delivered.findings)


@pluggy.HookimplMarker("glia")
def glia_designers() -> Mapping[str, Designer]:
    """By the name that the command gives it."""
    return {NAME: AgainDesigner()}
