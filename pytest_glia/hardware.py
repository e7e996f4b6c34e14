"""Replications on real hardware: in turns, nothing kept, the candidate asked in a process of its own.

What a domain's testbed (`pytest_glia.hookspecs.RealTestbed`) measures happens in this process: servers and
load are the domain's. A candidate's objects, and for equal conditions a baseline's, live in a confined fork,
which answers questions; so a candidate has neither network nor clock of its own in what is measured, and of
its process nothing is taken but decisions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from pytest_glia.arms import Arm
from pytest_glia.asked import asked
from pytest_glia.calling import Replicate, call, make_objects, metrics_of, seed_generators, told
from pytest_glia.context import Context
from pytest_glia.decisions import Objects
from pytest_glia.domains import is_real, testbed_of
from pytest_glia.hookspecs import RealTestbed
from pytest_glia.nursery import REAL
from pytest_glia.replication import Metrics, ReplicationError, serve
from pytest_glia.seeds import global_seed, policy_seed
from pytest_glia.timing import alone, apart

_PAUSE = 1.0
"""Seconds after which a run is tried again whose hardware another one had."""

__all__ = ["HardwareFailed", "Twice", "measured", "noise_of", "real_testbed", "uses_testbed"]


class HardwareFailed(Exception):
    """A run on real hardware failed; the message says whose and why."""


class Twice(dict[str, float]):
    """The means of the metrics of two runs of the same code on the same seed, and both."""

    def __init__(self, first: Metrics, second: Metrics) -> None:
        self.both = first, second
        super().__init__(
            {name: statistics.fmean((first[name], second[name])) for name in first if name in second}
        )


def noise_of(metric: str | None, *runs: Sequence[Metrics]) -> str:
    """For a verdict on real hardware: the median relative difference of two runs of the same code on the same
    seed, in brackets; nothing for other runs."""
    pairs = [
        (first[name], second[name])
        for arm in runs
        for each in arm
        if isinstance(each, Twice)
        for first, second in [each.both]
        for name in [metric or next(iter(first))]
    ]
    return f" (noise {100 * apart(pairs):.2g} %)" if pairs else ""


def uses_testbed(item: pytest.Item) -> bool:
    """Whether a test asks for the fixture ``testbed``, by itself or by another fixture."""
    return "testbed" in item.fixturenames  # type: ignore[attr-defined]


def real_testbed(item: pytest.Item) -> RealTestbed | None:
    """The testbed of a test that measures on real hardware."""
    if not uses_testbed(item):
        return None
    testbed = testbed_of(item.config)
    return testbed if is_real(testbed) else None


def measured(
    testbed: RealTestbed,
    replicate: Replicate,
    arms: Sequence[Arm],
    roles: Sequence[str | None],
    context: Context,
) -> list[list[Metrics]]:
    """The metrics of every arm with every seed: in the order candidate, baseline, baseline, candidate.

    Raises:
        HardwareFailed: a run failed.
    """
    order = [*range(len(arms)), *reversed(range(len(arms)))]
    found: list[list[Metrics]] = [[] for _ in arms]
    for seed in context.seeds:
        runs: list[list[Metrics]] = []
        while not runs:
            try:
                runs = [[] for _ in arms]
                with alone() as lock:
                    for place in order:
                        runs[place].append(_run(testbed, replicate, arms[place], roles, seed, context, lock))
                        context.samples.ran()
            except testbed.busy:
                runs = []
                time.sleep(_PAUSE)  # in which whoever has the hardware may have its turn
        for place, (first, second) in enumerate(runs):
            found[place].append(Twice(first, second))
    return found


def _run(
    testbed: RealTestbed,
    replicate: Replicate,
    arm: Arm,
    roles: Sequence[str | None],
    seed: int,
    context: Context,
    lock: int,
) -> Metrics:
    made: dict[str | None, Callable[[bytes], bytes]] = {}

    def answer(role: str | None, question: bytes) -> bytes:
        """In the fork, which loads the code when it is asked for the first time, and is confined by then."""
        with told(arm.files):
            if not made:
                seed_generators(global_seed(seed))
                made.update({each: testbed.answering(policy) for each, policy in _objects(arm, seed).items()})
            return made[role](question)

    private = [*context.private, lock]
    try:
        if context.nursery and arm.candidates:
            asking = context.nursery.candidates(REAL, arm, seed, context)
        else:
            forked = serve([partial(answer, role) for role in roles], private, context.confine)
            asking = asked(forked, context.timeout)
        with asking as ask, told(arm.files):
            objects = {role: testbed.asking(partial(ask, number)) for number, role in enumerate(roles)}
            return metrics_of(call(replicate, objects, seed))
    except ReplicationError as error:
        if isinstance(error.__cause__, testbed.busy):
            raise error.__cause__ from None
        if context.nursery:
            context.nursery.insist()
        raise HardwareFailed(f"{arm.name}, seed {seed}: {error}") from error


def _objects(arm: Arm, seed: int) -> Objects:
    return make_objects(arm.entries(), policy_seed(seed))
