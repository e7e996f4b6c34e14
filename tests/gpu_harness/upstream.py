"""A trivial upstream that speaks as much of vLLM as the proxy reads, and can be made to fail.

    python -m tests.gpu_harness.upstream PORT [WAY]

serves in a process of its own, and fails in one of `WAYS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from gpu_harness.event_log import EventLog
from gpu_harness.limits import Limits
from gpu_harness.pool import addresses
from gpu_harness.proxy import Proxy
from sim.policies import RequestView, Router


class Upstream:
    """One server: each output token is an event; `hold` keeps answers back until it is set."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        """Bodies, as they came."""
        self.headers: list[dict[str, str]] = []
        self.cancelled = 0
        self.hold: asyncio.Event | None = None
        self.die_after: int | None = None
        """Break the connection off after so many events."""
        self.gauges = {"running": 0, "waiting": 0, "use": 0.0, "preemptions": 0}
        self.healthy = True
        self.metrics = True
        self.has_metrics = True
        """Whether it has that endpoint at all."""
        self.error: int | None = None
        self.version = "0"
        self.broken: int | None = None
        """The request (its number in X-Request-Id) that is answered with an error."""
        self.lie = 0
        """Tokens that it leaves out."""
        self.closes: float | None = None
        """Break off a request on a connection that was idle for so many seconds, as a server does that closes
        it at that moment."""
        self._used: dict[int, float] = {}
        """When each connection was used last."""
        self.pace = 0.0
        """Seconds that each token takes."""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen, on the port of before if there was one."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        if self.has_metrics:
            app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Die: refuse connections, break off those that there are."""
        if self._runner is not None:
            for connection in self._runner.server.connections if self._runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    async def _connection(self, request: web.Request) -> None:
        now, transport = time.monotonic(), request.transport
        if self.closes is not None and now - self._used.get(id(transport), now) > self.closes and transport:
            transport.abort()
            await asyncio.sleep(3600)
        self._used[id(transport)] = now

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 500)

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._connection(request)
        if not self.metrics:
            return web.Response(text="nothing 1.0\n")
        gauges = self.gauges
        return web.Response(
            text='vllm:cache_config_info{block_size="16",num_gpu_blocks="101"} 1.0\n'
            f'vllm:num_requests_running{{engine="0",model_name="tiny"}} {gauges["running"]}.0\n'
            f'vllm:num_requests_waiting{{engine="0"}} {gauges["waiting"]}.0\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {gauges["use"]}\n'
            f'vllm:num_preemptions_total{{engine="0"}} {gauges["preemptions"]}.0\n'
        )

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        await self._connection(request)
        body = json.loads(raw)
        self.seen.append(body)
        self.headers.append(dict(request.headers))
        try:
            return await self._answer(request, body)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.hold is not None:
            await self.hold.wait()
        if request.headers.get("X-Request-Id", "").startswith("glia-") and self.broken is not None:
            _, run, number, _ = request.headers["X-Request-Id"].split("-")
            if not run.startswith("probe") and int(number) == self.broken:
                return web.json_response({"error": "this one"}, status=500)
        if self.error is not None:
            return web.json_response({"error": "so"}, status=self.error)
        tokens = int(body.get("max_tokens", 4)) - self.lie
        prompt = body.get("prompt")
        usage = {"prompt_tokens": len(prompt) if isinstance(prompt, list) else 7, "completion_tokens": tokens}
        if not body.get("stream"):
            return web.json_response({"choices": [{"text": "é" * tokens}], "usage": usage})
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Own": "1"}
        )
        for number in range(tokens):
            if number == self.die_after and request.transport is not None:
                request.transport.abort()
                await asyncio.sleep(3600)
            if number == 0:
                await answer.prepare(request)
            await answer.write(
                event({"choices": [{"text": 'data: {"choices":[]}\n', "token_ids": [number]}]})
            )
            await asyncio.sleep(self.pace)
        await answer.write(event({"choices": [], "usage": usage}))
        await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer


