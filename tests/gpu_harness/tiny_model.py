"""A model folder for real servers in tests: a small Llama with random weights, and a tokenizer of words."""

from __future__ import annotations

import json
import sys
from pathlib import Path

VOCABULARY = 2048
LAUNCH = ("--load-format", "dummy", "--dtype", "float32", "--gpu-memory-utilization", "0.2")
"""What vLLM needs to know of it."""


def make_model(folder: Path, *, hidden: int = 128, layers: int = 2) -> Path:
    """Write the model's files (vLLM makes the weights up); its size grows with layers x hidden^2."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "eos_token": "w2"}
    for name, content in {
        "config.json": config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": named,
    }.items():
        (folder / name).write_text(json.dumps(content))
    return folder


if __name__ == "__main__":  # python -m tests.gpu_harness.tiny_model FOLDER HIDDEN LAYERS
    make_model(Path(sys.argv[1]), hidden=int(sys.argv[2]), layers=int(sys.argv[3]))
