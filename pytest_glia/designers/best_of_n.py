"""The language model alone: many programs from one and the same prompt, of which the best is kept."""

from __future__ import annotations

from pytest_glia.designers import Proposal
from pytest_glia.designers.programs import ask, tried, wanted
from pytest_glia.lab import Lab

PROGRAMS = 100


class BestOfN:
    """No program knows of another; one that cannot be read, breaks a rule or raises counts as one of them."""

    uses_model = True

    def design(self, lab: Lab) -> Proposal:
        """Ask for programs until there are 100 or the budget is spent."""
        assert lab.models is not None
        model = lab.models.thread(lab.name)
        prompt = f"{lab.statement}\n{wanted(list(lab.start.sources))}\n"
        programs = [
            tried(lab, ask(lab, model, prompt, "best-of-n"), f"program {n} of {PROGRAMS}")
            for n in range(1, PROGRAMS + 1)
        ]
        work = sum(program.works for program in programs)
        return Proposal(
            lab.best(),
            remark=f"The best of {PROGRAMS} programs from one prompt, of which {work} worked.",
        )