def event(content: dict[str, Any]) -> bytes:
    """As a server-sent event."""
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


class Lines:
    """A log kept in memory."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, line: str) -> int:
        """One line of JSON."""
        self.events.append(json.loads(line))
        return len(line)

    def flush(self) -> None:
        """Nothing is held back."""

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [each for each in self.events if each["event"] == event]


class Scene:
    """A proxy before some upstreams, and a client."""

    def __init__(self, proxy: Proxy, url: str, upstreams: list[Upstream], log: Lines, client: Any) -> None:
        self.proxy, self.url, self.upstreams, self.log = proxy, url, upstreams, log
        self.client: aiohttp.ClientSession = client

    async def complete(self, prompt: Any = "word", headers: Any = None, **settings: Any) -> tuple[int, bytes]:
        """Status and bytes of one answer."""
        body = {"prompt": prompt, "max_tokens": 4, **settings}
        async with self.client.post(self.url + "/v1/completions", json=body, headers=headers) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def scene(
    router: Router, count: int = 2, *, limits: Limits | None = None, urls: Any = None, **settings: Any
) -> AsyncIterator[Scene]:
    """A proxy with this router before so many upstreams."""
    log: Any = Lines()
    async with AsyncExitStack() as stack:
        upstreams = [Upstream() for _ in range(count)]
        for upstream in upstreams:
            await upstream.start()
            stack.push_async_callback(upstream.stop)
        given = addresses(urls(upstreams) if urls else [upstream.url for upstream in upstreams])
        limits = limits or Limits(scrape_interval=0.02, drain=5.0)
        proxy = Proxy(router, given, limits=limits, log=EventLog(log), **settings)
        url = await stack.enter_async_context(proxy.serving())
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(proxy, url, upstreams, log, client)


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what will be true soon; AssertionError if it is not."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run it in an event loop of its own."""

    async def run() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(run())


class Holding:
    """Keeps all until told; notes what it sees."""

    def __init__(self) -> None:
        self.open = False
        self.seen: list[Any] = []
        self.heard: list[int] = []

    def route(self, queue: Any, replicas: Any, now: float) -> Iterable[Any]:
        self.seen.append((len(queue), len(replicas)))
        for request in queue if self.open else ():
            yield request, replicas[0]

    def completed(self, request: RequestView, now: float) -> None:
        self.heard.append(request.tokens_done - request.prompt_tokens)


WAYS = (
    "well",
    "in time",
    "slowly",
    "dies at start",
    "never healthy",
    "dies in mid-run",
    "hangs",
    "is stopped",
    "runs out of memory",
    "is killed",
    "no metrics",
    "no metrics endpoint",
    "another version",
    "lies",
)


_SIGNALS = {"is stopped": signal.SIGSTOP, "is killed": signal.SIGKILL}


async def serve(port: int, way: str) -> None:
    """Serve for ever, or as long as this way allows."""
    upstream = Upstream()
    if way == "dies at start":
        print(
            "ValueError: the root cause",
            *["at"] * 20,
            "OutOfMemoryError: the last line",
            sep="\n",
            flush=True,
        )
        os._exit(3)
    if way == "runs out of memory":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        print(len(bytearray(1 << 31)))
    upstream.healthy = way != "never healthy"
    upstream.metrics = way != "no metrics"
    upstream.has_metrics = way != "no metrics endpoint"
    upstream.lie = int(way == "lies")
    upstream.pace = {"in time": 0.05, "slowly": 0.3}.get(way, 0.0)
    upstream.version = str(port) if way == "another version" else "0"
    await upstream.start(port)
    print("serving", flush=True)
    # Probes come first: three lengths, then one of them again on the first server.
    while len(upstream.seen) < 8:
        await asyncio.sleep(0.002)
    upstream.hold = asyncio.Event()
    if way == "dies in mid-run":
        print("CUDA error: the last words", flush=True)
        os._exit(4)
    if way in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[way])
    if way != "hangs":
        upstream.hold.set()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
