"""The memory that a policy may look at, by names of `sim.state.State`: which of it, and how it begins."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from sim.state import NOBODY, Ints

METHODS = ("route", "completed", "plan", "target")

LIVE = ("known", "place", "gauges", "seats", "ends")
PUBLISHED = ("seen_known", "seen_behind", "seen_gauges", "seen_seats", "seen_ends")
BY_REQUEST = {"known", "place", "work", "seen_known", "seen_behind"}
_FROM_NOBODY = {"place", "ends", "seen_behind", "seen_ends"}


def visible(methods: Collection[str], *, stale: bool) -> list[str]:
    """The arrays behind the views that a policy with these methods is handed."""
    names = set[str]()
    if set(methods) - {"plan"}:
        names |= set(PUBLISHED if stale else LIVE)
    if "plan" in methods:
        names |= {*LIVE, "work"}
    return sorted(names)


def blank(name: str, shape: tuple[int, ...]) -> Ints:
    """The array of that name before the first event."""
    return np.full(shape, NOBODY, np.int64) if name in _FROM_NOBODY else np.zeros(shape, np.int64)
