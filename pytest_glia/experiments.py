"""Experiments: variants of a candidate side by side on the same seeds, with paired intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from pytest_glia.content import digest
from pytest_glia.designers.source import texts_of
from pytest_glia.lab import Lab
from pytest_glia.merit import Evaluation
from pytest_glia.statistics import Interval, mean_interval
from pytest_glia.workbench import Analysis, analyse

Shown = Literal["lower", "higher", "no difference shown"]


@dataclass(frozen=True)
class Variant:
    """Sources under a label; the first of an experiment is what the others are compared with."""

    label: str
    sources: Mapping[str, bytes]


@dataclass(frozen=True)
class Effect:
    """What one metric of one variant is, and how it differs from the first variant's.

    Attributes:
        mean: Over the replications.
        change: Of a metric that is positive throughout the log-ratio to the first variant's, else the
            difference; paired. None for the first variant.
        ratio: Whether `change` is a log-ratio.
    """

    label: str
    metric: str
    mean: float
    change: Interval | None
    ratio: bool

    @property
    def shown(self) -> Shown | None:
        """What the interval says; one that contains zero shows nothing."""
        if self.change is None:
            return None
        if self.change.high < 0:
            return "lower"
        return "higher" if self.change.low > 0 else "no difference shown"

    def describe(self) -> str:
        """The change in words: per cent where it is a ratio."""
        if self.change is None:
            return ""
        ends = (self.change.mean, self.change.low, self.change.high)
        if self.ratio:
            point, low, high = (100 * math.expm1(min(end, 700.0)) for end in ends)
            return f"{point:+.1f} % [{low:+.1f}, {high:+.1f}]"
        return "{:+.4g} [{:+.4g}, {:+.4g}]".format(*ends)


@dataclass(frozen=True)
class Experiment:
    """What was tried, and what came of it.

    Attributes:
        id: Unique in its run.
        purpose: The question that it was to answer.
        errors: By label, why a variant gave nothing.
        tables: By label, the keys of the tables that were kept.
        printed: By label, what the variant has printed.
    """

    id: str
    purpose: str
    variants: Sequence[Variant]
    replications: int
    scenario: Mapping[str, float]
    effects: Sequence[Effect]
    errors: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    printed: Mapping[str, str] = field(default_factory=dict)

    def effect(self, label: str, metric: str) -> Effect | None:
        """Of that variant and metric; None if it was not measured."""
        found = (each for each in self.effects if (each.label, each.metric) == (label, metric))
        return next(found, None)

    def about(self, variant: str, metric: str) -> Experiment:
        """The same with the effects of that variant and metric alone, where they are named.

        Raises LookupError, in words, if it has none of them.
        """
        for name, there in (
            (variant, [each.label for each in self.effects if each.change]),
            (metric, [each.metric for each in self.effects]),
        ):
            if name and name not in there:
                raise LookupError(f"has no {name!r}: it has {', '.join(dict.fromkeys(there))}")
        kept = tuple(
            each
            for each in self.effects
            if each.change is None or ((not variant or each.label == variant) and metric in ("", each.metric))
        )
        return replace(self, effects=kept)

    def shows(self, metrics: Collection[str] = ()) -> bool:
        """Whether it has shown a difference between variants, of one of these metrics if any are given."""
        return any(
            each.shown in ("lower", "higher") and (not metrics or each.metric in metrics)
            for each in self.effects
        )

    def summary(self) -> str:
        """The changes that it has shown, for a sentence."""
        shown = [
            f"{each.metric} of {each.label!r} {each.describe()} {each.shown}"
            for each in self.effects
            if each.shown in ("lower", "higher")
        ]
        return "; ".join(shown) or "no difference shown"

    def table(self) -> str:
        """As Markdown: a row a metric and variant."""
        where = ", ".join(f"{name} x {factor:g}" for name, factor in self.scenario.items())
        first = self.variants[0].label
        lines = [
            f"Experiment {self.id}: {self.purpose}",
            f"{self.replications} seeds{f', with {where}' if where else ''}; changes against {first!r}, "
            "paired, with 95 % intervals",
            "",
            "| metric | variant | mean | change | shown |",
            "|---|---|---|---|---|",
        ]
        for each in self.effects:
            row = (each.metric, each.label, f"{each.mean:.5g}", each.describe(), each.shown or "")
            lines.append(f"| {' | '.join(row)} |")
        lines += [f"{label} failed: {error}" for label, error in self.errors.items()]
        return "\n".join(lines)

    def as_json(self) -> str:
        """All but the tables' contents, for the ledger."""
        return json.dumps(
            {
                "id": self.id,
                "purpose": self.purpose,
                "replications": self.replications,
                "scenario": dict(self.scenario),
                "variants": {each.label: texts_of(each.sources) for each in self.variants},
                "effects": [
                    [each.label, each.metric, each.mean, each.describe(), each.shown] for each in self.effects
                ],
                "errors": dict(self.errors),
                "tables": {label: list(keys) for label, keys in self.tables.items()},
            }
        )


