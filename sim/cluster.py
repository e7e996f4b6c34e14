"""The cluster: its settings, checked, and how a workload is run on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sim import costs
from sim.policies import Router
from sim.results import Run, collect
from sim.workloads import Workload

__all__ = ["Cluster", "warm_up"]

_RANGES: dict[str, tuple[float, float, str]] = {
    "replicas": (1, 10_000, "replicas"),
    "kv_blocks": (2, 10**9, "blocks per replica"),
    "block_size": (1, 65_536, "tokens per block"),
    "max_num_seqs": (1, 65_536, "requests per batch"),
    "max_num_batched_tokens": (1, 10**6, "tokens per step"),
    "watermark": (0.0, 0.5, "as a fraction of the blocks"),
    "time_scale": (1e-6, 1e6, "times the profile's GPU time"),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal replicas of one LLM behind a router; ValueError if a setting is out of its range."""

    replicas: int = 4
    gpu: str = "a10"
    """With `model`, names a cost profile of `sim.costs`."""
    model: str = "llama-3-8b"
    kv_blocks: int = 2240
    """KV blocks of each replica."""
    block_size: int = 16
    """Tokens per KV block."""
    max_num_seqs: int = 128
    """Requests in a running batch at most."""
    max_num_batched_tokens: int = 8192
    """Token budget of a step."""
    watermark: float = 0.01
    """Fraction of the blocks that an admission to the batch must leave free."""
    time_scale: float = 1.0
    """Factor on all GPU time, on top of the profile's own: 1.05 is a GPU that takes 5 % longer."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in _RANGES:
                _check(field.name, getattr(self, field.name), whole=field.type == "int")
        costs.profile(self.gpu, self.model)

    @property
    def watermark_blocks(self) -> int:
        """Blocks that an admission must leave free."""
        return int(self.watermark * self.kv_blocks)

    def run(self, workload: Workload, router: Router) -> Run:
        """Run the workload to its end under a router (see `sim.policies`).

        Raises PolicyError, showing the call, if the router breaks its protocol, raises, or holds requests for
        ever; ValueError if a request can never fit into a replica's KV cache.
        """
        from sim.routing import (  # imports Numba, which a client of the types need not have
            columns_to_lists,
            converse,
        )
        from sim.state import new_state

        self._check_fit(workload)
        profile = costs.profile(self.gpu, self.model)
        state = new_state(
            workload.arrival,
            workload.prompt_tokens,
            workload.output_tokens,
            replicas=self.replicas,
            limits=(
                self.kv_blocks,
                self.block_size,
                self.max_num_seqs,
                self.max_num_batched_tokens,
                self.watermark_blocks,
            ),
            linear=profile.linear_table(self.max_num_batched_tokens, self.time_scale),
            rates=profile.rates(self.time_scale),
        )
        calls, longest = converse(state, router, *columns_to_lists(workload.priority, workload.session))
        alone = profile.alone(
            workload.prompt_tokens, workload.output_tokens, self.max_num_batched_tokens, self.time_scale
        )
        return collect(state, alone=alone, router_calls=calls, queue_max=longest)

    def _check_fit(self, workload: Workload) -> None:
        """A request must fit alone, also when it restarts just before its last token (which is never
        cached)."""
        blocks = -(-(workload.prompt_tokens + workload.output_tokens - 1) // self.block_size)
        room = self.kv_blocks - self.watermark_blocks
        if len(blocks) and blocks.max() > room:
            row = int(np.argmax(blocks > room))
            raise ValueError(
                f"request {row} can never run: its {workload.prompt_tokens[row]} prompt and "
                f"{workload.output_tokens[row]} output tokens take {blocks[row]} KV blocks of "
                f"{self.block_size} tokens, and a replica has {room} ({self.kv_blocks} less a watermark of "
                f"{self.watermark_blocks}); shorten the request or raise kv_blocks"
            )


def _check(name: str, value: Any, *, whole: bool) -> None:
    low, high, unit = _RANGES[name]
    kind = "a whole number" if whole else "a number"
    types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if (
        isinstance(value, bool)
        or not isinstance(value, types)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise ValueError(f"{name}={value!r}; expected {kind} from {low:g} to {high:g} {unit}")


def warm_up() -> None:
    """Compile the simulator's core, or load it from the disk cache, so that no later run has to."""
    from sim.baselines import RoundRobin

    Cluster(replicas=1).run(
        Workload.from_arrays(arrival=[0.0], prompt_tokens=[1], output_tokens=[2]), RoundRobin()
    )
