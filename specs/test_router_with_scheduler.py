"""Router and batch scheduler of `candidates/pair/`, together, are much faster than the best published router.

Problem: that of `test_router.py`, with the batch scheduler of its replicas under design beside the router.
Both are candidates of their own here, for the best router alone need not be best beside another scheduler.
What a scheduler can do that no router can is to part a prompt: a step of an A10 takes about as long with 128
tokens as with 30, and a quarter of a millisecond more with each further one, for which all decodes wait.

Baseline: Head-Room Admission, the best router that is published, with the engine of its paper (Sarathi's
rule, prompts in chunks of up to 8,192 tokens). The candidates run on vLLM's engine, without prefix caching,
which finds nothing in this workload.

Thresholds: mean response time at least 15 % below that, and fewer than three requests in a hundred restarted.
The room above: with the engine as it is, a router that knew all output lengths would be 19 % below Head-Room
Admission, and one that knew of them only how much memory they take 4 % (docs/layers.md).
"""

import pytest

from sim import workloads
from sim.baselines import HeadRoomAdmission

EXPOSES = ["sim/policies.py", "sim/scheduling.py"]
pytestmark = [
    pytest.mark.glia(
        candidate="candidates/pair/scheduler.py", entry="Scheduler", role="scheduler", exposes=EXPOSES
    ),
    pytest.mark.glia(candidate="candidates/pair/router.py", entry="Router", role="router"),
]


class OfItsPaper:
    """In the place of a batch scheduler: Sarathi's engine as it is."""


PUBLISHED = {"router": HeadRoomAdmission, "scheduler": OfItsPaper}


@pytest.fixture
def serve(testbed):
    """One replication: a trace that only the seed decides, served by this router and this scheduler."""
    cluster = {"replicas": 4, "gpu": "a10", "model": "llama-3-8b", "kv_blocks": 2240}
    planned = testbed(**cluster, engine="vllm", prefix_caching=False)
    published = testbed(**cluster)

    def serve(router, scheduler, seed):
        workload = workloads.sharegpt_bursty(rate=8.5, duration=1000, seed=seed)
        if isinstance(scheduler, OfItsPaper):
            return published.run(workload, router=router)
        return planned.run(workload, router=router, scheduler=scheduler)

    return serve


def test_faster_than_the_best_router(glia, serve):
    """Mean response time at least 15 % below that of the best published router with its engine."""
    assert glia.compare(serve, against=PUBLISHED, metric="mean_response_time").reduction > 0.15


def test_no_thrashing(glia, serve):
    """Fewer than three requests in a hundred are evicted and restarted."""
    assert glia.measure(serve, metric="restarted_fraction") < 0.03


def test_never_worse_than_what_we_have(glia, serve):
    """No change of either may cost more than 2 % of mean response time."""
    assert glia.compare(serve, against="base", metric="mean_response_time").increase < 0.02
