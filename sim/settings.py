"""Checks of settings: each error names the field, its value, the range and the unit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def check(name: str, value: Any, low: float, high: float, unit: str, *, whole: bool) -> None:
    """ValueError unless the value is a number from `low` to `high`, both allowed."""
    kind = "a whole number" if whole else "a number"
    types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if (
        isinstance(value, bool)
        or not isinstance(value, types)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        bound = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}={value!r}; expected {kind} {bound} {unit}")
