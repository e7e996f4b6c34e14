"""Measured vLLM runs: their configuration, their workload, and what became of each request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim import costs
from sim.costs import Profile
from sim.costs.shapes import kv_blocks
from sim.vllm_steps import Settings

__all__ = ["Case", "Times", "read_cases"]

Floats = NDArray[np.float64]

RUNS, TRACES = Path("ground_truth"), Path("traces")
GPUS = {
    "RTX4090": "rtx-4090",
    "RTXPRO6000": "rtx-pro-6000",
    "A10": "a10",
    "A100": "a100-80g",
    "H100": "h100",
    "H200": "h200",
}
"""Our names of the GPUs, by the runs' folder names."""


class Times(NamedTuple):
    """What a client sees of each request, in seconds."""

    ttft: Floats
    """Arrival to first token."""
    tpot: Floats
    """Mean time between tokens; NaN for one token."""
    response: Floats
    """Arrival to last token."""

    @classmethod
    def of(cls, arrival: Floats, first: Floats, last: Floats, output_tokens: NDArray[np.int64]) -> Times:
        """From moments on one clock."""
        gaps = np.where(output_tokens > 1, output_tokens - 1, np.nan)
        return cls(first - arrival, (last - first) / gaps, last - arrival)


@dataclass(frozen=True, eq=False)
class Case:
    """A run of one vLLM server and what simulating it takes."""

    name: str
    profile: Profile
    settings: Settings
    assumed: tuple[str, ...]
    """Settings that the run's meta.json does not report, and where they are from."""
    arrival: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    prefix_keys: Sequence[Sequence[Hashable]]
    measured: Times


def read_cases(data: Path) -> tuple[list[Case], list[str]]:
    """The runs below `data`/ground_truth that can be simulated, and one sentence on each that cannot.

    FileNotFoundError if there are none.
    """
    folders = sorted(path.parent.parent for path in (data / RUNS).glob("*/vllm/meta.json"))
    if not folders:
        raise FileNotFoundError(
            f"no measured runs at {str(data / RUNS)!r}; give the folder that holds ground_truth/ and traces/ "
            "with --data (they are in github.com/casys-kaist/LLMServingSim)"
        )
    cases, refused = [], []
    for folder in folders:
        try:
            cases.append(_case(folder, data))
        except ValueError as error:
            refused.append(f"{folder.name}: {error}")
    return cases, refused


def _case(folder: Path, data: Path) -> Case:
    meta = json.loads((folder / "vllm" / "meta.json").read_text(encoding="utf-8"))
    engine = meta["engine_kwargs"]
    if engine["data_parallel_size"] != 1:
        raise ValueError(f"data_parallel_size={engine['data_parallel_size']!r}: experts shared among servers")
    gpu = GPUS.get(folder.name.split("__")[0], folder.name.split("__")[0].lower())
    model = meta["model"].split("/")[-1].lower()
    profile = costs.profile(gpu, model, engine["tensor_parallel_size"])
    settings, assumed = _settings(meta, profile)
    rows = _lines(folder / "vllm" / "requests.jsonl")
    path = data / TRACES / Path(meta["dataset_path"]).name
    if not path.is_file():
        raise FileNotFoundError(f"the run's workload is not at {str(path)!r}")
    trace = _lines(path)
    if [row["input_toks"] for row in rows] != [row["input_toks"] for row in trace]:
        raise ValueError(f"its requests are not those of {path.name!r}")
    output = np.array([row["output_toks"] for row in rows])
    queued, sent, first, last = (
        np.array([row[name] for row in rows])
        for name in ("queued_ts", "arrival_time", "first_token_ts", "last_token_ts")
    )
    arrival = sent + (queued - sent).min()  # two clocks; no request is queued before it arrives
    return Case(
        name=folder.name,
        profile=profile,
        settings=settings,
        assumed=assumed,
        arrival=np.array([row["arrival_time_ns"] for row in trace]) / 1e9,
        prompt_tokens=np.array([row["input_toks"] for row in rows]),
        output_tokens=output,
        prefix_keys=[_keys(row["input_tok_ids"], settings.block_size) for row in trace],
        measured=Times.of(arrival, first, last, output),
    )


def _settings(meta: dict[str, Any], profile: Profile) -> tuple[Settings, tuple[str, ...]]:
    """The engine's configuration, as far as reported, else vLLM 0.19's defaults."""
    engine, cache = meta["engine_kwargs"], meta.get("kv_cache", {})
    scheduler = meta.get("resolved_config", {}).get("scheduler_config", {})
    assumed = []
    blocks = cache.get("num_gpu_blocks")
    if blocks is None:
        blocks = kv_blocks(profile.gpu, profile.model, tensor_parallel=profile.tensor_parallel)
        assumed.append(f"{blocks:,} KV blocks from the GPU's memory")
    for name in ("async_scheduling", "enable_prefix_caching"):
        if name not in {**scheduler, **cache}:
            assumed.append(f"{name}, vLLM's default")
    return (
        Settings(
            kv_blocks=blocks,
            block_size=cache.get("block_size", 16),
            max_num_seqs=engine["max_num_seqs"],
            max_num_batched_tokens=engine["max_num_batched_tokens"],
            async_scheduling=scheduler.get("async_scheduling", True),
            enable_prefix_caching=cache.get("enable_prefix_caching", True),
        ),
        tuple(assumed),
    )


def _keys(tokens: Sequence[int], block_size: int) -> list[bytes]:
    """The content of each full block: a hash of all tokens up to its end."""
    digest = hashlib.sha256()
    keys = []
    for end in range(block_size, len(tokens) + 1, block_size):
        digest.update(np.asarray(tokens[end - block_size : end], np.int64).tobytes())
        keys.append(digest.digest())
    return keys


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
