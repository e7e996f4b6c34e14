"""Checks of the fields of workload descriptions: each error names the field, its value, range and unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sim.settings import check

__all__ = ["drawn", "flag", "number", "numbers", "positive", "tokens", "whole"]


def drawn(owner: object, method: str, what: str, /, **values: object) -> None:
    """ValueError unless each value is an object with this method."""
    for name, value in values.items():
        if not callable(getattr(value, method, None)) or isinstance(value, type):
            raise ValueError(
                f"{_at(owner)}{name}={value!r:.60}; expected {what}, an object with a method {method}"
            )


def flag(owner: object, /, **values: bool) -> None:
    """ValueError unless each value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{_at(owner)}{name}={value!r}; expected True or False")


def numbers(owner: object, /, **columns: tuple[float, ...]) -> None:
    """ValueError unless each column is a sequence of numbers."""
    for name, column in columns.items():
        if not isinstance(column, Sequence | np.ndarray) or isinstance(column, str):
            raise ValueError(f"{_at(owner)}{name}={column!r:.60}; expected a tuple of numbers")
        for row, value in enumerate(column):
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ValueError(f"{_at(owner)}{name}[{row}]={value!r:.60}; expected a number")


def positive(owner: object, unit: str, /, **values: float) -> None:
    """ValueError unless each value is a positive, finite number."""
    for name, value in values.items():
        if not (_is_number(value) and value > 0):
            raise ValueError(f"{_at(owner)}{name}={value!r}; expected a positive, finite number of {unit}")


def number(owner: object, low: float, high: float, unit: str, /, **values: float) -> None:
    """ValueError unless each value is a finite number from `low` to `high`, both allowed."""
    for name, value in values.items():
        check(f"{_at(owner)}{name}", value, low, high, unit, whole=False)


def whole(owner: object, low: int, unit: str, /, **values: int) -> None:
    """ValueError unless each value is a whole number of at least `low`."""
    for name, value in values.items():
        check(f"{_at(owner)}{name}", value, low, math.inf, unit, whole=True)


def tokens(owner: object, /, **columns: Iterable[int]) -> None:
    """ValueError unless each column has an entry and every entry is a whole number of at least one token."""
    for name, column in columns.items():
        given = np.asarray(column)
        if given.ndim != 1 or len(given) == 0:
            raise ValueError(
                f"{_at(owner)}{name} has the shape {given.shape}; expected a column of at least one length"
            )
        fine = given.dtype.kind in "iuf" and np.isfinite(given) & (given == np.floor(given)) & (given >= 1)
        if not np.all(fine):
            row = int(np.argmin(fine)) if np.ndim(fine) else 0
            raise ValueError(
                f"{_at(owner)}{name}[{row}]={given[row].item()!r}; "
                "expected a whole number of at least 1 token"
            )


def _is_number(value: Any) -> bool:
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _at(owner: object) -> str:
    return f"{type(owner).__name__}: " if owner is not None else ""
