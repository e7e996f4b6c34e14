"""Runs replications, several at once, each with a deadline.

Each runs in a fork of its own. What is run again of them without a candidate is shared out among a few
processes that are kept for it, for a fork costs as much as such a run. One that has failed serves no more,
and what failed in one that had served before is run once more in a new one, so that none can spoil another.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pytest_glia.processes import processor_seconds
from pytest_glia.replication import Confine, Failure, Fork, Outcome, Replication, Rerun, fork, late, serve

# A process that others keep from the processors has at most so many times the seconds of its deadline.
_PATIENCE = 5


@dataclass
class _Running:
    index: int
    what: Replication | Rerun
    fork: Fork
    deadline: float
    latest: float
    used: float

    def is_late(self, timeout: float) -> bool:
        """Whether its time is over: that of the clock, unless a busy machine gave it less than half of that.

        Then it has what it lacks, as long as it gets on.
        """
        now = time.monotonic()
        if now < self.deadline:
            return False
        got = processor_seconds(self.fork.pid) - self.used
        if (
            (isinstance(self.what, Replication) and not self.what.patient)
            or now >= self.latest
            or got > timeout / 2
            or not got
            or os.getloadavg()[0] <= 2 * (os.cpu_count() or 1)
        ):
            return True
        self.deadline = min(self.latest, now + timeout - got)
        return False


def run_all(
    replications: Sequence[Replication],
    *,
    workers: int,
    timeout: float,
    private: Sequence[int] = (),
    confine: Confine | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Run each replication in a fork; yields its index and outcome as soon as it is known.

    At most `workers` run at once. One that has not answered after `timeout` seconds is killed with
    everything it started; where a busy machine has kept it from the processors, somewhat later. The forks
    do not inherit the file descriptors `private`. Those that are to be confined call `confine` first, with
    the descriptors that it must leave open, and so do the processes in which they are run again. Leaving
    the iterator early kills what is still running.
    """
    waiting: list[tuple[int, Replication | Rerun]] = []
    waiting += list(enumerate(replications))[::-1]
    running: dict[int, _Running] = {}
    serving: list[Fork] = []
    leaving: list[int] = []
    selector = selectors.DefaultSelector()

    def start(index: int, what: Replication | Rerun) -> _Running:
        others = [*private, *running, *(each.descriptor for each in serving)]
        if isinstance(what, Replication):
            started = fork(what, others, confine)
        else:
            what = replace(what, new=what.new or not serving)
            again = [each.again for each in replications]
            started = serve(again, others, confine) if what.new else serving.pop()
            started.give(index, what.given)
        now = time.monotonic()
        used = processor_seconds(started.pid)
        return _Running(index, what, started, now + timeout, now + _PATIENCE * timeout, used)

    try:
        while waiting or running:
            while waiting and len(running) < workers:
                run = start(*waiting.pop())
                running[run.fork.descriptor] = run
                selector.register(run.fork.descriptor, selectors.EVENT_READ)
            leaving = [pid for pid in leaving if not os.waitpid(pid, os.WNOHANG)[0]]
            next_deadline = min(run.deadline for run in running.values())
            for key, _ in selector.select(max(0.0, next_deadline - time.monotonic())):
                run = running[key.fd]
                if not run.fork.receive():
                    continue
                selector.unregister(key.fd)
                del running[key.fd]
                if isinstance(run.what, Replication):
                    outcome = run.fork.end(leaving)
                else:
                    outcome = run.fork.take()
                    if not isinstance(outcome, Failure):
                        serving.append(run.fork)
                    elif not run.what.new:
                        waiting.append((run.index, replace(run.what, new=True)))
                        continue
                if run.what.then is None or isinstance(outcome, Failure):
                    yield run.index, outcome
                    continue
                after = run.what.then(outcome)
                if isinstance(after, Replication | Rerun):
                    waiting.append((run.index, after))
                else:
                    yield run.index, after
            for descriptor, run in list(running.items()):
                if run.is_late(timeout):
                    selector.unregister(descriptor)
                    del running[descriptor]
                    run.fork.end()
                    yield run.index, late(timeout)
    finally:
        for server in serving:
            server.stop()
        for run in running.values():
            run.fork.end()
        for pid in leaving:
            os.waitpid(pid, 0)
        selector.close()
