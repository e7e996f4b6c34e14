"""The fixture ``glia``: runs a spec's replications and estimates what they say."""

from __future__ import annotations

import math
import numbers
import random
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
from numpy import random as numpy_random

from pytest_glia.candidate import Candidate, fault, load, make
from pytest_glia.content import content_key, digest
from pytest_glia.context import Context
from pytest_glia.decisions import CHANGES, PROBED, Objects, Recorded, World, in_world
from pytest_glia.estimate import Check, Estimate
from pytest_glia.misuse import Misuse
from pytest_glia.replication import Metrics, Replication, ReplicationError, run_all
from pytest_glia.seeds import global_seed
from pytest_glia.statistics import mean_interval

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True

Replicate = Callable[..., Any]


@dataclass(frozen=True)
class _Arm:
    """One side of a comparison: a name for people, a key for its content, and how to make its objects."""

    name: str
    key: str
    objects: Callable[[int], Objects]
    is_candidate: bool
    trusted: bool
    files: frozenset[str] = frozenset()


@dataclass
class Measured:
    """What a test has compared, why it could not be evaluated, and whether a domain records its decisions."""

    checks: list[Check] = field(default_factory=list)
    broken: str | None = None
    calls: int = 0
    recordable: bool = False

    def untouched(self) -> str | None:
        """A sentence if the test has ended before it measured anything."""
        return None if self.calls else "It ends before it measures anything."


MEASURED = pytest.StashKey[Measured]()


