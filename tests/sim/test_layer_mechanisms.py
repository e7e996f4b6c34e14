"""Mechanisms of batch scheduling and autoscaling: each edit gives a policy that works, and only evidence
calls for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from sim import Autoscaling, Cluster, Workload, workloads
from sim.baselines import LeastLoadedQueue
from sim.mechanisms import Mechanism, mechanisms_of

CANDIDATES = Path(__file__).parents[2] / "candidates" / "start"
STARTS = {"Scheduler": "scheduler.py", "Autoscaler": "autoscaler.py"}
INLINE = """class Scheduler:
    def plan(me, replica, time):
        return NamedPlan(admit=[each for each in replica.waiting])


class NamedPlan:
    evict = ()

    def __init__(self, admit, tokens=None):
        self.admit, self.tokens = admit, tokens or {}
"""
OTHERS = {"another style": ("Scheduler", INLINE)}


def start(entry: str) -> str:
    """The starting candidate of that layer."""
    return (CANDIDATES / STARTS[entry]).read_text("utf-8")


def designs() -> Iterator[Any]:
    """Each mechanism after each order of others that come to a place in a start."""
    for label, (entry, source) in {**{e: (e, start(e)) for e in STARTS}, **OTHERS}.items():
        seen = set()
        ideas = mechanisms_of(source, entry)
        for order in permutations(ideas, 2):
            text = source
            for mechanism in order:
                before, after = text, mechanism.apply(text, mechanism.defaults)
                if after is None or (before, mechanism.name) in seen:
                    continue
                seen.add((before, mechanism.name))
                yield pytest.param(entry, before, mechanism, id=f"{label}: {mechanism.name} {len(seen)}")
                text = after


def load(source: str, entry: str) -> Any:
    """An instance of the policy."""
    namespace: dict[str, Any] = {"__name__": "candidate"}
    exec(compile(source, "candidate", "exec", dont_inherit=True), namespace)
    return namespace[entry]()


@pytest.fixture(scope="module")
def workload() -> Workload:
    """A day of six minutes, above what four small replicas serve."""
    return workloads.changing_mix(rate=4.0, duration=360, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "before", "mechanism"), list(designs()))
def test_edited_policy_serves_every_request(
    entry: str, before: str, mechanism: Mechanism, workload: Workload
) -> None:
    """An edit gives a policy that loses no request, has its numbers as constants, and is not made twice."""
    after = mechanism.apply(before, mechanism.defaults)
    assert after is not None
    assert mechanism.apply(after, mechanism.defaults) is None
    assert max(map(len, after.splitlines())) <= 110
    assert all(f"\n{name} = " in f"\n{after}" for name in mechanism.numbers)
    scaling = Autoscaling(max_replicas=12, interval=10, provisioning_time=10, load_time=10)
    cluster = Cluster(replicas=2, engine="vllm", kv_blocks=1200, autoscaling=scaling)
    role = {"Scheduler": "scheduler", "Autoscaler": "autoscaler"}[entry]
    run = cluster.run(workload, router=LeastLoadedQueue(), **{role: load(after, entry)})
    assert run.metrics["unfinished_fraction"] == 0


def test_what_a_new_demand_leaves_unused_is_taken_out() -> None:
    """No constant, state or constructor stays behind that nothing reads; an import that is used stays."""
    source = start("Autoscaler")
    [by_cache] = [each for each in mechanisms_of(source, "Autoscaler") if each.name == "size by cache"]
    after = by_cache.apply(source, by_cache.defaults)
    assert after is not None
    for gone in ("PER_REPLICA", "WINDOW", "self.seen", "__init__"):
        assert gone in source
        assert gone not in after
    assert "import math" in after


def test_evidence_calls_for_what_it_shows() -> None:
    """Waiting calls for order, slow decodes beside prefills for chunks, evictions for head-room, missed
    objectives for looking ahead; nothing where nothing is wrong, or metrics are another domain's."""
    calm = {
        "replica_wait_share": 0.0,
        "mean_prompt_tokens": 2000.0,
        "prefill_share": 0.98,
        "p90_tpot": 0.05,
        "p50_tpot": 0.05,
        "restarted_fraction": 0.0,
        "p99_ttft": 1.0,
        "p90_ttft": 0.5,
        "kv_use_mean": 0.9,
        "gpu_hours": 10.0,
        "slo_violations": 0.0,
    }
    found: dict[str, list[str]] = {}
    troubles: dict[str, dict[str, float]] = {
        "calm": {},
        "queue": {"replica_wait_share": 0.3},
        "stalls": {"p90_tpot": 0.2},
        "evictions": {"restarted_fraction": 0.2},
        "starving": {"replica_wait_share": 0.3, "p99_ttft": 30.0},
        "idle": {"kv_use_mean": 0.4},
        "missed": {"slo_violations": 0.03},
    }
    ideas = [each for entry in STARTS for each in mechanisms_of(start(entry), entry)]
    for trouble, changed in troubles.items():
        reasons = {each.name: each.called_for(calm | changed) for each in ideas}
        found[trouble] = [name for name, reason in reasons.items() if reason]
        assert all(any(sign.isdigit() for sign in reason) for reason in reasons.values() if reason)
    assert found == {
        "calm": [],
        "queue": ["shortest prefill first"],
        "stalls": ["small chunks beside decodes"],
        "evictions": ["admit with head-room"],
        "starving": ["shortest prefill first", "ageing"],
        "idle": ["size by cache", "size by requests in flight"],
        "missed": ["look ahead", "scale down late"],
    }
    assert not any(each.called_for({"bins_used": 3.0}) for each in ideas)


