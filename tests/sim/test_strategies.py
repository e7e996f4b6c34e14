"""Strategies: what they draw keeps its promises, shrinks, and any router can serve it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from sim import Cluster, Workload, strategies, workloads

CHAT = workloads.sharegpt_bursty(rate=8.0, duration=50, seed=0)


@settings(max_examples=100, deadline=None)
@given(scenario=strategies.scenarios(), make=strategies.routers())
def test_any_router_serves_any_scenario(scenario: tuple[Cluster, Workload], make: Callable[[], Any]) -> None:
    """All requests finish, and the same again with a new router."""
    cluster, workload = scenario
    run, again = (cluster.run(workload, router=make()) for _ in range(2))
    assert np.isfinite(run.requests["finish"]).all()
    assert run.metrics["unfinished_fraction"] == 0
    assert run.requests["finish"].tobytes() == again.requests["finish"].tobytes()


@settings(max_examples=50, deadline=None)
@given(
    workload=strategies.workloads(
        requests=(2, 9), prompt_tokens=(5, 7), output_tokens=(2, 2), longest_gap=0.5
    )
)
def test_workloads_keep_their_ranges(workload: Workload) -> None:
    """Requests, lengths and gaps, ends included."""
    assert 2 <= len(workload) <= 9
    assert set(workload.prompt_tokens.tolist()) <= {5, 6, 7}
    assert set(workload.output_tokens.tolist()) == {2}
    assert np.diff(workload.arrival).max() <= 0.5 + 1e-9


@settings(max_examples=50, deadline=None)
@given(workload=strategies.like(CHAT, requests=(1, 30), speed=(2.0, 4.0)))
def test_like_is_made_of_the_workload(workload: Workload) -> None:
    """Its pairs of lengths, and its gaps at 2 to 4 times the speed."""
    pairs = set(zip(CHAT.prompt_tokens.tolist(), CHAT.output_tokens.tolist(), strict=True))
    assert set(zip(workload.prompt_tokens.tolist(), workload.output_tokens.tolist(), strict=True)) <= pairs
    if len(workload) > 1:
        assert np.diff(workload.arrival).max() <= np.diff(CHAT.arrival).max() / 2 + 1e-5


@settings(max_examples=30, deadline=None)
@given(cluster=strategies.clusters(replicas=3, time_scale=st.sampled_from([1.0, 2.0]), kv_blocks=500))
def test_settings_may_be_given(cluster: Cluster) -> None:
    """As a value or a strategy."""
    assert cluster.replicas == 3
    assert cluster.time_scale in (1.0, 2.0)
    assert cluster.kv_blocks == 500


def test_a_counterexample_is_the_smallest() -> None:
    """Three requests of one token where three are needed; the shortest of a given workload."""
    small = find(strategies.workloads(), lambda workload: len(workload) >= 3)
    assert repr(small) == (
        "Workload.from_arrays(arrival=[0.0, 0.0, 0.0], prompt_tokens=[1, 1, 1], output_tokens=[1, 1, 1])"
    )
    least = (CHAT.prompt_tokens + CHAT.output_tokens).min()
    shortest = find(strategies.like(CHAT), lambda workload: len(workload) >= 1)
    assert len(shortest) == 1
    assert shortest.prompt_tokens[0] + shortest.output_tokens[0] == least


def test_nothing_to_be_like_is_refused() -> None:
    """In one sentence."""
    with pytest.raises(ValueError, match="a workload of 0 requests has nothing to be like"):
        strategies.like(workloads.select(CHAT, []))


def test_without_hypothesis_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing and how to get it."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "sim.strategies")
    with pytest.raises(ImportError, match=r"hypothesis, which is not installed: pip install hypothesis"):
        __import__("sim.strategies")


def test_the_simulator_imports_nothing_heavy() -> None:
    """hypothesis, pandas and pyarrow come only with what needs them; pytest and the plugin never."""
    code = (
        "import sys, sim, sim.__main__, sim.page, sim.workloads.files; "
        "heavy = {'hypothesis', 'pandas', 'pyarrow', 'scipy', 'numba', 'pytest', 'pytest_glia'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
