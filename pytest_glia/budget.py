"""What a search may spend, and the account that stops it before it spends more."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import pytest

Kind = Literal["simulations", "seconds", "tokens", "dollars", "gpu_minutes"]
Amounts = Mapping[Kind, float]
"""How much of some kinds."""

# What contexts that work side by side get parts of.
_SHARED: tuple[Kind, ...] = ("simulations", "tokens", "dollars", "gpu_minutes")

# What people write, with the kind and how many of it that is.
_UNITS: dict[str, tuple[Kind, float]] = {
    **dict.fromkeys(("sim", "sims", "simulation", "simulations"), ("simulations", 1)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("seconds", 1)),
    **dict.fromkeys(("min", "minute", "minutes"), ("seconds", 60)),
    **dict.fromkeys(("token", "tokens"), ("tokens", 1)),
    **dict.fromkeys(("usd", "dollar", "dollars"), ("dollars", 1)),
    **dict.fromkeys(("gpu-min", "gpu-minute", "gpu-minutes"), ("gpu_minutes", 1)),
}
_MULTIPLES = {"": 1, "k": 1_000, "M": 1_000_000}
_FORM = 'a list such as "100 sims, 2 min" or "5 usd, 200k tokens" (units: sims, s, min, tokens, usd, gpu-min)'
_SHORT: dict[Kind, str] = {"seconds": "s", "dollars": "usd", "gpu_minutes": "gpu-min"}


@dataclass(frozen=True)
class Budget:
    """Limits of a search.

    Attributes:
        simulations: One candidate x one seed at full length each.
        seconds: Of wall-clock time.
        tokens: Of a language model, read and written.
        dollars: That a language model costs.
        gpu_minutes: Of a testbed with GPUs.
    """

    simulations: float = math.inf
    seconds: float = math.inf
    tokens: float = math.inf
    dollars: float = math.inf
    gpu_minutes: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``"100 sims, 2 min, 200k tokens"``; raises `pytest.UsageError` saying what was expected."""
        limits: dict[Kind, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kM]?)\s*([a-z-]+)", part)
            if match is None or match[3] not in _UNITS:
                raise pytest.UsageError(f"the budget {text!r} has {part!r}: give {_FORM}")
            kind, factor = _UNITS[match[3]]
            if kind in limits:
                raise pytest.UsageError(f"the budget {text!r} limits {_words(kind)} twice: give {_FORM}")
            limits[kind] = float(match[1]) * _MULTIPLES[match[2]] * factor
        if not limits or min(limits.values()) <= 0:
            raise pytest.UsageError(f"the budget is {text!r}: give {_FORM}, each above zero")
        return cls(**limits)

    def limit(self, kind: Kind) -> float:
        """Of that kind; infinite if there is none."""
        limit: float = getattr(self, kind)
        return limit

    def __str__(self) -> str:
        kinds: tuple[Kind, ...] = get_args(Kind)
        return listed({kind: self.limit(kind) for kind in kinds if math.isfinite(self.limit(kind))})


def listed(amounts: Amounts) -> str:
    """Amounts in the units of a budget: ``42 simulations, 61 s, 0.31 usd``."""
    return ", ".join(f"{_figure(amount, kind)} {_SHORT.get(kind, kind)}" for kind, amount in amounts.items())


class BudgetExhausted(Exception):
    """A spend was refused because it would exceed the budget.

    ``rest`` is what is not spent, and yet not to be had: it is kept for the end of the run, or less than the
    next call may take.
    """

    def __init__(self, kind: Kind, limit: float, rest: float = 0.0) -> None:
        super().__init__(kind, limit, rest)
        self.kind: Kind = kind
        self.limit = limit
        self.rest = rest

    def __str__(self) -> str:
        if self.kind in ("simulations", "seconds"):
            rest, why = float(math.ceil(self.rest)), " kept to audit and confirm"
        else:
            rest, why = self.rest, ", less than the next call may take"
        kept = f", but for {_amount(rest, self.kind)}{why}"
        return f"the budget of {_amount(self.limit, self.kind)} is spent{kept if rest else ''}"


def _amount(number: float, kind: Kind) -> str:
    words = _words(kind)
    return f"{_figure(number, kind)} {words if number != 1 else words.removesuffix('s')}"


def _words(kind: Kind) -> str:
    return "GPU-minutes" if kind == "gpu_minutes" else kind


def _figure(number: float, kind: Kind) -> str:
    return f"{number:.4g}" if kind == "dollars" else f"{number:.12g}"


