"""What a search may spend, and the account that stops it before it spends more."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from typing import Literal

import pytest

_UNITS = {"sim": "simulations", "sims": "simulations", "simulations": "simulations"} | {
    **dict.fromkeys(("s", "sec", "second", "seconds"), "seconds"),
    **dict.fromkeys(("min", "minute", "minutes"), "minutes"),
}
_FORM = 'a list such as "100 sims, 2 min" (units: sims, s, min)'


@dataclass(frozen=True)
class Budget:
    """Limits of a search: simulations (one candidate x one seed at full length) and wall-clock seconds."""

    simulations: float = math.inf
    seconds: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``"100 sims, 2 min"``; raises `pytest.UsageError` saying what was expected."""
        limits: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", part)
            unit = _UNITS.get(match[2]) if match else None
            if match is None or unit is None:
                raise pytest.UsageError(f"the budget {text!r} has {part!r}: give {_FORM}")
            kind, factor = ("seconds", 60) if unit == "minutes" else (unit, 1)
            if kind in limits:
                raise pytest.UsageError(f"the budget {text!r} limits {kind} twice: give {_FORM}")
            limits[kind] = float(match[1]) * factor
        if not limits or min(limits.values()) <= 0:
            raise pytest.UsageError(f"the budget is {text!r}: give {_FORM}, each above zero")
        return cls(**limits)

    def __str__(self) -> str:
        parts = []
        if math.isfinite(self.simulations):
            parts.append(f"{self.simulations:g} simulations")
        if math.isfinite(self.seconds):
            parts.append(f"{self.seconds:g} s")
        return ", ".join(parts)


class BudgetExhausted(Exception):
    """A spend was refused because it would exceed the budget."""

    def __init__(self, kind: str, limit: float, held: float = 0.0) -> None:
        super().__init__(kind, limit, held)
        self.kind = kind
        self.limit = limit
        self.held = held

    def __str__(self) -> str:
        kept = f", but for {_amount(math.ceil(self.held), self.kind)} kept to audit and confirm"
        return f"the budget of {_amount(self.limit, self.kind)} is spent{kept if self.held else ''}"


def _amount(number: float, kind: str) -> str:
    return f"{number:g} {kind if number != 1 else kind.removesuffix('s')}"


@dataclass
class Account:
    """What has been spent of a budget. A spend is reserved before it happens.

    ``held_simulations`` and ``held_seconds`` are set aside for the confirmation that ends a run: a
    search may not touch them. ``spent_on`` has the simulations by what they were for, ``purpose`` what the
    next ones are for.
    """

    budget: Budget
    simulations: int = 0
    held_simulations: int = 0
    held_seconds: float = 0.0
    purpose: str = "search"
    spent_on: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the run began."""
        return time.monotonic() - self.started

    def seconds_left(self) -> float:
        """Until the part of the time that the search may use is over; may be negative."""
        return self.budget.seconds - self.held_seconds - self.seconds

    def simulations_left(self) -> float:
        """That the search may still reserve."""
        return self.budget.simulations - self.held_simulations - self.simulations

    def exhausted(self, kind: Literal["simulations", "seconds"]) -> BudgetExhausted:
        """The error that says so, and how much is held."""
        if kind == "seconds":
            return BudgetExhausted(kind, self.budget.seconds, self.held_seconds)
        return BudgetExhausted(kind, self.budget.simulations, self.held_simulations)

    def reserve(self, simulations: int) -> None:
        """Take `simulations` out of the budget before running them; raises `BudgetExhausted`."""
        if simulations > self.simulations_left():
            raise self.exhausted("simulations")
        if self.seconds_left() <= 0:
            raise self.exhausted("seconds")
        self.simulations += simulations
        self.spent_on[self.purpose] = self.spent_on.get(self.purpose, 0) + simulations
