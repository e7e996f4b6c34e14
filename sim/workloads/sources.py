"""Sources of lengths: how many tokens prompts and outputs have, drawn apart or together.

A column (`Fixed`, `Uniform`, `LogNormal`, `Quantiles`) draws one number a request. A source of lengths
(`Independent`, `Joint`, `Clipped`) draws a prompt and an output; `sim.workloads.generate` joins it with an
arrival process. The k-th request has the same lengths whatever the arrivals are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim import lengths
from sim.workloads import fields
from sim.workloads.table import Workload

__all__ = [
    "SHAREGPT",
    "Clipped",
    "Column",
    "Fixed",
    "Independent",
    "Joint",
    "Lengths",
    "LogNormal",
    "Quantiles",
    "Uniform",
]

Ints = NDArray[np.int64]


class Column(Protocol):
    """A distribution of one length."""

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """So many lengths in tokens, each at least 1; the first n of them do not depend on `count`."""
        ...


class Lengths(Protocol):
    """A distribution of pairs of lengths."""

    def draw(
        self, prompts: np.random.Generator, outputs: np.random.Generator, count: int
    ) -> tuple[Ints, Ints]:
        """Prompt and output tokens of so many requests, from a stream for each."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Always the same length."""

    tokens: int

    def __post_init__(self) -> None:
        fields.whole(self, 1, "token", tokens=self.tokens)

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        return np.full(count, self.tokens, np.int64)


@dataclass(frozen=True)
class Uniform:
    """Every length from `low` to `high` tokens, both included, equally likely."""

    low: int
    high: int

    def __post_init__(self) -> None:
        fields.whole(self, 1, "token", low=self.low)
        fields.whole(self, self.low, "tokens (low)", high=self.high)

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        return rng.integers(self.low, self.high + 1, count)


@dataclass(frozen=True)
class LogNormal:
    """Log-normal lengths, rounded, and cut to the range from `low` to `high` tokens."""

    mean: float
    """Tokens, before rounding and cutting."""
    sigma: float
    """Standard deviation of the logarithm: 0.5 is a narrow spread, 2 a very wide one."""
    low: int = 1
    high: int = 1_000_000

    def __post_init__(self) -> None:
        fields.positive(self, "tokens", mean=self.mean)
        fields.number(self, 0.0, 10.0, "(of the logarithm)", sigma=self.sigma)
        fields.whole(self, 1, "token", low=self.low)
        fields.whole(self, self.low, "tokens (low)", high=self.high)

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        drawn = rng.lognormal(np.log(self.mean) - self.sigma**2 / 2, self.sigma, count)
        return np.clip(np.rint(drawn), self.low, self.high).astype(np.int64)


@dataclass(frozen=True)
class Quantiles:
    """Lengths by a table of quantiles, in a straight line between two of them, rounded."""

    tokens: tuple[int, ...]
    """The quantiles, not decreasing."""
    levels: tuple[float, ...]
    """The share of lengths up to each quantile: from 0 to 1, increasing."""

    def __post_init__(self) -> None:
        fields.tokens(self, tokens=self.tokens)
        fields.numbers(self, levels=self.levels)
        levels, tokens = np.asarray(self.levels, float), np.asarray(self.tokens)
        if not (
            len(levels) == len(tokens) > 1
            and levels[0] == 0
            and levels[-1] == 1
            and (np.diff(levels) > 0).all()
            and (np.diff(tokens) >= 0).all()
        ):
            raise ValueError(
                f"Quantiles: levels={_short(self.levels)} with tokens={_short(self.tokens)}; expected "
                "as many increasing levels from 0 to 1 as there are quantiles, and quantiles in tokens that "
                "do not fall"
            )

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        return np.rint(np.interp(rng.random(count), self.levels, self.tokens)).astype(np.int64)


@dataclass(frozen=True)
class Independent:
    """A prompt that says nothing of its output's length."""

    prompt: Column
    output: Column

    def __post_init__(self) -> None:
        fields.drawn(
            self, "draw", "a column, as sim.workloads.Fixed(100)", prompt=self.prompt, output=self.output
        )

    def draw(
        self, prompts: np.random.Generator, outputs: np.random.Generator, count: int
    ) -> tuple[Ints, Ints]:
        return self.prompt.draw(prompts, count), self.output.draw(outputs, count)


@dataclass(frozen=True, eq=False)
class Joint:
    """Pairs of lengths as a trace has them, drawn with replacement: what goes together stays together."""

    prompt_tokens: ArrayLike = field(repr=False)
    output_tokens: ArrayLike = field(repr=False)

    def __post_init__(self) -> None:
        prompts, outputs = np.asarray(self.prompt_tokens), np.asarray(self.output_tokens)
        fields.tokens(self, prompt_tokens=prompts, output_tokens=outputs)
        if len(prompts) != len(outputs):
            raise ValueError(
                f"Joint: {len(prompts)} prompt_tokens with {len(outputs)} output_tokens; expected one output "
                "length for each prompt length"
            )
        object.__setattr__(self, "prompt_tokens", prompts.astype(np.int64))
        object.__setattr__(self, "output_tokens", outputs.astype(np.int64))

    @classmethod
    def of(cls, workload: Workload) -> Joint:
        """The lengths of this workload's requests."""
        return cls(workload.prompt_tokens, workload.output_tokens)

    def __repr__(self) -> str:
        return f"<joint lengths of {len(np.asarray(self.prompt_tokens))} requests>"

    def draw(
        self, prompts: np.random.Generator, outputs: np.random.Generator, count: int
    ) -> tuple[Ints, Ints]:
        rows = prompts.integers(0, len(np.asarray(self.prompt_tokens)), count)
        return np.asarray(self.prompt_tokens)[rows], np.asarray(self.output_tokens)[rows]


@dataclass(frozen=True)
class Clipped:
    """Another source's lengths, longer ones cut: to what a model's context or a replica's cache can hold."""

    lengths: Lengths
    prompt: int = 1_000_000
    """Prompt tokens at most."""
    output: int = 1_000_000
    """Output tokens at most."""

    def __post_init__(self) -> None:
        fields.drawn(self, "draw", "lengths, as sim.workloads.SHAREGPT", lengths=self.lengths)
        fields.whole(self, 1, "token", prompt=self.prompt, output=self.output)

    def draw(
        self, prompts: np.random.Generator, outputs: np.random.Generator, count: int
    ) -> tuple[Ints, Ints]:
        prompt, output = self.lengths.draw(prompts, outputs, count)
        return np.minimum(prompt, self.prompt), np.minimum(output, self.output)


def _short(values: tuple[float, ...]) -> str:
    return repr(values) if len(values) <= 8 else f"({values[0]!r}, ..., {values[-1]!r}: {len(values)} values)"


SHAREGPT = Independent(
    Quantiles(lengths.SHAREGPT_PROMPT, lengths.LEVELS), Quantiles(lengths.SHAREGPT_OUTPUT, lengths.LEVELS)
)
"""ShareGPT's first turns as the Glia paper has them, by quantile tables; see `sim.lengths`."""
