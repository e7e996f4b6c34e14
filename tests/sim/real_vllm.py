"""vLLM's own scheduler, driven without a model: run by an interpreter that has vLLM, scenarios in, times out.

Reads a JSON list of scenarios from the standard input, each of one replica, and prints a JSON list with
[first token, finish, preemptions] of each request. A private API, as of vLLM 0.32.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "torch_dtype": "float32",
}


def make_scheduler(scenario: dict[str, Any], model: str) -> Any:
    """A `Scheduler` with these settings over an empty cache."""
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    size = scenario["block_size"]
    config = VllmConfig(
        model_config=ModelConfig(model=model, dtype="float32", skip_tokenizer_init=True),
        scheduler_config=SchedulerConfig(
            max_num_seqs=scenario["max_num_seqs"],
            max_num_batched_tokens=scenario["max_num_batched_tokens"],
            max_model_len=32768,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            policy=scenario["scheduling_policy"],
            async_scheduling=False,
            scheduler_reserve_full_isl=scenario["full_prompt_must_fit"],
            watermark=scenario["watermark"],
        ),
        cache_config=CacheConfig(block_size=size, enable_prefix_caching=scenario["prefix_caching"]),
    )
    config.cache_config.num_gpu_blocks = scenario["kv_blocks"]
    spec = FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=16, dtype=torch.float32)
    cache = KVCacheConfig(
        num_blocks=scenario["kv_blocks"],
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
    )
    return Scheduler(
        vllm_config=config,
        kv_cache_config=cache,
        block_size=size,
        hash_block_size=size,
        structured_output_manager=StructuredOutputManager(config),
    )


def make_request(scenario: dict[str, Any], index: int) -> Any:
    """A request whose tokens are equal to another's where their hashes are."""
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    parameters = SamplingParams(max_tokens=scenario["output_tokens"][index], ignore_eos=True)
    prompt = [token_at(scenario, index, place) for place in range(scenario["prompt_tokens"][index])]
    return Request(
        request_id=str(index),
        prompt_token_ids=prompt,
        sampling_params=parameters,
        pooling_params=None,
        arrival_time=float(index),  # ties in time are in order of arrival
        priority=scenario["priority"][index],
        block_hasher=get_request_block_hasher(scenario["block_size"], sha256),
    )


def token_at(scenario: dict[str, Any], index: int, place: int) -> int:
    """The token at that place: by its block's hash, or the request's own."""
    row, block = scenario["hashes"][index], place // scenario["block_size"]
    return int(10 + row[block]) if block < len(row) else 1_000_000 + index


def play(scenario: dict[str, Any], model: str) -> list[list[float]]:
    """The run of one replica to which every request goes at once."""
    from vllm.v1.outputs import ModelRunnerOutput

    scheduler = make_scheduler(scenario, model)
    arrival, outputs = scenario["arrival"], scenario["output_tokens"]
    linear, (decode, half_pair, step) = scenario["linear"], scenario["rates"]
    requests = [make_request(scenario, index) for index in range(len(arrival))]
    times = [[0.0, 0.0, 0.0] for _ in arrival]
    made = [0] * len(arrival)
    to_prefill = list(scenario["prompt_tokens"])
    now, arrived, finished = 0.0, 0, 0
    while finished < len(arrival):
        while arrived < len(arrival) and arrival[arrived] <= now:
            scheduler.add_request(requests[arrived])
            arrived += 1
        before = {index: requests[index].num_preemptions for index in range(arrived)}
        plan = scheduler.schedule()
        for index, count in before.items():
            if requests[index].num_preemptions > count:
                to_prefill[index] = scenario["prompt_tokens"][index] + made[index]
        if plan.total_num_scheduled_tokens == 0:
            preempted = any(requests[index].num_preemptions > count for index, count in before.items())
            if not preempted:
                now = arrival[arrived]
            continue
        context = pairs = 0
        ids, sampled = [], []
        for name, chunk in plan.num_scheduled_tokens.items():
            index = int(name)
            computed = requests[index].num_computed_tokens - chunk
            if computed >= to_prefill[index]:
                context += computed + 1
            else:
                pairs += chunk * (2 * computed + chunk + 1)
            ids.append(name)
            ends = computed + chunk >= scenario["prompt_tokens"][index] + made[index]
            sampled.append([token_at(scenario, index, computed + chunk)] if ends else [])
        now += linear[plan.total_num_scheduled_tokens] + step + context * decode + pairs * half_pair
        scheduler.update_from_output(
            plan,
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={name: place for place, name in enumerate(ids)},
                sampled_token_ids=sampled,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )
        for name, tokens in zip(ids, sampled, strict=True):
            index = int(name)
            if tokens:
                made[index] += 1
                times[index][0] = times[index][0] or now
                if made[index] == outputs[index]:
                    times[index][1] = now
                    finished += 1
    for index, request in enumerate(requests):
        times[index][2] = float(request.num_preemptions)
    return times


def main() -> None:
    """Play all scenarios."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        played = [play(scenario, folder) for scenario in json.load(sys.stdin)]
    print(json.dumps(played))


if __name__ == "__main__":
    main()
