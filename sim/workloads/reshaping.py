"""Workloads from workloads: several at once, a part of one, another rate, objectives, seeded resamples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.prefixes import Prefixes
from sim.streams import RESAMPLING, stream
from sim.workloads import fields, sharing
from sim.workloads.table import Workload

__all__ = ["at_rate", "merge", "resample", "select", "window", "with_slo"]


def select(workload: Workload, rows: ArrayLike, arrival: ArrayLike | None = None) -> Workload:
    """These requests, in this order, at their own arrival times or at these (seconds, not decreasing)."""
    kept: NDArray[np.int64] = np.asarray(rows, np.int64)
    return Workload.from_arrays(
        arrival=workload.arrival[kept] if arrival is None else arrival,
        prompt_tokens=workload.prompt_tokens[kept],
        output_tokens=workload.output_tokens[kept],
        priority=None if workload.priority is None else workload.priority[kept],
        session=None if workload.session is None else workload.session[kept],
        prefixes=None if workload.prefixes is None else sharing.chosen(workload.prefixes, kept),
        ttft_slo=None if workload.ttft_slo is None else workload.ttft_slo[kept],
        tpot_slo=None if workload.tpot_slo is None else workload.tpot_slo[kept],
    )


def merge(*workloads: Workload) -> Workload:
    """All their requests, in order of arrival: tenants of one cluster. At ties the earlier argument's first.

    ValueError if one has a column that another lacks, shared prefixes or sessions: their numbers would mean
    different things.
    """
    for place, workload in enumerate(workloads):
        for name in ("session", "prefixes"):
            if getattr(workload, name) is not None:
                raise ValueError(
                    f"workload {place} has {name}, whose numbers are its own; expected workloads without"
                )
    kept: dict[str, NDArray[np.float64]] = {}
    for name in ("arrival", "prompt_tokens", "output_tokens", "priority", "ttft_slo", "tpot_slo"):
        columns = [getattr(workload, name) for workload in workloads]
        there = [column for column in columns if column is not None]
        if there and len(there) < len(columns):
            missing = next(place for place, column in enumerate(columns) if column is None)
            raise ValueError(f"workload {missing} has no {name}, but another has; expected all or none")
        if there:
            kept[name] = np.concatenate(there)
    if not kept:
        raise ValueError("no workload was given; expected at least one")
    order = np.argsort(kept["arrival"], kind="stable")
    return Workload.from_arrays(**{name: column[order] for name, column in kept.items()})  # type: ignore[arg-type]


def with_slo(workload: Workload, *, ttft: float | None = None, tpot: float | None = None) -> Workload:
    """The same requests, each with these objectives: seconds to its first token, and on average for each
    later one; None leaves what it had."""
    given: dict[str, Any] = {}
    for name, seconds in {"ttft": ttft, "tpot": tpot}.items():
        if seconds is not None:
            fields.positive(None, "seconds", **{name: seconds})
            given[f"{name}_slo"] = np.full(len(workload), seconds)
    return replace(workload, **given)


def window(workload: Workload, start: float, duration: float) -> Workload:
    """The requests that arrive from `start` on for `duration` seconds; `start` becomes 0."""
    fields.number(None, 0.0, np.inf, "seconds", start=start)
    fields.positive(None, "seconds", duration=duration)
    first, end = np.searchsorted(workload.arrival, (start, start + duration))
    return select(workload, np.arange(first, end), workload.arrival[first:end] - start)


def at_rate(workload: Workload, rate: float) -> Workload:
    """The same requests with all gaps stretched by one factor, at `rate` requests/s on average.

    The pattern of bursts stays; think times of sessions are stretched, too.
    """
    fields.positive(None, "requests/s", rate=rate)
    span = workload.arrival[-1] - workload.arrival[0] if len(workload) else 0.0
    if span <= 0:
        raise ValueError(
            f"the workload has no rate to change: its {len(workload)} requests arrive in {span:g} s; "
            "expected at least two requests at different times"
        )
    factor = (len(workload) - 1) / span / rate
    return select(workload, np.arange(len(workload)), (workload.arrival - workload.arrival[0]) * factor)


def resample(
    workload: Workload, seed: int, *, block: float = 60.0, duration: float | None = None
) -> Workload:
    """Another workload like this one: blocks of its time, drawn with replacement and put end to end.

    The circular block bootstrap over time (Politis and Romano 1992): each block is `block` seconds long and
    starts anywhere; one that runs over the end continues at the beginning. What happens within a block -
    bursts, what kinds of requests come together - stays as it was, so choose it longer than a burst and much
    shorter than the trace; what happens over longer times is lost. `duration` in seconds; without, the
    workload's own. The turns of a session that fall into one block remain a session, with a number of its
    own. So do prefixes that were first seen within the block; older ones stay shared between blocks. No
    request then finds more of its prefix than it did in the trace, but in a block that runs over the end.
    """
    fields.positive(None, "seconds", block=block)
    if len(workload) < 2 or workload.arrival[-1] <= workload.arrival[0]:
        raise ValueError(
            f"a workload of {len(workload)} requests at one time cannot be resampled; expected requests at "
            "different times"
        )
    times = workload.arrival - workload.arrival[0]
    # A gap between the last arrival and the first of the next round: the mean one.
    span = float(times[-1]) * len(times) / (len(times) - 1)
    wanted = span if duration is None else duration
    fields.positive(None, "seconds", duration=wanted)
    block = min(block, span)
    starts = stream(seed, RESAMPLING).random(int(np.ceil(wanted / block))) * span
    rows, arrival, copy, bounds = [], [], [], []
    twice = np.concatenate([times, times + span])
    for number, start in enumerate(starts.tolist()):
        first, end = np.searchsorted(twice, (start, start + block))
        bounds.append((first, end))
        rows.append(np.arange(first, end) % len(times))
        arrival.append(number * block + twice[first:end] - start)
        copy.append(np.full(end - first, number))
    picked, at, block_of = np.concatenate(rows), np.concatenate(arrival), np.concatenate(copy)
    within = at < wanted
    # Rounding may put the last of a block behind the first of the next by a part in 10^16.
    drawn = select(workload, picked[within], np.maximum.accumulate(at[within]))
    origin = block_of[within]
    prefixes = drawn.prefixes
    if workload.prefixes is not None and prefixes is not None:
        prefixes = _renamed(workload.prefixes, prefixes, origin, np.array(bounds)[origin])
    session = drawn.session
    if session is not None:
        _, first, which = np.unique(
            np.stack([origin, session]), axis=1, return_index=True, return_inverse=True
        )
        # In the order in which they come first: a number tells nothing of the sessions to come.
        session = np.where(session < 0, -1, np.argsort(np.argsort(first))[which.reshape(-1)])
    return Workload.from_arrays(
        arrival=drawn.arrival,
        prompt_tokens=drawn.prompt_tokens,
        output_tokens=drawn.output_tokens,
        priority=drawn.priority,
        session=session,
        prefixes=prefixes,
        ttft_slo=drawn.ttft_slo,
        tpot_slo=drawn.tpot_slo,
    )


def _renamed(
    trace: Prefixes, drawn: Prefixes, block_of: NDArray[np.int64], bounds: NDArray[np.int64]
) -> Prefixes:
    """The drawn names, those first seen within their own block (trace rows from bounds[:, 0], circular) made
    its own."""
    if not len(drawn.hashes):
        return drawn
    row_of = np.repeat(np.arange(len(trace)), np.diff(trace.starts))
    names, first = np.unique(trace.hashes, return_index=True)
    seen_at = row_of[first][np.searchsorted(names, drawn.hashes)]
    counts = np.diff(drawn.starts)
    start, end = np.repeat(bounds, counts, axis=0).T
    inside = (seen_at - start) % len(trace) < end - start
    copies = np.where(inside, np.repeat(block_of, counts) + 1, 0)
    return Prefixes(drawn.starts, drawn.hashes + copies * (names[-1] + 1), drawn.block_size)
