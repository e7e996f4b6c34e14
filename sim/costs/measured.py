"""Measured operator times in one form, whatever tool took them, and how well a profile reproduces them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.costs.profile import Basis

__all__ = ["Attention", "Errors", "Measurements", "Series", "Skew", "errors", "knots"]

Floats = NDArray[np.float64]


class Series(NamedTuple):
    """Seconds by a count (tokens or requests), over all layers; counts ascend."""

    at: Floats
    seconds: Floats

    def __call__(self, at: Floats) -> Floats:
        return np.interp(at, self.at, self.seconds)

    def __add__(self, other: object) -> Series:
        """The sum at the counts of the first."""
        if not isinstance(other, Series):
            return NotImplemented
        return Series(self.at, self.seconds + other(self.at))


class Attention(NamedTuple):
    """Attention of steps, one per row, over all layers."""

    chunks: Floats
    """Prefill chunks of the step."""
    chunk: Floats
    """Tokens of each; 0 where nothing is prefilled."""
    prefix: Floats
    """KV tokens before each chunk."""
    decodes: Floats
    context: Floats
    """KV tokens that each decode reads, equal ones."""
    seconds: Floats

    @property
    def tokens(self) -> Floats:
        """Tokens of the step."""
        return self.chunks * self.chunk + self.decodes

    @property
    def kv_tokens(self) -> Floats:
        """KV tokens that must lie in the cache."""
        return self.chunks * (self.prefix + self.chunk) + self.decodes * self.context

    def where(self, rows: NDArray[np.bool_]) -> Attention:
        """Some of the steps."""
        return Attention(*(column[rows] for column in self))


class Skew(NamedTuple):
    """Decodes of unequal context, as a ratio to the same mean context for all."""

    steps: Attention
    """With the mean context; `seconds` is not used."""
    excess: Floats
    """Tokens of longest less mean context."""
    ratio: Floats


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of one GPU with one model."""

    source: str
    linear: Series
    """By tokens: everything but attention, LM head and sampling."""
    head: Series
    """By requests."""
    attention: Attention
    skew: Skew | None = None
    communication: Series | None = None
    basis: dict[str, Basis] = field(default_factory=dict)


class Errors(NamedTuple):
    """Relative errors of a fit: mean, 95th percentile and largest of the absolute values, and the mean."""

    rows: int
    mean: float
    p95: float
    worst: float
    bias: float

    def __str__(self) -> str:
        return (
            f"{self.rows:6d} rows  mean {self.mean:5.1%}  p95 {self.p95:5.1%}  worst {self.worst:6.1%}  "
            f"bias {self.bias:+5.1%}"
        )


def errors(fitted: Floats, measured: Floats, beside: Floats | float = 0.0) -> Errors:
    """Errors of `fitted` relative to `measured` plus what else the step takes."""
    relative = (fitted - measured) / (measured + beside)
    size = np.abs(relative)
    p95 = float(np.quantile(size, 0.95))
    return Errors(len(size), float(size.mean()), p95, float(size.max()), float(relative.mean()))


def knots(series: Series, tolerance: float) -> tuple[tuple[int, float], ...]:
    """Few of the points, chosen greedily: straight lines between them miss no other by more."""
    kept = [0, len(series.at) - 1]
    while True:
        line = np.interp(series.at, series.at[kept], series.seconds[kept])
        miss = np.abs(line / series.seconds - 1)
        worst = int(np.argmax(miss))
        if miss[worst] <= tolerance:
            return tuple((int(series.at[row]), float(series.seconds[row])) for row in kept)
        kept = sorted({*kept, worst})
