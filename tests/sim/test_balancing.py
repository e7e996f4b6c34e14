"""Gateways' routers, autoscalers and oracles do what is written of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim import Autoscaling, Cluster, Prefixes, Workload, autoscalers, balancing, schedulers, workloads
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue, Random, RoundRobin
from sim.scaling import ClusterView
from tests.sim.strategies import begin_alike
from tests.sim.test_baselines import decisions, replica, request

CHAT = workloads.sharegpt_bursty(8.0, 1, seed=1)


def test_power_of_two_takes_the_better_of_two_draws() -> None:
    """Draws 0 and 2, then 1 and 1."""
    draws = SimpleNamespace(random=iter([0.0, 0.9, 0.5, 0.5]).__next__)
    replicas = [replica(0, waiting=9), replica(1, waiting=1), replica(2, running=3)]
    assert decisions(balancing.PowerOfTwo(draws), [request(0), request(1)], replicas) == [(0, 2), (1, 1)]


def test_shortest_expected_wait_counts_tokens_and_learns_answers() -> None:
    """Many short prompts may be less work than one long one, until answers turn out to be long."""
    replicas = [
        replica(0, waiting=4, waiting_prompt_tokens=40),
        replica(1, waiting=1, waiting_prompt_tokens=400),
    ]
    router = balancing.ShortestExpectedWait(start=10.0, alpha=0.5)
    assert decisions(router, [request(0)], replicas) == [(0, 0)]
    for _ in range(10):
        router.completed(request(1, 10, 1010), 0.0)
    assert decisions(router, [request(0)], replicas) == [(0, 1)]


def test_prefix_affinity_follows_the_prefix_until_loads_differ() -> None:
    """The second turn goes where the first went; where that replica is overloaded, elsewhere."""
    router = balancing.PrefixAffinity(balance=5)
    first, second = request(0, 160), request(1, 320)
    first.prefix, second.prefix = tuple(range(10)), tuple(range(20))
    assert decisions(router, [first], [replica(0, blocks_used=1), replica(1)]) == [(0, 1)]
    assert decisions(router, [second], [replica(0), replica(1, blocks_used=100)]) == [(1, 1)]
    second.prefix = tuple(range(20))
    assert decisions(router, [second], [replica(0), replica(1, waiting=6)]) == [(1, 0)]


def test_prefix_affinity_finds_more_of_conversations() -> None:
    """On sessions it hits the replicas' caches far more often than a router that does not look."""
    rng = np.random.default_rng(0)
    session, turn = np.repeat(np.arange(60), 5), np.tile(np.arange(5), 60)
    arrival = rng.uniform(0, 60, 60)[session] + 30.0 * turn
    order = np.argsort(arrival, kind="stable")
    session, tokens = session[order], 200 * (turn[order] + 1)
    workload = Workload.from_arrays(
        arrival=arrival[order],
        prompt_tokens=tokens,
        output_tokens=[50] * 300,
        session=session,
        prefixes=begin_alike(session, tokens + 50),
    )
    cluster = Cluster(engine="vllm")
    shares = {
        router.__class__.__name__: cluster.run(workload, router).metrics["prefix_hit_share"]
        for router in (balancing.PrefixAffinity(), Random())
    }
    assert shares["PrefixAffinity"] > 0.7 > 2 * shares["Random"]


