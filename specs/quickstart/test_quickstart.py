"""Requests to four A10 replicas finish soon, without evicting one another.

Four replicas of Llama-3-8B, each with a KV cache of 2,240 blocks of 16 tokens, serve ShareGPT-like
requests that arrive in bursts, 8.5 a second, for 1,000 seconds. Past its knee the system wastes GPU time:
a replica that has run out of KV blocks evicts the request that it admitted last, and computes it again
later. The realised rate is held at the nominal one in every replication, so that the baseline, the
least-loaded queue, is past its knee in the median replication; with a free rate it would be so in some
traces and idle in others.
"""

import pytest

from sim import workloads
from sim.baselines import LeastLoadedQueue

pytestmark = pytest.mark.glia(
    candidate="specs/quickstart/router.py", entry="Router", exposes=["sim/policies.py"]
)


@pytest.fixture
def serve(testbed):
    """One replication: a trace that only the seed decides, served by this router."""
    cluster = testbed(replicas=4, gpu="a10", model="llama-3-8b", kv_blocks=2240)
    return lambda router, seed: cluster.run(
        workloads.sharegpt_bursty(rate=8.5, duration=1000, seed=seed), router=router
    )


def test_mean_response_time(glia, serve):
    """Requests finish 30 % sooner than behind the least-loaded queue."""
    rt = glia.compare(serve, against=LeastLoadedQueue, metric="mean_response_time")
    assert rt.reduction > 0.30


def test_no_thrashing(glia, serve):
    """Fewer than one request in ten is evicted and restarted."""
    assert glia.measure(serve, metric="restarted_fraction") < 0.10


def test_never_worse_than_what_we_have(glia, serve):
    """No change of the router may cost response time."""
    assert glia.compare(serve, against="base", metric="mean_response_time").increase < 0.02
