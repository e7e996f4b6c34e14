"""The views of real servers have the names of the simulator's, and lead a candidate to nothing behind."""

from __future__ import annotations

import pytest

from gpu_harness.views import ServedRequest, Server
from gpu_harness.vllm_views import VllmEngine, VllmRequest
from sim.policies import ReplicaView, RequestView
from sim.scheduling import EngineRequest, EngineView

VIEWS = {ServedRequest: RequestView, Server: ReplicaView, VllmRequest: EngineRequest, VllmEngine: EngineView}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_a_view_has_no_name_that_the_simulators_has_not(view: type) -> None:
    """A request that vLLM knows has its number of tokens to come: a view gives no way to it."""
    there = {name for name in dir(view) if not name.startswith("_")}
    assert there <= set(dir(VIEWS[view]))
    assert there
