"""What the proxy costs: streamed requests per second on one core, and the latency that it adds.

Upstream and client are as cheap as can be (bare asyncio protocols that send and count prepared bytes), each a
process of its own, on the other cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from gpu_harness.event_log import EventLog
from gpu_harness.limits import Limits
from gpu_harness.pool import addresses
from gpu_harness.proxy import Proxy
from sim.baselines import LeastLoadedQueue

__all__ = ["add_arguments", "bench"]

_METRICS = b"""vllm:num_requests_running{engine="0"} 0.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.0
vllm:num_preemptions_total{engine="0"} 0.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="10001"} 1.0
"""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b'data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" word"}]}\n\n'
_DONE = b"data: [DONE]\n\n"
_SILENCE = 30.0
"""Seconds without an answer, after which a proxy is taken to be stuck."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `bench`."""
    parser.add_argument("--events", type=int, default=16, help="events of each answer (16)")
    parser.add_argument("--gap", type=float, default=0.005, help="seconds between two events (0.005)")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement (8)")
    parser.add_argument("--concurrency", type=int, default=256, help="open requests at full load (256)")
    parser.add_argument(
        "--beside",
        metavar="COMMAND",
        action="append",
        default=[],
        help="another proxy, measured in the same run: a command with {port} and {upstream}; may be repeated",
    )
    parser.add_argument(
        "--rate",
        type=float,
        help="requests/s at which TTFT is measured (half of what the slowest could at full load)",
    )
    parser.add_argument("--patience", type=float, default=90.0, help="seconds for it to come up (90)")
    parser.add_argument("--profile", metavar="FILE", help="write a cProfile of the proxy")


def bench(args: argparse.Namespace) -> int:
    """Measure, and print; 0. ValueError for a setting that measures nothing, or if a proxy beside this one
    does not come up."""
    for name in ("events", "seconds", "concurrency", "rate"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} {value:g}; expected a number above 0")
    cores = sorted(os.sched_getaffinity(0))
    others = set(cores[1:]) or {cores[0]}
    upstream, upstream_url = _start(_upstream, others, args.events, args.gap)
    proxy, proxy_url = _start(_proxy, {cores[0]}, upstream_url, args.profile)
    os.sched_setaffinity(0, others)
    proxies = {"this proxy": (proxy_url, proxy.pid)}
    beside: list[subprocess.Popen[bytes]] = []
    try:
        for command in args.beside:
            url, process = _started(command, upstream_url, cores[0], args.patience)
            beside.append(process)
            proxies[command.split()[0].rpartition("/")[2]] = (url, process.pid)
        rates = []
        for name, (url, pid) in proxies.items():
            full, used = asyncio.run(_closed(url, args.concurrency, args.seconds, pid))
            if not full or not used:
                raise ValueError(
                    f"{name} finished no request within {args.seconds:g} s; expected more --seconds"
                )
            rates.append(full)
            print(
                f"{name}: {full:,.0f} streamed requests/s of {args.events} events, {args.gap * 1e3:g} ms "
                f"apart; {full / used:,.0f} for each second of the processor (it had {used:.0%} of a core)",
                flush=True,
            )
        _added(upstream_url, {"this proxy": proxies["this proxy"]}, args.rate or rates[0] / 2, args.seconds)
        if beside:
            _added(upstream_url, proxies, args.rate or min(rates) / 2, args.seconds)
    finally:
        os.sched_setaffinity(0, cores)
        for process in (proxy, upstream):
            process.terminate()
            process.join()
        for each in beside:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()
    return 0


def _added(upstream: str, proxies: Mapping[str, tuple[str, int]], rate: float, seconds: float) -> None:
    """Print what each adds to TTFT at this rate, in requests/s; ValueError if one does not answer all."""
    without = asyncio.run(_open("the upstream", upstream, rate, seconds))
    for name, (url, _) in proxies.items():
        within = asyncio.run(_open(name, url, rate, seconds))
        for share in (0.5, 0.99):
            a, b = _quantile(without, share), _quantile(within, share)
            print(
                f"{name}: p{share * 100:.0f} TTFT at {rate:,.0f}/s: {a * 1e3:.2f} ms without, "
                f"{b * 1e3:.2f} through it, {(b - a) * 1e3:.2f} added",
                flush=True,
            )


