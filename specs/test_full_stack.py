"""Router, batch scheduler and autoscaler together keep the SLO of a changing day with far fewer GPU-hours.

Problem, workload and SLO are those of `test_autoscaler.py`; here all three layers are under design, in the
candidates of their own in `candidates/stack/`, for the best router alone need not be best beside the others.

Baseline: what is deployed, the least-loaded queue, vLLM's own batch scheduler and the throughput threshold as
tuned in `test_autoscaler.py`.

Thresholds: the SLO kept, with at least 40 % fewer GPU-hours than that, as published of a discovered stack
(arXiv 2510.27176).
"""

import pytest

from sim import Autoscaling, workloads
from sim.autoscalers import ThroughputThreshold
from sim.baselines import LeastLoadedQueue
from sim.schedulers import FirstComeFirstServed

EXPOSES = ["sim/policies.py", "sim/scheduling.py", "sim/scaling.py"]
pytestmark = [
    pytest.mark.glia(
        candidate="candidates/stack/autoscaler.py", entry="Autoscaler", role="autoscaler", exposes=EXPOSES
    ),
    pytest.mark.glia(candidate="candidates/stack/router.py", entry="Router", role="router"),
    pytest.mark.glia(candidate="candidates/stack/scheduler.py", entry="Scheduler", role="scheduler"),
]


class Tuned(ThroughputThreshold):
    """The cheapest that keeps the SLO behind the least-loaded queue."""

    def __init__(self):
        super().__init__(per_replica=0.525, window=60.0)


DEPLOYED = {"router": LeastLoadedQueue, "scheduler": FirstComeFirstServed, "autoscaler": Tuned}


@pytest.fixture
def serve(testbed):
    """One replication: a day of one hour that only the seed decides, served by these three."""
    cluster = testbed(
        replicas=4,
        gpu="a10",
        model="llama-3-8b",
        kv_blocks=2240,
        engine="vllm",
        max_num_batched_tokens=2048,
        autoscaling=Autoscaling(max_replicas=32, interval=5, provisioning_time=10, load_time=20),
    )
    return lambda router, scheduler, autoscaler, seed: cluster.run(
        workloads.changing_mix(rate=5.0, duration=3600, seed=seed),
        router=router,
        scheduler=scheduler,
        autoscaler=autoscaler,
    )


def test_far_fewer_gpu_hours(glia, serve):
    """At least 40 % fewer GPU-hours than what is deployed."""
    assert glia.compare(serve, against=DEPLOYED, metric="gpu_hours").reduction > 0.40


def test_keeps_the_slo(glia, serve):
    """Fewer than one request in a hundred misses its SLO."""
    assert glia.measure(serve, metric="slo_violations") < 0.01


def test_never_worse_than_what_we_have(glia, serve):
    """No change of any layer may cost more than 2 % of the GPU-hours."""
    assert glia.compare(serve, against="base", metric="gpu_hours").increase < 0.02
