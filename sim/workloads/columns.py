"""Columns of numbers, one entry a request, checked, copied and frozen: errors name column, row and value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bounds", "durations", "times", "tokens", "whole"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LATEST = 2.0**32
"""Seconds up to which a double resolves a microsecond."""

MOST_TOKENS = 2**31 - 1  # products of two lengths stay within 63 bits


def times(name: str, values: ArrayLike) -> Floats:
    """Seconds, finite, at least 0, not decreasing, within LATEST."""
    column = _floats(name, values, None)
    _check(name, column, ~np.isfinite(column), "expected a finite number of seconds")
    _check(name, column, column < 0, "expected at least 0 seconds")
    late = "beyond which microseconds are lost; give seconds, less the first arrival"
    _check(name, column, column > LATEST, f"expected at most {LATEST:,.0f} seconds, {late}")
    earlier = np.concatenate([[False], np.diff(column) < 0])
    _check(name, column, earlier, "which is before the row above it; sort the rows by arrival")
    return _frozen(column)


def durations(name: str, values: ArrayLike, rows: int) -> Floats:
    """Seconds, finite, at least 0."""
    column = _floats(name, values, rows)
    bad = ~(np.isfinite(column) & (column >= 0))
    _check(name, column, bad, "expected a finite number of at least 0 seconds")
    return _frozen(column)


def bounds(name: str, values: ArrayLike, rows: int) -> Floats:
    """Positive seconds, or NaN."""
    column = _floats(name, values, rows)
    _check(name, column, column <= 0, "expected a positive number of seconds, or NaN for no bound")
    return _frozen(column)


def tokens(name: str, values: ArrayLike, rows: int | None = None) -> Ints:
    """Whole numbers of at least one token."""
    column = whole(name, values, rows, 1, " token")
    _check(name, column, column > MOST_TOKENS, f"expected at most {MOST_TOKENS:,} tokens")
    return column


def whole(
    name: str, values: ArrayLike, rows: int | None = None, least: int | None = None, unit: str = ""
) -> Ints:
    """Whole numbers, of at least `least`, of 63 bits."""
    given = _shaped(name, _array(name, values, None), rows)
    if given.dtype.kind not in "iuf" and len(given):
        raise ValueError(f"{name} has the type {given.dtype}; expected whole numbers")
    if given.dtype.kind == "f":
        _check(name, given, ~(np.isfinite(given) & (given == np.floor(given))), "expected a whole number")
    if least is not None:
        _check(name, given, given < least, f"expected at least {least}{unit}")
    if given.dtype.kind in "uf":
        _check(name, given, np.abs(given) >= 2.0**63, "expected a whole number of at most 63 bits")
    return _frozen(given.astype(np.int64))


def _floats(name: str, values: ArrayLike, rows: int | None) -> Floats:
    return _shaped(name, _array(name, values, np.float64), rows)


def _array(name: str, values: ArrayLike, kind: type | None) -> NDArray[Any]:
    try:
        return np.array(values, dtype=kind)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is no column of numbers: {error}") from None


def _shaped(name: str, column: NDArray[Any], rows: int | None) -> NDArray[Any]:
    if rows is None and column.ndim != 1:
        raise ValueError(f"{name} has the shape {column.shape}; expected one number per request")
    if rows is not None and column.shape != (rows,):
        raise ValueError(f"{name} has the shape {column.shape}; expected {rows} entries, one per request")
    return column


def _check(name: str, values: NDArray[Any], bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name} of row {row} is {values[row].item()!r}; {expected}")


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