@dataclass
class Account:
    """What has been spent of a budget. A spend is reserved before it happens; threads may share an account.

    Attributes:
        spent: By kind, what is settled; of seconds see `seconds`.
        held: By kind, what is set aside for the confirmation that ends a run: a search may not touch it.
        whole: The account of which this is a part: what is spent here is spent there.
        before: By kind, what was spent when this search began: by others of the same command.
        earlier: Seconds that this run took in a process that was killed; they count from the first new spend.
        purpose: What the next simulations are for; `spent_on` has them by that.
        timed: Whether time is limited: not where a record is replayed.
        closed: Whether the search has ended: a context that is still at work ends where it would spend.
    """

    budget: Budget
    spent: dict[Kind, float] = field(default_factory=dict)
    held: Amounts = field(default_factory=dict)
    purpose: str = "search"
    spent_on: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    whole: Account | None = None
    earlier: float = 0.0
    timed: bool = True
    before: Amounts = field(default_factory=dict)
    closed: bool = False
    _in_flight: list[Amounts] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def part(self, of: int) -> Account:
        """An account with one of that many equal parts of what is left, but for the time, which is shared."""
        shares = {kind: max(0.0, self.left(kind)) / of for kind in _SHARED}
        if math.isfinite(shares["simulations"]):
            shares["simulations"] = float(math.floor(shares["simulations"]))
        return Account(Budget(**shares), whole=self)

    def following(self) -> Account:
        """The account of the next search of the same command: what was spent is spent, by another one."""
        before: Amounts = {**self.spent, "seconds": self.seconds}
        return Account(self.budget, dict(self.spent), started=self.started, before=before)

    def follows(self, before: Amounts) -> None:
        """Have this search begin with so much spent, of all but time: as it did in another process."""
        self.spent = dict(before)
        self.before = {**before, "seconds": self.before.get("seconds", 0.0)}

    @property
    def own(self) -> dict[Kind, float]:
        """What this search, or this part of it, has spent itself, by kind; the seconds are the search's."""
        seconds = self.seconds if self.whole is None else self.whole.own["seconds"]
        spent: dict[Kind, float] = {**self.spent, "seconds": seconds}
        return {kind: amount - self.before.get(kind, 0.0) for kind, amount in spent.items()}

    @property
    def simulations(self) -> int:
        """That were run, or are being run."""
        return int(self.spent.get("simulations", 0))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the command began."""
        return self.whole.seconds if self.whole is not None else time.monotonic() - self.started

    def has_limit(self, kind: Kind, limit: float) -> bool:
        """Whether that is what limits a kind here, or in the account of which this is a part."""
        if self.whole is not None and self.whole.has_limit(kind, limit):
            return True
        return self.budget.limit(kind) == limit

    def left(self, kind: Kind) -> float:
        """That the search may still reserve; of seconds, it may be negative."""
        if kind == "seconds" and self.whole is not None:
            return self.whole.left(kind)
        if kind == "seconds" and not self.timed:
            return math.inf
        gone = self.seconds if kind == "seconds" else self.spent.get(kind, 0.0)
        in_flight = sum(amounts.get(kind, 0.0) for amounts in self._in_flight)
        return self.budget.limit(kind) - self.held.get(kind, 0.0) - gone - in_flight

    def seconds_left(self) -> float:
        """Until the part of the time that the search may use is over; may be negative."""
        return self.left("seconds")

    def exhausted(self, kind: Kind) -> BudgetExhausted:
        """The error that says so, and what is left that cannot be had."""
        if kind == "seconds" and self.whole is not None:
            return self.whole.exhausted(kind)
        held = self.held.get(kind, 0.0)
        rest = held if kind in ("simulations", "seconds") else self.left(kind) + held
        return BudgetExhausted(kind, self.budget.limit(kind), rest)

    def reserve(self, amounts: Amounts) -> None:
        """Take the most that something may cost out of the budget before it is begun.

        What was reserved is to be settled. Raises `BudgetExhausted`, and takes nothing, if one of the kinds
        or the time does not suffice, and `KeyboardInterrupt` if the account is closed.
        """
        with self._lock:
            self.refuse_if_closed()
            self.started -= self.earlier
            self.earlier = 0.0
            for kind, amount in amounts.items():
                if amount > self.left(kind):
                    raise self.exhausted(kind)
            if self.seconds_left() <= 0:
                raise self.exhausted("seconds")
            if self.whole is not None:
                self.whole.reserve(amounts)
            if amounts:
                self._in_flight.append(amounts)

    def refuse_if_closed(self) -> None:
        """Raise `KeyboardInterrupt`, as the interruption did where it was heard, if the search has ended."""
        if self.closed or (self.whole is not None and self.whole.closed):
            raise KeyboardInterrupt

    def settle(self, reserved: Amounts, spent: Amounts) -> None:
        """Book what was spent in place of what was reserved: nothing, if an earlier process has spent it."""
        if self.whole is not None:
            self.whole.settle(reserved, spent)
        with self._lock:
            if reserved:
                self._in_flight.remove(reserved)
            for kind, amount in spent.items():
                self.spent[kind] = self.spent.get(kind, 0.0) + amount
            for_this = int(spent.get("simulations", 0))
            self.spent_on[self.purpose] = self.spent_on.get(self.purpose, 0) + for_this

    def spend(self, amounts: Amounts) -> None:
        """Reserve what is known to cost just that, and book it; raises `BudgetExhausted`."""
        self.reserve(amounts)
        self.settle(amounts, amounts)

    def __str__(self) -> str:
        """What this search has spent, but for the time."""
        spent: dict[Kind, float] = {"simulations": 0}
        spent |= {kind: amount for kind, amount in self.own.items() if amount and kind != "seconds"}
        return listed(spent)
