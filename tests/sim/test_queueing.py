"""Queueing theory: where the cluster is a queue that has a closed form, it waits as the form says; Little's
law holds in every run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from sim import Cluster, Workload, workloads
from sim.alone import response_times
from sim.baselines import RoundRobin
from tests.sim.strategies import scenarios_of_both, without_faults

Floats = NDArray[np.float64]
checked = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@pytest.mark.slow
@pytest.mark.parametrize("longest", [100, 1500], ids=["M/D/1", "M/G/1"])
def test_one_server_waits_as_pollaczek_and_khinchine_say(longest: int) -> None:
    """Where the cluster degenerates to M/D/1 or M/G/1 at half load, the mean wait is within 1 % of
    lambda E[S^2] / (2 (1 - rho))."""
    rng, count = np.random.default_rng(0), 2_000_000
    prompts = rng.integers(100, longest + 1, count)
    outputs = np.ones(count, int)
    cluster = Cluster(replicas=1, max_num_seqs=1)
    service = response_times(cluster.tables(0), cluster.max_num_batched_tokens, prompts, outputs)
    workload = Workload.from_arrays(
        arrival=np.cumsum(rng.exponential(2 * service.mean(), count)),
        prompt_tokens=prompts,
        output_tokens=outputs,
    )
    table = cluster.run(workload, RoundRobin()).requests
    expected = (service**2).mean() / (2 * service.mean()) / (2 * 0.5)
    assert (table["admitted"] - table["arrival"]).mean() == pytest.approx(expected, rel=0.01)


class CentralQueue:
    """Holds requests, first come first served, until a replica is idle."""

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        idle = [replica for replica in replicas if replica.waiting + replica.running == 0]
        return zip(queue, idle, strict=False)


def erlang_c(servers: int, load: float) -> float:
    """Probability of waiting in M/M/c with `load` erlangs (Erlang 1917)."""
    busy = load**servers / math.factorial(servers) * servers / (servers - load)
    return busy / (sum(load**k / math.factorial(k) for k in range(servers)) + busy)


SERVICE = 10.0
"""Mean service time in seconds of M/M/c: long against the shortest prompt's 33 ms."""


def exponential_services(draws: Floats, cluster: Cluster) -> NDArray[np.int64]:
    """The prompts, of one step each, whose times come nearest to these seconds.

    A token more is 0.2 ms or more, 2e-5 of the mean and rounded without bias. What is shorter than the
    shortest prompt, 0.3 % of the draws, takes as long as that: 6e-6 of the mean.
    """
    grid = np.arange(1, 300_001)
    seconds = response_times(cluster.tables(0), cluster.max_num_batched_tokens, grid, np.ones_like(grid))
    return np.searchsorted((seconds[1:] + seconds[:-1]) / 2, draws) + 1


def with_controls(values: Floats, controls: Floats, batches: int) -> tuple[float, float]:
    """The mean of values, and its standard error, by regression on `controls` whose expectation is 0 (control
    variates; over means of batches, so that what is correlated in time does no harm)."""
    means = [column.reshape(batches, -1).mean(axis=1) for column in (values, *controls)]
    design = np.column_stack([np.ones(batches), *means[1:]])
    found = np.linalg.lstsq(design, means[0], rcond=None)[0]
    rest = means[0] - design @ found
    return float(found[0]), float(np.sqrt(rest @ rest / (batches - len(found)) / batches))


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 2, 4])
def test_servers_in_common_wait_as_erlang_says(servers: int) -> None:
    """Where the cluster degenerates to M/M/c at half load, the mean wait is within 1 % of C(c, a) / (c mu -
    lambda), the sampling error's standard deviation below 0.3 % of it.

    Three million plain draws would leave 0.34, 0.44 and 0.64 % for 1, 2 and 4 servers. What is known of the
    draws brings that to 0.22, 0.09 and 0.27 %: the expectations of services, gaps and their squares, and of
    the waits at one server c times as fast by Lindley's recursion (not for c = 1: the same queue).
    """
    count, runs = 1_000_000, 3
    cluster = Cluster(replicas=servers, max_num_seqs=1, kv_blocks=100_000, max_num_batched_tokens=1_000_000)
    gap = 2 * SERVICE / servers
    waits, controls = [], []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        services, gaps = rng.exponential(SERVICE, count), rng.exponential(gap, count)
        workload = Workload.from_arrays(
            arrival=np.cumsum(gaps),
            prompt_tokens=exponential_services(services, cluster),
            output_tokens=np.ones(count, int),
        )
        table = cluster.run(workload, CentralQueue()).requests
        waits.append(table["admitted"] - table["arrival"])
        known = [services - SERVICE, gaps - gap, services**2 - 2 * SERVICE**2, gaps**2 - 2 * gap**2]
        if servers > 1:
            walk = np.cumsum(np.concatenate([[0.0], services[:-1] / servers - gaps[1:]]))
            known.append(walk - np.minimum.accumulate(walk) - SERVICE / servers)
        controls.append(np.stack(known))
    wait, error = with_controls(np.concatenate(waits), np.concatenate(controls, axis=1), 200 * runs)
    expected = erlang_c(servers, servers / 2) * SERVICE / (servers - servers / 2)
    assert error < 0.003 * expected
    assert wait == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("engine", ["sarathi", "vllm"])
