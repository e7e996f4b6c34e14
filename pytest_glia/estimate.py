"""What a spec compares: an `Estimate` with its interval, and the three-valued `Verdict` on it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import Any, Literal, NoReturn

from pytest_glia.statistics import Interval, logarithm, replications_to_decide

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True

Outcome = Literal["shown", "refuted", "not shown"]
Scale = Literal["mean", "ratio", "reduction", "increase"]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


# The interval of samples that say nothing of their spread.
_UNBOUNDED: dict[Scale, tuple[float, float]] = {
    "mean": (-math.inf, math.inf),
    "ratio": (0.0, math.inf),
    "reduction": (-math.inf, 1.0),
    "increase": (-1.0, math.inf),
}

_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_DENIED: dict[Outcome, Outcome] = {"shown": "refuted", "refuted": "shown", "not shown": "not shown"}


class NotShown(AssertionError):
    """The replications neither show nor refute what the spec asserts."""


@dataclass(frozen=True)
class Check:
    """One comparison of an estimate with a number, as plain data that travels with the test's report.

    ``quantity`` says in words what was estimated; ``point``, ``low`` and ``high`` are on its own scale.
    ``excess`` holds one number a replication: how far it is on the wrong side of the threshold (log
    ratios, or shares of the threshold for absolute measures; negative is better than asked).
    ``settled_by`` is the number of replications that would decide it, if one would. ``metrics`` has, by
    name, what the candidate's replications reported, one number each.
    """

    quantity: str
    scale: Scale
    op: str
    threshold: float
    point: float
    low: float
    high: float
    n: int
    confidence: float
    outcome: Outcome
    settled_by: int | None
    excess: tuple[float, ...]
    metrics: dict[str, tuple[float, ...]]

    @property
    def evidence(self) -> dict[str, float]:
        """The mean of every metric that is finite in all replications."""
        means = {name: math.fsum(values) / len(values) for name, values in self.metrics.items()}
        return {name: mean for name, mean in means.items() if math.isfinite(mean)}

    @property
    def metric(self) -> str | None:
        """Which of `metrics` the quantity is of; None for a value without a name."""
        named = [name for name in self.metrics if f"{self.quantity} ".startswith(f"{name} ")]
        return max(named, key=len, default=None)

    def as_json(self) -> dict[str, Any]:
        """A dictionary of JSON types (an unbounded end of the interval is null)."""
        data = asdict(self)
        data["excess"] = list(self.excess)
        data["metrics"] = {name: list(values) for name, values in self.metrics.items()}
        data["evidence"] = self.evidence
        for key in ("low", "high"):
            if not math.isfinite(data[key]):
                data[key] = None
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Check:
        """The check that `as_json` wrote."""
        low, high = data["low"], data["high"]
        return cls(
            **{
                **{name: value for name, value in data.items() if name != "evidence"},
                "excess": tuple(data["excess"]),
                "metrics": {name: tuple(values) for name, values in data["metrics"].items()},
                "low": -math.inf if low is None else low,
                "high": math.inf if high is None else high,
            }
        )

    def what(self) -> str:
        """What is compared, in words."""
        return self.quantity if self.scale == "mean" else f"{self.scale} of {self.quantity}"

    def describe(self) -> str:
        """The estimate, its interval, and the verdict, in one line."""
        return f"{self.measured()}; {self.demand()}: {self.outcome}"

    def opposite(self) -> Check:
        """The comparison that holds where this one does not: what ``assert not`` asks."""
        return replace(
            self,
            op=_OPPOSITE[self.op],
            outcome=_DENIED[self.outcome],
            excess=tuple(-each for each in self.excess),
        )

    def estimate(self) -> str:
        """The point estimate alone."""
        return self._format(self.point)

    def measured(self) -> str:
        """The estimate with its interval and number of replications."""
        interval = f"[{self._format(self.low)}, {self._format(self.high)}]"
        if (self.low, self.high) == _UNBOUNDED[self.scale]:
            interval = f"[no interval: {'n = 1' if self.n == 1 else f'all {self.n} the same'}]"
        return f"{self._format(self.point)} {interval} (n={self.n}, {100 * self.confidence:.4g} %)"

    def demand(self) -> str:
        """The comparison that the spec makes."""
        return f"{self.op} {self._format(self.threshold)}"

    def advice(self) -> str:
        """What would settle a check that is not shown, and what it means if one is refuted."""
        if self.outcome == "refuted":
            return "refuted: the interval lies on the other side of the threshold"
        if self.outcome == "shown":
            return "shown"
        if self.settled_by is None:
            return "not shown: the estimate is too close to the threshold for any number of replications"
        return f"not shown: about {self.settled_by} replications would decide, if mean and spread stay"

    def _format(self, value: float) -> str:
        if not math.isfinite(value):
            return "inf" if value > 0 else "-inf"
        return f"{100 * value:.1f} %" if self.scale in ("reduction", "increase") else f"{value:.4g}"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What comparing an estimate with a number gives: true if shown, false if refuted.

    If the replications show neither, asking for its truth raises `NotShown`, so that
    ``assert not estimate > x`` cannot pass for lack of evidence. A search that wants to know all that a spec
    asks says what is to be ``assumed`` instead.
    """

    check: Check
    assumed: bool | None = None

    @property
    def outcome(self) -> Outcome:
        """``"shown"``, ``"refuted"`` or ``"not shown"``."""
        return self.check.outcome

    def __bool__(self) -> bool:
        if self.assumed is not None:
            return self.assumed
        if self.outcome == "shown":
            return True
        if self.outcome == "refuted":
            return False
        raise NotShown("\n".join(explain(self.check)))

    def __repr__(self) -> str:
        return f"<Verdict: {self.check.describe()}>"


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over replications with its confidence interval; compare it with a number.

    ``interval`` is on the working scale: natural logarithms of the ratio candidate / baseline for a
    comparison, the metric's own unit for a measurement. `point`, `low` and `high` are on ``scale``.
    ``judge`` is told of every comparison; it may say what is to be assumed.
    """

    quantity: str
    interval: Interval
    samples: tuple[float, ...]
    scale: Scale
    metrics: dict[str, tuple[float, ...]] = field(default_factory=dict)
    judge: Callable[[Check], bool | None] = field(default=lambda check: None, repr=False)

    @property
    def point(self) -> float:
        """The estimate itself, on ``scale``."""
        return self._from_working(self.interval.mean)

    @property
    def low(self) -> float:
        """The lower end of the interval, on ``scale``."""
        end = self.interval.high if self.scale == "reduction" else self.interval.low
        return self._from_working(end)

    @property
    def high(self) -> float:
        """The upper end of the interval, on ``scale``."""
        end = self.interval.low if self.scale == "reduction" else self.interval.high
        return self._from_working(end)

    @property
    def n(self) -> int:
        """The number of replications."""
        return self.interval.n

    @property
    def reduction(self) -> Estimate:
        """How much lower than the baseline: 1 - exp(mean log-ratio); 0.3 is 30 % lower."""
        return self._rescaled("reduction")

    @property
    def increase(self) -> Estimate:
        """How much higher than the baseline: exp(mean log-ratio) - 1; 0.3 is 30 % higher."""
        return self._rescaled("increase")

    @property
    def ratio(self) -> Estimate:
        """Candidate over baseline: exp(mean log-ratio)."""
        return self._rescaled("ratio")

    def __lt__(self, threshold: float) -> Verdict:
        return self._compare("<", threshold)

    def __le__(self, threshold: float) -> Verdict:
        return self._compare("<=", threshold)

    def __gt__(self, threshold: float) -> Verdict:
        return self._compare(">", threshold)

    def __ge__(self, threshold: float) -> Verdict:
        return self._compare(">=", threshold)

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError(
            "an estimate is never exactly equal to anything: compare it with <, <=, > or >= and a number"
        )

    __ne__ = __eq__
    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:
        raise TypeError("an estimate is neither true nor false: compare it with <, <=, > or >= and a number")

    def __repr__(self) -> str:
        return f"<Estimate: {self.quantity} = {self._check('<', math.nan).measured()}>"

    def _rescaled(self, scale: Scale) -> Estimate:
        if self.scale == "mean":
            raise TypeError(
                f"{self.quantity} was measured alone, so it has no {scale}: "
                "use glia.compare(..., against=...)"
            )
        return replace(self, scale=scale)

    def _compare(self, op: str, threshold: float) -> Verdict:
        if isinstance(threshold, Estimate):
            raise TypeError(
                "two estimates cannot be compared: measure the difference with glia.compare(..., against=...)"
            )
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise TypeError(f"an estimate is compared with a number, not with {threshold!r}")
        if not math.isfinite(threshold):
            raise ValueError(f"the threshold is {threshold!r}: give a finite number")
        if self.scale == "reduction" and threshold >= 1:
            raise ValueError(f"the threshold is {threshold!r}: a reduction is always below 1 (100 %)")
        if self.scale == "increase" and threshold <= -1:
            raise ValueError(f"the threshold is {threshold!r}: an increase is always above -1 (-100 %)")
        if self.scale == "ratio" and threshold <= 0:
            raise ValueError(f"the threshold is {threshold!r}: a ratio of positive numbers is above 0")
        check = self._check(op, float(threshold))
        return Verdict(check, self.judge(check))

    def _check(self, op: str, threshold: float) -> Check:
        working = self._to_working(threshold)
        # As it was computed: what is made of it to be shown may differ in its last digit.
        holds = _OPERATORS[_MIRRORED[op] if self.scale == "reduction" else op]
        ends = (holds(self.interval.low, working), holds(self.interval.high, working))
        outcome: Outcome = "shown" if all(ends) else "not shown" if any(ends) else "refuted"
        wants_less = (op in ("<", "<=")) != (self.scale == "reduction")
        unit = 1.0 if self.scale != "mean" else abs(threshold) or 1.0
        sign = 1.0 if wants_less else -1.0
        return Check(
            quantity=self.quantity,
            scale=self.scale,
            op=op,
            threshold=threshold,
            point=self.point,
            low=self.low,
            high=self.high,
            n=self.n,
            confidence=self.interval.confidence,
            outcome=outcome,
            settled_by=replications_to_decide(self.interval, working) if outcome == "not shown" else None,
            excess=tuple(sign * (sample - working) / unit for sample in self.samples),
            metrics=self.metrics,
        )

    def _from_working(self, value: float) -> float:
        if self.scale == "mean":
            return value
        ratio = math.exp(value) if value < 700 else math.inf
        return {"ratio": ratio, "reduction": 1 - ratio, "increase": ratio - 1}[self.scale]

    def _to_working(self, value: float) -> float:
        if self.scale == "mean" or math.isnan(value):
            return value
        return logarithm({"ratio": value, "reduction": 1 - value, "increase": 1 + value}[self.scale])


def explain(check: Check) -> list[str]:
    """The lines that a failing assert shows: what was measured, what was asked, what would settle it."""
    return [
        f"{check.what()} {check.demand()}",
        f"measured: {check.measured()}",
        check.advice(),
    ]


def explain_comparison(op: str, left: object, right: object) -> list[str] | None:
    """`explain` for a comparison in which one side is an estimate; None if none is."""
    if op not in _MIRRORED:
        return None
    if isinstance(left, Estimate) and isinstance(right, Real):
        return explain(left._check(op, float(right)))
    if isinstance(right, Estimate) and isinstance(left, Real):
        return explain(right._check(_MIRRORED[op], float(left)))
    return None
