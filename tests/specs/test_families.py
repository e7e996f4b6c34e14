"""The families of the robustness specs: drawn by a seed, within their ranges, judged as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import Cluster
from sim.baselines import HeadRoomAdmission, LeastLoadedQueue
from sim.layers import policy
from sim.policies import PolicyError
from specs import families
from specs.families import FAMILIES, Found, by_seed, one_run
from specs.worlds import Day, Episode, Phase

ROOT = Path(__file__).parents[2]

SIX = Episode("tight", (0,) * 6, (3000,) * 6, (200,) * 6)
"""Two replicas hold three each."""


class Last:
    """Sends all to the last replica, whatever comes."""

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        return [(request, replicas[-1]) for request in queue]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_seed_decides_its_worlds(name: str) -> None:
    """The same seed draws the same worlds, another one others."""
    family = FAMILIES[name]
    [cluster, *_] = family.clusters
    first, again, other = (family.worlds(cluster, seed, 3) for seed in (1, 1, 2))
    assert first == again
    assert first[-3:] != other[-3:]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_request_fits_every_replica(name: str) -> None:
    """Whatever a policy does, nothing is rejected for its length."""
    family = FAMILIES[name]
    for place, settings in {**family.clusters, **family.elsewhere}.items():
        cluster, pick = Cluster(**settings), by_seed(3)
        for _ in range(20):
            workload = family.draw(pick, place).workload()
            tokens = (workload.prompt_tokens + workload.output_tokens).max()
            assert tokens <= (cluster.kv_blocks - 8) * cluster.block_size * 0.99


def test_worlds_of_one_run_do_not_meet() -> None:
    """Each begins when the one before has been silent for so long, with its own requests and SLOs."""
    day = Day("soon", (Phase("chat", 1.0, 60.0),), seed=0)
    workload, starts = one_run([day, day], silence=600.0)
    alone = day.workload()
    assert starts.tolist() == [0, len(alone)]
    assert workload.arrival[len(alone)] - workload.arrival[len(alone) - 1] >= 600.0
    assert workload.prompt_tokens[len(alone) :].tolist() == alone.prompt_tokens.tolist()
    assert workload.ttft_slo is not None


def test_the_baseline_is_within_its_own_margins() -> None:
    """It is as good as itself in every world."""
    family = FAMILIES["router"]
    found = family.judge(Cluster(**family.settings("tight")), [SIX, SIX], {"router": LeastLoadedQueue()})
    assert found == {"beyond_margin": 0.0, "worlds_beyond": 0.0, "worst_response_time": 1.0}


def test_one_bad_world_is_beyond_among_good_ones() -> None:
    """The worst world counts, however many others there are, as much as it would alone."""
    family = FAMILIES["router"]
    cluster = Cluster(**family.settings("tight"))
    one = Episode("tight", (0,), (100,), (10,))
    alone = family.judge(cluster, [SIX], {"router": Last()})
    among = family.judge(cluster, [one, SIX, one, one], {"router": Last()})
    assert alone["beyond_margin"] > 0.1
    assert among["beyond_margin"] == pytest.approx(alone["beyond_margin"])
    assert (alone["worlds_beyond"], among["worlds_beyond"]) == (1.0, 0.25)
    ratio = alone["worst_response_time"]
    assert alone["beyond_margin"] == pytest.approx(np.log(ratio / 1.25))


def test_violations_are_counted_by_the_day() -> None:
    """An autoscaler that never grows misses the SLO of the busy day, and is told by how much."""
    family = FAMILIES["autoscaler"]
    calm, busy = (Day("soon", (Phase("chat", rate, 240.0),), seed=0) for rate in (1.0, 8.0))

    class One:
        def target(self, cluster: Any, now: float) -> int:
            return 1

    found = family.judge(Cluster(**family.settings("soon")), [calm, busy], {"autoscaler": One()})
    assert found["worst_slo_violations"] > 0.15
    assert found["worlds_beyond"] == 0.5
    assert found["beyond_margin"] == pytest.approx(found["worst_slo_violations"] - 0.15)


def test_hours_are_bounded_also_where_the_baseline_misses_the_slo() -> None:
    """An autoscaler that starts all replicas and keeps them is beyond, whatever it misses."""
    family = FAMILIES["autoscaler"]
    cluster = Cluster(**family.settings("soon"))
    hard = Day("soon", (Phase("jobs", 2.0, 240.0), Phase("chat", 8.0, 240.0)), seed=0)

    class Most:
        def target(self, cluster: Any, now: float) -> int:
            return 32

    workload, _ = one_run([hard], family.silence)
    base = cluster.run(workload, **family.baseline())
    assert base.metrics["slo_violations"] > families.KEPT
    found = family.judge(cluster, [hard], {"autoscaler": Most()})
    assert found["worst_gpu_hours"] > 1.1
    assert found["beyond_margin"] == pytest.approx(np.log(found["worst_gpu_hours"] / 1.1))


def test_what_is_saved_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counterexamples of either kind, loss-free; specs are asked for those that are not open."""
    monkeypatch.setattr(families, "SAVED", tmp_path / "counterexamples")
    kept = [
        Found(Episode("tight", (0, 5), (3, 4), (1, 2)), "a router", "ratio 2"),
        Found(Episode("tight", (0,), (7,), (1,)), "another", "ratio 3", open=True),
    ]
    for each in kept:
        FAMILIES["router"].keep(each)
    day = Found(Day("soon", (Phase("chat", 1.0, 60.0),), 4), "an autoscaler", "0.2")
    FAMILIES["autoscaler"].keep(day)
    assert FAMILIES["router"].saved() == kept
    assert FAMILIES["autoscaler"].saved() == [day]
    assert FAMILIES["router"].worlds("tight", 0, 0) == [kept[0].world]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_saved_is_of_the_family(name: str) -> None:
    """Each counterexample names a cluster, and one that is asked for one of the spec's."""
    family = FAMILIES[name]
    assert family.saved()
    for each in family.saved():
        assert family.settings(each.world.cluster)
        assert each.open or each.world.cluster in family.clusters


@pytest.mark.parametrize("name", FAMILIES)
def test_candidates_withstand_all_but_what_is_open(name: str) -> None:
    """The designs as they are are beyond the margin in each counterexample that is open, and in no other: one
    that a later design withstands is to be asked for from then on."""
    family = FAMILIES[name]
    named = [policy(layer, str(ROOT / file)) for layer, file in family.candidates.items()]
    for each in family.saved():
        policies = {one.layer: one.make() for one in named}
        found = family.judge(Cluster(**family.settings(each.world.cluster)), [each.world], policies)
        assert (found["beyond_margin"] > 0) == each.open, each


def test_a_prompt_that_needs_its_room_to_grow_is_held_for_ever() -> None:
    """The first counterexample of routers: Head-Room Admission never sends a prompt whose reserve fits no
    replica."""
    family = FAMILIES["router"]
    [found, *_] = family.saved()
    cluster = Cluster(**family.settings(found.world.cluster))
    with pytest.raises(PolicyError, match=r"held 1\s+requests for ever"):
        family.judge(cluster, [found.world], {"router": HeadRoomAdmission()})


def test_another_cluster_is_refused() -> None:
    """With the names that there are."""
    with pytest.raises(
        ValueError, match="no cluster of the family router is called 'large'; expected one of four, one"
    ):
        FAMILIES["router"].settings("large")