def test_claims_and_numbers_are_complete() -> None:
    """A claim is one line of a docstring; defaults lie in their ranges; predictions have a direction."""
    for entry in STARTS:
        for mechanism in mechanisms_of(start(entry), entry):
            assert len(mechanism.claim) <= 100
            assert mechanism.claim.endswith(".")
            assert set(mechanism.predicts.values()) <= {-1, 1}
            for name, (low, high) in mechanism.numbers.items():
                assert low <= mechanism.defaults[name] <= high


def test_order_and_chunks_help_where_prompts_are_long() -> None:
    """Code completions get their first token sooner, and their later ones faster, than by vLLM's rule."""
    source = start("Scheduler")
    ideas = {each.name: each for each in mechanisms_of(source, "Scheduler")}
    design: str | None = source
    for name in ("shortest prefill first", "small chunks beside decodes"):
        assert design is not None
        design = ideas[name].apply(design, ideas[name].defaults)
    assert design is not None
    trace = workloads.code_completion(rate=5.0, duration=120, seed=1)
    cluster = Cluster(
        replicas=1, gpu="a100-80g", kv_blocks=28_615, engine="vllm", max_num_batched_tokens=2048
    )
    before, after = (
        cluster.run(trace, router=LeastLoadedQueue(), scheduler=load(text, "Scheduler")).metrics
        for text in (source, design)
    )
    assert after["p90_ttft"] < 0.8 * before["p90_ttft"]
    assert after["mean_tpot"] < 0.9 * before["mean_tpot"]


def test_cache_tells_more_than_a_rate_where_the_mix_changes() -> None:
    """With the same GPU-hours fewer objectives are missed on a day whose mix changes."""
    source = start("Autoscaler")
    ideas = {each.name: each for each in mechanisms_of(source, "Autoscaler")}
    by_cache = ideas["size by cache"].apply(source, {"TARGET_USE": 0.6})
    assert by_cache is not None
    day = workloads.changing_mix(rate=3.0, duration=2400, seed=4)
    cluster = Cluster(
        replicas=4,
        engine="vllm",
        max_num_batched_tokens=2048,
        autoscaling=Autoscaling(max_replicas=24, interval=10, provisioning_time=20, load_time=20),
    )
    rate, cache = (
        cluster.run(day, router=LeastLoadedQueue(), autoscaler=load(text, "Autoscaler")).metrics
        for text in (source, by_cache)
    )
    assert cache["gpu_hours"] < 0.9 * rate["gpu_hours"]
    assert cache["slo_attainment"] > 0.95
