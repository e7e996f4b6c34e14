"""The referee: the simulator's vLLM engine and vLLM's own scheduler side by side, step by step.

    python -m gpu_harness.referee --steps 100000 --configurations 200

Both get the same requests before the same steps; a step takes the time that the simulator says. Whatever a
step decides must be equal: who runs, in which order, how many tokens each computes and how many it held, its
blocks (with prefix caching their very numbers), how often each was preempted, and the order of the queue.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpu_harness.modelless import LONGEST, Modelless
from sim import Cluster, Prefixes, Workload
from sim.baselines import RoundRobin
from sim.scheduling import BatchScheduler
from sim.stepping import Step, Stepper

__all__ = ["Difference", "Match", "Scenario", "play", "random_scenario"]


@dataclass(frozen=True, eq=False)
class Scenario:
    """One replica, and the requests that come to it."""

    cluster: Cluster
    workload: Workload
    max_model_len: int = LONGEST
    """vLLM's, in tokens: a request that reaches it has finished."""

    def __post_init__(self) -> None:
        longest = int(self.workload.prompt_tokens.max(initial=0))
        if longest >= self.max_model_len:
            raise ValueError(
                f"max_model_len={self.max_model_len!r} with a prompt of {longest} tokens; expected more, or "
                "vLLM's server refuses it"
            )
        room = (self.cluster.kv_blocks - 1) * self.cluster.block_size
        most = int((self.served.prompt_tokens + self.served.output_tokens - 1).max(initial=0))
        if most > room:
            raise ValueError(
                f"kv_blocks={self.cluster.kv_blocks!r} of {self.cluster.block_size} tokens hold {room} "
                f"with a request of {most}; expected that each fits alone"
            )

    @property
    def served(self) -> Workload:
        """The workload for the simulator, which knows no `max_model_len`: outputs end where it is reached."""
        room = self.max_model_len - self.workload.prompt_tokens
        return replace(self.workload, output_tokens=np.minimum(self.workload.output_tokens, room))


class Match(NamedTuple):
    """A scenario in which both agreed."""

    steps: int
    preemptions: int
    cached_tokens: int
    """Found in the prefix cache, over all admissions."""


class Difference(AssertionError):
    """The simulator and vLLM did not decide alike: the step, and what each decided."""

    def __init__(self, number: int, ours: object, theirs: object) -> None:
        super().__init__(f"step {number}: the simulator has {ours!r}, vLLM has {theirs!r}")
        self.number, self.ours, self.theirs = number, ours, theirs


def play(
    scenario: Scenario,
    *,
    ours: Callable[[], BatchScheduler] | None = None,
    theirs: Callable[..., Any] | None = None,
) -> Match:
    """Run a scenario to its end on both; Difference where they first differ.

    `ours` makes the batch scheduler of the simulator, `theirs` is the class of vLLM's scheduler (see
    `Modelless`). The whole run of the simulator's event loop must have the times of the steps, too.
    """
    served = scenario.served
    stepper = Stepper(scenario.cluster, served, None if ours is None else ours())
    with tempfile.TemporaryDirectory() as folder:
        vllm = Modelless(
            scenario.cluster,
            scenario.workload,
            Path(folder),
            max_model_len=scenario.max_model_len,
            scheduler=theirs,
        )
        steps = _alternate(stepper, vllm, served.arrival.tolist())
    run = scenario.cluster.run(served, RoundRobin(), None if ours is None else ours()).requests
    for name, times in stepper.times.items():
        if run[name].tolist() != times:
            raise Difference(steps, f"{name} {run[name].tolist()} in its event loop", f"{times} in its steps")
    return Match(steps, stepper.preemptions, stepper.cached_tokens)


def _alternate(stepper: Stepper, vllm: Modelless, arrival: list[float]) -> int:
    """Step both until every request has completed; how many steps it took."""
    now, arrived, completed, steps = 0.0, 0, 0, 0
    while completed < len(arrival):
        while arrived < len(arrival) and arrival[arrived] <= now:
            stepper.arrive(arrived, now)
            vllm.arrive(arrived)
            arrived += 1
        if arrived == completed:
            now = arrival[arrived]
            continue
        before = stepper.preemptions
        seconds, tokens = stepper.start(now), vllm.start()
        steps += 1
        _compare(steps, stepper.step, vllm.step)
        if (seconds < 0) != (tokens == 0):
            raise Difference(steps, f"a step of {seconds} s", f"one of {tokens} tokens")
        if tokens == 0:
            if stepper.preemptions == before:  # else the batch is formed again at once
                if arrived == len(arrival):
                    raise Difference(steps, f"{len(arrival) - completed} requests left", "nothing to compute")
                now = arrival[arrived]
            continue
        now += seconds
        ours, theirs = stepper.end(now), vllm.end()
        if ours != theirs:
            raise Difference(steps, f"completed {ours}", f"completed {theirs}")
        completed += len(ours)
    return steps


