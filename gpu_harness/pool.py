"""Which replicas there are, by URL or DNS name, and which are healthy: each is asked at an interval."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from gpu_harness.replicas import Replica
from gpu_harness.scraping import MetricsMissing, parse

__all__ = ["Address", "Pool", "addresses"]

_FAILURES = 3
"""Unanswered scrapes after which a replica is taken out; a refused connection takes it out at once."""


@dataclass(frozen=True)
class Address:
    """A replica's URL, or with `dns` one for each address that its host name has."""

    url: str
    dns: bool = False


def addresses(urls: Iterable[str]) -> tuple[Address, ...]:
    """`http://host:port`, or `dns+http://name:port`; ValueError if one is neither."""
    found = []
    for url in urls:
        parts = urlsplit(url.removeprefix("dns+"))
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ValueError(
                f"replica={url!r}; expected http://HOST:PORT, or dns+http://NAME:PORT for all addresses of a "
                "name, without a path"
            )
        found.append(Address(url.removeprefix("dns+").rstrip("/"), url.startswith("dns+")))
    if not found:
        raise ValueError("no replica is given; expected at least one --replica http://HOST:PORT")
    return tuple(found)


class Pool:
    """Replicas by index, which never changes; each is asked in a task of its own."""

    def __init__(
        self,
        given: Iterable[Address],
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float],
        tell: Callable[..., None],
        scraped: Callable[[], None],
        came_or_went: Callable[[Replica], None],
        scrape_interval: float = 0.25,
        resolve_interval: float = 10.0,
        timeout: float = 5.0,
    ) -> None:
        """Seconds throughout. `scraped` is called after each scrape, `came_or_went` when a replica is taken
        in or out."""
        self._given, self._session, self._clock, self._tell = tuple(given), session, clock, tell
        self._scraped, self._came_or_went = scraped, came_or_went
        self._interval, self._resolve_interval = scrape_interval, resolve_interval
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._resolving: asyncio.Task[None] | None = None
        self._taking: list[Replica] = []
        self._hosts: dict[str, list[str]] = {}
        self._started = False
        self.replicas: list[Replica] = []
        """All that ever were."""

    def taking(self) -> list[Replica]:
        """Those that take requests now, by index."""
        return self._taking

    async def start(self) -> None:
        """Find the replicas, and ask each once."""
        await self._resolve()
        await asyncio.gather(*(self._ask(replica) for replica in self.replicas))
        self._started = True
        for replica in self.replicas:
            self._watch(replica)
        if any(address.dns for address in self._given):
            self._resolving = asyncio.create_task(self._every(self._resolve_interval, self._resolve))

    async def stop(self) -> None:
        """Ask no more."""
        tasks = [*self._tasks.values(), *([self._resolving] if self._resolving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def lost(self, replica: Replica, why: str, *, dead: bool) -> None:
        """It broke off a request, or does not answer (`dead`): taken out until it is asked and healthy."""
        if replica.healthy or (dead and not replica.dead):
            replica.healthy, replica.dead, replica.complaint = False, dead, why
            self._changed(replica)

    def add(self, url: str) -> Replica:
        """One more replica, which takes requests once it is healthy."""
        replica = Replica(len(self.replicas), url)
        self.replicas.append(replica)
        if self._started:
            self._watch(replica)
        return replica

    def leave(self, replica: Replica) -> None:
        """It gets no more requests, and is asked no more; it finishes what it has."""
        replica.leaving = True
        task = self._tasks.pop(replica.index, None)
        if task is not None:
            task.cancel()
        self._changed(replica)

    def stay(self, replica: Replica) -> None:
        """One that was to leave takes requests again."""
        replica.leaving = False
        self._watch(replica)
        self._changed(replica)

    async def _every(self, interval: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(interval)
            await do()

    def _watch(self, replica: Replica) -> None:
        async def ask() -> None:
            await self._ask(replica)

        self._tasks[replica.index] = asyncio.create_task(self._every(self._interval, ask))

    async def _ask(self, replica: Replica) -> None:
        try:
            if not replica.healthy:
                await self._get(replica, "/health")
            began = self._clock()
            gauges = parse(await self._get(replica, "/metrics"))
        except (TimeoutError, aiohttp.ClientError, OSError, MetricsMissing) as error:
            replica.failures += 1
            refused = isinstance(error, aiohttp.ClientConnectorError | MetricsMissing)
            why = str(error) or f"no answer within {self._timeout.total:g} s"
            if not replica.dead and (refused or replica.failures >= _FAILURES):
                self.lost(replica, why, dead=True)
            elif not replica.healthy and why != replica.complaint:
                replica.complaint = why
                self._tell("replica", replica=replica.url, healthy=False, why=why)
            return
        replica.failures = 0
        replica.publish(gauges, began)  # as old as the question, whenever the answer came
        if not replica.healthy:
            replica.healthy, replica.dead, replica.complaint = True, False, ""
            self._changed(replica)
        self._scraped()

    async def _get(self, replica: Replica, path: str) -> bytes:
        async with self._session.get(replica.url + path, timeout=self._timeout) as answer:
            if answer.status != 200:
                raise aiohttp.ClientPayloadError(f"GET {path} is answered with {answer.status}, not 200")
            body: bytes = await answer.read()
            return body

    def _changed(self, replica: Replica) -> None:
        self._taking = [each for each in self.replicas if each.takes_requests]
        self._tell("replica", replica=replica.url, healthy=replica.healthy, why=replica.complaint)
        self._came_or_went(replica)

    async def _resolve(self) -> None:
        wanted: dict[str, None] = {}
        for address in self._given:
            if not address.dns:
                wanted[address.url] = None
                continue
            parts = urlsplit(address.url)
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            loop = asyncio.get_running_loop()
            try:
                found: list[Any] = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
            except OSError as error:
                self._tell(
                    "dns", name=parts.hostname, why=str(error)
                )  # a name server that is away takes none away
            else:
                self._hosts[address.url] = sorted({each[4][0] for each in found})
            for host in self._hosts.get(address.url, ()):
                wanted[f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"] = None
        for replica in self.replicas:
            if replica.url not in wanted and not replica.leaving:
                self.leave(replica)
        here = {replica.url for replica in self.replicas if not replica.leaving}
        for url in wanted:
            if url not in here:
                self.add(url)