def test_a_router_sees_the_prompts_hashes_only() -> None:
    """What the output will be, and so its hashes, nobody knows before."""
    seen: list[Any] = []

    class Listener(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            seen.extend((one.prefix, one.ttft_slo, one.tpot_slo) for one in queue)
            return super().route(queue, replicas, now)

    workload = Workload.from_arrays(
        arrival=[0, 1],
        prompt_tokens=[40, 16],
        output_tokens=[100, 5],
        prefixes=Prefixes.from_rows([[7, 8, 9, 10], []], 16),
        ttft_slo=[1.5, np.nan],
    )
    Cluster(engine="vllm").run(workload, Listener())
    assert seen == [((7, 8), 1.5, None), ((), None, None)]


@pytest.mark.parametrize(
    "cluster", [Cluster(), Cluster(engine="vllm", prefix_caching=False)], ids=lambda cluster: cluster.engine
)
def test_where_nothing_is_cached_no_prefix_is_seen(cluster: Cluster) -> None:
    """Then prefixes in blocks of any size do no harm either."""
    seen: list[Any] = []

    class Listener(RoundRobin):
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            seen.extend(one.prefix for one in queue)
            return super().route(queue, replicas, now)

    columns: dict[str, Any] = {"arrival": [0, 1], "prompt_tokens": [50, 50], "output_tokens": [9, 5]}
    cluster.run(Workload.from_arrays(**columns, prefixes=Prefixes.from_rows([[7, 8], [7]], 24)), Listener())
    assert seen == [(), ()]


def test_funsearchs_example_learns_by_class_and_fears_the_capacity() -> None:
    """Answers of long prompts do not change what is expected of short ones; a full replica is avoided."""
    router = balancing.FunSearchExample()
    router.completed(request(0, 1000, 2000), 0.0)
    assert router._answers == [96.0, 96.0, pytest.approx(96 + 0.1 * 904)]
    full, long = replica(0, blocks_used=2200), replica(1, blocks_used=1000, waiting=2, running=1)
    assert decisions(router, [request(0, 2000)], [full, long]) == [(0, 1)]


@pytest.mark.slow
def test_the_oracle_bounds_the_routers() -> None:
    """Past the knee it is better than all that do not know the answers, and nothing is evicted."""
    workload = workloads.sharegpt_bursty(rate=9.0, duration=300, seed=2)
    oracle = Cluster().run(workload, balancing.OracleLeastWork(workload)).metrics
    assert oracle["restarted_fraction"] < 0.01
    for router in (LeastLoadedQueue(), HeadRoomAdmission(), balancing.ShortestExpectedWait()):
        assert oracle["mean_response_time"] < Cluster().run(workload, router).metrics["mean_response_time"]


def test_an_oracle_may_foresee_the_memory_only() -> None:
    """By prompt, and one prompt at a time; least work first where it knows more."""
    workload = Workload.from_arrays(arrival=[0.0, 0.0], prompt_tokens=[50, 60], output_tokens=[900, 10])
    queue, idle, busy = [request(0, 50), request(1, 60)], replica(0), replica(0, waiting=1)
    assert decisions(balancing.OracleLeastWork(workload), queue, [idle]) == [(1, 0), (0, 0)]
    prompt = balancing.OracleLeastWork(workload, order="prompt", most_waiting=1)
    assert decisions(prompt, queue, [idle]) == [(0, 0), (1, 0)]
    assert decisions(prompt, queue, [busy]) == []


@pytest.mark.parametrize("router", [balancing.PowerOfTwo, balancing.FunSearchExample])
def test_routers_serve_every_request(router: Any) -> None:
    """On both engines."""
    workload = workloads.sharegpt_bursty(rate=8.0, duration=60, seed=1)
    for engine in ("sarathi", "vllm"):
        run = Cluster(engine=engine).run(workload, router())
        assert run.metrics["unfinished_fraction"] == 0


def view(*replicas: Any, **counts: int) -> ClusterView:
    """A cluster's view."""
    none = {"starting": 0, "draining": 0, "down": 0, "queued": 0, "arrived": 0, "completed": 0}
    return ClusterView(replicas=replicas, **(none | counts))


def test_fixed_is_fixed() -> None:
    """Whatever it sees."""
    assert autoscalers.Fixed(3).target(view(), 0.0) == 3


def test_throughput_threshold_follows_the_arrival_rate() -> None:
    """Rate of the window over what a replica can do, rounded up."""
    scaler = autoscalers.ThroughputThreshold(per_replica=2.0, window=10.0)
    assert scaler.target(view(arrived=50), 10.0) == 3
    assert scaler.target(view(arrived=50), 20.0) == 0
    assert scaler.target(view(arrived=120), 30.0) == 4


def test_queue_length_grows_with_what_waits_and_shrinks_slowly() -> None:
    """Up at once; down by one, when nothing has waited for a while."""
    scaler = autoscalers.QueueLength(per_replica=5, cooldown=30)
    assert scaler.target(view(replica(0, waiting=4), queued=7), 0.0) == 3
    assert scaler.target(view(replica(0), replica(1), starting=1), 20.0) == 3
    assert scaler.target(view(replica(0), replica(1), starting=1), 30.0) == 2


def test_concurrency_target_averages_and_panics() -> None:
    """In flight over the target, averaged; at once if it is twice what there is."""
    scaler = autoscalers.ConcurrencyTarget(target=10, window=60)
    assert scaler.target(view(replica(0, running=10)), 0.0) == 1
    assert scaler.target(view(replica(0, running=14), replica(1)), 10.0) == 2
    assert scaler.target(view(replica(0, running=60), replica(1)), 20.0) == 6


def test_kv_utilisation_scales_in_proportion() -> None:
    """Kept within the tolerance; a replica with waiting requests is full."""
    scaler = autoscalers.KvUtilisation(target=0.5, tolerance=0.1)
    assert scaler.target(view(replica(0, blocks_used=1150)), 0.0) == 1
    assert scaler.target(view(replica(0, blocks_used=1120), replica(1, waiting=1)), 0.0) == 3
    assert scaler.target(view(replica(0), replica(1)), 0.0) == 0


@pytest.mark.parametrize(
    "scaler",
    [
        autoscalers.Fixed(4),
        autoscalers.ThroughputThreshold(2.0),
        autoscalers.QueueLength(),
        autoscalers.ConcurrencyTarget(),
        autoscalers.KvUtilisation(),
    ],
    ids=lambda scaler: type(scaler).__name__,
)
def test_autoscalers_run(scaler: Any) -> None:
    """Each serves every request with at most the replicas that there may be."""
    workload = workloads.sharegpt_bursty(rate=6.0, duration=300, seed=1)
    cluster = Cluster(replicas=1, autoscaling=Autoscaling(max_replicas=6))
    run = cluster.run(workload, LeastLoadedQueue(), autoscaler=scaler)
    assert run.metrics["unfinished_fraction"] == 0
    assert run.totals["autoscaler_calls"] > 15
    assert run.metrics["gpu_hours"] < 6 * run.metrics["duration"] / 3600


def test_a_setting_out_of_range_is_named() -> None:
    """As for the cluster."""
    with pytest.raises(ValueError, match=r"per_replica=0; expected a number .* requests/s"):
        autoscalers.ThroughputThreshold(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Random(rng=3), "rng=3; expected a generator, as numpy.random"),  # type: ignore[arg-type]
        (lambda: balancing.PowerOfTwo(rng=3), "rng=3; expected a generator"),  # type: ignore[arg-type]
        (lambda: HeadRoomAdmission(reserve=-1), "reserve=-1; expected a number from 0 .* times the prompt"),
        (lambda: HeadRoomAdmission(safety=2), "safety=2; expected a number from 0 to 1 as a fraction of the"),
        (lambda: balancing.ShortestExpectedWait(decode_cost=-1), "decode_cost=-1; expected a number from 0"),
        (lambda: balancing.ShortestExpectedWait(start=np.nan), "start=nan; expected .* output tokens"),
        (lambda: balancing.ShortestExpectedWait(alpha=2), "alpha=2; expected a number from 0 to 1"),
        (lambda: balancing.PrefixAffinity(load_weight=-1), "load_weight=-1; expected a number from 0"),
        (lambda: balancing.PrefixAffinity(balance=0.5), "balance=0.5; expected a whole number .* requests"),  # type: ignore[arg-type]
        (lambda: balancing.PrefixAffinity(capacity=-1), "capacity=-1; expected .* blocks per replica"),
        (
            lambda: balancing.OracleLeastWork(workloads.sharegpt_bursty(8, 1, 1), full=0),
            "full=0; expected .* as a fraction of the blocks",
        ),
        (
            lambda: balancing.OracleLeastWork(workloads.sharegpt_bursty(8, 1, 1), order="age"),
            "order='age'; expected 'work' or 'prompt'",
        ),
        (
            lambda: balancing.OracleLeastWork(workloads.sharegpt_bursty(8, 1, 1), most_waiting=0),
            "most_waiting=0; expected a whole number from 1 .* requests",
        ),
        (lambda: schedulers.Sarathi(watermark=0.9), "watermark=0.9; expected a number from 0 to 0.5"),
    ],
)
def test_a_bad_argument_is_named(make: Any, message: str) -> None:
    """Value, range and unit."""
    with pytest.raises(ValueError, match=message):
        make()
