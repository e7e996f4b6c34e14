"""The testbed `gpu` of specs: clusters as specs describe them, on the servers that a file maps them to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from gpu_harness import apart
from gpu_harness.devices import DeviceLock, DevicesInUse
from gpu_harness.launching import TooFewDevices
from gpu_harness.mapping import Entry, NotHonoured, Servers
from gpu_harness.testbed import Testbed
from sim.baselines import LeastLoadedQueue
from sim.cluster import Cluster
from sim.results import Run
from sim.workloads import Workload, at_rate, select

__all__ = ["SpecTestbed"]

_BURST = 200
"""Requests, at most, of the burst that warms servers up, and of the one that tells their capacity."""
_ALIKE = 0.25
"""Workloads whose mean prompts and outputs differ by less than this share have one capacity."""


class SpecTestbed:
    """What the fixture `testbed` gives for `--glia-testbed gpu`: called with a cluster's settings.

    One cluster's servers run at a time, under a lock of their devices, until another is wanted or the
    session ends.
    """

    def __init__(self, entries: Sequence[Entry], file: str) -> None:
        """`file` is the name of what the entries were read from."""
        self._entries, self._file = entries, file
        self._now: tuple[Servers, Testbed, DeviceLock] | None = None
        self.warm = False
        """Whether the servers that are up have served a run."""
        self._capacities: dict[Servers, list[_Capacity]] = {}

    busy = DevicesInUse
    answering = staticmethod(apart.answering)
    asking = staticmethod(apart.asking)

    def __call__(self, **settings: Any) -> SpecCluster:
        """The cluster with these settings of `sim.Cluster`; it skips the test if no servers are such."""
        known = {field.name for field in fields(Cluster)}
        if unknown := sorted(set(settings) - known):
            raise TypeError(
                f"{unknown[0]!r} is no setting of a cluster; expected of {', '.join(sorted(known))}"
            )
        entry = next((each for each in self._entries if each.stands_for(settings)), None)
        if entry is None:
            wanted = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            there = "; ".join(str(dict(each.spec)) for each in self._entries)
            pytest.skip(f"{self._file} has no cluster for {wanted}: it has {there}")
        try:
            return SpecCluster(self, entry, entry.servers(settings))
        except NotHonoured as reason:
            pytest.skip(f"{self._file}: {reason}")

    def running(self, servers: Servers, settings: Mapping[str, Any]) -> Testbed:
        """These servers, and no others of this testbed; DevicesInUse if another run has their devices."""
        if self._now is not None and self._now[0] == servers:
            return self._now[1]
        self.close()
        lock = DeviceLock(servers.urls if servers.launch is None else servers.launch.device_names())
        more = {**settings, "scrape_interval": servers.scrape_interval}
        if servers.launch is None:
            testbed = Testbed(urls=servers.urls, model=servers.served, **more)
        else:
            testbed = Testbed(servers.launch, **more)
        self._now, self.warm = (servers, testbed, lock), False
        return testbed

    def capacity(self, servers: Servers, workload: Workload, burst: Callable[[], Run]) -> float:
        """Requests a second of such a workload that the servers can do, measured once by a burst of it."""
        means = float(workload.prompt_tokens.mean()), float(workload.output_tokens.mean())
        measured = self._capacities.setdefault(servers, [])
        for each in measured:
            if all(abs(a - b) <= _ALIKE * b for a, b in zip(means, each.means, strict=True)):
                return each.rate
        measured.append(_Capacity(means, _rate(burst())))
        return measured[-1].rate

    def close(self) -> None:
        """End what has been started; what was running at URLs runs on."""
        if self._now is not None:
            _, testbed, lock = self._now
            self._now = None
            try:
                testbed.close()
            finally:
                lock.release()


@dataclass(frozen=True)
class _Capacity:
    means: tuple[float, float]
    """Mean tokens of prompts and of outputs."""
    rate: float


class SpecCluster:
    """A cluster of a spec, with the `run` of `sim.Cluster`; it skips the test if the servers cannot do it."""

    def __init__(self, testbed: SpecTestbed, entry: Entry, servers: Servers) -> None:
        self._testbed, self._entry, self._servers = testbed, entry, servers

    def run(
        self,
        workload: Workload,
        router: Any,
        scheduler: Any = None,
        autoscaler: Any = None,
        *,
        horizon: float | None = None,
    ) -> Run:
        """Serve the workload in real time, at the load and of the length that the file says."""
        if not isinstance(workload, Workload):
            pytest.skip("a closed loop runs in the simulator only: its clients are no part of the testbed")
        if scheduler is not None and type(scheduler).__module__ != "sim.schedulers":
            pytest.skip(
                "a batch scheduler runs inside the servers, where there is no sandbox: the testbed takes one "
                "of sim.schedulers, and a candidate only by hand (gpu_harness.Testbed, docs/harness.md)"
            )
        if self._servers.launch is None and (scheduler is not None or autoscaler is not None):
            pytest.skip("servers at urls keep their batch scheduler and their number")
        workload = workload if self._entry.requests is None else _head(workload, self._entry.requests)
        testbed = self._testbed.running(self._servers, self._entry.settings)
        try:
            at_once = _head(replace(workload, arrival=np.zeros(len(workload))), _BURST)
            burst = partial(testbed.run, at_once, LeastLoadedQueue(), scheduler)
            if not self._testbed.warm:  # what is paid once after a start is no candidate's
                burst()
                self._testbed.warm = True
            if self._entry.load is not None and len(workload) > 1:
                capacity = self._testbed.capacity(self._servers, workload, burst)
                workload = at_rate(workload, self._entry.load * capacity)
            return testbed.run(workload, router, scheduler, autoscaler, horizon=horizon)
        except (TooFewDevices, ImportError) as reason:
            pytest.skip(str(reason))


def _head(workload: Workload, most: int) -> Workload:
    """No more than so many of the first requests."""
    return workload if len(workload) <= most else select(workload, np.arange(most))


def _rate(run: Run) -> float:
    """Requests a second of a burst, without its beginning and its end, where batches are not full."""
    done = np.sort(run.requests["finish"][~np.isnan(run.requests["finish"])])
    if len(done) < 2:
        raise ValueError("the burst that tells the servers' capacity finished no two requests")
    low, high = len(done) // 10, len(done) - 1 - len(done) // 10
    span = float(done[high] - done[low])
    return (high - low) / span if span > 0 else len(done) / float(done[-1])
