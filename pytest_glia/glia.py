"""The fixture ``glia``: runs a spec's replications and estimates what they say."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import pytest

from pytest_glia.arms import Arm, baseline_arm, source_arm
from pytest_glia.calling import (
    Replicate,
    call,
    function_of,
    make_objects,
    metrics_of,
    seed_generators,
    told,
)
from pytest_glia.candidate import Candidate, exposed_below, fault
from pytest_glia.content import content_key, digest
from pytest_glia.context import Context
from pytest_glia.decisions import CHANGES, PROBED, Objects, Recorded, World, in_world
from pytest_glia.estimate import Check, Estimate
from pytest_glia.hardware import HardwareFailed, Twice, measured, noise_of, real_testbed
from pytest_glia.misuse import Misuse
from pytest_glia.replication import Failure, Metrics, Outcome, Replication
from pytest_glia.running import run_all
from pytest_glia.seeds import global_seed, policy_seed
from pytest_glia.statistics import logarithm, mean_interval, stretch_of
from pytest_glia.tables import keep_tables, tables_of
from pytest_glia.timing import Code, Prepare, Stopwatch, TimingFailed, Timings, noise

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True


@dataclass
class Measured:
    """What a test has compared, why it could not be evaluated, and which domains record its decisions.

    ``tables`` are the keys of the candidate's replications of which the tables were kept.
    """

    checks: list[Check] = field(default_factory=list)
    broken: str | None = None
    calls: int = 0
    recordable: set[str] = field(default_factory=set)
    judging: bool = True
    tables: list[str] = field(default_factory=list)

    def asked(self, *, passed: bool) -> list[Check]:
        """The comparisons in the direction that the test asserts: what it passed in spite of, it denied."""
        if not (passed and self.judging):
            return self.checks
        return [check.opposite() if check.outcome == "refuted" else check for check in self.checks]

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
        self._measured = item.stash[MEASURED] = Measured(judging=context.denied is None)

    def measure(
        self, replicate: Replicate, metric: str | None = None, *, timed: bool = False, reference: Any = None
    ) -> Estimate:
        """The mean of a metric of the candidate over seeded replications, with its interval.

        Args:
            replicate: Takes (candidate object, seed) - or the candidates by their roles and ``seed`` as
                keywords - and returns a number, a mapping of numbers, or an object with ``.metrics``.
            metric: Which number of several.
            timed: Measure seconds of wall-clock time: `replicate` prepares the input and returns a function
                without arguments, whose call is timed and whose result is compared with the reference's.
            reference: Of a timed candidate: what gives the right output, as ``against`` of `compare`.
        """
        if timed:
            if reference is None:
                raise Misuse(
                    'measure(..., timed=True) has no reference=...: give a class, a function or "base" '
                    "whose output is right, for a fast answer may be a wrong one"
                )
            timings = self._timed(replicate, metric, self._baseline_arm(reference, "reference"), paired=False)
            samples = [each.seconds for each in timings]
            return self._timed_estimate("seconds", samples, "mean", timings)
        if reference is not None:
            raise Misuse("reference=... is what a timed output is compared with: add timed=True, or drop it")
        [runs] = self._run(replicate, [self._candidate_arm()])
        values = [self._value(run, metric, seed) for run, seed in zip(runs, self._context.seeds, strict=True)]
        return self._estimate(f"{metric or 'value'}{noise_of(metric, runs)}", values, "mean", runs)

    def compare(
        self, replicate: Replicate, against: Any, metric: str | None = None, *, timed: bool = False
    ) -> Estimate:
        """How the candidate's metric compares with a baseline's, in paired replications.

        Both run on the same seeds. The estimate is a paired interval of the log-ratio candidate /
        baseline; ask for its ``reduction``, ``increase`` or ``ratio``.

        Args:
            replicate: As for `measure`.
            against: A class or function that takes the candidate's place, ``"base"`` (the candidate at
                the merge-base with the default branch), or a mapping from roles to such.
            metric: Which number of several; it must be positive in every replication.
            timed: As for `measure`; the reference is the baseline.
        """
        baseline = self._baseline_arm(against)
        if timed:
            timings = self._timed(replicate, metric, baseline, paired=True)
            samples = [math.log(each.seconds / each.baseline_seconds) for each in timings]
            return self._timed_estimate(f"seconds against {baseline.name}", samples, "ratio", timings)
        runs, base_runs = self._run(replicate, [self._candidate_arm(), baseline])
        logs = []
        for run, base_run, seed in zip(runs, base_runs, self._context.seeds, strict=True):
            value, base_value = (self._value(each, metric, seed) for each in (run, base_run))
            if value <= 0 or base_value <= 0:
                self._fail(
                    f"{metric or 'the value'} is {value:g} for the candidate and {base_value:g} for "
                    f"{baseline.name} with seed {seed}: a ratio needs positive numbers; use glia.measure"
                )
            logs.append(logarithm(value / base_value))
        what = f"{metric or 'value'} against {baseline.name}{noise_of(metric, runs, base_runs)}"
        return self._estimate(what, logs, "ratio", runs)

    def _estimate(self, what: str, samples: list[float], scale: Any, runs: Sequence[Metrics]) -> Estimate:
        shared = set.intersection(*(set(run) for run in runs))
        return Estimate(
            quantity=what,
            interval=mean_interval(samples, self._context.confidence, stretch=stretch_of(what)),
            samples=tuple(samples),
            scale=scale,
            metrics={name: tuple(run[name] for run in runs) for name in sorted(shared)},
            judge=self._judge,
        )

    def _judge(self, check: Check) -> bool | None:
        """Record a comparison; in a run that only looks, say what to assume of it."""
        if self._context.denied is None:
            self._measured.checks.append(check)
            return None
        denied = len(self._measured.checks) in self._context.denied
        self._measured.checks.append(check.opposite() if denied else check)
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
        if math.isnan(run[name]) and isinstance(run, Twice):
            pytest.skip(f"{name} is not known on this testbed (docs/harness.md)")
        if not math.isfinite(run[name]):
            self._fail(f"{name} is {run[name]} with seed {seed}: a replication must report a finite number")
        return run[name]

    def _candidate_arm(self) -> Arm:
        sources = {each.path: self._context.source(each.path) for each in self._candidates}
        allowed = self._item.config.getini("glia_allow_imports")
        for each in self._candidates:
            if wrong := fault(each, sources[each.path], allowed, exposed_below(self._context.root)):
                self._fail(textwrap.fill(wrong, 78, break_long_words=False, break_on_hyphens=False))
        return source_arm("the candidate", self._candidates, sources, self._context.root, is_candidate=True)

    def _baseline_arm(self, against: Any, argument: str = "against") -> Arm:
        return baseline_arm(against, argument, self._candidates, self._context, self._call_key)

    def _run(self, replicate: Replicate, arms: Sequence[Arm]) -> list[list[Metrics]]:
        """The metrics of every arm with every seed, from the store or by running them."""
        self._measured.calls += 1
        if testbed := real_testbed(self._item):
            roles = [each.role for each in self._candidates]
            return self._tried(
                partial(measured, testbed, replicate, arms, roles, self._context), HardwareFailed
            )
        seeds = self._context.seeds
        function = (None if self._is_patched() else content_key(replicate)) or self._call_key()
        recordable = self._recordable(replicate, function, arms[0])
        world = self._context.world if recordable else None
        harness = "; ".join(str(part) for part in (self._context.harness, *self._setting(world)) if part)
        keys: dict[tuple[str, int], str] = {}
        places: dict[str, tuple[Arm, int]] = {}
        for seed in seeds:
            for arm in arms:
                apart = ["apart"] if self._is_apart(arm, recordable) else []
                key = digest(harness, self._sharing(), function, arm.key, str(seed), *apart)
                keys[arm.key, seed] = key
                # Of arms with the same content the first is run.
                places.setdefault(key, (arm, seed))
        paid = {
            key: [key, *(f"{key} {n}" for n in range(CHANGES if world and seed in seeds[:PROBED] else 0))]
            for key, (arm, seed) in places.items()
            if arm.is_candidate
        }
        known = self._sampled(
            {
                key: self._replication(replicate, arm, seed, world, recordable)
                for key, (arm, seed) in places.items()
            },
            lambda key: f"{places[key][0].name}, seed {places[key][1]}",
            paid,
        )
        if self._context.inspected:
            self._measured.tables += [keys[arms[0].key, seed] for seed in seeds]
        return [[known[keys[arm.key, seed]] for seed in seeds] for arm in arms]

    def _setting(self, world: World | None) -> tuple[object, ...]:
        """What tells these replications from those of the same code and seeds elsewhere."""
        scenario = sorted(self._context.scenario.items())
        return world, scenario and f"scenario {scenario}", self._context.inspected and "inspected"

    def _sampled(
        self,
        replications: Mapping[str, Replication],
        name: Callable[[str], str],
        paid: Mapping[str, Sequence[str]],
    ) -> dict[str, Metrics]:
        """The metrics of replications by their keys, from the store or by running them.

        Args:
            name: What is said of the one with a key if it fails.
            paid: The keys of those that are simulations, each with what is paid for with it.
        """
        known: dict[str, Metrics] = {}
        simulations = [each for keys in paid.values() for each in keys]
        while replications.keys() - known.keys():
            found = self._context.samples.find(list(replications), simulations)
            for key, outcome in found.known.items():
                known[key] = self._succeeded(name(key), outcome)
            outcomes = run_all(
                [replications[key] for key in found.share],
                workers=self._context.workers,
                timeout=self._context.timeout,
                private=self._context.private,
                confine=self._context.confine,
            )
            failed: dict[int, Failure | bytes] = {}
            for index, came in outcomes:
                key = found.share[index]
                if isinstance(came, Failure) and replications[key].keeps and self._context.nursery:
                    self._context.nursery.insist()
                if isinstance(came, bytes) and self._context.inspected:
                    came = keep_tables(self._context.inspected / f"{key}.npz", came)
                if not isinstance(came, bytes):
                    self._context.samples.add(key, came)
                if isinstance(came, dict):
                    known[key] = came
                    for probe in paid.get(key, ())[1:]:
                        self._context.samples.add(probe, {})
                else:
                    failed[index] = came
                # Of several the first in order is told, whichever ended first: it is the same in each run.
                if failed and sum(found.share[n] in known for n in range(min(failed))) == min(failed):
                    break
            for index in sorted(failed):
                self._succeeded(name(found.share[index]), failed[index])
        return known

    def _succeeded(self, name: str, outcome: Outcome) -> Metrics:
        if not isinstance(outcome, dict):
            self._fail(f"{name}: {outcome!s}")
        return outcome

    def _recordable(self, replicate: Replicate, function: bytes, candidate: Arm) -> frozenset[str]:
        """The domains that can record and replay the decisions for which the replication asks its candidate.

        A trusted run of it with objects that can decide nothing tells, once for each function.
        """
        if not self._context.audits:
            return frozenset()
        key = digest(self._context.harness, self._sharing(), function, "asks for decisions")
        # As the specs have it: in a scenario without a request nothing would be asked, and that be kept.
        recorded = self._recorded(replicate, candidate, self._context.seeds[0], None, {})
        asked = self._sampled(
            {key: Replication(recorded.asked, quiet=True)},
            lambda _: "it cannot be told what the replication asks of a candidate",
            {},
        )
        recordable = frozenset(domain for domain, decisions in asked[key].items() if decisions)
        self._measured.recordable |= recordable
        return recordable

    def _replication(
        self, replicate: Replicate, arm: Arm, seed: int, world: World | None, recordable: frozenset[str]
    ) -> Replication:
        """What runs for one arm and seed: of candidate code nothing but its decisions is taken."""
        recorded = self._recorded(replicate, arm, seed, world, self._context.scenario)
        if arm.trusted or not recordable:
            return Replication(lambda: recorded.run(recorded.objects()), confined=not arm.trusted)
        if self._context.nursery and self._is_apart(arm, recordable):
            run = partial(self._run_apart, recorded, arm, seed, min(recordable))
            # Of its processor time this one tells nothing: that is the candidate's.
            return Replication(run, keeps=(self._context.nursery.descriptor,), patient=False)
        if world is None or not arm.is_candidate or seed not in self._context.seeds[:PROBED]:
            return recorded.replication()
        return recorded.replication(lambda bundle: recorded.probe(bundle, world, seed))

    def _is_apart(self, arm: Arm, recordable: frozenset[str]) -> bool:
        """Whether an arm is asked in a process that knows neither its seed nor its future."""
        nursery = self._context.nursery
        return (
            nursery is not None
            and arm.is_candidate
            and len(recordable) == 1
            and recordable <= nursery.domains
        )

    def _run_apart(self, recorded: Recorded, arm: Arm, seed: int, domain: str) -> Metrics | bytes:
        assert self._context.nursery is not None
        with self._context.nursery.candidates(domain, arm, seed, self._context) as ask:
            return recorded.apart(domain, ask)

    def _recorded(
        self, replicate: Replicate, arm: Arm, seed: int, world: World | None, scenario: Mapping[str, float]
    ) -> Recorded:
        audits = self._context.audits

        def run(objects: Objects) -> Metrics | bytes:
            with told(arm.files), in_world(audits, world, seed, scenario):
                result = call(replicate, objects, seed)
                return tables_of(result) if self._context.inspected else metrics_of(result)

        def objects() -> Objects:
            seed_generators(global_seed(seed))
            with told(arm.files):
                return make_objects(arm.entries(), policy_seed(seed))

        return Recorded(audits, tuple(each.role for each in self._candidates), objects, run)

    def _tried(self, work: Callable[[], list[Any]], wrong: type[Exception]) -> list[Any]:
        """What real time gives: its simulations are reserved before, and nothing of them is known or kept."""
        keys = [f"{self._call_key().decode()} {seed}" for seed in self._context.seeds]
        self._context.samples.find((), keys)
        try:
            return work()
        except wrong as error:
            failure = str(error)
        self._fail(failure)

    def _timed(self, prepare: Replicate, metric: str | None, other: Arm, *, paired: bool) -> list[Timings]:
        """The timings of the candidate, and of another arm if they are `paired`; none is kept."""
        if metric is not None:
            raise Misuse(f"timed=True measures seconds: leave metric={metric!r} out")
        self._measured.calls += 1
        arms = [self._candidate_arm(), other]
        context = self._context
        watch = Stopwatch(context.timeout, context.private, context.confine, context.samples.ran)
        codes = [Code(arm.name, partial(self._loaded, prepare, arm)) for arm in arms]
        return self._tried(partial(watch.time, context.seeds, *codes, paired=paired), TimingFailed)

    def _loaded(self, prepare: Replicate, arm: Arm) -> Prepare:
        """An arm's code, loaded once in the fork in which it is timed."""
        with told(arm.files):
            entries = arm.entries()

        def prepared(seed: int) -> Callable[[], Any]:
            with (
                told(arm.files),
                in_world(self._context.audits, self._context.world, seed, self._context.scenario),
            ):
                function = function_of(call(prepare, make_objects(entries, policy_seed(seed)), seed))

            def run() -> Any:
                with told(arm.files):
                    return function()

            return run

        return prepared

    def _timed_estimate(
        self, what: str, samples: list[float], scale: Any, timings: Sequence[Timings]
    ) -> Estimate:
        share = noise(timings)
        runs = [{"seconds": each.seconds, "timing_noise": share} for each in timings]
        what = f"{what} (noise {100 * share:.2g} %)"
        return self._estimate(what, samples, scale, runs)

    def _sharing(self) -> str:
        """Tests share the runs of one replication function only if nothing else could differ.

        That is: the same file and class, the same fixtures and parameters. (With ``monkeypatch`` or a
        ``mocker`` each call is its own.)
        """
        callspec = getattr(self._item, "callspec", None)
        fixtures = ",".join(sorted(self._item.fixturenames))  # type: ignore[attr-defined]
        place = self._item.parent and self._item.parent.nodeid
        return f"{place} {fixtures} {callspec and callspec.id}"

    def _is_patched(self) -> bool:
        """Whether the test has a fixture that changes the world as it goes."""
        names: list[str] = self._item.fixturenames  # type: ignore[attr-defined]
        return any(name == "monkeypatch" or name.endswith("mocker") for name in names)

    def _call_key(self) -> bytes:
        return f"{self._item.nodeid} call {self._measured.calls}".encode()