class Glia:
    """What a spec measures with. One instance a test; see `measure` and `compare`."""

    def __init__(
        self,
        item: pytest.Item,
        candidates: tuple[Candidate, ...],
        context: Context,
    ) -> None:
        self._item = item
        self._candidates = candidates
        self._context = context
        self._measured = item.stash[MEASURED] = Measured()

    def measure(self, replicate: Replicate, metric: str | None = None) -> Estimate:
        """The mean of a metric of the candidate over seeded replications, with its interval.

        Args:
            replicate: Takes (candidate object, seed) - or the candidates by their roles and ``seed`` as
                keywords - and returns a number, a mapping of numbers, or an object with ``.metrics``.
            metric: Which number of several.
        """
        [runs] = self._run(replicate, [self._candidate_arm()])
        values = [self._value(run, metric, seed) for run, seed in zip(runs, self._context.seeds, strict=True)]
        return self._estimate(metric or "value", values, "mean", runs, deterministic=_all_equal(runs))

    def compare(self, replicate: Replicate, against: Any, metric: str | None = None) -> Estimate:
        """How the candidate's metric compares with a baseline's, in paired replications.

        Both run on the same seeds. The estimate is a paired interval of the log-ratio candidate /
        baseline; ask for its ``reduction``, ``increase`` or ``ratio``.

        Args:
            replicate: As for `measure`.
            against: A class or function that takes the candidate's place, ``"base"`` (the candidate at
                the merge-base with the default branch), or a mapping from roles to such.
            metric: Which number of several; it must be positive in every replication.
        """
        baseline = self._baseline_arm(against)
        runs, base_runs = self._run(replicate, [self._candidate_arm(), baseline])
        logs, pairs = [], set()
        for run, base_run, seed in zip(runs, base_runs, self._context.seeds, strict=True):
            value, base_value = (self._value(each, metric, seed) for each in (run, base_run))
            if value <= 0 or base_value <= 0:
                self._fail(
                    f"{metric or 'the value'} is {value:g} for the candidate and {base_value:g} for "
                    f"{baseline.name} with seed {seed}: a ratio needs positive numbers; use glia.measure"
                )
            logs.append(math.log(value / base_value))
            pairs.add((value, base_value))
        # A ratio that stays the same while its parts vary, or is 1, is no accident.
        same = len(pairs) > 1 or not any(logs) or (_all_equal(runs) and _all_equal(base_runs))
        what = f"{metric or 'value'} against {baseline.name}"
        return self._estimate(what, logs, "ratio", runs, deterministic=same)

    def _estimate(
        self, what: str, samples: list[float], scale: Any, runs: Sequence[Metrics], *, deterministic: bool
    ) -> Estimate:
        """`deterministic`: samples that are equal are so of necessity, not by chance."""
        shared = set.intersection(*(set(run) for run in runs))
        evidence = {name: math.fsum(run[name] for run in runs) / len(runs) for name in sorted(shared)}
        return Estimate(
            quantity=what,
            interval=mean_interval(samples, self._context.confidence, deterministic=deterministic),
            samples=tuple(samples),
            scale=scale,
            evidence={name: value for name, value in evidence.items() if math.isfinite(value)},
            judge=self._judge,
        )

    def _judge(self, check: Check, opposite: Check) -> bool | None:
        """Record a comparison; in a run that only looks, say what to assume of it."""
        if self._context.denied is None:
            self._measured.checks.append(check)
            return None
        denied = len(self._measured.checks) in self._context.denied
        self._measured.checks.append(opposite if denied else check)
        return not denied

    def _fail(self, message: str) -> NoReturn:
        """Fail the test because it could not be evaluated, which no verdict is."""
        self._measured.broken = message
        pytest.fail(message, pytrace=False)

    def _value(self, run: Metrics, metric: str | None, seed: int) -> float:
        name = metric if metric is not None or len(run) != 1 else next(iter(run))
        if name is None or name not in run:
            wanted = "no metric was named" if metric is None else f"there is no metric {metric!r}"
            self._fail(f"{wanted}: the replications report {', '.join(sorted(run))}")
        if not math.isfinite(run[name]):
            self._fail(f"{name} is {run[name]} with seed {seed}: a replication must report a finite number")
        return run[name]

    def _candidate_arm(self) -> _Arm:
        sources = {each.path: self._context.source(each.path) for each in self._candidates}
        allowed = self._item.config.getini("glia_allow_imports")
        for each in self._candidates:
            if told := fault(each, sources[each.path], allowed):
                self._fail(textwrap.fill(told, 78, break_long_words=False, break_on_hyphens=False))
        return self._source_arm("the candidate", sources, is_candidate=True)

    def _source_arm(self, name: str, sources: Mapping[str, bytes], *, is_candidate: bool) -> _Arm:
        def objects(seed: int) -> Objects:
            return {
                each.role: make(load(each, sources[each.path], self._context.root), seed)
                for each in self._candidates
            }

        parts = [f"{each.path}:{each.entry}:{each.role}".encode() for each in self._candidates]
        files = frozenset(str(self._context.root / each.path) for each in self._candidates)
        return _Arm(name, digest(*parts, *sources.values()), objects, is_candidate, False, files)

    def _baseline_arm(self, against: Any) -> _Arm:
        if isinstance(against, str):
            if against != "base":
                raise Misuse(
                    f'against={against!r}: give a class, a function, or "base" (the candidate before this '
                    "branch's changes)"
                )
            sources = {each.path: self._context.base_source(each.path) for each in self._candidates}
            return self._source_arm("base", sources, is_candidate=False)
        entries: dict[str | None, Any] = (
            dict(against) if isinstance(against, Mapping) else {self._candidates[0].role: against}
        )
        roles = {each.role for each in self._candidates}
        if set(entries) != roles:
            raise Misuse(
                f"against= gives {sorted(map(str, entries))}, but the candidates' roles are "
                f"{sorted(map(str, roles))}: give a mapping with one baseline for each role"
            )
        for entry in entries.values():
            if not callable(entry):
                raise Misuse(f"against={entry!r}: give a class, a function, or the string 'base'")
        names = [getattr(entry, "__name__", repr(entry)) for entry in entries.values()]
        keys = [content_key(entry) for entry in entries.values()]
        key = digest(*(each or self._call_key() for each in keys))
        return _Arm(
            " + ".join(names),
            key,
            lambda seed: {role: make(entry, seed) for role, entry in entries.items()},
            is_candidate=False,
            trusted=True,
        )

    def _run(self, replicate: Replicate, arms: Sequence[_Arm]) -> list[list[Metrics]]:
        """The metrics of every arm with every seed, from the store or by running them."""
        self._measured.calls += 1
        seeds = self._context.seeds
        patched = "monkeypatch" in self._item.fixturenames  # type: ignore[attr-defined]
        function = (None if patched else content_key(replicate)) or self._call_key()
        recordable = self._is_recordable(replicate, function)
        world = self._context.world if recordable else None
        harness = self._context.harness if world is None else f"{self._context.harness}; {world}"
        places = [(arm, seed) for seed in seeds for arm in arms]
        keys = {
            (arm.key, seed): digest(harness, self._sharing(), function, arm.key, str(seed))
            for arm, seed in places
        }
        probed = {keys[arm.key, seed] for arm, seed in places if arm.is_candidate and seed in seeds[:PROBED]}

        def probes(key: str) -> list[str]:
            """Keys of the runs that probe a replication: they are paid for, too."""
            return [f"{key} {n}" for n in range(CHANGES)] if world is not None and key in probed else []

        known: dict[str, Metrics] = {}
        for arm in arms:
            wanted = [keys[arm.key, seed] for seed in seeds]
            if arm.is_candidate:
                wanted += [probe for key in wanted for probe in probes(key)]
            known |= self._context.samples.find(wanted, simulations=arm.is_candidate)
        missing = [(arm, seed) for arm, seed in places if keys[arm.key, seed] not in known]
        outcomes = run_all(
            [self._replication(replicate, arm, seed, world, recordable) for arm, seed in missing],
            workers=self._context.workers,
            timeout=self._context.timeout,
            private=self._context.private,
            confine=self._context.confine,
        )
        for index, outcome in outcomes:
            arm, seed = missing[index]
            if not isinstance(outcome, dict):
                self._fail(f"{arm.name}, seed {seed}:\n{outcome!s}")
            known[keys[arm.key, seed]] = outcome
            self._context.samples.add(keys[arm.key, seed], outcome)
            for probe in probes(keys[arm.key, seed]):
                self._context.samples.add(probe, {})
        return [[known[keys[arm.key, seed]] for seed in seeds] for arm in arms]

    def _is_recordable(self, replicate: Replicate, function: bytes) -> bool:
        """Whether the replication asks its candidate for decisions that a domain can record and replay.

        A trusted run of it with objects that can decide nothing tells, once for each function.
        """
        if not self._context.audits:
            return False
        key = digest(self._context.harness, self._sharing(), function, "asks for decisions")
        known = self._context.samples.find([key], simulations=False)
        if key not in known:
            recorded = self._recorded(replicate, self._candidate_arm(), self._context.seeds[0], None)
            [(_, asked)] = run_all(
                [Replication(recorded.asked, quiet=True)],
                workers=1,
                timeout=self._context.timeout,
                private=self._context.private,
            )
            if not isinstance(asked, dict):
                self._fail(f"it cannot be told what the replication asks of a candidate:\n{asked!s}")
            known[key] = asked
            self._context.samples.add(key, asked)
        recordable = any(known[key].values())
        self._measured.recordable |= recordable
        return recordable

    def _replication(
        self, replicate: Replicate, arm: _Arm, seed: int, world: World | None, recordable: bool
    ) -> Replication:
        """What runs for one arm and seed: of candidate code nothing but its decisions is taken."""
        recorded = self._recorded(replicate, arm, seed, world)
        if arm.trusted or not recordable:
            return Replication(lambda: recorded.run(recorded.objects()), confined=not arm.trusted)
        if world is None or not arm.is_candidate or seed not in self._context.seeds[:PROBED]:
            return recorded.replication()
        return recorded.replication(lambda bundle: recorded.probe(bundle, world, seed))

    def _recorded(self, replicate: Replicate, arm: _Arm, seed: int, world: World | None) -> Recorded:
        audits = self._context.audits

        def run(objects: Objects) -> Metrics:
            _seed_global_generators(seed)
            with _told(arm.files), in_world(audits, world, seed):
                if set(objects) == {None}:
                    return _metrics(replicate(objects[None], seed))
                return _metrics(replicate(seed=seed, **{str(role): each for role, each in objects.items()}))

        def objects() -> Objects:
            _seed_global_generators(seed)
            with _told(arm.files):
                return arm.objects(seed)

        return Recorded(audits, tuple(each.role for each in self._candidates), objects, run)

    def _sharing(self) -> str:
        """Tests share the runs of one replication function only if nothing else could differ.

        That is: the same file, the same fixtures and parameters. (With ``monkeypatch`` each call is its own.)
        """
        callspec = getattr(self._item, "callspec", None)
        fixtures = ",".join(sorted(self._item.fixturenames))  # type: ignore[attr-defined]
        return f"{self._item.nodeid.partition('::')[0]} {fixtures} {callspec and callspec.id}"

    def _call_key(self) -> bytes:
        return f"{self._item.nodeid} call {self._measured.calls}".encode()


