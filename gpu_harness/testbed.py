"""The testbed: a cluster of real servers that runs a workload under policies, as `sim.Cluster` does."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import secrets
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gpu_harness.launching import NAME, Launch, named_scheduler
from gpu_harness.limits import Limits
from gpu_harness.load import Answer, Target, answers
from gpu_harness.loading import Probed, measured_alone, probed
from gpu_harness.measuring import Alone, Place, as_run, inside
from gpu_harness.pool import addresses
from gpu_harness.prompting import Prompting
from gpu_harness.proxy import Proxy
from gpu_harness.sampling import Samples, sampling
from gpu_harness.scaling import Fleet
from gpu_harness.scraping import parse
from gpu_harness.servers import ServerError, ServerProcess, check_versions, started
from sim.policies import PolicyError, Router
from sim.results import Run
from sim.scaling import Autoscaler
from sim.scheduling import BatchScheduler
from sim.workloads import Workload

__all__ = ["Testbed"]

_WATCH = 0.1
_AHEAD = 0.2


class Testbed:
    """Real servers behind the router proxy; use it in a `with` block, or `close` it.

    Either `Testbed(Launch(model=..., replicas=2))`, which starts its servers at the first run and again
    whenever another batch scheduler is asked for, or `Testbed(urls=[...], model="name at the servers")` for
    servers that run already.
    """

    __test__ = False  # pytest collects classes called Test...

    def __init__(
        self,
        launch: Launch | None = None,
        *,
        urls: Sequence[str] = (),
        model: str = NAME,
        start_timeout: float = 600.0,
        stall_timeout: float = 60.0,
        scrape_interval: float = 0.25,
        vocabulary: tuple[int, int] = (10, 1000),
    ) -> None:
        """Seconds: for a server to become healthy; with open requests but no token from a replica; between
        two scrapes, which is how stale views are. `vocabulary` is the range of token ids in prompts."""
        if (launch is None) == (not urls):
            raise ValueError(
                f"launch={launch!r} and urls={list(urls)!r}; expected one of the two: servers to start, or "
                "running ones"
            )
        self._launch, self._urls, self._model = launch, [url.rstrip("/") for url in urls], model
        self._start_timeout, self._stall_timeout = start_timeout, stall_timeout
        self._scrape_interval, self._vocabulary = scrape_interval, vocabulary
        self._servers: list[ServerProcess] = []
        self._scheduler: str | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._salts = itertools.count(secrets.randbits(32))
        self._alone: dict[Probed, Alone] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """Of its servers; empty before the first run of those that it starts."""
        return tuple(self._urls)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that keep the servers that it has started."""
        return tuple(server.pid for server in self._servers)

    @property
    def step_logs(self) -> tuple[Path, ...]:
        """Of its servers, where `Launch(step_log=True)` has them logged."""
        if self._launch is None or not self._launch.step_log or self._folder is None:
            return ()
        return tuple(Path(self._folder.name) / f"{slot}.csv" for slot in range(len(self._servers)))

    def start(self) -> None:
        """Start the servers, if they do not run: a run would do it, too. Its errors are those of `run`."""
        self._start(self._scheduler)

    def caches(self) -> list[tuple[int, int]]:
        """Of each server the KV blocks that requests can have, and their tokens, by its /metrics."""
        found = []
        for url in self._urls:
            with urllib.request.urlopen(url + "/metrics", timeout=30) as answer:
                gauges = parse(answer.read())
            found.append((gauges.blocks_total, gauges.block_size))
        return found

    def __enter__(self) -> Testbed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the servers that this testbed has started; those it was given go on."""
        atexit.unregister(self.close)
        for server in self._servers:
            server.stop()
        self._servers, self._alone = [], {}
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def run(
        self,
        workload: Workload,
        router: Router,
        scheduler: BatchScheduler | None = None,
        autoscaler: Autoscaler | None = None,
        *,
        horizon: float | None = None,
    ) -> Run:
        """Serve the workload, in real time, to its end or the horizon (seconds).

        ServerError if a server does not start, dies, hangs or is of another version than the others;
        LoadError, which names the request, for wrong token counts; PolicyError if the router fails. What
        another run may have left in prefix caches is of no use to this one.
        """
        if autoscaler is not None and (self._launch is None or self._launch.autoscaling is None):
            raise ValueError(
                "an autoscaler and no autoscaling; expected Launch(..., autoscaling=sim.Autoscaling(...))"
            )
        if not isinstance(workload, Workload):
            raise ValueError(
                f"workload={workload!r:.40}; expected sim.Workload (a closed loop runs in sim only)"
            )
        name = None if scheduler is None else named_scheduler(scheduler)
        if self._launch is None and name is not None:
            raise ValueError("a scheduler with urls=...; expected Launch(...): running servers keep theirs")
        self._start(name)
        try:
            check_versions(self._urls)
            return asyncio.run(self._run(workload, router, autoscaler, horizon))
        except ServerError:
            self.close()
            raise

    def _start(self, scheduler: str | None) -> None:
        if self._launch is None or (self._servers and self._scheduler == scheduler):
            return
        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="gpu-harness-")
        atexit.register(self.close)
        try:
            commands = self._launch.commands(scheduler, Path(self._folder.name))
            self._servers = started(commands, self._start_timeout)
        except BaseException:
            self.close()
            raise
        self._scheduler, self._urls = scheduler, [server.url for server in self._servers]

    async def _run(
        self, workload: Workload, router: Router, autoscaler: Autoscaler | None, horizon: float | None
    ) -> Run:
        told: list[str] = []

        def tell(event: str, **fields: Any) -> None:
            if event == "fallback":
                told.append(str(fields["why"]))

        proxy = Proxy(
            router,
            addresses(self._urls),
            limits=Limits(
                max_queued=len(workload) + 1,
                router_time=1.0,
                scrape_interval=self._scrape_interval,
                read_timeout=10 * self._stall_timeout,  # the watch below ends a stall, and says where
            ),
            log=tell,
        )
        proxy.over = []
        number, run = next(self._salts), secrets.token_hex(4)
        async with proxy.serving() as url:
            if missing := [each for each in proxy.pool.replicas if not each.healthy]:
                raise ServerError(f"the server at {missing[0].url} cannot be used: {missing[0].complaint}")
            lengths = probed(workload)
            if lengths not in self._alone:
                targets = [Target(each, self._model, timeout=10 * self._stall_timeout) for each in self._urls]
                self._alone[lengths] = await measured_alone(targets, lengths, self._salts)
            alone = self._alone[lengths]
            target = Target(url, self._model, timeout=10 * self._stall_timeout)
            prompts = Prompting(workload, salt=number, vocabulary=self._vocabulary)
            # One zero for all clocks, a moment ahead so that the first sample is taken before.
            start, clock = (now + _AHEAD for now in (proxy.now(), time.monotonic()))
            fleet = Fleet(proxy, self._servers, clock=lambda: time.monotonic() - clock, start=self._one_more)
            tasks = [asyncio.create_task(self._watch(proxy, fleet))]
            if autoscaler is not None and self._launch is not None and self._launch.autoscaling is not None:
                tasks.append(asyncio.create_task(fleet.scale(autoscaler, self._launch.autoscaling)))
            async with sampling(
                lambda: [each.url for each in proxy.pool.replicas],
                lambda: time.monotonic() - clock,
                fleet.statuses,
            ) as samples:
                sending = answers(target, workload, prompts, run=run, start=clock, horizon=horizon)
                loading = asyncio.create_task(sending)
                await asyncio.wait({loading, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                try:
                    for task in tasks:
                        if task.done():
                            await task
                    seen = await loading
                finally:
                    loading.cancel()
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(loading, *tasks, return_exceptions=True)
                    await fleet.stopped()
                end = time.monotonic() - clock
        if told:
            raise PolicyError(told[0])
        stories = self._stories()
        if fleet.changed:  # the next run begins as this one did
            self.close()
        return self._told(workload, proxy, fleet, alone, seen, samples, stories, run, start, clock, end)

    def _told(
        self,
        workload: Workload,
        proxy: Proxy,
        fleet: Fleet,
        alone: Alone,
        seen: list[Answer],
        samples: Samples,
        stories: list[str] | None,
        run: str,
        start: float,
        clock: float,
        end: float,
    ) -> Run:
        ours = {answer.name: number for number, answer in enumerate(seen)}
        places, staleness = {}, []
        for flight in proxy.over or ():
            if flight.name in ours:
                index = -1 if flight.replica is None else flight.replica.index
                places[ours[flight.name]] = Place(flight.routed - start, index)
                staleness.append(flight.staleness)
        failed = [answer for answer in seen if answer.error]
        ends = {number: answer.finish for number, answer in enumerate(seen)}
        insides = None if stories is None else inside(stories, run, clock, ends)
        finished = {number for number, answer in enumerate(seen) if answer.finish >= 0 and not answer.error}
        if insides is not None and (lost := finished - set(insides)):
            raise ServerError(
                f"the servers have not logged {len(lost)} of {len(finished)} requests, so what happened in "
                "them is not known: is the temporary folder's disk full? (request_log=False goes without)"
            )
        return as_run(
            workload,
            seen,
            samples=samples,
            alone=alone,
            end=end,
            places=places,
            insides=insides,
            paid=fleet.paid(float(workload.arrival[0]) if seen else 0.0, end),
            totals={
                "autoscaler_calls": float(fleet.calls),
                "router_calls": float(proxy.router.calls),
                "queue_max": float(proxy.dispatcher.most_queued),
                "requeued": float(proxy.exposition.retries),
                "failed": float(len(failed)),
                "staleness_mean": sum(staleness) / max(1, len(staleness)),
                "latest_sent": max((answer.sent - answer.due for answer in seen), default=0.0),
            },
            gpus=1 if self._launch is None else self._launch.tensor_parallel,
        )

    def _stories(self) -> list[str] | None:
        """The lines of the request logs; None where there are none."""
        if self._launch is None or not self._launch.logs_requests or self._folder is None:
            return None
        logs = sorted(Path(self._folder.name).glob("*.jsonl"))
        return [line for log in logs for line in log.read_text("utf-8").splitlines()]

    def _one_more(self, slot: int) -> ServerProcess:
        """A server that is not healthy yet."""
        assert self._launch is not None
        assert self._folder is not None
        ((command, url, environment),) = self._launch.commands(
            self._scheduler, Path(self._folder.name), [slot]
        )
        return ServerProcess(command, url, environment)

    async def _watch(self, proxy: Proxy, fleet: Fleet) -> None:
        """Raises ServerError when a server dies, leaves, or has open requests and streams nothing."""
        while True:
            await asyncio.sleep(_WATCH)
            fleet.check()
            for replica in proxy.pool.replicas:
                quiet = proxy.now() - replica.heard
                if replica.scraped > 0 and not replica.healthy and not replica.leaving:
                    raise ServerError(f"the server at {replica.url} was lost in mid-run: {replica.complaint}")
                if replica.flights and quiet > self._stall_timeout:
                    raise ServerError(
                        f"the server at {replica.url} has {len(replica.flights)} open requests and has "
                        f"streamed nothing for {quiet:.0f} s (stall_timeout={self._stall_timeout:g})"
                    )
