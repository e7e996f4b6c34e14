"""What a router sends when requests complete: with the step that starts then, or with the one after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sim import Cluster
from sim.baselines import LeastLoadedQueue
from sim.results import Run
from sim.workloads import Workload, sharegpt_bursty


class AfterTheFirst:
    """Sends two requests, and the others when one has completed."""

    def __init__(self) -> None:
        self.over = False

    def completed(self, request: Any, now: float) -> None:
        self.over = True

    def route(self, queue: Any, replicas: Any, now: float) -> Iterator[Any]:
        for request in queue:
            if self.over or request.id < 2:
                yield request, replicas[0]


def run(waits: bool, engine: str, outputs: list[int]) -> Run:
    """Requests that come at once, so many tokens each."""
    count = len(outputs)
    workload = Workload.from_arrays(
        arrival=np.zeros(count), prompt_tokens=np.full(count, 64), output_tokens=outputs
    )
    return Cluster(replicas=1, engine=engine, engine_waits=waits).run(workload, AfterTheFirst())


@pytest.mark.parametrize("engine", ["vllm", "sarathi"])
def test_what_is_sent_then_joins_the_next_step_or_the_one_after(engine: str) -> None:
    """One request goes on when another completes: its next step is without the third or with it."""
    waited, went_on = (run(waits, engine, [4, 20, 4]).requests for waits in (True, False))
    for table in (waited, went_on):
        assert table["routed"][2] == table["finish"][0]
    assert waited["admitted"][2] == waited["finish"][0] == went_on["finish"][0]
    alone = run(True, engine, [1, 20]).requests
    step = (alone["finish"][1] - alone["first_token"][1]) / 19
    assert went_on["admitted"][2] - went_on["finish"][0] == pytest.approx(step, rel=0.05)


@pytest.mark.parametrize("engine", ["vllm", "sarathi"])
def test_a_replica_without_other_work_takes_it_at_once(engine: str) -> None:
    """Where all requests have completed there is no next step that they could miss."""
    waited, went_on = (run(waits, engine, [4, 4, 4]) for waits in (True, False))
    assert waited.requests["admitted"][2] == waited.requests["finish"][0]
    assert all((waited.requests[name] == went_on.requests[name]).all() for name in ("admitted", "finish"))


def test_a_router_that_holds_nothing_sees_no_difference() -> None:
    """It sends at arrivals alone."""
    load = sharegpt_bursty(rate=6.0, duration=60, seed=1)
    one, other = (
        Cluster(engine="vllm", engine_waits=waits).run(load, LeastLoadedQueue()) for waits in (True, False)
    )
    assert (one.requests["finish"] == other.requests["finish"]).all()


def test_another_value_is_refused() -> None:
    """The message has what was given and what is expected."""
    wrong: Any = 1
    with pytest.raises(ValueError, match="engine_waits=1; expected True or False"):
        Cluster(engine_waits=wrong)
