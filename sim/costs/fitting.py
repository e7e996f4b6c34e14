"""Fitting a profile's coefficients to measured operator times.

Attention is linear in its coefficients, which are found by least squares without negative ones. An error
counts relative to the whole step that the row stands for (attention and linear parts), for that is what a
simulation sums up; and rows far beyond what the GPU's KV cache holds do not count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.costs.measured import Attention, Errors, Measurements, errors, knots
from sim.costs.profile import Basis, DecodeRow, Prefill, Profile
from sim.costs.step import CONTEXT_KNOTS, SEGMENTS

__all__ = [
    "CPU_STEP",
    "Fit",
    "attention_seconds",
    "fit",
    "nonnegative_least_squares",
    "relative_least_squares",
]

Floats = NDArray[np.float64]

TOLERANCE = 0.01
"""Of the straight lines between the points kept of a measured series."""

CPU_STEP = 2e-3
"""Assumed CPU seconds of vLLM 0.19 per step. It is an upper estimate that hardly matters: with asynchronous
scheduling it is hidden by every step that takes longer on the GPU; see docs/cost-models.md."""

SMALL = 0.01
"""Of a step's time: larger errors come from kernels that change with the shape, which no line follows, and
shall not bend the fit where it can be good."""

REWEIGHTINGS = 8

ALIKE = 1e-3
"""Weight of the wish that neighbouring slopes are alike: it decides only where nothing was measured."""

BEYOND = 2.0
"""Rows count up to this many times the KV tokens that fit into the cache, so that its border is no edge."""


SHORT = 2048
"""KV tokens of a prefix or a context up to which errors are shown apart."""


class Fit(NamedTuple):
    """A fitted profile and its errors by part; of attention also relative to the whole step."""

    profile: Profile
    errors: dict[str, Errors]


def fit(
    measured: Measurements, *, gpu: str, model: str, precision: str, tensor_parallel: int, kv_tokens: float
) -> Fit:
    """The profile of those measurements; `kv_tokens` fit into the GPU's KV cache."""
    found: dict[str, Errors] = {}
    linear, head = knots(measured.linear, TOLERANCE), knots(measured.head, TOLERANCE)
    for name, points, series in (("linear", linear, measured.linear), ("head", head, measured.head)):
        found[name] = errors(np.interp(series.at, *np.array(points).T), series.seconds)

    rows = measured.attention
    rows = rows.where(rows.kv_tokens <= BEYOND * kv_tokens)
    beside = measured.linear(rows.tokens)
    alone, together = rows.chunks == 0, (rows.chunks > 0) & (rows.decodes > 0)
    decode = _decode_rows(rows.where(alone), beside[alone])
    prefill, mixed = _prefill(rows.where(~alone), beside[~alone])
    if measured.skew is not None:
        decode, mixed = _with_stragglers(decode, mixed, prefill, measured, kv_tokens)
    short = (rows.prefix <= SHORT) & (rows.context <= SHORT)
    parts = {
        "decode": alone,
        "prefill": (rows.chunks > 0) & ~together,
        "mixed": together,
        "short mixed": together & short,
    }
    for name, chosen in parts.items():
        if chosen.any():
            part = rows.where(chosen)
            value = attention_seconds(part, prefill, decode, mixed)
            found[name] = errors(value, part.seconds)
            found[f"step of {name}"] = errors(value, part.seconds, beside[chosen])
    basis: dict[str, Basis] = {
        "mixed": "measured" if mixed else "assumed",
        "straggler": "measured" if measured.skew is not None else "assumed",
        "decode": "measured",
        "prefill": "measured",
        "cpu": "assumed",
        **measured.basis,
    }
    communication = knots(measured.communication, TOLERANCE) if measured.communication is not None else ()
    return Fit(
        Profile(
            gpu=gpu,
            model=model,
            precision=precision,
            tensor_parallel=tensor_parallel,
            linear_points=linear,
            head_points=head,
            communication_points=communication,
            decode_rows=decode,
            mixed_rows=mixed,
            prefill_terms=prefill,
            cpu=CPU_STEP,
            basis=basis,
            source=measured.source,
        ),
        found,
    )


