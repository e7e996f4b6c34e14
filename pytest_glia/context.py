"""Where and with what a spec's replications run: set once for a plain run, anew for each job of a search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_glia.decisions import World
from pytest_glia.hookspecs import Audit
from pytest_glia.misuse import Misuse
from pytest_glia.replication import Failure, Metrics

if TYPE_CHECKING:
    from pytest_glia.nursery import Nursery

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True


@dataclass(frozen=True)
class Found:
    """What is known of the samples that were asked for, and what to run before asking again.

    This ``share`` is all of the others, unless they are run in several places. A replication that has
    failed is known, too: it is not run again.
    """

    known: Mapping[str, Metrics | Failure]
    share: tuple[str, ...]


class SampleStore(Protocol):
    """Metrics of replications that were already paid for, by content key."""

    def find(self, keys: Sequence[str], simulations: Sequence[str]) -> Found:
        """What is known of `keys`, and which of them the caller is to run and `add` now.

        Those of `simulations` that are not known, runs of a candidate, are reserved from the budget first;
        raises `pytest_glia.budget.BudgetExhausted` if they do not fit. Probes are simulations, too, though
        they are run with one of the `keys`.
        """
        ...

    def add(self, key: str, outcome: Metrics | Failure) -> None:
        """Keep what came of a replication that has just been run."""
        ...

    def ran(self) -> None:
        """Be told of a replication that has just been run, of which nothing is kept."""
        ...


class MemoryStore:
    """Samples kept for the length of one pytest session, without a budget."""

    def __init__(self) -> None:
        self._samples: dict[str, Metrics | Failure] = {}

    def find(self, keys: Sequence[str], simulations: Sequence[str]) -> Found:
        known = {key: self._samples[key] for key in keys if key in self._samples}
        return Found(known, tuple(key for key in keys if key not in known))

    def add(self, key: str, outcome: Metrics | Failure) -> None:
        self._samples[key] = outcome

    def ran(self) -> None:
        pass


@dataclass(frozen=True)
class BaseSource:
    """The candidate before the change under test: its text (as Latin-1), or why there is none.

    Without a text, ``skip`` says whether the test is skipped for that ``reason`` or fails.
    """

    content: str | None
    reason: str = ""
    skip: bool = True

    def text(self) -> bytes:
        """The text; skips the test, or raises `Misuse`, if there is none."""
        if self.content is not None:
            return self.content.encode("latin-1")
        if self.skip:
            pytest.skip(f'against="base": {self.reason}')
        raise Misuse(self.reason)


@dataclass(frozen=True)
class Context:
    """All that evaluating a spec needs besides the spec.

    Attributes:
        root: pytest's root directory, or its counterpart in the composed tree.
        source: The text of the candidate at a path.
        base_source: The text of the candidate at a path before the change under test; it skips the test
            if there is none.
        seeds: Of the replications, in order.
        confidence: Of the intervals.
        timeout: Seconds for one replication.
        workers: Replications at once.
        samples: What was already paid for.
        harness: Stands for everything but candidate and seed that decides a replication's outcome.
        audits: Of the domains at hand: how candidates' decisions are recorded.
        world: Another world than the seeds' to run in, in an audit.
        private: File descriptors that no candidate may inherit.
        confine: Called in a candidate's process before it is loaded, with the descriptors to leave open; None
            where candidates are not confined.
        nursery: Where candidates are to be apart from what they are simulated in, whence their processes are.
        scenario: What an experiment changes of the domain's runs, each by a factor.
        inspected: The folder for the tables of replications, where they are asked for.
        denied: None in a run that judges. Otherwise comparisons are recorded but assumed to hold, so that
            one run shows all that a spec asks; those with the ordinals in ``denied`` are assumed not to,
            for the spec asserts their opposite.
    """

    root: Path
    source: Callable[[str], bytes]
    base_source: Callable[[str], bytes]
    seeds: tuple[int, ...]
    confidence: float
    timeout: float
    workers: int
    samples: SampleStore
    harness: str
    audits: tuple[Audit, ...] = ()
    world: World | None = None
    nursery: Nursery | None = None
    scenario: Mapping[str, float] = field(default_factory=dict)
    inspected: Path | None = None
    private: tuple[int, ...] = ()
    confine: Callable[[Collection[int]], None] | None = None
    denied: frozenset[int] | None = None


CONTEXT = pytest.StashKey[Context]()
