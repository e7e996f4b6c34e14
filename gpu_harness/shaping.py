"""Requests that make engine steps of a controlled shape: prefills, decode batches, and both together."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_harness.load import LoadError, Target, answers
from gpu_harness.prompting import Prompting
from sim.workloads import Workload

__all__ = ["Room", "Shape", "drive", "shapes"]

OUTPUT = 12
"""Tokens that each request of a decode batch makes."""
PROMPTS = 4
"""That come while a batch decodes."""
_FILL = 0.9
"""Of the cache at most, so that no step is one of a preempted request."""


@dataclass(frozen=True)
class Room:
    """What a server's steps can hold: requests, tokens a step, KV tokens, tokens of one request."""

    sequences: int
    budget: int
    kv_tokens: int
    longest: int

    def __post_init__(self) -> None:
        least = {"sequences": 1, "budget": 2, "kv_tokens": 2 * OUTPUT, "longest": 2 * OUTPUT}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)!r}; expected at least {low}")


@dataclass(frozen=True)
class Shape:
    """A batch of requests that decode, from prompts of some length, and prompts that come meanwhile."""

    batch: int
    """0: the prompts alone, one after another."""
    context: int
    prompts: tuple[int, ...]

    def workload(self, pause: float) -> Workload:
        """Its requests; the prompts that come meanwhile are so many seconds apart."""
        output = OUTPUT * (2 if self.prompts else 1)
        count, batch = len(self.prompts), self.batch
        return Workload.from_arrays(
            arrival=[*[0.0] * batch, *((number + (batch > 0)) * pause for number in range(count))],
            prompt_tokens=[*[self.context] * batch, *self.prompts],
            output_tokens=[*[output] * batch, *[1] * count],
        )


def shapes(room: Room, rng: np.random.Generator) -> list[Shape]:
    """One round, in random order: prompts alone from 1 token to the longest; batches of 1, 2, 4, ... requests
    with short, middle and long contexts, as far as they fit; the same with prompts that come meanwhile."""
    most = min(room.longest, int(_FILL * room.kv_tokens)) - 1
    found = [Shape(0, 0, (length,)) for length in _spread(1, most, 9)]
    for batch in _doubling(room.sequences):
        # The prompts that come meanwhile need their part of the cache, too.
        deepest = min(room.longest, int(_FILL * room.kv_tokens) // batch) - 2 * OUTPUT
        for context in _spread(1, deepest, 3) if deepest >= 1 else ():
            found.append(Shape(batch, context, ()))
            left = int(_FILL * room.kv_tokens) - batch * (context + 2 * OUTPUT)
            longest = min(most, left // PROMPTS)
            if batch < room.sequences and longest >= 1:
                drawn = np.exp(rng.uniform(0, np.log(longest + 1), PROMPTS))
                found.append(Shape(batch, context, tuple(int(length) for length in drawn)))
    rng.shuffle(found)
    return found


def _doubling(most: int) -> list[int]:
    return sorted({*(1 << power for power in range(most.bit_length())), most})


def _spread(low: int, high: int, count: int) -> list[int]:
    """So many whole numbers, evenly on a logarithmic scale."""
    return sorted({round(float(value)) for value in np.geomspace(low, high, count)})


async def drive(
    targets: Sequence[Target], room: Room, seconds: float, *, seed: int = 0, rounds: int = 2
) -> None:
    """Rounds of shapes for so long, at least so many: on all servers at once and on one after the other, in
    turn, so that half of the steps are beside busy neighbours. LoadError if a request fails."""
    rng, end = np.random.default_rng(seed), time.monotonic() + seconds
    salts, pause = itertools.count(secrets.randbits(32)), 0.1
    for number in itertools.count():
        for shape in shapes(room, rng):
            if number >= rounds and time.monotonic() > end:
                return
            load = shape.workload(pause)
            for group in [targets] if number % 2 == 0 else [[target] for target in targets]:
                asked = [answers(target, load, Prompting(load, salt=next(salts))) for target in group]
                found = [answer for of in await asyncio.gather(*asked) for answer in of]
                for answer in found:
                    if answer.error:
                        raise LoadError(f"a request of the calibration failed: {answer.error}")
                # Prompts come while the batch decodes: how long its steps are is seen from those before.
                gaps = [np.median(np.diff(each.token_times)) for each in found if each.output_tokens > 2]
                pause = 2 * float(np.median(gaps)) if gaps else pause
