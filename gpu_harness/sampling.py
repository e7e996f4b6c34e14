"""The series of a run on real servers: their gauges, read at an interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from numpy.typing import NDArray

from gpu_harness.scraping import NOTHING, Gauges, parse

__all__ = ["Samples", "sampling"]


@dataclass
class Samples:
    """Gauges of all replicas at an interval, from just before the run to just after; zeros where one is not
    there."""

    times: list[float] = field(default_factory=list)
    gauges: list[list[Gauges]] = field(default_factory=list)
    statuses: list[tuple[int, ...]] = field(default_factory=list)
    """How many replicas are active, starting, draining and down."""

    def add(self, time: float, gauges: list[Gauges], statuses: tuple[int, ...]) -> None:
        """One sample; later ones may have more replicas."""
        self.times.append(time)
        self.gauges.append(gauges)
        self.statuses.append(statuses)

    def column(self, name: str) -> NDArray[np.int64]:
        """[sample, replica] of one gauge."""
        width = max(map(len, self.gauges), default=0)
        rows = np.zeros((len(self.gauges), width), np.int64)
        for number, row in enumerate(self.gauges):
            rows[number, : len(row)] = [getattr(each, name) for each in row]
        return rows

    def gained(self, name: str) -> float:
        """How much a counter has grown over the run, all replicas together."""
        column = self.column(name)
        return float((column.max(axis=0) - column[0]).sum()) if len(column) else 0.0


@asynccontextmanager
async def sampling(
    urls: Callable[[], Sequence[str]],
    clock: Callable[[], float],
    statuses: Callable[[], tuple[int, ...]],
    interval: float = 0.25,
) -> AsyncIterator[Samples]:
    """Samples of the servers at these URLs while it is entered, once before and once after.

    `urls` are those of all servers so far, by index. MetricsMissing, before it begins, if one is not vLLM.
    """
    samples = Samples()
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def gauges(url: str) -> Gauges:
            async with session.get(url + "/metrics") as answer:
                return parse(await answer.read())

        async def sample() -> None:
            found = await asyncio.gather(*map(gauges, urls()), return_exceptions=bool(samples.times))
            now = [each if isinstance(each, Gauges) else NOTHING for each in found]
            samples.add(max(0.0, clock()), now, statuses())

        async def again() -> None:
            while True:
                await asyncio.sleep(interval)
                await sample()

        await sample()
        task = asyncio.create_task(again())
        try:
            yield samples
            task.cancel()
            await sample()
        finally:
            task.cancel()
