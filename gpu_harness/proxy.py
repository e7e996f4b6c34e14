"""The router proxy: an OpenAI-compatible server in front of replicas, whose requests a router places."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from gpu_harness.asking import asked_for
from gpu_harness.dispatching import Dispatcher
from gpu_harness.event_log import EventLog, Tell
from gpu_harness.exposition import Exposition
from gpu_harness.forwarding import ClientGone, ReplicaLost, client_session, forward
from gpu_harness.guarding import GuardedRouter
from gpu_harness.limits import Limits
from gpu_harness.pool import Address, Pool
from gpu_harness.prompts import Prompts
from gpu_harness.recording import Recording
from gpu_harness.replicas import Replica
from gpu_harness.scraping import NOTHING
from gpu_harness.token_counting import TokenCounter, usage_of
from gpu_harness.views import Flight
from sim.policies import Router

__all__ = ["Proxy"]

_BODY = 64 * 2**20


class Proxy:
    """Serves while `serving` is entered."""

    def __init__(
        self,
        router: Router,
        given: Iterable[Address],
        *,
        limits: Limits | None = None,
        prompts: Prompts | None = None,
        log: Tell | None = None,
        recording: Recording | None = None,
        shadow: bool = False,
    ) -> None:
        self._limits, self._prompts = limits or Limits(), prompts or Prompts()
        self._recording, self._given = recording, tuple(given)
        self._log: Tell = EventLog() if log is None else log
        self._began = time.monotonic()
        self.router = GuardedRouter(
            router,
            time_limit=self._limits.router_time,
            rest=self._limits.router_rest,
            shadow=shadow,
            tell=self._log,
        )
        self.exposition = Exposition()
        self.over: list[Flight] | None = None
        """Set to a list, it gets each request that is over."""
        self.arrived = 0
        """Requests so far."""
        self._open: set[Flight] = set()
        self._draining = self._listened = False

    def now(self) -> float:
        """Seconds since the proxy was made."""
        return time.monotonic() - self._began

    @asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Listen; gives the URL. OSError if the port is taken. At the end open requests are cut off: `drain`
        first."""
        async with AsyncExitStack() as stack:
            stack.callback(self._stopped)
            stack.enter_context(self.router.alarmed())
            self._session = await stack.enter_async_context(client_session(self._limits.read_timeout))
            self.pool = Pool(
                self._given,
                self._session,
                clock=self.now,
                tell=self._log,
                scraped=lambda: self.dispatcher.scraped(),
                came_or_went=self._came_or_went,
                scrape_interval=self._limits.scrape_interval,
                resolve_interval=self._limits.resolve_interval,
            )
            self.dispatcher = Dispatcher(
                self.router, self.pool.taking, self.now, self._limits.router_patience
            )
            stack.push_async_callback(self.pool.stop)
            await self.pool.start()
            app = web.Application(client_max_size=_BODY)
            app.router.add_get("/health", self._health)
            app.router.add_get("/metrics", self._metrics)
            app.router.add_post("/v1/completions", self._generate)
            app.router.add_post("/v1/chat/completions", self._generate)
            app.router.add_route("*", "/v1/{path:.*}", self._pass)
            # A client that goes away cancels its handler, and so its request to the replica.
            runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, host, port, backlog=4096)
            await site.start()
            self._listened = True
            bound = runner.addresses[0]
            url = f"http://{bound[0]}:{bound[1]}"
            self._log("serving", url=url, replicas=[replica.url for replica in self.pool.replicas])
            yield url

    def _stopped(self) -> None:
        if self._recording is not None and self._listened:
            self._recording.write()
        self._log("stopped", requests=self.arrived, outcomes=dict(self.exposition.outcomes))

    async def drain(self) -> None:
        """Take no more requests, and wait until the open ones are over, or the limit."""
        self._draining = True
        self._log("draining", open=len(self._open))
        end = self.now() + self._limits.drain
        while self._open and self.now() < end:
            await asyncio.sleep(0.05)

    async def _health(self, request: web.Request) -> web.Response:
        healthy = len(self.pool.taking())
        state = "draining" if self._draining else "ok" if healthy else "no replica"
        replicas = [
            {"url": each.url, "healthy": each.healthy, "why": each.complaint} for each in self.pool.replicas
        ]
        return web.json_response(
            {"status": state, "replicas": replicas}, status=200 if state == "ok" else 503
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        text = self.exposition.text(len(self.dispatcher), self.router, self.pool.replicas, self.now())
        return web.Response(text=text, content_type="text/plain")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """Any other path goes to any healthy replica; it is not retried, for who knows what it does."""
        replicas = self.pool.taking()
        if not replicas or self._draining:
            return self._unavailable("draining" if self._draining else "no replica is healthy")
        replica = min(replicas, key=lambda each: len(each.flights))
        try:
            return await forward(
                self._session,
                request,
                replica.url + request.raw_path,
                await request.read(),
                extra={},
                seen=lambda status, piece, streams: None,
                begin=lambda: None,
            )
        except ReplicaLost as error:
            self._dead(replica, error)
            return self._failed(f"replica {replica.url} broke off: {error}")

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        arrival = self.now()
        if self._draining or len(self.dispatcher) >= self._limits.max_queued:
            self.exposition.outcomes["refused"] += 1
            return self._unavailable(
                "the server is draining"
                if self._draining
                else f"{len(self.dispatcher)} requests are queued, the most allowed"
            )
        body = await request.read()
        replicas = self.pool.replicas
        flight = asked_for(
            body,
            request.headers,
            number=self.arrived,
            arrival=arrival,
            prompts=self._prompts,
            block_size=next((each.gauges.block_size for each in replicas if each.gauges is not NOTHING), 16),
        )
        self.arrived += 1
        flight.task = asyncio.current_task()
        self._open.add(flight)
        try:
            return await self._served(request, body, flight)
        except ClientGone:
            flight.outcome = flight.outcome if flight.outcome == "broken" else "cancelled"
            return web.Response()  # nobody reads it
        except asyncio.CancelledError:
            flight.outcome = "cancelled"
            raise
        finally:
            self._open.discard(flight)
            flight.finish = self.now() if flight.outcome == "finished" else float("nan")
            done = flight.outcome == "finished"
            self.dispatcher.gone(flight, completed=done, state="finished" if done else "rejected")
            self._note(flight)

    async def _served(self, request: web.Request, body: bytes, flight: Flight) -> web.StreamResponse:
        while True:
            flight.attempts += 1
            flight.lost = False
            replica = None
            try:
                replica = await self.dispatcher.replica_for(flight)
                return await self._exchange(request, body, flight, replica)
            except asyncio.CancelledError:
                if not flight.lost or flight.task is None or flight.task.uncancel():
                    raise
                why, begun = "it was taken out", False
                if replica is not None:
                    replica.drop(flight)
            except ReplicaLost as error:
                why, begun = str(error), error.begun
                if replica is not None:
                    replica.drop(flight)  # before: what is on a dead replica is cancelled
                    self._dead(replica, error)
            url = "" if replica is None else replica.url
            flight.outcome = "broken" if begun else "failed"
            if begun or flight.attempts > 1:
                if begun and request.transport is not None:
                    request.transport.abort()  # an end without an error would look like an answer
                    raise ClientGone(f"replica {url} broke off: {why}")
                return self._failed(f"replicas broke off twice, the last {url}: {why}")
            self.exposition.retries += 1
            self._log("retry", request=flight.id, replica=url, why=why)

    async def _exchange(
        self, request: web.Request, body: bytes, flight: Flight, replica: Replica
    ) -> web.StreamResponse:
        counter = TokenCounter()

        def seen(status: int, piece: bytes, streams: bool) -> None:
            flight.outcome = "finished" if status == 200 else "refused by the replica"
            if status != 200:
                return
            if streams:
                counter.feed(piece)
            usage = counter.usage if streams else usage_of(piece)
            if usage:
                replica.correct(flight, int(usage.get("prompt_tokens") or flight.prompt_tokens))
            made = int((usage or {}).get("completion_tokens") or counter.tokens)
            if made != flight.made:
                now = self.now()
                flight.first_token = flight.first_token if flight.made else now
                replica.streamed(flight, made, now)

        def begin() -> None:
            flight.task = None  # from here on it cannot be tried elsewhere

        return await forward(
            self._session,
            request,
            replica.url + request.raw_path,
            body,
            extra={"X-Glia-Replica": str(replica.index)},
            seen=seen,
            begin=begin,
        )

    def _came_or_went(self, replica: Replica) -> None:
        if replica.dead:
            for flight in list(replica.flights.values()):
                if flight.task is not None and not flight.lost:
                    flight.lost = True
                    flight.task.cancel()
        self.dispatcher.route()

    def _dead(self, replica: Replica, error: ReplicaLost) -> None:
        self.pool.lost(replica, str(error), dead=error.refused)

    def _note(self, flight: Flight) -> None:
        self.exposition.over(flight)
        if self.over is not None:
            self.over.append(flight)
        if self._recording is not None:
            self._recording.add(flight)
        self._log(
            "request",
            request=flight.id,
            name=flight.name,
            outcome=flight.outcome,
            replica=None if flight.replica is None else flight.replica.index,
            attempts=flight.attempts,
            prompt_tokens=flight.prompt_tokens,
            output_tokens=flight.made,
            **{
                name: round(getattr(flight, name), 6)
                for name in ("arrival", "routed", "first_token", "finish", "staleness")
            },
        )

    def _unavailable(self, why: str) -> web.Response:
        return web.json_response(
            {"error": {"message": f"{why}; try again later", "type": "overloaded", "code": 503}},
            status=503,
            headers={"Retry-After": str(self._limits.retry_after)},
        )

    def _failed(self, why: str) -> web.Response:
        return web.json_response({"error": {"message": why, "type": "bad_gateway", "code": 502}}, status=502)
