"""Fitting a profile to measured engine steps, whose parts nobody measured apart.

Of a step only its composition and its time are known. So the parts of the formula (`sim.costs.step`) are
fitted together, by least squares of relative errors without negative coefficients: the linear parts, which
hold the constant costs of a step, CPU work included, at a few numbers of tokens; LM head and sampler in
proportion to the requests; decodes per KV token at a few numbers of decodes, alone and beside a prefill; the
straggler; and the prefill terms. What the steps do not show is taken from a data-sheet profile, or from a
part that is like it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.costs.fitting import Fit, relative_least_squares
from sim.costs.measured import errors
from sim.costs.profile import Basis, DecodeRow, Prefill, Profile, capture_sizes
from sim.costs.step import step_seconds

__all__ = ["fit_steps"]

Floats = NDArray[np.float64]

SEQS = 256
"""vLLM's `max_num_seqs`, which sets the sizes that CUDA graphs pad small steps to."""
TOKEN_KNOTS, DECODE_KNOTS = 40, 12
"""Numbers of tokens and of decodes with a value of their own, at most."""
STEPS_PER_KNOT = 10


def fit_steps(
    steps: Floats,
    *,
    gpu: str,
    model: str,
    tensor_parallel: int,
    cuda_graphs: bool,
    source: str,
    otherwise: Profile | None,
) -> Fit:
    """The profile of steps[step, ...], the fields of `Batch` and seconds; `otherwise` has what is taken for
    parts that they do not show. ValueError if it is needed and there is none."""
    tokens, sequences, decodes, context, deepest, pairs, _, longest, seconds = steps.T
    chunks, alone = longest > 0, (longest == 0) & (decodes > 0)
    beside = chunks & (decodes > 0)
    padded = _padded(tokens) if cuda_graphs else tokens
    at = _knots(padded, TOKEN_KNOTS)
    rates = {"alone": _knots(decodes[alone], DECODE_KNOTS), "beside": _knots(decodes[beside], DECODE_KNOTS)}
    # More tokens take no less time; else, where most steps only decode, the head robs the linear parts.
    rising = np.tril(np.ones((len(at), len(at))))
    excess = np.where(decodes > 0, deepest - context / np.maximum(decodes, 1), 0.0)
    blocks = {
        "linear": _hats(padded, at) @ rising,
        "head": sequences[:, None],
        "alone": _hats(decodes, rates["alone"]) * (alone * context)[:, None],
        "beside": _hats(decodes, rates["beside"]) * (beside * context)[:, None],
        "straggler": excess[:, None],
        "prefill": np.stack(
            [pairs / 2, chunks, tokens - decodes, np.where(chunks, (sequences - 1) * longest, 0)], axis=1
        ),
    }
    found = relative_least_squares(np.hstack(list(blocks.values())), seconds)
    parts = np.split(found, np.cumsum([block.shape[1] for block in blocks.values()])[:-1])
    linear, (head,), decode, mixed, (straggler,), terms = parts
    shown = {"decode": alone.any(), "mixed": beside.any(), "prefill": chunks.any()}
    basis: dict[str, Basis] = dict.fromkeys(("linear", "elementwise", "head", "sampler", "cpu"), "measured")
    basis["straggler"] = "measured" if excess.any() else "assumed"
    per_pair, fixed, per_token, per_grid = (float(term) for term in terms)
    prefill = Prefill(per_pair, 0.0, fixed, per_token, per_grid)
    rows, mixed_rows = (
        tuple(
            DecodeRow(int(n), 0.0, (float(rate),), float(straggler)) for n, rate in zip(ns, of, strict=True)
        )
        for ns, of in ((rates["alone"], decode), (rates["beside"], mixed))
    )
    for part in shown:
        basis[part] = "measured" if shown[part] else "assumed"
    if not shown["decode"] and shown["mixed"]:
        rows = mixed_rows
    elif not shown["decode"]:
        rows, basis["decode"] = _otherwise(otherwise, "decodes", gpu, model).decode_rows, "roofline"
    if not shown["prefill"]:
        prefill, basis["prefill"] = _otherwise(otherwise, "prefills", gpu, model).prefill_terms, "roofline"
    profile = Profile(
        gpu=gpu,
        model=model,
        precision="as measured",
        tensor_parallel=tensor_parallel,
        linear_points=tuple((int(n), float(value)) for n, value in zip(at, rising @ linear, strict=True)),
        head_points=((1, float(head)), (2, 2 * float(head))),
        decode_rows=rows,
        mixed_rows=mixed_rows,
        prefill_terms=prefill,
        cuda_graphs=cuda_graphs,
        basis=basis,
        source=source,
    )
    tables = profile.tables(int(tokens.max()), max(SEQS, int(sequences.max())))
    again = np.array([step_seconds(tables, *map(int, step)) for step in steps[:, :-1]])
    kinds = {"step": seconds > 0, "step of decode": alone, "step of prefill": chunks & ~beside}
    kinds["step of mixed"] = beside
    return Fit(
        profile, {name: errors(again[rows], seconds[rows]) for name, rows in kinds.items() if rows.any()}
    )


def _otherwise(profile: Profile | None, what: str, gpu: str, model: str) -> Profile:
    if profile is None:
        raise ValueError(
            f"no step has {what}, and gpu={gpu!r} with model={model!r} has no data sheet here to take them "
            "from; measure some"
        )
    return profile


def _padded(tokens: Floats) -> Floats:
    """What a step's tokens are padded to."""
    sizes = np.array(capture_sizes(SEQS))
    above = np.minimum(np.searchsorted(sizes, tokens), len(sizes) - 1)
    return np.where(tokens <= sizes[-1], sizes[above], tokens)


def _knots(values: Floats, most: int) -> Floats:
    """Some of the values, more where more are: the least, the greatest, and evenly among the sorted ones."""
    if not len(values):
        return values
    count = int(np.clip(len(values) // STEPS_PER_KNOT, 2, most))
    return np.unique(np.quantile(values, np.linspace(0, 1, count), method="nearest"))


def _hats(values: Floats, knots: Floats) -> Floats:
    """Shares of the knots on either side of each value: what linear interpolation weighs them with; beyond
    the first and the last, that one."""
    shares = [np.interp(values, knots, unit) for unit in np.eye(len(knots))]
    return np.array(shares).reshape(len(knots), len(values)).T
