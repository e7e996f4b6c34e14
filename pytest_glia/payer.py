"""Who pays for the simulations of a search, and for which of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_glia.budget import Account
from pytest_glia.ledger import Ledger


@dataclass(frozen=True)
class Payer:
    """Who pays for simulations: one context of a run, from its account.

    A run that goes on after a kill pays again, on paper, for what it has paid before: its account comes to
    the same figures, whatever is known by now. What was known before the run costs nothing.

    Attributes:
        context: Its name; empty for the run as a whole.
        charged: The keys of what it has paid for.
    """

    run: str
    account: Account
    context: str = ""
    charged: set[str] = field(default_factory=set)

    def charge(self, simulations: set[str], ledger: Ledger) -> set[str]:
        """Pay for those of the keys that are new to this run or to this payer; gives these."""
        known = ledger.known(list(simulations)).keys()
        again = ledger.paid(self.run, known) - self.charged
        unknown = simulations - known
        if again and len(again) + len(unknown) > self.account.left("simulations"):
            raise self.account.exhausted("simulations")
        if unknown:
            self.account.spend({"simulations": len(unknown)})
            ledger.pay(self.run, unknown)
            ledger.note(self.run, "elapsed", self.account.own["seconds"])
        self.account.settle({}, {"simulations": len(again)})
        self.charged.update(unknown, again)
        return unknown | again

    def charge_again(self, simulations: Iterable[str]) -> None:
        """Pay for what the run has paid for before it ended some work, which is not begun again."""
        again = set(simulations) - self.charged
        self.account.settle({}, {"simulations": len(again)})
        self.charged.update(again)

    def beside(self, account: Account, context: str) -> Payer:
        """Another context of the run, with its own account; what this one has paid for is paid."""
        return Payer(self.run, account, context, set(self.charged))