def _seed_global_generators(seed: int) -> None:
    """Forks start from one state of the global generators: else they would all draw the same."""
    random.seed(global_seed(seed))
    numpy_random.seed(global_seed(seed))


@contextmanager
def _told(files: frozenset[str]) -> Iterator[None]:
    """Make of whatever a replication raises the sentence for its user."""
    try:
        yield
    except ReplicationError:
        raise
    except Exception as error:
        raise ReplicationError(_sentence(error, files)) from error


def _all_equal(runs: Sequence[Metrics]) -> bool:
    """Whether no metric differs between replications: then they do not depend on their seeds."""
    return all(run == runs[0] for run in runs)


def _sentence(error: BaseException, files: frozenset[str]) -> str:
    """An error of a replication with the lines of the candidate in it, or else of what was called last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    frames = [frame for each in reversed(chain) for frame in traceback.extract_tb(each.__traceback__)]
    outside = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
    shown = [frame for frame in outside if frame.filename in files] or outside[-3:]
    sentence = f"the replication raised {type(error).__name__}: {str(error).strip()}".rstrip(": ")
    lines = [f"{frame.filename}:{frame.lineno}: in {frame.name}\n    {frame.line}" for frame in shown]
    return "\n".join([*textwrap.wrap(sentence, 78), *lines])


def _metrics(result: Any) -> Metrics:
    """All numbers that a replication returned, by name."""
    if isinstance(result, numbers.Real):
        return {"value": float(result)}
    named = result if isinstance(result, Mapping) else getattr(result, "metrics", None)
    if not isinstance(named, Mapping) or not named:
        raise ReplicationError(
            f"the replication returned {type(result).__name__}: return a number, a mapping of numbers, or "
            "an object with .metrics"
        )
    for name, value in named.items():
        if not isinstance(value, numbers.Real):
            raise ReplicationError(f"the metric {name!r} is {value!r}: a metric is a number")
    return {str(name): float(value) for name, value in named.items()}
