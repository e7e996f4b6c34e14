"""vLLM itself on the CPU, with a small random model: run by an interpreter that has vLLM, to log its steps.

Prints nothing of use: the steps are in the file that GLIA_STEP_LOG names.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
    "torch_dtype": "float32",
}


def main() -> None:
    """Serve 150 requests, arriving in waves, so that steps of all kinds and sizes occur."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                dtype="float32",
                max_model_len=2048,
                block_size=32,
                num_gpu_blocks_override=1024,
                max_num_seqs=32,
                max_num_batched_tokens=512,
                enable_prefix_caching=False,
                enforce_eager=True,
                gpu_memory_utilization=0.2,
                distributed_executor_backend="uni",
                scheduler_cls="gpu_harness.step_log.LoggingScheduler",
            )
        )
        sent = 0
        while sent < 150 or engine.has_unfinished_requests():
            for _ in range(rng.choice([0, 0, 0, 0, 0, 1, 2, 6])):
                if sent < 150:
                    prompt = [
                        rng.randrange(4096) for _ in range(int(rng.lognormvariate(4.8, 1.0)) % 1200 + 2)
                    ]
                    parameters = SamplingParams(
                        max_tokens=rng.randint(2, 120), ignore_eos=True, temperature=0.0, detokenize=False
                    )
                    engine.add_request(str(sent), {"prompt_token_ids": prompt}, parameters)
                    sent += 1
            engine.step()


if __name__ == "__main__":
    main()
