"""A lab in the test's own process: candidates are functions of a seed, and what they give are the metrics."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pytest_glia.candidate import Candidate, fault
from pytest_glia.estimate import Estimate
from pytest_glia.lab import Lab
from pytest_glia.merit import Evaluation
from pytest_glia.playground import Playground
from pytest_glia.statistics import Interval, mean_interval
from pytest_glia.trials import Hypothesis, Trial
from pytest_glia.workbench import Analysis

PATH = "candidates/pump.py"
PUMP = b"""\
PRESSURE = 5


def pump(seed):
    return {"waste": 1 + PRESSURE + seed / 100, "noise": seed % 3 - 1}
"""
CANDIDATE = Candidate(PATH, "pump", exposes=("plant.py", "gone.py"))


def measured(sources: Mapping[str, bytes], seeds: Sequence[int], scenario: Mapping[str, float]) -> Evaluation:
    """What the function gives on these seeds; an exception is an error of the evaluation."""
    scope: dict[str, Any] = {}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(sources[PATH], scope)
            found = [scope["pump"](seed) for seed in seeds]
    except Exception as error:
        return Evaluation(sources, tuple(seeds), {}, {"spec": f"{type(error).__name__}: {error}"})
    load = scenario.get("load", 1.0)
    metrics = {name: tuple(load * each[name] for each in found) for name in found[0]}
    samples = metrics["waste"]
    estimate = Estimate("waste", mean_interval(samples, 0.95), samples, "mean", metrics)
    keys = tuple(f"table {seed}" for seed in seeds)
    checks = {("spec", 0): (estimate < 3.0).check}
    return Evaluation(sources, tuple(seeds), checks, {}, keys, printed.getvalue())


@dataclass
class StandIn:
    """As much of a lab as a playground asks for; the static rules are the real ones.

    Attributes:
        records: What was put on record.
        looks: How often something was looked at.
        known: What was, which prints nothing when it is looked at again.
    """

    folder: Path
    name: str = "1"
    statement: str = "# The problem"
    candidates: tuple[Candidate, ...] = (CANDIDATE,)
    knobs: Mapping[str, str] = field(default_factory=lambda: {"load": "arrivals per second"})
    trials: list[Trial] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)
    looks: int = 0
    known: set[str] = field(default_factory=set)
    held: int = 0
    settings: Any = field(
        default_factory=lambda: SimpleNamespace(
            replications=4, confined=lambda: False, sandbox="off", executor="local"
        )
    )
    start: Evaluation = field(default_factory=lambda: measured({PATH: PUMP}, range(1, 5), {}))

    def read(self, path: str) -> bytes | None:
        return b"# Pressures go from 1 to 9.\n" if path == "plant.py" else None

    def fault(self, sources: Mapping[str, bytes]) -> str | None:
        return fault(CANDIDATE, sources[PATH], ())

    def look(
        self,
        sources: Mapping[str, bytes],
        replications: int,
        *,
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
    ) -> Evaluation:
        self.looks += 1
        found = measured(sources, range(1, replications + 1), scenario or {})
        if (key := str((sources, replications, scenario))) in self.known:
            found = replace(found, printed="")
        self.known.add(key)
        return found if inspected else replace(found, tables=())

    def full(
        self, sources: Mapping[str, bytes], hypothesis: Hypothesis, against: Evaluation, *, race: bool = True
    ) -> Trial:
        evaluation = measured(sources, range(1, 5), {})
        better = evaluation.evidence.get("waste", 99.0) < against.evidence["waste"]
        change = Interval(
            -1.0 if better else 1.0, 0.1, 4, 0.95, -1.5 if better else 0.5, -0.5 if better else 1.5
        )
        number = len(self.trials) + 1
        result = "better" if better else "worse"
        self.trials.append(Trial(number, hypothesis, evaluation, change, result, "abcdef0123", 4))  # type: ignore[arg-type]
        return self.trials[-1]

    def say(self, text: str) -> None:
        pass

    def hold(self, ablations: int) -> None:
        self.held = ablations

    def recorded(self, key: str, make: Callable[[], str]) -> str:
        if key not in self.records:
            self.records[key] = make()
        return self.records[key]

    def remember(self, key: str, value: str) -> None:
        self.records[key] = value

    def tables(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


@dataclass(frozen=True)
class Fresh:
    """A look on other seeds, from 101."""

    n: int = 12

    def __call__(
        self,
        sources: Mapping[str, bytes],
        *,
        on: slice = slice(None),
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
    ) -> Evaluation:
        return measured(sources, range(101, 101 + self.n)[on], scenario or {})

    def analyse(self, code: str, seen: Evaluation) -> Analysis:
        """The code on the mean of waste."""
        scope = {"waste": seen.evidence["waste"], "findings": dict[str, float]()}
        exec(code, scope)
        return Analysis("", cast("dict[str, float]", scope["findings"]))


def playground(folder: Path) -> tuple[Playground, StandIn]:
    """A context at its beginning, and its lab."""
    lab = StandIn(folder)
    return Playground(cast("Lab", lab), "1"), lab


def pressed(pressure: int) -> dict[str, bytes]:
    """The pump with that pressure."""
    return {PATH: PUMP.replace(b"= 5", f"= {pressure}".encode())}