def measure(
    lab: Lab,
    name: str,
    purpose: str,
    variants: Sequence[Variant],
    *,
    replications: int,
    metrics: Sequence[str] = (),
    scenario: Mapping[str, float] | None = None,
    inspected: bool = False,
) -> Experiment:
    """Run the variants on the first development seeds; without `metrics` all that they report are compared.

    Raises:
        BudgetExhausted: before anything is spent that there is not.
    """
    found = {
        each.label: printing(
            lab,
            lab.look(each.sources, replications, scenario=scenario, inspected=inspected),
            scenario,
            inspected=inspected,
        )
        for each in variants
    }
    experiment = Experiment(
        name,
        purpose,
        tuple(variants),
        replications,
        scenario or {},
        effects(found, metrics),
        {label: each.reasons[0] for label, each in found.items() if each.reasons},
        {label: each.tables for label, each in found.items()},
        {label: each.printed for label, each in found.items() if each.printed},
    )
    # A run that goes on otherwise than before its end has another experiment of that name.
    lab.remember(f"experiment {name}", experiment.as_json())
    return experiment


def printing(
    lab: Lab, found: Evaluation, scenario: Mapping[str, float] | None, *, inspected: bool
) -> Evaluation:
    """The same with what its replications have printed when they were run: what is known prints nothing."""
    asked = json.dumps([found.seeds, sorted((scenario or {}).items()), inspected])
    texts = (part for path, text in found.sources.items() for part in (path, text))
    return replace(found, printed=lab.recorded(f"printed {digest(asked, *texts)}", lambda: found.printed))


def effect(metric: str, before: Sequence[float], after: Sequence[float]) -> Effect | None:
    """How a metric differs between two looks on their common first seeds; None on fewer than two."""
    n = min(len(before), len(after))
    if n < 2 or not all(map(math.isfinite, [*before[:n], *after[:n]])):
        return None
    change, ratio = _change(before[:n], after[:n])
    return Effect("", metric, math.fsum(after[:n]) / n, change, ratio)


def analysed(lab: Lab, keys: Sequence[str], printed: str, code: str) -> Analysis:
    """What some code makes of the tables with these keys; on record, for it may not come out the same.

    Without a sandbox, unless it is off, it is not run: a model wrote it.
    """
    if lab.settings.sandbox != "off" and not lab.settings.confined():
        return Analysis("", {}, "there is no sandbox here, and code of a model is not run without one")
    files = [file for key in keys if (file := lab.tables(key)).exists()]

    def ran() -> str:
        return json.dumps(asdict(analyse(code, files, printed, confined=lab.settings.confined())))

    return Analysis(**json.loads(lab.recorded(f"analysis {digest(*keys, printed, code)}", ran)))


def effects(found: Mapping[str, Evaluation], metrics: Sequence[str] = ()) -> tuple[Effect, ...]:
    """Each metric of each evaluation by its label, against the first one's on the same seeds."""
    first, *_ = found.values()
    names = metrics or [
        name for name in first.metrics if all(name in each.metrics for each in found.values())
    ]
    rows = []
    for name in names:
        for label, evaluation in found.items():
            values = evaluation.metrics.get(name)
            if values is None or not all(map(math.isfinite, values)):
                continue
            change, ratio = None, False
            before = first.metrics.get(name)
            if evaluation is not first and before is not None and len(before) == len(values) > 1:
                change, ratio = _change(before, values)
            rows.append(Effect(label, name, math.fsum(values) / len(values), change, ratio))
    return tuple(rows)


def _change(before: Sequence[float], after: Sequence[float]) -> tuple[Interval, bool]:
    pairs = list(zip(before, after, strict=True))
    if all(one > 0 and other > 0 for one, other in pairs):
        return mean_interval([math.log(other / one) for one, other in pairs], 0.95, deterministic=True), True
    return mean_interval([other - one for one, other in pairs], 0.95, deterministic=True), False