def _compare(number: int, ours: Step, theirs: Step) -> None:
    if ours == theirs:
        return
    for one, other in zip(ours.running, theirs.running, strict=False):
        if one != other:
            raise Difference(number, one, other)
    raise Difference(number, ours, theirs)


def random_scenario(seed: int) -> Scenario:
    """One replica with hardly any cache, in any setting, and requests in bursts that share prefixes."""
    rng = np.random.default_rng(seed)
    block_size = int(rng.choice([1, 2, 4, 16, 32]))
    longest_prompt, longest_output = [(3, 40), (20, 20), (60, 3), (30, 60), (200, 30)][rng.integers(5)]
    count = int(rng.integers(5, 50))
    gaps = rng.exponential(rng.choice([0.001, 0.01, 0.1, 2.0]), count)
    gaps[rng.random(count) < 0.3] = 0.0
    prompts = rng.integers(1, longest_prompt + 1, count)
    outputs = rng.integers(1, longest_output + 1, count)
    longest = int((prompts + outputs).max())
    cut = int(rng.integers(prompts.max() + 1, longest + 1))
    max_model_len = int(rng.choice([longest, cut, 2 * longest]))
    blocks, watermark = -(-longest // block_size), float(rng.choice([0.0, 0.0, 0.1]))
    chunked, max_num_seqs = bool(rng.random() < 0.75), int(rng.choice([1, 3, 8, 32]))
    budget = max(int(rng.choice([1, 8, 34, 64, 512])), max_num_seqs, 1 if chunked else max_model_len)
    cluster = Cluster(
        replicas=1,
        engine="vllm",
        kv_blocks=blocks + int(rng.integers(1, 10)) + int(watermark * blocks),
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        watermark=watermark,
        scheduling_policy=str(rng.choice(["fcfs", "priority"])),
        prefix_caching=bool(rng.integers(2)),
        full_prompt_must_fit=bool(rng.integers(2)),
        chunked_prefill=chunked,
        long_prefill_token_threshold=min(int(rng.choice([0, 0, 1, 5, 16])), max_model_len),
    )
    session = rng.integers(-1, 1 + count // 6, count)
    tokens = np.minimum(prompts + outputs, max_model_len)
    shared = (tokens * rng.random(count) ** 0.5).astype(int) // block_size
    reach = longest // block_size + 1
    rows: list[Any] = [
        one * reach + np.arange(many if one >= 0 else 0) for one, many in zip(session, shared, strict=True)
    ]
    workload = Workload.from_arrays(
        arrival=np.cumsum(gaps),
        prompt_tokens=prompts,
        output_tokens=outputs,
        priority=rng.integers(0, 3, count),
        prefixes=Prefixes.from_rows(rows, block_size),
    )
    return Scenario(cluster, workload, max_model_len)


def main() -> None:
    """Play random scenarios until there are enough steps and configurations; exit 1 if any differs."""
    parser = argparse.ArgumentParser(prog="python -m gpu_harness.referee", description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="play at least so many (100000)")
    parser.add_argument("--configurations", type=int, default=200, help="play at least so many (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first scenario (0)")
    options = parser.parse_args()
    logging.getLogger("vllm").setLevel(logging.ERROR)  # it warns of settings as small as these
    began, matches, differences = time.perf_counter(), [Match(0, 0, 0)][:0], 0
    seed = options.seed
    while (
        len(matches) + differences < options.configurations or sum(m.steps for m in matches) < options.steps
    ):
        try:
            matches.append(play(random_scenario(seed)))
        except Difference as difference:
            differences += 1
            print(f"seed {seed}: {difference}")
        seed += 1
    seconds, steps = time.perf_counter() - began, sum(match.steps for match in matches)
    preempted, found = (sum(match[column] > 0 for match in matches) for column in (1, 2))
    print(
        f"{steps} steps of {len(matches)} configurations equal, {differences} different, in {seconds:.0f} s "
        f"({steps / seconds:.0f} steps/s); {preempted} with preemptions "
        f"({sum(match.preemptions for match in matches)}), {found} with cache hits"
    )
    raise SystemExit(differences > 0)


if __name__ == "__main__":
    main()