def _started(command: str, upstream: str, core: int, patience: float) -> tuple[str, subprocess.Popen[bytes]]:
    """Another proxy's URL and process, on that core; ValueError with its last words if it does not answer
    within `patience` seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    filled = command.replace("{upstream}", upstream).replace("{port}", str(port))
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                shlex.split(filled), start_new_session=True, stdout=log, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise ValueError(f"--beside {command!r} does not start: {error}") from None
        os.sched_setaffinity(process.pid, {core})
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + patience
        while time.monotonic() < until and process.poll() is None:
            if _streams(url):
                return url, process
            time.sleep(0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").split("\n")
    last = "\n".join([line for line in said if line.strip()][-5:])
    raise ValueError(
        f"--beside {command!r} streamed no completion at {url} within {patience:g} s (exit code {code}); "
        f"expected a command that serves {{upstream}} at {{port}} until killed; its last output:\n{last}"
    )


def _streams(url: str) -> bool:
    """Whether a completion of several events comes from there."""
    asked = urllib.request.Request(f"{url}/v1/completions", _BODY, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return bytes(answer.read()).count(b"data: ") > 1
    except OSError:
        return False


def _start(serve: Callable[..., None], cores: set[int], *arguments: Any) -> tuple[Any, str]:
    """A process on these cores, and its URL."""
    ours, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(its, cores, *arguments), daemon=True
    )
    process.start()
    return process, ours.recv()


def _proxy(told: Connection, cores: set[int], upstream: str, profile: str | None) -> None:
    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(15, stop.set)
        proxy = Proxy(LeastLoadedQueue(), addresses([upstream]), log=EventLog(None), limits=Limits())
        async with proxy.serving() as url:
            told.send(url)
            await stop.wait()

    os.sched_setaffinity(0, cores)
    if profile is None:
        uvloop.run(serve())
        return
    import cProfile

    recorder = cProfile.Profile()
    recorder.runcall(uvloop.run, serve())
    recorder.dump_stats(profile)


def _upstream(told: Connection, cores: set[int], events: int, gap: float) -> None:
    os.sched_setaffinity(0, cores)
    asyncio.run(_serve_events(told, events, gap))


async def _serve_events(told: Connection, events: int, gap: float) -> None:
    loop = asyncio.get_running_loop()
    chunk = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)
    end = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_DONE), _DONE)

    class Upstream(asyncio.Protocol):
        def __init__(self) -> None:
            self.rest = b""

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.rest += data
            while (cut := self.rest.find(b"\r\n\r\n")) >= 0:
                head, body = self.rest[:cut].lower(), self.rest[cut + 4 :]
                length = 0
                if b"content-length:" in head:
                    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                if len(body) < length:
                    return
                self.rest = body[length:]
                if head.startswith(b"post"):
                    self.transport.write(_HEAD)
                    self.stream(0)
                else:
                    answer = _METRICS
                    self.transport.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
                    )

        def stream(self, sent: int) -> None:
            if gap == 0:
                self.transport.write(chunk * events + end)
            elif sent == events - 1:
                self.transport.write(chunk + end)
            else:
                self.transport.write(chunk)
                loop.call_later(gap, self.stream, sent + 1)

    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    told.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


_BODY = json.dumps(
    {"model": "tiny", "prompt": "word " * 64, "max_tokens": 16, "stream": True, "temperature": 0}
).encode()
_REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class _Client(asyncio.Protocol):
    """One connection that asks again and again when told to."""

    lost = asked = False
    """Whether the other side has closed it, and whether a request is open on it."""

    def __init__(self, over: Callable[[_Client, float], None]) -> None:
        self.over = over
        self.due = self.first = 0.0
        self.tail = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def ask(self, due: float) -> None:
        self.due, self.first, self.tail, self.asked = due, 0.0, b"", True
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        if not self.first and b"data: " in data:
            self.first = time.perf_counter()
        self.tail = (self.tail + data)[-16:]
        if self.tail.endswith(b"0\r\n\r\n"):
            self.asked = False
            self.over(self, self.first - self.due)


def _host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


async def _closed(url: str, concurrency: int, seconds: float, pid: int) -> tuple[float, float]:
    """Requests/s with so many always open, after a second of warm-up, and the share of a core that the
    process used for them."""
    loop, done = asyncio.get_running_loop(), 0

    def over(client: _Client, ttft: float) -> None:
        nonlocal done
        done += 1
        client.ask(time.perf_counter())

    clients = [
        (await loop.create_connection(lambda: _Client(over), *_host_and_port(url)))[1]
        for _ in range(concurrency)
    ]
    for client in clients:
        client.ask(time.perf_counter())
    await asyncio.sleep(1.0)
    before, began, used = done, time.perf_counter(), _processor_seconds(pid)
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    rate, share = (done - before) / took, (_processor_seconds(pid) - used) / took
    for client in clients:
        client.over = lambda client, ttft: client.transport.close()
    await asyncio.sleep(1.0)
    return rate, share


def _processor_seconds(pid: int) -> float:
    """That the process has used (proc(5), stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _open(name: str, url: str, rate: float, seconds: float) -> list[float]:
    """TTFT of each request of a Poisson process, from the moment at which it was due; ValueError if one is
    not answered with a stream, or none is for 30 s."""
    loop, rng = asyncio.get_running_loop(), random.Random(1)
    idle: list[_Client] = []
    seen: list[float] = []

    def over(client: _Client, ttft: float) -> None:
        seen.append(ttft)
        idle.append(client)

    for _ in range(512):
        idle.append((await loop.create_connection(lambda: _Client(over), *_host_and_port(url)))[1])
    clients = list(idle)
    due = began = time.perf_counter()
    sent, known, heard = 0, 0, began

    async def wait(pause: float) -> None:
        nonlocal known, heard
        await asyncio.sleep(pause)
        if len(seen) > known:
            known, heard = len(seen), time.perf_counter()
        broken = any(client.lost and client.asked for client in clients)
        if broken or time.perf_counter() > max(heard, due) + _SILENCE:
            raise ValueError(
                f"{name} answered {len(seen)} of {sent} requests at {rate:,.0f}/s with a stream, and then "
                f"broke one off or ended none for {_SILENCE:g} s; expected all: is it too slow for that?"
            )

    try:
        while due < began + seconds:
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while not idle or idle[-1].lost:
                if idle:
                    idle.pop()
                else:
                    await wait(0.001)
            idle.pop().ask(due)
            sent += 1
        while len(seen) < sent:
            await wait(0.01)
    finally:
        for client in clients:
            client.transport.abort()
    return seen[len(seen) // 10 :]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
