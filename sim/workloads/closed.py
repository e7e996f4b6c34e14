"""The closed loop: a fixed number of users, each of whom sends the next request some time after a reply.

When a request arrives depends on when others finish, so there is no column of arrivals: `Cluster.run` finds
them, and another testbed can by the rules of `ClosedWorkload`. What a benchmark with a maximal concurrency
does (`vllm bench serve --max-concurrency`).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.streams import ARRIVALS, OUTPUTS, PROMPTS, THINKING, stream
from sim.workloads import columns, fields
from sim.workloads.sources import Lengths
from sim.workloads.table import Workload

if TYPE_CHECKING:
    from sim.workloads.describing import Description

__all__ = ["Clients", "ClosedLoop", "ClosedWorkload"]


@dataclass(frozen=True, eq=False)
class ClosedWorkload:
    """What one seed decides of a closed loop. To run it:

    1. Each entry of `starts` is an arrival.
    2. The k-th request to arrive (from 0) has `prompt_tokens[k]` and `output_tokens[k]`.
    3. The k-th request to finish, at t, causes an arrival at t + `think[k]`.
    4. After the last row no request arrives.

    So the requests are numbered in order of arrival, as in a `Workload`, and never more than `len(starts)`
    are in the system. `clients` does the bookkeeping.
    """

    starts: NDArray[np.float64]
    """Seconds, not decreasing: when each user sends the first request."""
    think: NDArray[np.float64]
    """Seconds."""
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        checked = {
            "starts": columns.times("starts", self.starts),
            "prompt_tokens": columns.tokens("prompt_tokens", self.prompt_tokens),
        }
        rows = len(checked["prompt_tokens"])
        checked["output_tokens"] = columns.tokens("output_tokens", self.output_tokens, rows)
        checked["think"] = columns.durations("think", self.think, rows)
        for name, column in checked.items():
            object.__setattr__(self, name, column)
        if rows and not len(self.starts):
            raise ValueError(
                f"starts is empty for {rows} requests; expected the seconds of each user's first"
            )

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    @property
    def requests(self) -> Workload:
        """The requests as a table, all at 0 s: when each arrives is known in a run only."""
        return Workload.from_arrays(
            arrival=np.zeros(len(self)), prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens
        )

    def describe(self) -> Description:
        """Users, think time and quantiles of lengths: a mapping that prints as a table."""
        from sim.workloads.describing import describe_closed

        return describe_closed(self)

    def clients(self) -> Clients:
        """The users of one run."""
        return Clients(self)


class Clients:
    """The users of one run of a closed loop, for a testbed to ask: who comes next, and when?

    It calls `arrive` at each `due` instant, and `finish` at each completion; a request that was rejected
    has finished, too.
    """

    def __init__(self, workload: ClosedWorkload) -> None:
        self._think = workload.think.tolist()
        self._pending = workload.starts.tolist()
        heapq.heapify(self._pending)
        self._requests = len(workload)
        self.arrived = 0
        """Requests so far: the number of the next one."""
        self.finished = 0

    @property
    def due(self) -> float:
        """Seconds at which the next request arrives; infinite if none is known of (yet)."""
        return self._pending[0] if self._pending and self.arrived < self._requests else math.inf

    def arrive(self) -> int:
        """The number of the request that arrives at `due`."""
        heapq.heappop(self._pending)
        self.arrived += 1
        return self.arrived - 1

    def finish(self, now: float) -> None:
        """A request has finished at `now` (seconds): its user thinks, and comes again."""
        heapq.heappush(self._pending, now + self._think[self.finished])
        self.finished += 1


@dataclass(frozen=True)
class ClosedLoop:
    """So many users, who pause after each reply and send so many requests in all."""

    users: int
    """The concurrency."""
    requests: int
    """In all, over all users; at least one for each."""
    lengths: Lengths
    think: float = 0.0
    """Mean seconds between a reply and the next request; exponential."""
    spread: float = 0.0
    """Seconds over which the first requests are spread, uniformly, so that users are not in step."""

    def __post_init__(self) -> None:
        fields.whole(self, 1, "user", users=self.users)
        fields.whole(self, self.users, "requests (one for each user)", requests=self.requests)
        fields.drawn(self, "draw", "lengths, as sim.workloads.SHAREGPT", lengths=self.lengths)
        fields.number(self, 0.0, np.inf, "seconds", think=self.think, spread=self.spread)

    def workload(self, seed: int) -> ClosedWorkload:
        """What this seed decides; lengths come from the same streams as in `generate`."""
        prompts, outputs = self.lengths.draw(stream(seed, PROMPTS), stream(seed, OUTPUTS), self.requests)
        return ClosedWorkload(
            starts=np.sort(stream(seed, ARRIVALS).random(self.users)) * self.spread,
            think=stream(seed, THINKING).exponential(1.0, self.requests) * self.think,
            prompt_tokens=prompts,
            output_tokens=outputs,
        )
