"""An autoscaler over real servers: started and drained as it asks, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gpu_harness.proxy import Proxy
from gpu_harness.replicas import Replica
from gpu_harness.servers import ServerProcess
from sim.scaling import Autoscaler, Autoscaling, ClusterView

__all__ = ["Fleet"]


class Fleet:
    """The servers of one run, by index, with what each is paid for.

    As in the simulator draining replicas are kept first, then new ones start; first goes what still starts,
    the latest first, then what holds the fewest requests: it drains, then stops.
    """

    def __init__(
        self,
        proxy: Proxy,
        servers: list[ServerProcess],
        *,
        clock: Callable[[], float],
        start: Callable[[int], ServerProcess] | None = None,
    ) -> None:
        """`servers` run already, and get company in place; `start` makes one more in a slot, of which there
        are as many as replicas at most."""
        self._proxy, self._servers, self._clock, self._start = proxy, servers, clock, start
        self._since = [0.0 for _ in proxy.pool.replicas]
        self._slots = list(range(len(self._since)))
        self._until: dict[int, float] = {}
        self._stopping: dict[asyncio.Task[None], int] = {}
        self.calls = 0

    @property
    def changed(self) -> bool:
        """Whether it is not the fleet that it began as."""
        return bool(self._until) or any(since > 0 for since in self._since)

    def paid(self, begin: float, end: float) -> list[float]:
        """Seconds, from `begin` to `end`, for which each replica existed."""
        return [
            max(0.0, self._until.get(index, end) - max(begin, since))
            for index, since in enumerate(self._since)
        ]

    def statuses(self) -> tuple[int, int, int, int]:
        """How many are active, starting, draining and down."""
        here = self._here()
        draining = sum(replica.leaving for replica in here)
        active = sum(replica.takes_requests for replica in here)
        return active, len(here) - draining - active, draining, 0

    async def scale(self, autoscaler: Autoscaler, scaling: Autoscaling) -> None:
        """Ask the autoscaler at its interval, for ever."""
        while True:
            await asyncio.sleep(scaling.interval)
            now = self._clock()
            _, starting, draining, down = self.statuses()
            view = ClusterView(
                tuple(replica.view for replica in self._proxy.pool.taking()),
                starting,
                draining,
                down,
                len(self._proxy.dispatcher),
                self._proxy.arrived,
                self._proxy.exposition.outcomes["finished"],
            )
            self.calls += 1
            wanted = int(autoscaler.target(view, now))
            self._meet(min(max(wanted, scaling.min_replicas), scaling.max_replicas), scaling.max_replicas)
            for replica in self._here():
                if replica.leaving and not replica.flights:
                    self._stop(replica)

    def _here(self) -> list[Replica]:
        return [each for each in self._proxy.pool.replicas if each.index not in self._until]

    def _meet(self, wanted: int, most: int) -> None:
        pool = self._proxy.pool
        exist = [replica for replica in self._here() if not replica.leaving]
        draining = [replica for replica in self._here() if replica.leaving]
        for replica in draining[: max(0, wanted - len(exist))]:
            pool.stay(replica)
            exist.append(replica)
        # What drains or is being stopped has its GPUs still.
        taken = {self._slots[replica.index] for replica in self._here()} | set(self._stopping.values())
        for slot in [slot for slot in range(most) if slot not in taken][: max(0, wanted - len(exist))]:
            if self._start is not None:
                self._servers.append(self._start(slot))
                self._since.append(self._clock())
                self._slots.append(slot)
                exist.append(pool.add(self._servers[-1].url))
        # What still starts goes first, the latest first; then what holds the fewest requests.
        order = sorted(
            exist, key=lambda each: (each.healthy, len(each.flights) if each.healthy else -each.index)
        )
        for replica in order[: max(0, len(exist) - wanted)]:
            pool.leave(replica)

    def _stop(self, replica: Replica) -> None:
        self._until[replica.index] = self._clock()
        stopping = asyncio.create_task(asyncio.to_thread(self._servers[replica.index].stop))
        self._stopping[stopping] = self._slots[replica.index]
        stopping.add_done_callback(self._stopping.pop)

    async def stopped(self) -> None:
        """Wait for servers that are being stopped."""
        await asyncio.gather(*self._stopping)

    def check(self) -> None:
        """ServerError if a server that should run has ended."""
        for index, server in enumerate(self._servers):
            if index not in self._until:
                server.check()
