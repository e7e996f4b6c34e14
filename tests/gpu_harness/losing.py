"""Many requests through the proxy to two real servers, one of which is killed and started again meanwhile.

    python -m tests.gpu_harness.losing COUNT ROUTER... [--rate R]

sends so many requests under each router, R a second, and says what became of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import secrets
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_harness import Launch
from gpu_harness.launching import NAME
from gpu_harness.limits import Limits
from gpu_harness.load import Target, answers
from gpu_harness.pool import addresses
from gpu_harness.prompting import Prompting
from gpu_harness.proxy import Proxy
from gpu_harness.serve import made_router
from gpu_harness.servers import ServerProcess, started
from gpu_harness.views import Flight
from sim.workloads import Workload
from tests.gpu_harness.tiny_model import LAUNCH, make_model

RATE = 15.0
"""Requests/s, which one server alone can serve, too."""


@dataclass(frozen=True)
class Lost:
    """What became of the requests of one run."""

    finished: int
    failed: Counter[str]
    """By what the client was told."""
    twice: int
    """Requests that servers finished more than once."""
    retried: Counter[str]
    """By why: how the server that had it broke off."""
    served_before: int
    """By the server that is killed, until then, and after it came back."""
    served_after: int
    open_at_end: int
    """In the proxy."""


def small(folder: Path) -> Launch:
    """Two servers with small caches."""
    return Launch(
        model=str(make_model(folder / "model")),
        replicas=2,
        kv_blocks=31,
        block_size=32,
        max_num_seqs=16,
        max_model_len=512,
        options=LAUNCH,
    )


def lose(launch: Launch, folder: Path, router: str, count: int, rate: float = RATE) -> Lost:
    """One run: the first server is killed when a third of the requests have been sent, and started again at
    once; the last third is sent when it is back (or the second third over, if that is later)."""
    rng = np.random.default_rng(1)
    parts = [
        Workload.from_arrays(
            arrival=np.arange(size) / rate,
            prompt_tokens=rng.integers(10, 120, size),
            output_tokens=rng.integers(4, 40, size),
        )
        for size in (count - count // 3, count // 3)
    ]
    commands = launch.commands(None, folder)
    servers = started(commands, 300)
    try:
        return asyncio.run(_lose(commands[0], servers, folder, router, parts))
    finally:
        for server in servers:
            server.stop()


async def _lose(
    command: tuple[list[str], str, dict[str, str]],
    servers: list[ServerProcess],
    folder: Path,
    router: str,
    parts: list[Workload],
) -> Lost:
    count = sum(map(len, parts))
    limits = Limits(max_queued=count, router_time=1.0, scrape_interval=0.1)
    urls = addresses([each.url for each in servers])
    retried: Counter[str] = Counter()

    def tell(event: str, **fields: Any) -> None:
        if event == "retry":
            retried[str(fields["why"])] += 1

    proxy = Proxy(made_router(router), urls, limits=limits, log=tell)
    over: list[Flight] = []
    proxy.over = over
    run = secrets.token_hex(4)

    def by_first() -> int:
        return sum(flight.outcome == "finished" and flight.replica is first for flight in over)

    async with proxy.serving() as url:
        first, target = proxy.pool.replicas[0], Target(url, NAME)
        one, other = (Prompting(part, salt=secrets.randbits(32)) for part in parts)
        sending = asyncio.create_task(answers(target, parts[0], one, run=run + "a"))
        while proxy.arrived < count / 3 or not first.flights:
            await asyncio.sleep(0.005)
        kill(servers[0].pid)
        before = by_first()
        await asyncio.to_thread(servers[0].stop)
        servers[0] = ServerProcess(*command)
        seen = await sending
        async with asyncio.timeout(300):
            while not first.healthy:
                await asyncio.sleep(0.1)
        seen += await answers(target, parts[1], other, run=run + "b")
        open_ = len(proxy.dispatcher) + sum(len(each.flights) for each in proxy.pool.replicas)
    lines = [line for log in folder.glob("*.jsonl") for line in log.read_text("utf-8").splitlines()]
    names = Counter(re.findall(rf"glia-{run}[ab]-\d+-", "\n".join(lines)))
    return Lost(
        finished=sum(not answer.error for answer in seen),
        failed=Counter(_told(answer.error) for answer in seen if answer.error),
        twice=sum(times > 1 for times in names.values()),
        retried=retried,
        served_before=before,
        served_after=by_first() - before,
        open_at_end=open_,
    )


def _told(error: str) -> str:
    """What a client was told, without addresses."""
    return re.sub(r"http://\S+", "URL", error)


def kill(pid: int) -> None:
    """SIGKILL for all that this process, a keeper, has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, listed):
        kill(child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def main() -> None:
    """Each router in turn, on servers of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("routers", nargs="+")
    parser.add_argument("--rate", type=float, default=RATE, help="requests/s")
    args = parser.parse_args()
    for router in args.routers:
        with tempfile.TemporaryDirectory() as folder:
            lost = lose(small(Path(folder)), Path(folder), router, args.count, args.rate)
            print(router, lost, flush=True)


if __name__ == "__main__":
    main()
