"""The series of a run on real servers: their gauges, read at an interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from numpy.typing import NDArray

from gpu_harness.scraping import Gauges, parse

__all__ = ["Samples", "sampling"]


@dataclass
class Samples:
    """Gauges of all replicas at an interval, from just before the run to just after."""

    times: list[float] = field(default_factory=list)
    gauges: list[list[Gauges]] = field(default_factory=list)

    def add(self, time: float, gauges: list[Gauges]) -> None:
        """One sample."""
        self.times.append(time)
        self.gauges.append(gauges)

    def column(self, name: str) -> NDArray[np.int64]:
        """[sample, replica] of one gauge."""
        rows = [[getattr(each, name) for each in row] for row in self.gauges]
        return np.array(rows, np.int64).reshape(len(rows), -1)

    def gained(self, name: str) -> float:
        """How much a counter has grown over the run, all replicas together."""
        column = self.column(name)
        return float((column[-1] - column[0]).sum()) if len(column) else 0.0


@asynccontextmanager
async def sampling(
    urls: Sequence[str], clock: Callable[[], float], interval: float = 0.25
) -> AsyncIterator[Samples]:
    """Samples of the servers at these URLs while it is entered, once before and once after.

    A server that does not answer leaves a sample out. MetricsMissing, before it begins, if one is not vLLM.
    """
    samples = Samples()
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def gauges(url: str) -> Gauges:
            async with session.get(url + "/metrics") as answer:
                return parse(await answer.read())

        async def sample() -> None:
            samples.add(max(0.0, clock()), list(await asyncio.gather(*map(gauges, urls))))

        async def again() -> None:
            while True:
                await asyncio.sleep(interval)
                try:
                    await sample()
                except (TimeoutError, aiohttp.ClientError, OSError):
                    continue

        await sample()
        task = asyncio.create_task(again())
        try:
            yield samples
            task.cancel()
            await sample()
        finally:
            task.cancel()
