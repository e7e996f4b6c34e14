"""What a workload is like, in numbers: rates, burstiness, lengths, and what its requests share.

requests, duration (s, first to last arrival), rate (requests/s), peak_rate (in the busiest 10 s), prompt_rate
and output_rate (tokens/s).

gap_cv: coefficient of variation of the gaps between arrivals; 1 for Poisson arrivals. dispersion_1s,
dispersion_10s, dispersion_60s: variance over mean of the number of arrivals in windows of so long (the index
of dispersion for counts); 1 for Poisson arrivals at any length, and growing with the length where load comes
in waves that gaps alone do not show; 0 if there are fewer than two windows.

mean_, p1_, p10_, p50_, p90_, p99_, max_ of prompt_tokens and output_tokens. length_correlation: between their
logarithms.

sessions, turns (requests per session), both 0 without sessions. shared_fraction: share of the prompt tokens
that lie in blocks which an earlier request had: the hit rate of an endless prefix cache.

Of a closed loop, whose arrivals only a run knows: requests, users, mean_think (s), and those of the lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sim.workloads import sharing
from sim.workloads.closed import ClosedWorkload
from sim.workloads.table import Workload

__all__ = ["Description", "describe", "describe_closed"]

_LEVELS = (1, 10, 50, 90, 99)
_COLUMNS = ("mean", *(f"p{level}" for level in _LEVELS), "max")


class Description(Mapping[str, float]):
    """Figures of a workload by name; as a text, a table."""

    def __init__(self, figures: Mapping[str, float]) -> None:
        self._figures = dict(figures)

    def __getitem__(self, name: str) -> float:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __repr__(self) -> str:
        return f"Description({self._figures!r})"

    def __str__(self) -> str:
        of = self._figures
        if closed := "users" in of:
            lines = [
                f"{of['requests']:,.0f} requests of {of['users']:,.0f} users in a closed loop, who think "
                f"{of['mean_think']:.3g} s on average"
            ]
        else:
            lines = [
                f"{of['requests']:,.0f} requests in {of['duration']:,.1f} s: {of['rate']:.3g}/s, "
                f"{of['peak_rate']:.3g}/s in the busiest 10 s; gaps' CV {of['gap_cv']:.2f}",
                f"dispersion of counts: {of['dispersion_1s']:.3g} in 1 s, "
                f"{of['dispersion_10s']:.3g} in 10 s, {of['dispersion_60s']:.3g} in 60 s (Poisson: 1)",
            ]
        rates = () if closed else ("per s",)
        lines.append(f"{'tokens':10s}" + "".join(f"{name:>9s}" for name in (*_COLUMNS, *rates)))
        for kind in ("prompt", "output"):
            shown = [of[f"{level}_{kind}_tokens"] for level in _COLUMNS]
            shown += [] if closed else [of[f"{kind}_rate"]]
            lines.append(f"{kind:10s}" + "".join(f"{value:9,.0f}" for value in shown))
        lines.append(f"correlation of the logarithms of both lengths: {of['length_correlation']:.2f}")
        if of.get("sessions"):
            lines.append(f"{of['sessions']:,.0f} sessions of {of['turns']:.2f} turns")
        if of.get("shared_fraction"):
            lines.append(f"{of['shared_fraction']:.1%} of the prompt tokens seen before, as a prefix")
        return "\n".join(lines)


def describe(workload: Workload) -> Description:
    """The figures of this workload; 0 where there are too few requests for one."""
    count = len(workload)
    times = workload.arrival - (workload.arrival[0] if count else 0.0)
    duration = float(times[-1]) if count else 0.0
    gaps = np.diff(times)
    figures = {
        "requests": float(count),
        "duration": duration,
        "rate": (count - 1) / duration if duration > 0 else 0.0,
        "peak_rate": _peak(times, 10.0) / 10.0,
        "gap_cv": float(gaps.std() / gaps.mean()) if duration > 0 else 0.0,
    }
    for seconds in (1, 10, 60):
        figures[f"dispersion_{seconds}s"] = _dispersion(times, float(seconds))
    for kind in ("prompt", "output"):
        tokens = getattr(workload, f"{kind}_tokens")
        figures[f"{kind}_rate"] = float(tokens.sum()) / duration if duration > 0 else 0.0
    figures |= _lengths(workload)

    sessions = np.unique(workload.session[workload.session >= 0]) if workload.session is not None else ()
    inside = int((workload.session >= 0).sum()) if workload.session is not None else 0
    figures["sessions"] = float(len(sessions))
    figures["turns"] = inside / len(sessions) if len(sessions) else 0.0
    figures["shared_fraction"] = _shared(workload)
    return Description(figures)


def describe_closed(workload: ClosedWorkload) -> Description:
    """The figures of this closed loop; 0 where there are too few requests for one."""
    figures = {
        "requests": float(len(workload)),
        "users": float(len(workload.starts)),
        "mean_think": float(workload.think.mean()) if len(workload) else 0.0,
    }
    return Description(figures | _lengths(workload))


def _lengths(workload: Workload | ClosedWorkload) -> dict[str, float]:
    """Quantiles of both lengths and their correlation."""
    count, figures = len(workload), {}
    for kind in ("prompt", "output"):
        tokens = getattr(workload, f"{kind}_tokens")
        figures[f"mean_{kind}_tokens"] = float(tokens.mean()) if count else 0.0
        for level in _LEVELS:
            figures[f"p{level}_{kind}_tokens"] = float(np.percentile(tokens, level)) if count else 0.0
        figures[f"max_{kind}_tokens"] = float(tokens.max()) if count else 0.0
    figures["length_correlation"] = _correlation(workload.prompt_tokens, workload.output_tokens)
    return figures


def _peak(times: NDArray[np.float64], seconds: float) -> float:
    """Most arrivals in a window of so long that begins with one."""
    if not len(times):
        return 0.0
    ends = np.searchsorted(times, times + seconds)
    return float((ends - np.arange(len(times))).max())


def _dispersion(times: NDArray[np.float64], seconds: float) -> float:
    windows = int(times[-1] / seconds) if len(times) else 0
    if windows < 2:
        return 0.0
    counts = np.bincount((times / seconds).astype(np.int64), minlength=windows)[:windows]
    return float(counts.var() / counts.mean()) if counts.any() else 0.0


def _correlation(prompts: NDArray[np.int64], outputs: NDArray[np.int64]) -> float:
    if len(prompts) < 2 or prompts.min() == prompts.max() or outputs.min() == outputs.max():
        return 0.0
    return float(np.corrcoef(np.log(prompts), np.log(outputs))[0, 1])


def _shared(workload: Workload) -> float:
    if workload.prefixes is None or not len(workload):
        return 0.0
    tokens = np.minimum(
        sharing.reused(workload.prefixes) * workload.prefixes.block_size, workload.prompt_tokens
    )
    return float(tokens.sum() / workload.prompt_tokens.sum())
