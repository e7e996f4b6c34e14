"""vLLM itself on the CPU, with a small random model, in a process of its own: prints what each step computed.

    python real_engine.py KV_BLOCKS [SCHEDULER_CLASS]

The last line is a JSON object: `steps`, a list of each step's [request, tokens] pairs, `preemptions`, and of
a scheduler that has them its `fallbacks` and `steps_planned`.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

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


def make_engine(folder: str, blocks: int, scheduler: str | None) -> Any:
    """An engine with so many KV blocks of 32 tokens."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    (Path(folder) / "config.json").write_text(json.dumps(MODEL))
    return LLMEngine.from_engine_args(
        EngineArgs(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="float32",
            max_model_len=1500,
            block_size=32,
            num_gpu_blocks_override=blocks,
            max_num_seqs=32,
            max_num_batched_tokens=512,
            enforce_eager=True,
            gpu_memory_utilization=0.2,
            distributed_executor_backend="uni",
            async_scheduling=False,
            scheduler_cls=scheduler,
        )
    )


def main() -> None:
    """Serve 150 requests, arriving in waves, so that steps of all kinds and sizes occur."""
    blocks, scheduler = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    rng, steps, requests = random.Random(0), list[Any](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(folder, blocks, scheduler)
        from vllm import SamplingParams

        real = engine.engine_core.engine_core.scheduler
        schedule = real.schedule

        def traced(*arguments: Any, **settings: Any) -> Any:
            requests.update(real.requests)
            output = schedule(*arguments, **settings)
            steps.append([[name.partition("-")[0], n] for name, n in output.num_scheduled_tokens.items()])
            return output

        real.schedule = traced
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
    preemptions = sum(request.num_preemptions for request in requests.values())
    told = {name: getattr(real, name, None) for name in ("fallbacks", "steps_planned")}
    print(json.dumps({"steps": steps, "preemptions": preemptions, **told}))


if __name__ == "__main__":
    main()
