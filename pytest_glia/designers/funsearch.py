"""FunSearch: islands of programs, of which a model is shown a few, the best last, to write the next version.

After B. Romera-Paredes et al., "Mathematical discoveries from program search with large language models",
Nature 625 (2024), with whole files in place of one function. On an island, programs that score alike on every
seed are a cluster. A prompt takes clusters with probabilities that grow with their scores, the more so the
fuller the island, and of each cluster one program, a shorter one more likely. From time to time the worse
half of the islands starts again, each from the best program of a better one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_glia.designers import Proposal
from pytest_glia.designers.programs import Program, ask, present, tried, wanted
from pytest_glia.lab import Lab

GENERATIONS = 100
"""Prompts, each of which gives one program."""

SIZE = 20
"""Programs that an island holds: the least of them makes room."""

ISLANDS = GENERATIONS // SIZE

EXAMPLES = 3
"""Programs in a prompt."""

RESET = 25
"""Generations after which the worse half of the islands starts again."""

TEMPERATURE = 0.1
"""Of the choice among clusters, where an island is new; it falls to nothing as the island fills."""

Signature = tuple[float, ...]
"""A cluster's losses, one a replication."""


@dataclass
class Island:
    """Programs that only meet each other.

    Attributes:
        programs: Those that work, in the order in which they came.
        registered: How many came, including those that had to leave.
    """

    programs: list[Program] = field(default_factory=list)
    registered: int = 0

    def register(self, program: Program) -> None:
        """Take a program in."""
        self.programs.append(program)
        self.registered += 1
        if len(self.programs) > SIZE:
            self.programs.remove(min(self.programs, key=lambda each: each.score))

    @property
    def best(self) -> Program:
        """The first of those with the highest score."""
        return max(self.programs, key=lambda each: each.score)

    def clusters(self) -> dict[Signature, list[Program]]:
        """The programs, by what they score on the seeds."""
        found: dict[Signature, list[Program]] = {}
        for program in self.programs:
            found.setdefault(tuple(round(loss, 9) for loss in program.losses), []).append(program)
        return found

    def examples(self, rng: random.Random) -> list[Program]:
        """At most three programs, one a cluster drawn, by rising score."""
        clusters = list(self.clusters().values())
        temperature = TEMPERATURE * (1 - (self.registered % SIZE) / SIZE)
        weights = softmax([each[0].score for each in clusters], temperature)
        drawn = rng.choices(clusters, weights, k=min(EXAMPLES, len(clusters)))
        return sorted((short(cluster, rng) for cluster in drawn), key=lambda each: each.score)


def short(cluster: Sequence[Program], rng: random.Random) -> Program:
    """One program of a cluster, a shorter one more likely."""
    lengths = [sum(map(len, program.sources.values())) for program in cluster]
    least, most = min(lengths), max(lengths)
    return rng.choices(cluster, softmax([-(each - least) / (most + 1e-6) for each in lengths], 1.0))[0]


def softmax(values: Sequence[float], temperature: float) -> list[float]:
    """Weights that grow with the values, the more so the lower the temperature."""
    most = max(values)
    return [math.exp((value - most) / temperature) for value in values]


def reset(islands: list[Island], rng: random.Random) -> None:
    """Empty the worse half of the islands; each begins again with the best of an island that stays."""
    order = list(range(len(islands)))
    rng.shuffle(order)  # of equals, any
    order.sort(key=lambda each: islands[each].best.score)
    worse, better = order[: len(order) // 2], order[len(order) // 2 :]
    for place in worse:
        founder = islands[rng.choice(better)].best
        islands[place] = Island()
        islands[place].register(founder)


def prompt(statement: str, examples: Sequence[Program], paths: Sequence[str]) -> str:
    """The problem, versions v0, v1, ... that each improve on the one before, and the wish for the next."""
    parts = [statement]
    for version, program in enumerate(examples):
        improved = f", an improved version of v{version - 1}" if version else ""
        parts.append(f"## Version v{version}{improved}\n\nScore {program.score:.4f}.\n\n{program.shown()}")
    parts.append(
        f"## Version v{len(examples)}\n\nScores are above zero, more is better, and the present candidate "
        f"has 1. Write v{len(examples)}, an improved version of v{len(examples) - 1}. {wanted(paths)}"
    )
    return "\n\n".join(parts) + "\n"


class FunSearch:
    """See the module."""

    uses_model = True

    def design(self, lab: Lab) -> Proposal:
        """Ask for programs for 100 generations, or until the budget is spent."""
        assert lab.models is not None
        model = lab.models.thread(lab.name)
        # Not of the run's secret: a run that goes on, or is replayed, draws the same.
        rng = random.Random(f"funsearch {lab.name}")
        islands = [Island() for _ in range(ISLANDS)]
        for island in islands:
            island.register(present(lab))
        for generation in range(1, GENERATIONS + 1):
            place = rng.randrange(ISLANDS)
            examples = islands[place].examples(rng)
            reply = ask(lab, model, prompt(lab.statement, examples, list(lab.start.sources)), "funsearch")
            program = tried(lab, reply, f"generation {generation}, island {place + 1}")
            if program.works:
                islands[place].register(program)
            if generation % RESET == 0:
                reset(islands, rng)
        return Proposal(lab.best(), remark=f"The search ended after {GENERATIONS} generations.")
