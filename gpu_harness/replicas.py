"""The books of one replica behind the proxy: what it was seen to hold, and what has changed since."""

from __future__ import annotations

from gpu_harness.scraping import NOTHING, Gauges
from gpu_harness.views import Flight, Server

__all__ = ["Replica"]


class Replica:
    """One server: its address, whether it is healthy, the last scrape, and this proxy's requests on it."""

    def __init__(self, index: int, url: str) -> None:
        self.index, self.url = index, url
        self.healthy = False
        self.leaving = False
        """No longer among the addresses: it finishes what it has."""
        self.complaint = "not asked yet"
        """Why it is not healthy."""
        self.dead = False
        """It does not answer at all: what it has not begun to answer is tried elsewhere."""
        self.failures = 0
        self.gauges = NOTHING
        self.scraped = self.heard = float("-inf")
        """When it was last scraped; when a token came from it, or a request to it while it was idle."""
        self.flights: dict[int, Flight] = {}
        """In order of sending."""
        self.waiting = self.running = self.waiting_prompt_tokens = 0
        self._own_blocks = self._own_blocks_then = 0
        self.view = Server(self)

    @property
    def takes_requests(self) -> bool:
        """Whether the router may send it any."""
        return self.healthy and not self.leaving

    @property
    def blocks_used(self) -> int:
        """Those of the last scrape, and what the running requests' tokens have taken or given back since."""
        now = self.gauges.blocks_used + self._own_blocks - self._own_blocks_then
        return min(max(now, 0), self.gauges.blocks_total)

    def send(self, flight: Flight, now: float) -> None:
        """It has been given the request: it waits there until it streams or a scrape shows it running."""
        flight.replica, flight.state = self, "waiting"
        if not self.flights:
            self.heard = now
        self.flights[flight.id] = flight
        self.waiting += 1
        self.waiting_prompt_tokens += flight.prompt_tokens

    def streamed(self, flight: Flight, tokens: int, now: float) -> None:
        """The request now has so many output tokens."""
        flight.made, self.heard = tokens, now
        if flight.state == "waiting":
            self._start(flight)
        self._occupy(flight)

    def drop(self, flight: Flight) -> None:
        """The request is no longer there: finished, failed or given up."""
        if self.flights.pop(flight.id, None) is None:
            return
        if flight.state == "waiting":
            self.waiting -= 1
            self.waiting_prompt_tokens -= flight.prompt_tokens
        else:
            self.running = max(0, self.running - 1)
            self._own_blocks -= flight.blocks
        flight.blocks = 0

    def correct(self, flight: Flight, prompt_tokens: int) -> None:
        """The server says how long the prompt is."""
        if flight.state == "waiting" and flight.id in self.flights:
            self.waiting_prompt_tokens += prompt_tokens - flight.prompt_tokens
        flight.prompt_tokens = prompt_tokens

    def publish(self, gauges: Gauges, now: float) -> None:
        """A scrape: those that the server says run are the first sent, those with tokens before the others;
        what it has of other clients is counted, too."""
        self.gauges, self.scraped = gauges, now
        order = sorted(
            self.flights.values(), key=lambda flight: flight.made == 0
        )  # stable: as they were sent
        waiting = tokens = 0
        for position, flight in enumerate(order):
            if position < gauges.running:
                if flight.state == "waiting":
                    flight.state = "running"
                    self._occupy(flight)
            else:
                if flight.state == "running":
                    flight.state = "waiting"
                    self._own_blocks -= flight.blocks
                    flight.blocks = 0
                waiting += 1
                tokens += flight.prompt_tokens
        self.running = gauges.running
        self.waiting = max(waiting, gauges.waiting)
        self.waiting_prompt_tokens = tokens
        self._own_blocks_then = self._own_blocks

    def _start(self, flight: Flight) -> None:
        flight.state = "running"
        self.waiting -= 1
        self.waiting_prompt_tokens -= flight.prompt_tokens
        self.running += 1

    def _occupy(self, flight: Flight) -> None:
        blocks = -(-(flight.prompt_tokens + flight.made) // self.gauges.block_size)
        self._own_blocks += blocks - flight.blocks
        flight.blocks = blocks
