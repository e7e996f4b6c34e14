"""vLLM's own scheduler and block pool without a model: it decides, and each token is there at once.

Written for vLLM 0.32, whose `Scheduler` is no public interface. Nothing of the GPU is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_harness.installed import vllm_version
from sim import Cluster, Workload
from sim.stepping import Share, Step

__all__ = ["Modelless"]

LONGEST = 32_768
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32000,
    "max_position_embeddings": LONGEST,
    "torch_dtype": "float32",
}
"""A configuration for vLLM to read; no weights belong to it."""

OWN = 1_000_000
"""Token `OWN + request` fills what a request shares with nobody; those below are of shared blocks."""


class Modelless:
    """One replica of a cluster as vLLM schedules it; the same calls as `sim.stepping.Stepper`.

    `folder` is for the model's configuration. `max_model_len` in tokens ends longer requests early.
    `scheduler` is the class to drive, of vLLM's signature; None for vLLM's own. ImportError if vLLM is not
    installed.
    """

    def __init__(
        self,
        cluster: Cluster,
        workload: Workload,
        folder: Path,
        *,
        max_model_len: int = LONGEST,
        scheduler: Callable[..., Any] | None = None,
    ) -> None:
        vllm_version()
        self._workload, self._size = workload, cluster.block_size
        self._caching = cluster.caches_prefixes
        self._rows = _hashes(workload, self._size)
        self.scheduler = _scheduler(cluster, folder, max_model_len, scheduler)
        self._requests: dict[str, Any] = {}
        self._output: Any = None

    def arrive(self, request: int) -> None:
        """Put a request into the replica's queue."""
        made = self._requests[str(request)] = self._make(request)
        self.scheduler.add_request(made)

    def start(self) -> int:
        """Form the next batch; how many tokens are in it."""
        self._output = self.scheduler.schedule()
        return int(self._output.total_num_scheduled_tokens)

    def end(self) -> tuple[int, ...]:
        """Hand the scheduler the tokens of the step; the requests that completed in it."""
        from vllm.v1.outputs import ModelRunnerOutput

        names, sampled = list(self._output.num_scheduled_tokens), []
        for name in names:
            request = self._requests[name]
            ends = request.num_computed_tokens == request.num_tokens
            sampled.append([self._token(int(name), request.num_tokens)] if ends else [])
        self.scheduler.update_from_output(
            self._output,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: place for place, name in enumerate(names)},
                sampled_token_ids=sampled,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )
        completed = [name for name in names if self._requests[name].is_finished()]
        for name in completed:
            del self._requests[name]
        return tuple(map(int, completed))

    @property
    def step(self) -> Step:
        """What the last call of `start` decided."""
        scheduler, tokens = self.scheduler, self._output.num_scheduled_tokens
        pool = scheduler.kv_cache_manager.block_pool
        return Step(
            tuple(self._share(request, tokens.get(request.request_id, 0)) for request in scheduler.running),
            tuple(int(request.request_id) for request in scheduler.waiting),
            pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
        )

    def _share(self, request: Any, tokens: int) -> Share:
        blocks = self.scheduler.kv_cache_manager.get_blocks(request.request_id).blocks[0]
        return Share(
            int(request.request_id),
            tokens,
            request.num_computed_tokens - tokens,  # vLLM has already counted the step's
            tuple(block.block_id for block in blocks) if self._caching else (0,) * len(blocks),
            request.num_preemptions,
        )

    def _make(self, index: int) -> Any:
        from vllm.sampling_params import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.request import Request

        init_none_hash(sha256)
        outputs, prompts, priority = (
            self._workload.output_tokens,
            self._workload.prompt_tokens,
            self._workload.priority,
        )
        return Request(
            request_id=str(index),
            prompt_token_ids=[self._token(index, place) for place in range(int(prompts[index]))],
            sampling_params=SamplingParams(max_tokens=int(outputs[index]), ignore_eos=True),
            pooling_params=None,
            arrival_time=float(index),  # so that ties in time stay in order of arrival
            priority=0 if priority is None else int(priority[index]),
            block_hasher=get_request_block_hasher(self._size, sha256),
        )

    def _token(self, index: int, place: int) -> int:
        """The token at that place of a request: equal to another's where their blocks' hashes are."""
        row, block = self._rows[index], place // self._size
        return row[block] if block < len(row) else OWN + index


def _hashes(workload: Workload, size: int) -> list[list[int]]:
    """Of each request a number for each of its shared blocks, which says what is in it; from 10 on."""
    if workload.prefixes is None:
        return [[] for _ in range(len(workload))]
    starts, hashes = workload.prefixes.in_blocks(size)
    known: dict[int, int] = {}
    numbers = [known.setdefault(each, 10 + len(known)) for each in hashes.tolist()]
    if len(known) > OWN - 10:
        raise ValueError(f"the workload shares {len(known)} different blocks; expected at most {OWN - 10}")
    return [numbers[begin:end] for begin, end in pairwise(starts)]


def _scheduler(cluster: Cluster, folder: Path, max_model_len: int, kind: Callable[..., Any] | None) -> Any:
    """A scheduler with the cluster's settings over an empty cache."""
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    (folder / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
    size, blocks = cluster.block_size, cluster.kv_blocks
    config = VllmConfig(
        model_config=ModelConfig(
            model=str(folder), dtype="float32", skip_tokenizer_init=True, max_model_len=max_model_len
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=cluster.max_num_seqs,
            max_num_batched_tokens=cluster.max_num_batched_tokens,
            max_model_len=max_model_len,
            enable_chunked_prefill=cluster.chunked_prefill,
            long_prefill_token_threshold=cluster.long_prefill_token_threshold,
            is_encoder_decoder=False,
            policy=cluster.scheduling_policy,
            async_scheduling=False,
            scheduler_reserve_full_isl=cluster.full_prompt_must_fit,
            watermark=cluster.watermark or 0.0,
        ),
        cache_config=CacheConfig(block_size=size, enable_prefix_caching=cluster.caches_prefixes),
    )
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=16, dtype=torch.float32)
    cache = KVCacheConfig(
        num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    )
    return (kind or Scheduler)(
        vllm_config=config,
        kv_cache_config=cache,
        block_size=size,
        hash_block_size=size,
        structured_output_manager=StructuredOutputManager(config),
    )
