"""The router in `candidates/router.py` keeps four A10 replicas fast under bursts of ShareGPT-like requests.

Problem: four replicas of Llama-3-8B with 2,240 KV blocks of 16 tokens each; log-normal bursts of 8.5
requests a second for 1,000 s, at a realised rate that is the same in every replication. There the
least-loaded queue is past its knee (docs/simulator.md, "The knee"): a fifth of its requests are evicted for
lack of KV blocks and computed again.

Baselines: the least-loaded queue, which is what is deployed; the human expert's router and Head-Room
Admission, the best that is published; and this router as it was before the change under test.
"""

import pytest

from sim import workloads
from sim.baselines import Expert, HeadRoomAdmission, LeastLoadedQueue

pytestmark = pytest.mark.glia(candidate="candidates/router.py", entry="Router", exposes=["sim/policies.py"])


@pytest.fixture
def serve(testbed):
    """One replication: a trace that only the seed decides, served by this router."""
    cluster = testbed(replicas=4, gpu="a10", model="llama-3-8b", kv_blocks=2240)
    return lambda router, seed: cluster.run(
        workloads.sharegpt_bursty(rate=8.5, duration=1000, seed=seed), router=router
    )


def test_faster_than_what_is_deployed(glia, serve):
    """Mean response time at least 30 % below the least-loaded queue's."""
    rt = glia.compare(serve, against=LeastLoadedQueue, metric="mean_response_time")
    assert rt.reduction > 0.30


def test_faster_than_the_expert(glia, serve):
    """Mean response time at least 5 % below that of the human expert's router."""
    assert glia.compare(serve, against=Expert, metric="mean_response_time").reduction > 0.05


def test_faster_than_head_room_admission(glia, serve):
    """Mean response time at least 1 % below that of the best published router."""
    assert glia.compare(serve, against=HeadRoomAdmission, metric="mean_response_time").reduction > 0.01


def test_no_thrashing(glia, serve):
    """Fewer than one request in ten is evicted and restarted."""
    assert glia.measure(serve, metric="restarted_fraction") < 0.10


def test_never_worse_than_what_we_have(glia, serve):
    """No change of the router may cost more than 1 % of mean response time."""
    assert glia.compare(serve, against="base", metric="mean_response_time").increase < 0.01


def test_evicts_no_more_than_what_we_have(glia, serve):
    """No change of the router may evict one request in a hundred that was spared before."""
    assert glia.compare(serve, against="base", metric="unrestarted_fraction").reduction < 0.01