def attention_seconds(
    rows: Attention, prefill: Prefill, decode: tuple[DecodeRow, ...], mixed: tuple[DecodeRow, ...]
) -> Floats:
    """What the coefficients say of steps whose decodes have equal contexts."""
    with_chunks = rows.chunks > 0
    seconds = np.where(with_chunks, _decoding(mixed or decode, rows), _decoding(decode, rows))
    chunks = np.maximum(_pairs(rows) * prefill.per_pair, (rows.prefix + rows.chunk) * prefill.per_key)
    chunks += _chunk_columns(rows) @ np.array([prefill.fixed, prefill.per_token, prefill.per_grid])
    total: Floats = np.where(rows.decodes > 0, seconds, 0.0) + np.where(with_chunks, chunks, 0.0)
    return total


def _decoding(rows: tuple[DecodeRow, ...], steps: Attention) -> Floats:
    if not rows:
        return np.zeros(len(steps.decodes))
    at = [row.decodes for row in rows]
    slopes = np.stack(
        [np.interp(steps.decodes, at, [row.per_kv_token[part] for row in rows]) for part in range(SEGMENTS)],
        axis=1,
    )
    fixed = np.interp(steps.decodes, at, [row.fixed for row in rows])
    seconds: Floats = fixed + (slopes * _by_segment(steps)).sum(axis=1)
    return seconds


def _by_segment(rows: Attention) -> Floats:
    """KV tokens read in each segment of the context."""
    borders = np.array([0, *CONTEXT_KNOTS, np.inf])
    part = np.clip(rows.context[:, None] - borders[:-1], 0.0, np.diff(borders))
    read: Floats = rows.decodes[:, None] * part
    return read


def _pairs(rows: Attention) -> Floats:
    return rows.chunks * rows.chunk * (rows.prefix + (rows.chunk + 1) / 2)


def _chunk_columns(rows: Attention) -> Floats:
    """What `fixed`, `per_token` and `per_grid` multiply."""
    tokens = rows.chunks * rows.chunk
    return np.stack([np.ones(len(tokens)), tokens, (rows.chunks + rows.decodes - 1) * rows.chunk], axis=1)


def _decode_rows(rows: Attention, beside: Floats) -> tuple[DecodeRow, ...]:
    found = []
    for decodes in np.unique(rows.decodes):
        of = rows.decodes == decodes
        if of.sum() >= 2:  # a fixed part and a slope
            columns = np.hstack([np.ones((of.sum(), 1)), _by_segment(rows.where(of))])
            alike = _alike(1 + SEGMENTS, np.array([decodes]), 1)
            fixed, *slopes = _weighted(columns, rows.seconds[of], beside[of], alike)
            found.append(DecodeRow(int(decodes), fixed, tuple(slopes)))
    return tuple(found)


def _prefill(rows: Attention, beside: Floats) -> tuple[Prefill, tuple[DecodeRow, ...]]:
    """Prefill terms, and from steps that do both the rows of decodes beside a prefill: fitted together.

    Which of its two terms bounds a chunk depends on the coefficients: start from what a GPU's size suggests,
    and repeat until it no longer changes.
    """
    counts = np.unique(rows.decodes[rows.decodes > 0])
    counts = np.array([n for n in counts if np.unique(rows.context[rows.decodes == n]).size > 1])
    known = np.isin(rows.decodes, counts) | (rows.decodes == 0)
    rows, beside = rows.where(known), beside[known]
    of = (rows.decodes[:, None] == counts[None, :]).astype(np.float64)
    read = _by_segment(rows)
    decoding = [of, *(of[:, [row]] * read for row in range(len(counts)))]
    pairs, keys = _pairs(rows), rows.prefix + rows.chunk
    by_pairs = rows.chunks * rows.chunk > 256
    for _ in range(20):
        bound = np.stack([np.where(by_pairs, pairs, 0.0), np.where(by_pairs, 0.0, keys)], axis=1)
        columns = np.hstack([bound, _chunk_columns(rows), *decoding])
        alike = _alike(columns.shape[1], counts, 5 + len(counts))
        found = _weighted(columns, rows.seconds, beside, alike)
        before, by_pairs = by_pairs, pairs * found[0] >= keys * found[1]
        if (before == by_pairs).all():
            break
    per_pair, per_key, fixed, per_token, per_grid = found[:5]
    fixeds, slopes = found[5 : 5 + len(counts)], np.array(found[5 + len(counts) :]).reshape(-1, SEGMENTS)
    return Prefill(per_pair, per_key, fixed, per_token, per_grid), tuple(
        DecodeRow(int(n), fixeds[row], tuple(slopes[row].tolist())) for row, n in enumerate(counts)
    )


