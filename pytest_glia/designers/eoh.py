"""Evolution of Heuristics: a population of thoughts, each with its code, and five ways to ask for another.

After F. Liu et al., "Evolution of heuristics: towards efficient automatic algorithm design using large
language model", ICML 2024, with whole files in place of one function. The first population comes of the
problem alone (i1). From two parents come a heuristic as different from them as possible (e1) or one that
shares their idea (e2); from one parent a modified one (m1), one with other parameters (m2), or a simpler one
(m3).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Literal

from pytest_glia.budget import BudgetExhausted
from pytest_glia.designers import Proposal
from pytest_glia.designers.programs import Program, ask, tried, wanted
from pytest_glia.lab import Lab
from pytest_glia.models import Reply

POPULATION = 40
ELITE = 20
"""Of the population that lives on into the next generation."""

TOURNAMENT = 3
"""Drawn at random, of which the best becomes a parent."""

MUTATION = 0.1
"""The probability that a child has one parent (m1, m2, m3) and not two (e1, e2)."""

GENERATIONS = 20

Operator = Literal["i1", "e1", "e2", "m1", "m2", "m3"]

EXPLORING: tuple[Operator, ...] = ("e1", "e2")
MODIFYING: tuple[Operator, ...] = ("m1", "m2", "m3")

TASKS: dict[Operator, str] = {
    "i1": "Design a new heuristic for this problem.",
    "e1": "Design a new heuristic that is as different from the given ones as possible.",
    "e2": "First find the idea that the given heuristics have in common. Then design a new heuristic that "
    "rests on this idea and is otherwise different from them.",
    "m1": "Design a new heuristic by modifying the given one: another form, which may be better.",
    "m2": "First find the main parameters of the given heuristic. Then design a new one that has other "
    "settings of them.",
    "m3": "First find the parts of the given heuristic, and which of them may fit only the seeds that it was "
    "tried on. Then design a simpler one without these, which holds in general.",
}
"""What each operator asks for."""

_THOUGHT = (
    "Describe the new heuristic and its main steps in one sentence, inside braces: {like this}. Then write "
    "its code. "
)
_BRACES = re.compile(r"\{([^{}]+)\}")


def prompt(operator: Operator, statement: str, parents: Sequence[Program], paths: Sequence[str]) -> str:
    """The problem, the parents with their thoughts and scores, and what the operator asks for."""
    parts = [statement]
    for number, parent in enumerate(parents, start=1):
        parts.append(
            f"## Heuristic {number}\n\n{parent.thought}\n\nScore {parent.score:.4f}.\n\n{parent.shown()}"
        )
    scores = "Scores are above zero, more is better, and the present candidate has 1. " if parents else ""
    parts.append(f"## Your task\n\n{scores}{TASKS[operator]}\n\n{_THOUGHT}{wanted(paths)}")
    return "\n\n".join(parts) + "\n"


def thought_in(reply: Reply) -> str:
    """The sentence in braces before the code; failing that, all that stands there."""
    before = reply.text.partition("```")[0]
    found = _BRACES.search(before)
    return " ".join((found[1] if found else before).split())


def parent(population: Sequence[Program], rng: random.Random) -> Program:
    """The winner of a tournament."""
    drawn = rng.sample(population, min(TOURNAMENT, len(population)))
    return max(drawn, key=lambda each: each.score)


def parents(population: Sequence[Program], rng: random.Random) -> tuple[Operator, list[Program]]:
    """How the next child is asked for, and of whom."""
    if rng.random() < MUTATION:
        return rng.choice(MODIFYING), [parent(population, rng)]
    return rng.choice(EXPLORING), [parent(population, rng) for _ in range(2)]


def survivors(programs: Sequence[Program], most: int) -> list[Program]:
    """The best of those that work, each program once."""
    ranked = sorted((each for each in programs if each.works), key=lambda each: -each.score)
    once: list[Program] = []
    for program in ranked:
        if all(dict(program.sources) != dict(each.sources) for each in once):
            once.append(program)
    return once[:most]


class EoH:
    """See the module."""

    uses_model = True

    def design(self, lab: Lab) -> Proposal:
        """Evolve for 20 generations, or until the budget is spent."""
        assert lab.models is not None
        model = lab.models.thread(lab.name)
        rng = random.Random(f"eoh {lab.name}")

        def child(operator: Operator, of: Sequence[Program], generation: int) -> Program:
            asked = prompt(operator, lab.statement, of, list(lab.start.sources))
            reply = ask(lab, model, asked, f"eoh {operator}")
            thought = thought_in(reply)
            return tried(lab, reply, f"{operator} in generation {generation}", thought)

        left, look = lab.account.left("simulations"), max(1, lab.started)
        if left < POPULATION * look:
            lab.say(
                f"{left:g} simulations are for about {left // look:g} full looks at programs, fewer than "
                f"the first population of {POPULATION}: perhaps no generation follows it."
            )
        try:
            population = survivors([child("i1", [], 0) for _ in range(POPULATION)], POPULATION)
        except BudgetExhausted:
            lab.say(f"The search ended within the first population of {POPULATION}: nothing has evolved.")
            raise
        for generation in range(1, GENERATIONS + 1):
            elite = survivors(population, ELITE)
            children = [
                child(*(parents(population, rng) if population else ("i1", [])), generation)
                for _ in range(POPULATION - len(elite))
            ]
            population = survivors([*elite, *children], POPULATION)
        return Proposal(lab.best(), remark=f"The search ended after {GENERATIONS} generations.")
