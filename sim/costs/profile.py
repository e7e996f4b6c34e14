"""A cost profile: what a step costs on a GPU (or a few, tensor-parallel) with a model in some precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.costs import step
from sim.costs.step import CONTEXT_KNOTS, SEGMENTS, Tables

__all__ = ["PARTS", "Basis", "DecodeRow", "Prefill", "Profile", "capture_sizes"]

Floats = NDArray[np.float64]
Basis = Literal["measured", "roofline", "assumed"]
"""Fitted to measurements; from data-sheet figures; or taken over from another part, as the docs say."""

PARTS = (
    "linear",
    "elementwise",
    "head",
    "sampler",
    "decode",
    "prefill",
    "mixed",
    "straggler",
    "communication",
    "cpu",
)
"""The parts of a step that have a basis of their own: matrix products and element-wise kernels of the layers,
LM head, sampling, attention of decodes, of prefill chunks, of decodes beside a prefill, unequal contexts,
all-reduces of tensor parallelism, CPU work."""


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """Attention of so many decodes in a step, over all layers."""

    decodes: int
    fixed: float
    """Seconds."""
    per_kv_token: tuple[float, ...]
    """Seconds per KV token read: for the part of the mean context below the first of `CONTEXT_KNOTS`, between
    the first and the second, ...; the last goes on for ever."""
    straggler: float = 0.0
    """Seconds per token by which the longest context exceeds the mean."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Attention of the prefill chunks of a step, over all layers: the greater of its first two terms, and the
    others."""

    per_pair: float
    """Seconds per query-key pair."""
    per_key: float = 0.0
    """Seconds per key that the last token of the deepest chunk sees."""
    fixed: float = 0.0
    """Seconds a step."""
    per_token: float = 0.0
    """Seconds per token."""
    per_grid: float = 0.0
    """Seconds per (other request in the step x token of the longest chunk): thread blocks that find nothing
    to do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a step costs; the formula is in `sim.costs.step`, the sources in docs/cost-models.md."""

    gpu: str
    model: str
    linear_points: tuple[tuple[int, float], ...]
    """(tokens in the step, seconds) of everything but attention, LM head and sampling. Linear between the
    points; beyond the last as between the last two."""
    head_points: tuple[tuple[int, float], ...]
    """(requests in the step, seconds) of LM head and sampling, in the same way."""
    decode_rows: tuple[DecodeRow, ...]
    """By number of decodes; linear between, constant beyond."""
    prefill_terms: Prefill
    mixed_rows: tuple[DecodeRow, ...] = ()
    """The same beside a prefill; empty: as without one."""
    communication_points: tuple[tuple[int, float], ...] = ()
    """(tokens in the step, seconds) of all-reduces; empty on one GPU."""
    cpu: float = 0.0
    """CPU seconds a step: scheduling, input preparation, launches, output."""
    time_scale: float = 1.0
    """Factor on all GPU time."""
    cuda_graphs: bool = True
    """Whether small steps are padded to the sizes of vLLM's CUDA graphs."""
    precision: str = "bf16"
    tensor_parallel: int = 1
    basis: Mapping[str, Basis] = field(default_factory=dict, compare=False)
    """Of each of PARTS that the profile has."""
    source: str = ""

    @property
    def name(self) -> str:
        """GPU and model, as a reader calls them."""
        gpus = f" x {self.tensor_parallel}" if self.tensor_parallel > 1 else ""
        return f"{self.gpu}{gpus} with {self.model}"

    @property
    def head(self) -> float:
        """Seconds of LM head and sampling for one request."""
        return self.head_points[0][1]

    @property
    def decode(self) -> float:
        """Seconds per KV token read, of a batch of about 64 decodes with long contexts."""
        return min(self.decode_rows, key=lambda row: abs(row.decodes - 64)).per_kv_token[-1]

    @property
    def prefill(self) -> float:
        """Seconds per query-key pair of a prefill."""
        return self.prefill_terms.per_pair

    def marks(self) -> str:
        """The parts that are not measured, for outputs that rest on them; empty if all are."""
        others: dict[str, list[str]] = {}
        for part in PARTS:
            if self.basis.get(part, "measured") != "measured":
                others.setdefault(self.basis[part], []).append(part)
        return "; ".join(f"{basis}: {', '.join(parts)}" for basis, parts in others.items())

    def linear_table(self, max_tokens: int, time_scale: float = 1.0) -> Floats:
        """Seconds of the linear parts by tokens in the batch, 0 to `max_tokens`; `time_scale` comes on
        top."""
        table = _extended(self.linear_points, max_tokens)
        if self.communication_points:
            table += _extended(self.communication_points, max_tokens)
        table[0] = 0.0
        return table * (self.time_scale * time_scale)

    def rates(self, time_scale: float = 1.0) -> tuple[float, float, float]:
        """The profile in three figures: seconds per KV token read, per half a query-key pair, and per step,
        scaled; `time_scale` comes on top. `tables` says it all."""
        scale = self.time_scale * time_scale
        return self.decode * scale, self.prefill / 2 * scale, self.head * scale

    def tables(
        self,
        max_tokens: int,
        max_seqs: int,
        time_scale: float = 1.0,
        *,
        cuda_graphs: bool | None = None,
        async_scheduling: bool = False,
    ) -> Tables:
        """The arrays of `sim.costs.step` for steps of up to `max_tokens` tokens and `max_seqs` requests.

        `cuda_graphs` overrules the profile's own; with `async_scheduling` CPU work runs beside the GPU's.
        """
        scale = self.time_scale * time_scale
        linear = self.linear_table(max_tokens, time_scale)
        if self.cuda_graphs if cuda_graphs is None else cuda_graphs:
            sizes = capture_sizes(max_seqs)
            for low, high in pairwise((0, *(size for size in sizes if size <= max_tokens))):
                linear[low + 1 : high] = linear[high]
        head = _extended(self.head_points, max_seqs) * scale
        decode = np.hstack(
            [_rows(self.decode_rows, max_seqs), _rows(self.mixed_rows or self.decode_rows, max_seqs)]
        )
        terms = self.prefill_terms
        rates = np.zeros(step.RATES)
        rates[step.HALF_PAIR] = terms.per_pair / 2 * scale
        rates[step.KEY] = terms.per_key * scale
        rates[step.CHUNKS] = terms.fixed * scale
        rates[step.CHUNK_TOKEN] = terms.per_token * scale
        rates[step.GRID] = terms.per_grid * scale
        rates[step.PARALLEL_CPU if async_scheduling else step.SERIAL_CPU] = self.cpu
        return Tables(linear, head, decode * scale, rates)