def _with_stragglers(
    decode: tuple[DecodeRow, ...],
    mixed: tuple[DecodeRow, ...],
    prefill: Prefill,
    measured: Measurements,
    kv_tokens: float,
) -> tuple[tuple[DecodeRow, ...], tuple[DecodeRow, ...]]:
    """The rows with what unequal contexts cost: the ratio measured, of the time fitted."""
    skew = measured.skew
    assert skew is not None
    equal = attention_seconds(skew.steps, prefill, decode, mixed)
    extra = (skew.ratio - 1) * equal
    weight = 1 / (equal + measured.linear(skew.steps.tokens))

    def straggling(row: DecodeRow, chunks: NDArray[np.bool_]) -> DecodeRow:
        of = chunks & (skew.steps.decodes == row.decodes) & (skew.steps.kv_tokens <= BEYOND * kv_tokens)
        if not of.any():
            return row
        x, y = (skew.excess * weight)[of], (extra * weight)[of]
        return replace(row, straggler=max(0.0, float(x @ y / (x @ x))))

    beside = skew.steps.chunks > 0
    return tuple(straggling(row, ~beside) for row in decode), tuple(straggling(row, beside) for row in mixed)


def _alike(width: int, counts: Floats, first: int) -> Floats:
    """Rows that say: the slopes of neighbouring segments, from column `first` on, are the same."""
    rows = np.zeros((len(counts), SEGMENTS - 1, width))
    for row, decodes in enumerate(counts):
        for part in range(SEGMENTS - 1):
            column = first + row * SEGMENTS + part
            rows[row, part, column : column + 2] = decodes * 1024.0, -decodes * 1024.0
    return rows.reshape(-1, width)


def _weighted(columns: Floats, seconds: Floats, beside: Floats, alike: Floats) -> list[float]:
    """Least squares of the error relative to the step, and of the wish `alike`."""
    step = seconds + beside
    relative = np.vstack([columns / step[:, None], alike * (ALIKE / step.mean())])
    target = np.concatenate([seconds / step, np.zeros(len(alike))])
    return [float(value) for value in _robust(relative, target)]


def relative_least_squares(columns: Floats, seconds: Floats) -> Floats:
    """The coefficients >= 0 of least squared relative errors; what exceeds SMALL counts linearly (Huber)."""
    return _robust(columns / seconds[:, None], np.ones(len(seconds)))


def _robust(relative: Floats, target: Floats) -> Floats:
    """Least squares without negative ones, in which errors beyond SMALL count linearly (Huber)."""
    root = np.ones(len(target))
    for _ in range(REWEIGHTINGS):
        found = nonnegative_least_squares(relative * root[:, None], target * root)
        miss = np.abs(relative @ found - target)
        root = np.sqrt(np.minimum(1.0, SMALL / np.maximum(miss, SMALL)))
    return found


def nonnegative_least_squares(columns: Floats, target: Floats) -> Floats:
    """The x >= 0 that minimises |columns x - target| (Lawson and Hanson's active sets)."""
    scale = np.linalg.norm(columns, axis=0)
    scale[scale == 0] = 1.0
    a = columns / scale
    gram, right = a.T @ a, a.T @ target
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], bool)
    for _ in range(10 * a.shape[1]):
        gradient = np.where(free, -np.inf, right - gram @ x)
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-10 * np.linalg.norm(target):
            break
        free[best] = True
        while True:
            step = np.zeros_like(x)
            step[free] = np.linalg.lstsq(gram[np.ix_(free, free)], right[free], rcond=None)[0]
            if (step[free] > 0).all():
                x = step
                break
            blocked = free & (step <= 0)
            share = (x[blocked] / (x[blocked] - step[blocked])).min()
            x = x + share * (step - x)
            free &= x > 1e-14
            x[~free] = 0.0
    found: Floats = x / scale
    return found
