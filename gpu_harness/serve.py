"""The command that runs the router proxy until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any, TextIO

import uvloop

from gpu_harness.event_log import EventLog
from gpu_harness.limits import Limits
from gpu_harness.pool import addresses
from gpu_harness.prompts import Prompts
from gpu_harness.proxy import Proxy
from gpu_harness.recording import Recording
from sim.layers import policy
from sim.workloads import Workload

__all__ = ["add_arguments", "made_router", "serve"]

_LIMITS = {
    "max_queued": "requests in the global queue; more get a 503",
    "retry_after": "seconds that a 503 tells its client to wait",
    "router_time": "seconds for one call of the router, before LLQ decides",
    "router_rest": "seconds after a stall before the router is asked again",
    "router_patience": "seconds that the router may hold requests while all replicas are idle",
    "scrape_interval": "seconds between two reads of a replica's /metrics",
    "resolve_interval": "seconds between two questions to DNS",
    "read_timeout": "seconds without a byte from a replica",
    "drain": "seconds for open requests after SIGTERM",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `serve`."""
    parser.add_argument(
        "--router", required=True, metavar="ROUTER", help="FILE.py[:CLASS], or a name of sim.baselines: llq"
    )
    parser.add_argument(
        "--replica",
        action="append",
        default=[],
        metavar="URL",
        help="http://HOST:PORT, or dns+http://NAME:PORT for all addresses of a name; once for each",
    )
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="(8080; 0 for any)")
    parser.add_argument("--tokenizer", metavar="PATH", help="a tokenizer.json, or the model's folder")
    parser.add_argument("--record", metavar="FILE", help="write the traffic as a workload, .csv or .parquet")
    parser.add_argument("--shadow", action="store_true", help="LLQ serves; log what the router would do")
    parser.add_argument("--log", metavar="FILE", help="events as JSON lines (standard error)")
    parser.add_argument("--no-request-log", action="store_true", help="no line for each request")
    for field in fields(Limits):
        default: Any = field.default
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=type(default),
            default=default,
            metavar="N" if isinstance(default, int) else "SECONDS",
            help=f"{_LIMITS[field.name]} ({default})",
        )


def made_router(text: str) -> Any:
    """A router by name or file; ValueError for an oracle, which needs to know the future."""
    named = policy("router", text)
    if named.is_oracle:
        raise ValueError(f"router={text!r}, an oracle, which knows all output lengths; expected a router")
    nothing = Workload.from_arrays(arrival=[], prompt_tokens=[], output_tokens=[])
    return named.new(nothing, 0)


@contextmanager
def _appended(path: str) -> Iterator[TextIO]:
    """A file to write at the end of; what is left of it where a disk is full is nobody's error."""
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            print(f"log={path!r}: its last lines cannot be written ({error.strerror})", file=sys.stderr)


def serve(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then drain (a second one ends at once); the exit code."""
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}; expected one from 0 (any that is free) to 65535")
    with ExitStack() as stack:
        file = stack.enter_context(_appended(args.log)) if args.log else sys.stderr
        proxy = Proxy(
            made_router(args.router),
            addresses(args.replica),
            limits=Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)}),
            prompts=Prompts.with_tokenizer(args.tokenizer) if args.tokenizer else None,
            log=EventLog(file, requests=not args.no_request_log),
            recording=Recording(args.record) if args.record else None,
            shadow=args.shadow,
        )
        uvloop.run(_until_told(proxy, args.host, args.port))
    return 0


async def _until_told(proxy: Proxy, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    told, again = asyncio.Event(), asyncio.Event()

    def tell() -> None:
        (again if told.is_set() else told).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell)
    async with proxy.serving(host, port):
        await told.wait()
        draining = asyncio.create_task(proxy.drain())
        hurried = asyncio.create_task(again.wait())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        hurried.cancel()
