"""What the reference stepper shows of its replicas to a router: themselves, or what was last published."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.reference import Replica, Request


class Shown:
    """What a router is shown of the replicas: themselves, or what was last published of them."""

    def __init__(self, period: float, replicas: list[Replica]) -> None:
        self.period, self.replicas, self.due = period, replicas, 0.0
        self.known: dict[int, tuple[int, str]] = {}
        self.holding = self.changed = False
        self.views: list[Any] = list(replicas)
        if period:
            self.views = [
                SimpleNamespace(
                    requests=(),
                    index=r.index,
                    block_size=r.block_size,
                    blocks_total=r.blocks_total,
                    **dict.fromkeys(_GAUGES, 0),
                )
                for r in replicas
            ]

    def advance(self, moment: float) -> None:
        """Publish if it is due before this moment."""
        if self.period == 0 or self.due >= moment:
            return
        periods = math.ceil(moment / self.period)
        self.due = periods * self.period
        if self.due < moment:  # rounded down
            self.due = (periods + 1) * self.period
        for view, replica in zip(self.views, self.replicas, strict=True):
            for name in _GAUGES:
                setattr(view, name, getattr(replica, name))
            for request in replica.requests:
                self.known[request.id] = request.tokens_done, request.state
            view.held = replica.requests
        self.refresh()

    def refresh(self) -> None:
        for view in self.views:
            view.requests = tuple(
                SimpleNamespace(
                    id=request.id, prompt_tokens=request.prompt_tokens, tokens_done=tokens, state=state
                )
                for request in getattr(view, "held", ())
                if request.finish is None
                for tokens, state in [self.known[request.id]]
            )

    def heard(self, request: Request) -> None:
        """What the router does itself is known at once."""
        if self.period:
            self.known[request.id] = self.known.get(request.id, (0, ""))[0], request.state
            self.refresh()


_GAUGES = ("waiting", "running", "waiting_prompt_tokens", "blocks_used", "preemptions")
