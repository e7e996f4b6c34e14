"""What a router sees of real servers: the views of `sim.policies`, over what a proxy knows and has scraped.

A `Flight` is one request on its way through the proxy, with the view of it. Times are seconds since the
proxy's start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpu_harness.prompts import Prompt
from sim.policies import ReplicaView, RequestView

if TYPE_CHECKING:
    from gpu_harness.replicas import Replica

__all__ = ["Flight", "ServedRequest", "Server", "flight_of", "replica_of"]

_set = object.__setattr__  # past the views' read-only `__setattr__`, for constructors alone


class Flight:
    """A request in the proxy: what it asked for, where it is, and when what happened to it."""

    __slots__ = (
        "admission",
        "arrival",
        "attempts",
        "block_size",
        "blocks",
        "finish",
        "first_token",
        "id",
        "lost",
        "made",
        "name",
        "outcome",
        "priority",
        "prompt",
        "prompt_tokens",
        "replica",
        "routed",
        "session",
        "staleness",
        "state",
        "task",
        "tpot_slo",
        "ttft_slo",
        "view",
    )

    def __init__(
        self,
        id: int,
        arrival: float,
        prompt: Prompt,
        *,
        name: str = "",
        block_size: int = 16,
        priority: int = 0,
        session: int | None = None,
        ttft_slo: float | None = None,
        tpot_slo: float | None = None,
    ) -> None:
        """`name` is the client's, of the header X-Request-Id; `block_size` the replicas', in tokens."""
        self.id, self.arrival, self.prompt, self.name = id, arrival, prompt, name
        self.prompt_tokens, self.block_size = prompt.tokens, block_size
        self.priority, self.session, self.ttft_slo, self.tpot_slo = priority, session, ttft_slo, tpot_slo
        self.state = "queued"
        self.made = 0  # output tokens streamed so far
        self.blocks = 0  # that its tokens take while it is thought to run
        self.replica: Replica | None = None
        self.attempts = 0
        self.task: Any = None  # its handler's, while nothing has been sent to the client
        self.lost = False  # its replica is gone: the handler is to try another
        self.routed = self.first_token = self.finish = self.staleness = float("nan")
        self.outcome = ""
        self.admission: Any = None  # what the request's handler waits for, while it is in the global queue
        self.view = ServedRequest(self)


class ServedRequest(RequestView):
    """A request in the proxy.

    `prompt_tokens` is exact for prompts of token ids, else the tokenizer's count or an estimate, until the
    server's `usage` comes. `prefix` has all full blocks of the prompt, shared or not. `session` is a hash of
    the header X-Session-Id, the SLOs are those of X-TTFT-SLO and X-TPOT-SLO.
    """

    __slots__ = ("_flight", "_hashes")
    _flight: Flight
    _hashes: tuple[int, ...] | None

    def __init__(self, flight: Flight) -> None:
        _set(self, "_flight", flight)
        _set(self, "_hashes", None)
        for name in ("id", "arrival", "priority", "session", "ttft_slo", "tpot_slo"):
            _set(self, name, getattr(flight, name))

    @property
    def prompt_tokens(self) -> int:  # type: ignore[override]
        return self._flight.prompt_tokens

    @property
    def tokens_done(self) -> int:
        flight = self._flight
        return flight.prompt_tokens + flight.made if flight.made else 0

    @property
    def state(self) -> str:
        return self._flight.state

    @property
    def prefix(self) -> tuple[int, ...]:  # type: ignore[override]
        if self._hashes is None:
            _set(self, "_hashes", self._flight.prompt.hashes(self._flight.block_size))
        return self._hashes or ()


class Server(ReplicaView):
    """A replica behind the proxy.

    The server's own figures are as old as the last scrape; on top comes what the proxy has seen since: what
    it has sent waits, what has streamed a token runs, and takes the blocks of its tokens. `requests` are
    those of this proxy alone.
    """

    __slots__ = ("_replica",)
    _replica: Replica

    def __init__(self, replica: Replica) -> None:
        _set(self, "_replica", replica)
        _set(self, "index", replica.index)

    @property
    def blocks_total(self) -> int:  # type: ignore[override]
        return self._replica.gauges.blocks_total

    @property
    def block_size(self) -> int:  # type: ignore[override]
        return self._replica.gauges.block_size

    @property
    def waiting(self) -> int:
        return self._replica.waiting

    @property
    def running(self) -> int:
        return self._replica.running

    @property
    def waiting_prompt_tokens(self) -> int:
        return self._replica.waiting_prompt_tokens

    @property
    def blocks_used(self) -> int:
        return self._replica.blocks_used

    @property
    def preemptions(self) -> int:
        return self._replica.gauges.preemptions

    @property
    def requests(self) -> tuple[RequestView, ...]:
        flights = self._replica.flights.values()
        running = [flight.view for flight in flights if flight.state == "running"]
        return (*running, *(flight.view for flight in flights if flight.state != "running"))


# No methods: what a candidate can name of a view is what the simulator's views have.
def flight_of(view: ServedRequest) -> Flight:
    """What the proxy knows of a request; for the proxy alone."""
    return view._flight


def replica_of(view: Server) -> Replica:
    """What the proxy knows of a replica; for the proxy alone."""
    return view._replica
