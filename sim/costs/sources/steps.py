"""Measured engine steps: a CSV table, one row a step, as `gpu_harness.step_log` writes it.

Columns: `seconds` (wall clock of the step), and what it computed, as the fields of `sim.costs.Batch` say:
tokens, sequences, decodes, context, deepest, pairs, depth, longest. Other columns are ignored.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.costs.step import Batch

__all__ = ["COLUMNS", "LEAST", "read"]

COLUMNS = (*Batch._fields, "seconds")
LEAST = 20
"""Steps that a fit needs."""


def read(path: Path) -> NDArray[np.float64]:
    """The steps as rows, with COLUMNS; FileNotFoundError, or ValueError that names file, line and value."""
    if not path.is_file():
        raise FileNotFoundError(f"the table of engine steps is not at {str(path)!r}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}; expected a CSV table with {', '.join(COLUMNS)}"
            )
        rows = [_row(f"{path}, line {reader.line_num}", row) for row in reader]
    if len(rows) < LEAST:
        raise ValueError(f"{path} has {len(rows)} steps; expected at least {LEAST}")
    return np.array(rows)


def _row(place: str, row: dict[str, str]) -> list[float]:
    """The numbers of a row, checked against each other."""
    step: dict[str, float] = {}

    def take(name: str, low: float, high: float) -> None:
        text = row[name] or ""
        try:
            value = float(text) if name == "seconds" else int(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (name == "seconds" and not 0 < value < math.inf):
            kind = "seconds above" if name == "seconds" else "a whole number from"
            bound = "" if high == math.inf else f" to {high:,.0f}"
            raise ValueError(f"{place}: {name} is {text!r}; expected {kind} {low:,.0f}{bound}")
        step[name] = value

    take("seconds", 0, math.inf)
    take("tokens", 1, math.inf)
    take("sequences", 1, step["tokens"])
    take("decodes", 0, step["sequences"])
    decodes, prefilled = step["decodes"], step["tokens"] - step["decodes"]
    chunks = step["sequences"] - decodes
    if (chunks > 0) != (prefilled > 0):
        raise ValueError(
            f"{place}: tokens, sequences and decodes are {step['tokens']:.0f}, {step['sequences']:.0f} and "
            f"{decodes:.0f}; expected a token for each decode and the others in prefill chunks"
        )
    take("context", decodes, math.inf if decodes else 0)
    take("deepest", math.ceil(step["context"] / max(decodes, 1)), step["context"])
    take("longest", math.ceil(prefilled / max(chunks, 1)), prefilled)
    take("depth", step["longest"], math.inf if prefilled else 0)
    # Of the pairs of a chunk of c tokens after p others, c x (2p + c + 1), least where all are first chunks.
    take("pairs", 2 * prefilled, prefilled * (2 * step["depth"] + 1))
    return [step[name] for name in COLUMNS]
