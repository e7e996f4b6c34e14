"""The table of a workload: what arrives when, how long it turns out to be, and what prefixes it shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.prefixes import Prefixes
from sim.workloads import columns, sharing

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
        given: dict[str, Any] = {
            "arrival": arrival,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "priority": priority,
            "session": session,
            "prefixes": prefixes,
            "ttft_slo": ttft_slo,
            "tpot_slo": tpot_slo,
        }
        return cls(**given)

    def __post_init__(self) -> None:
        arrival = columns.times("arrival", self.arrival)
        rows = len(arrival)
        checked: dict[str, Any] = {
            "arrival": arrival,
            "prompt_tokens": columns.tokens("prompt_tokens", self.prompt_tokens, rows),
            "output_tokens": columns.tokens("output_tokens", self.output_tokens, rows),
        }
        if self.priority is not None:
            checked["priority"] = columns.whole("priority", self.priority, rows)
        if self.session is not None:
            checked["session"] = columns.whole("session", self.session, rows, -1)
        for name in ("ttft_slo", "tpot_slo"):
            if getattr(self, name) is not None:
                checked[name] = columns.bounds(name, getattr(self, name), rows)
        for name, column in checked.items():
            object.__setattr__(self, name, column)
        if self.prefixes is not None and not isinstance(self.prefixes, Prefixes):
            raise ValueError(f"prefixes={self.prefixes!r}; expected sim.Prefixes, as from Prefixes.from_rows")
        if self.prefixes is not None:
            sharing.check_fit(self.prefixes, self.prompt_tokens + self.output_tokens)

    def __len__(self) -> int:
        return len(self.arrival)

    def __repr__(self) -> str:
        """Of a short workload the call that makes it, so that a counterexample can be pasted into a test."""
        if len(self) > _SHOWN:
            return f"<workload of {len(self)} requests in {self.arrival[-1] - self.arrival[0]:.1f} s>"
        given = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        called = ", ".join(f"{name}={column.tolist()}" for name, column in given.items())
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