def test_littles_law_in_the_series(engine: str) -> None:
    """Requests in the system on average are arrivals per second times the mean response time."""
    run = Cluster(engine=engine, replicas=2).run(workloads.sharegpt_bursty(4.0, 400, seed=2), RoundRobin())
    seen = (run.series["running"] + run.series["waiting"]).sum(axis=1).mean()
    expected = run.metrics["throughput"] * run.metrics["mean_response_time"]
    assert seen == pytest.approx(expected, rel=0.02)


class Counter:
    """Holds every other request back until nothing else is left, and integrates the requests that it sees in
    the system over time."""

    def __init__(self) -> None:
        self.area, self.since, self.seen = 0.0, 0.0, 0

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        self.area += self.seen * (now - self.since)
        self.since = now
        self.seen = len(queue) + sum(replica.waiting + replica.running for replica in replicas)
        idle = self.seen == len(queue)
        for place, request in enumerate(queue):
            if request.id % 2 or (idle and place == 0):
                yield request, replicas[request.id % len(replicas)]


@checked
@given(scenario=scenarios_of_both())
def test_littles_law(scenario: tuple[Cluster, Workload]) -> None:
    """In every run the integral over time of the requests that a router sees is the sum of the response
    times."""
    cluster, workload = without_faults(scenario)
    counter = Counter()
    run = cluster.run(workload, counter)
    response = run.requests["finish"] - run.requests["arrival"]
    assert counter.seen == 0
    assert counter.area == pytest.approx(response.sum(), rel=1e-9)


@checked
@given(scenario=scenarios_of_both())
def test_the_series_are_those_of_the_table(scenario: tuple[Cluster, Workload]) -> None:
    """At each sample as many requests are at replicas as have been routed and have not finished."""
    cluster, workload = without_faults(scenario)
    run = cluster.run(workload, Counter())
    table, series = run.requests, run.series
    for moment, running, waiting in zip(series["time"], series["running"], series["waiting"], strict=True):
        there = (table["routed"] <= moment) & (moment < table["finish"])
        at = np.bincount(table["replica"][there], minlength=cluster.replicas)
        assert (running + waiting).tolist() == at.tolist()
        assert (running <= cluster.max_num_seqs).all()


@checked
@given(scenario=scenarios_of_both())
def test_a_replica_that_holds_requests_works(scenario: tuple[Cluster, Workload]) -> None:
    """Both engines promise work conservation: a replica's time in steps is the time in which it holds any."""
    cluster, workload = without_faults(scenario)
    run = cluster.run(workload, Counter())
    held = 0.0
    for replica in range(cluster.replicas):
        mine = run.requests["replica"] == replica
        free = 0.0
        order = np.argsort(run.requests["routed"][mine], kind="stable")
        for begin, end in zip(
            run.requests["routed"][mine][order], run.requests["finish"][mine][order], strict=True
        ):
            held += max(end - max(begin, free), 0.0)
            free = max(free, end)
    assert run.totals["busy_time"] == pytest.approx(held, rel=1e-9)
