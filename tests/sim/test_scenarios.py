"""Changed scenarios: each knob does what it says, to every run within it and to nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Cluster, Replica, Run, Workload, workloads
from sim.baselines import LeastLoadedQueue
from sim.recording import record, recording
from sim.scenarios import KNOBS, scenario, scenario_here
from sim.workloads import ClosedWorkload

CLUSTER = Cluster(replicas=2, kv_blocks=1000, time_scale=1.5)
WORKLOAD = Workload.from_arrays(
    arrival=[0.0, 0.5, 0.5, 3.0], prompt_tokens=[100, 1, 250, 40], output_tokens=[30, 60, 1, 200]
)
LOOP = workloads.ClosedLoop(users=2, requests=4, lengths=workloads.SHAREGPT).workload(1)
REQUESTS = workloads.sharegpt_bursty(rate=6.0, duration=30, seed=3)

checked = settings(max_examples=20, deadline=None, derandomize=True, database=None)


def within(changes: dict[str, float]) -> tuple[Cluster, Workload]:
    """Cluster and workload as they are there."""
    with scenario(changes):
        cluster, workload = scenario_here(CLUSTER, WORKLOAD)
    assert isinstance(workload, Workload)
    return cluster, workload


def served(changes: dict[str, float] | None, workload: Workload = REQUESTS) -> Run:
    """A run of a small cluster, in a scenario or in none."""
    cluster = Cluster(replicas=2, kv_blocks=1500)
    if changes is None:
        return cluster.run(workload, LeastLoadedQueue())
    with scenario(changes):
        return cluster.run(workload, LeastLoadedQueue())


def test_load_is_arrivals_per_second() -> None:
    """Twice the load halves every moment of arrival, and changes nothing else."""
    cluster, workload = within({"load": 2.0})
    assert cluster == CLUSTER
    assert workload.arrival.tolist() == [0.0, 0.25, 0.25, 1.5]
    assert np.array_equal(workload.prompt_tokens, WORKLOAD.prompt_tokens)
    assert np.array_equal(workload.output_tokens, WORKLOAD.output_tokens)


@pytest.mark.parametrize(
    ("name", "halves"), [("prompt_tokens", [50, 1, 125, 20]), ("output_tokens", [15, 30, 1, 100])]
)
def test_lengths_are_of_every_request(name: str, halves: list[int]) -> None:
    """Half the tokens, and never less than one; the other length and the arrivals stay."""
    cluster, workload = within({name: 0.5})
    assert cluster == CLUSTER
    assert getattr(workload, name).tolist() == halves
    for other in {"arrival", "prompt_tokens", "output_tokens"} - {name}:
        assert np.array_equal(getattr(workload, other), getattr(WORKLOAD, other))


def test_hardware_is_of_every_replica() -> None:
    """KV blocks and the time of a step, also where a replica has its own; the workload stays."""
    own = Cluster(replicas=2, each=(Replica(kv_blocks=300), Replica(time_scale=2.0)))
    with scenario({"kv_blocks": 0.5, "gpu_time": 3.0}):
        cluster, workload = scenario_here(own, WORKLOAD)
    assert (cluster.kv_blocks, cluster.time_scale) == (own.kv_blocks / 2, 3 * own.time_scale)
    assert [each.kv_blocks for each in cluster.each] == [150, None]
    assert [each.time_scale for each in cluster.each] == [None, 6.0]
    assert all(
        np.array_equal(getattr(workload, name), getattr(WORKLOAD, name))
        for name in ("arrival", "prompt_tokens")
    )
    assert within({"kv_blocks": 1e-6})[0].kv_blocks == 2


def test_a_run_has_more_load() -> None:
    """What the cluster serves is the changed workload: it arrives in half the time, and waits longer."""
    plain, loaded = served(None), served({"load": 2.0})
    assert np.allclose(loaded.requests["arrival"], plain.requests["arrival"] / 2)
    assert loaded.metrics["mean_response_time"] > plain.metrics["mean_response_time"]


def test_half_the_blocks_evict_more() -> None:
    """Evictions for lack of blocks go away with blocks: the explanation that the knob is there to test."""
    few, many = (served({"kv_blocks": factor}).metrics["restarted_fraction"] for factor in (0.5, 4.0))
    assert few > many == 0


def test_a_slower_gpu_serves_one_request_as_much_slower() -> None:
    """A request alone takes twice as long where every step does."""
    alone = Workload.from_arrays(arrival=[0.0], prompt_tokens=[200], output_tokens=[50])
    plain, slow = (served({"gpu_time": factor}, alone).metrics["mean_response_time"] for factor in (1.0, 2.0))
    assert slow == pytest.approx(2 * plain, rel=0.05)


@pytest.mark.parametrize("changes", [{}, dict.fromkeys(KNOBS, 1.0), *({name: 1.0} for name in KNOBS)])
def test_no_change_is_the_same_run(changes: dict[str, float]) -> None:
    """Factors of one, and no factors, give the run that there is outside of any scenario."""
    plain, changed = served(None), served(changes)
    assert changed.metrics == plain.metrics


def test_a_scenario_ends() -> None:
    """Also after an error, the next run is as it was."""
    before = served(None).metrics
    with pytest.raises(RuntimeError, match="mine"), scenario({"load": 3.0}):
        raise RuntimeError("mine")
    assert served(None).metrics == before
    assert scenario_here(CLUSTER, WORKLOAD) == (CLUSTER, WORKLOAD)


@checked
@given(changes=st.dictionaries(st.sampled_from(sorted(KNOBS)), st.sampled_from([0.5, 0.9, 1.7]), min_size=1))
def test_a_recording_is_replayed_in_its_scenario(changes: dict[str, float]) -> None:
    """What decided there decides the same again: record and replay give one run, whatever is changed."""
    requests = workloads.sharegpt_bursty(rate=3.0, duration=15, seed=3)
    cluster = Cluster(replicas=2, kv_blocks=1500)
    recorder = record(LeastLoadedQueue())
    assert recorder is not None
    with scenario(changes):
        plain = cluster.run(requests, LeastLoadedQueue())
        noted = cluster.run(requests, recorder.policy)
        replayed = cluster.run(requests, recording(recorder.log()))
    assert plain.metrics == noted.metrics == replayed.metrics


def test_a_closed_loop_has_lengths_but_no_load() -> None:
    """Its clients decide when requests arrive, so that is refused; their lengths change."""
    with scenario({"output_tokens": 2.0}):
        _, loop = scenario_here(CLUSTER, LOOP)
    assert isinstance(loop, ClosedWorkload)
    assert loop.output_tokens.tolist() == (2 * LOOP.output_tokens).tolist()
    with (
        pytest.raises(ValueError, match="changes 'load' of a closed loop, whose clients decide"),
        scenario({"load": 2.0}),
    ):
        scenario_here(CLUSTER, LOOP)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_a_factor_is_positive(factor: float) -> None:
    """Any other is refused before anything runs."""
    with (
        pytest.raises(ValueError, match=r"the scenario has load=.*expected a positive factor"),
        scenario({"load": factor}),
    ):
        raise AssertionError("it was entered")


def test_a_knob_is_one_of_these() -> None:
    """Another name is told, with those that there are."""
    with (
        pytest.raises(ValueError, match="the scenario changes 'gravity'; expected of load, prompt_tokens,"),
        scenario({"gravity": 2.0}),
    ):
        raise AssertionError("it was entered")
