"""The table of a workload: what arrives when, how long it turns out to be, and what prefixes it shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.prefixes import Prefixes
from sim.workloads import sharing

if TYPE_CHECKING:
    from sim.workloads.describing import Description

__all__ = ["Workload"]

_SHOWN = 20
"""Rows up to which a workload's repr is the call that makes it."""


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival. Make one with `from_arrays` or a generator of this module."""

    arrival: NDArray[np.float64]
    """Seconds, not decreasing."""
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] | None = None
    session: NDArray[np.int64] | None = None
    """The conversation a request belongs to; -1 for none."""
    prefixes: Prefixes | None = None
    """Which blocks of tokens are equal, for prefix caching; None if no two requests begin alike."""
    ttft_slo: NDArray[np.float64] | None = None
    """Seconds within which a request's first token should come; NaN for no bound."""
    tpot_slo: NDArray[np.float64] | None = None
    """Seconds that each later output token should take on average; NaN for no bound."""

    @classmethod
    def from_arrays(
        cls,
        *,
        arrival: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        priority: ArrayLike | None = None,
        session: ArrayLike | None = None,
        prefixes: Prefixes | None = None,
        ttft_slo: ArrayLike | None = None,
        tpot_slo: ArrayLike | None = None,
    ) -> Workload:
        """A workload of these columns (copied), one entry a request.

        Raises ValueError naming the first bad row: arrivals must be finite, not negative and not decreasing,
        in seconds; lengths whole numbers of at least one token; all columns equally long.
        """
        times = np.array(arrival, dtype=np.float64)
        if times.ndim != 1:
            raise ValueError(
                f"arrival has the shape {times.shape}; expected one number of seconds per request"
            )
        _check_rows("arrival", times, ~np.isfinite(times), "expected a finite number of seconds")
        _check_rows("arrival", times, times < 0, "expected at least 0 seconds")
        earlier = np.concatenate([[False], np.diff(times) < 0])
        _check_rows("arrival", times, earlier, "which is before the row above it; sort the rows by arrival")

        def column(name: str, values: ArrayLike, least: int | None) -> NDArray[np.int64]:
            return _whole_numbers(name, values, len(times), least)

        prompts, outputs = (
            column("prompt_tokens", prompt_tokens, 1),
            column("output_tokens", output_tokens, 1),
        )
        if prefixes is not None and not isinstance(prefixes, Prefixes):
            raise ValueError(f"prefixes={prefixes!r}; expected sim.Prefixes, as from Prefixes.from_rows")
        if prefixes is not None:
            sharing.check_fit(prefixes, prompts + outputs)
        return cls(
            arrival=_frozen(times),
            prompt_tokens=prompts,
            output_tokens=outputs,
            priority=None if priority is None else column("priority", priority, None),
            session=None if session is None else column("session", session, -1),
            prefixes=prefixes,
            ttft_slo=None if ttft_slo is None else _seconds("ttft_slo", ttft_slo, len(times)),
            tpot_slo=None if tpot_slo is None else _seconds("tpot_slo", tpot_slo, len(times)),
        )

    def __len__(self) -> int:
        return len(self.arrival)

    def __repr__(self) -> str:
        """Of a short workload the call that makes it, so that a counterexample can be pasted into a test."""
        if len(self) > _SHOWN:
            return f"<workload of {len(self)} requests in {self.arrival[-1] - self.arrival[0]:.1f} s>"
        columns = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        called = ", ".join(f"{name}={column.tolist()}" for name, column in columns.items())
        shared = "" if self.prefixes is None else f", prefixes={sharing.written(self.prefixes)}"
        return f"Workload.from_arrays({called}{shared})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As `repr`, also where Hypothesis or IPython would print a dataclass field by field."""
        printer.text(repr(self))

    def describe(self) -> Description:
        """Rates, burstiness, quantiles of lengths, sharing: a mapping that prints as a table."""
        from sim.workloads.describing import describe

        return describe(self)

    def plot(self, path: str | Path) -> None:
        """Write one picture (SVG) of the arrivals over time, the gaps, and the lengths."""
        from sim.workloads.plotting import picture

        Path(path).write_text(picture(self), "utf-8")

    def to_parquet(self, path: str | Path) -> None:
        """Write the workload, losing nothing. Needs pyarrow."""
        from sim.workloads.files import write_parquet

        write_parquet(self, path)

    @classmethod
    def from_parquet(cls, path: str | Path) -> Workload:
        """Read what `to_parquet` wrote; ValueError naming file and row if it is no workload."""
        from sim.workloads.files import read_parquet

        return read_parquet(path)

    def to_csv(self, path: str | Path) -> None:
        """Write the workload as text, losing nothing: one line a request under a line of names."""
        from sim.workloads.files import write_csv

        write_csv(self, path)

    @classmethod
    def from_csv(cls, path: str | Path) -> Workload:
        """Read what `to_csv` wrote; ValueError naming file and line of a bad row."""
        from sim.workloads.files import read_csv

        return read_csv(path)


COLUMNS = ("arrival", "prompt_tokens", "output_tokens", "priority", "session", "ttft_slo", "tpot_slo")
"""The columns with one number a request; all but the first three may be missing."""


def _whole_numbers(name: str, values: ArrayLike, rows: int, least: int | None) -> NDArray[np.int64]:
    given = np.asarray(values)
    if given.shape != (rows,):
        raise ValueError(
            f"{name} has the shape {given.shape}; expected {rows} entries, as many as arrival has"
        )
    if given.dtype.kind not in "iuf" and rows:
        raise ValueError(f"{name} has the type {given.dtype}; expected whole numbers")
    if given.dtype.kind == "f":
        whole = np.isfinite(given) & (given == np.floor(given))
        _check_rows(name, given, ~whole, "expected a whole number")
    if least is not None:
        unit = " token" if name.endswith("tokens") else ""
        _check_rows(name, given, given < least, f"expected at least {least}{unit}")
    return _frozen(given.astype(np.int64))


def _seconds(name: str, values: ArrayLike, rows: int) -> NDArray[np.float64]:
    given = np.array(values, dtype=np.float64)
    if given.shape != (rows,):
        raise ValueError(
            f"{name} has the shape {given.shape}; expected {rows} entries, as many as arrival has"
        )
    _check_rows(name, given, given <= 0, "expected a positive number of seconds, or NaN for no bound")
    return _frozen(given)


def _check_rows(name: str, values: NDArray[Any], bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name} of row {row} is {values[row].item()!r}; {expected}")


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