def capture_sizes(max_seqs: int) -> tuple[int, ...]:
    """Token counts for which vLLM captures CUDA graphs; smaller batches are padded to the next.

    Its default (vLLM 0.19, `cudagraph_capture_sizes`): 1, 2, 4, then by 8 to 256, then by 16 to
    min(2 x max_num_seqs, 512).
    """
    limit = min(2 * max_seqs, 512)
    return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= limit)


def _extended(points: tuple[tuple[int, float], ...], most: int) -> Floats:
    """Values at 0 to `most`: linear between the points, constant before the first, beyond the last as between
    the last two."""
    at, seconds = np.array(points, np.float64).T
    grid = np.arange(most + 1, dtype=np.float64)
    table: Floats = np.interp(grid, at, seconds)
    if len(at) > 1:
        slope = (seconds[-1] - seconds[-2]) / (at[-1] - at[-2])
        table = table + slope * np.maximum(grid - at[-1], 0.0)
    return table


def _rows(rows: tuple[DecodeRow, ...], most: int) -> Floats:
    """Half of a row of `Tables.decode` by number of decodes, 0 to `most`."""
    at, decodes = [row.decodes for row in rows], np.arange(most + 1)
    fixed = np.interp(decodes, at, [row.fixed for row in rows])
    slopes = [
        np.interp(decodes, at, [row.per_kv_token[min(part, len(row.per_kv_token) - 1)] for row in rows])
        for part in range(SEGMENTS)
    ]
    bases = [fixed]
    for knot, (before, after) in zip(CONTEXT_KNOTS, pairwise(slopes), strict=True):
        bases.append(bases[-1] + (before - after) * (decodes * knot))
    straggler = np.interp(decodes, at, [row.straggler for row in rows])
    return np.stack([*bases, *slopes, straggler], axis=1)
