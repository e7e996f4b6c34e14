"""Families of worlds for `specs/test_robustness.py`: clusters, and what arrives at them, described once and
drawn either by a seed, as the specs do, or by hypothesis, as `specs/hunt.py` does.

A family is told by whole numbers: `pick(low, high)` gives one, both ends included, and smaller ones make a
simpler world, so that hypothesis can shrink it. Lengths come by their rank in a table sorted by tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sim import workloads
from sim.workloads import Workload

Pick = Callable[[int, int], int]
"""A whole number from the first to the second, both included."""

SPEEDS = (20_000, 5_000, 1_500, 400, 0)
"""Milliseconds: half of the gaps of an episode are 0, and the others go up to one of these."""

KINDS = ("chat", "code", "jobs")
"""ShareGPT's lengths, Azure's of code, and jobs of 1,500 prompt and 1,000 output tokens on average."""


@cache
def lengths(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of a thousand requests, those of the fewest tokens first."""
    drawn: dict[str, workloads.Lengths] = {
        "chat": workloads.SHAREGPT,
        "code": workloads.Joint.of(workloads.code_completion(rate=10.0, duration=100.0, seed=0)),
        "jobs": workloads.Independent(
            workloads.LogNormal(mean=1500, sigma=0.8, low=64, high=6000),
            workloads.LogNormal(mean=1000, sigma=0.6, low=16, high=3000),
        ),
    }
    made = workloads.generate(workloads.Recorded(tuple(map(float, range(1000)))), drawn[kind], seed=0)
    order = np.argsort(made.prompt_tokens + made.output_tokens, kind="stable")
    return made.prompt_tokens[order], made.output_tokens[order]


@dataclass(frozen=True)
class Episode:
    """Up to sixty requests at one cluster: of each the milliseconds since the one before, and its tokens."""

    cluster: str
    gaps: Sequence[int]
    prompt_tokens: Sequence[int]
    output_tokens: Sequence[int]

    def workload(self) -> Workload:
        """The requests, the first at 0 s."""
        return Workload.from_arrays(
            arrival=np.cumsum([0, *self.gaps[1:]]) / 1000,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
        )


def draw_episode(pick: Pick, cluster: str) -> Episode:
    """One of the family: chat, code, jobs or all of them, from single requests to bursts of sixty."""
    kind, most = pick(0, len(KINDS)), SPEEDS[pick(0, len(SPEEDS) - 1)]
    gaps, rows = [], []
    for _ in range(pick(1, 60)):
        gaps.append(max(0, pick(-most, most)))
        of = KINDS[kind if kind < len(KINDS) else pick(0, len(KINDS) - 1)]
        prompts, outputs = lengths(of)
        rank = pick(0, len(prompts) - 1)
        rows.append((int(prompts[rank]), int(outputs[rank])))
    prompt_tokens, output_tokens = zip(*rows, strict=True)
    return Episode(cluster, tuple(gaps), prompt_tokens, output_tokens)


@dataclass(frozen=True)
class Phase:
    """A stretch of a day in which requests of one kind come at one rate, by Poisson."""

    kind: str
    rate: float
    """Requests/s."""
    duration: float
    """Seconds."""


@dataclass(frozen=True)
class Day:
    """Some phases, one after another, at one cluster; `seed` decides the moments and the lengths."""

    cluster: str
    phases: Sequence[Phase]
    seed: int

    def workload(self) -> Workload:
        """The requests, each with the SLO of `specs/test_autoscaler.py`."""
        parts, start = [], 0.0
        for number, phase in enumerate(self.phases):
            prompts, outputs = lengths(phase.kind)
            arrivals = workloads.Poisson(phase.rate, phase.duration)
            pairs = workloads.Joint(tuple(prompts.tolist()), tuple(outputs.tolist()))
            part = workloads.generate(arrivals, pairs, seed=self.seed * 16 + number)
            parts.append(workloads.select(part, np.arange(len(part)), part.arrival + start))
            start += phase.duration
        return workloads.with_slo(workloads.merge(*parts), ttft=5.0, tpot=0.15)


def draw_day(pick: Pick, cluster: str, kinds: Sequence[str] = ("chat", "jobs")) -> Day:
    """One of the family: up to three phases of 4 to 6 minutes, of chat at 1 to 8 requests/s or of another
    kind at 0.5 to 2."""
    phases = []
    for _ in range(pick(1, 3)):
        kind = kinds[pick(0, len(kinds) - 1)]
        tenths = pick(10, 80) if kind == "chat" else pick(5, 20)
        phases.append(Phase(kind, tenths / 10, 60.0 * pick(4, 6)))
    return Day(cluster, tuple(phases), pick(0, 999))
