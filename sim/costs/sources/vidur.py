"""Layer times as Vidur and its descendants (Frontier) profile them: mlp.csv, attention.csv, milliseconds.

Of mlp.csv the residual `add` is left out: vLLM fuses it into the norm. attention.csv has one row per
(batch_size, prefill_chunk_size, kv_cache_size, is_prefill).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sim.costs.measured import Attention, Series
from sim.costs.shapes import Model

__all__ = ["PER_LAYER", "read_attention", "read_linear"]

PER_LAYER = (
    "input_layernorm",
    "attn_pre_proj",
    "attn_rope",
    "attn_post_proj",
    "post_attention_layernorm",
    "mlp_up_proj",
    "mlp_act",
    "mlp_down_proj",
)
_MILLI = 1e-3


def read_linear(path: Path, model: Model, tensor_parallel: int = 1) -> Series:
    """Everything but attention and LM head, all layers; medians. ValueError if it is of another model."""
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"Vidur's mlp.csv is not at {str(path)!r}")
    frame = pd.read_csv(path)
    frame = frame[frame["num_tensor_parallel_workers"] == tensor_parallel]
    sizes = {(int(a), int(b)) for a, b in zip(frame["n_embd"], frame["n_expanded_embd"], strict=True)}
    if sizes != {(model.hidden, model.intermediate)}:
        raise ValueError(
            f"{str(path)!r} holds (hidden, intermediate) sizes {sorted(sizes)} for {tensor_parallel} GPUs; "
            f"expected {(model.hidden, model.intermediate)}"
        )
    columns = {name: f"time_stats.{name}.median" for name in (*PER_LAYER, "emb")}
    medians = frame.groupby("num_tokens")[list(columns.values())].mean()
    layer = medians[[columns[name] for name in PER_LAYER]].sum(axis=1).to_numpy(np.float64)
    once = medians[columns["emb"]].to_numpy(np.float64)
    return Series(medians.index.to_numpy(np.float64), (model.layers * layer + once) * _MILLI)


def read_attention(path: Path, model: Model) -> Attention:
    """Attention of all layers, cache write and reshapes included; medians."""
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"Vidur's attention.csv is not at {str(path)!r}")
    frame = pd.read_csv(path)
    operators = (
        "attn_input_reshape",
        "attn_kv_cache_save",
        "attn_prefill",
        "attn_decode",
        "attn_output_reshape",
    )
    time = frame[[f"time_stats.{name}.median" for name in operators]].sum(axis=1).to_numpy(np.float64)
    prefill = frame["is_prefill"].to_numpy(bool)
    batch, chunk, cached = (
        frame[name].to_numpy(np.float64) for name in ("batch_size", "prefill_chunk_size", "kv_cache_size")
    )
    return Attention(
        chunks=np.where(prefill, batch, 0.0),
        chunk=np.where(prefill, chunk, 0.0),
        prefix=np.where(prefill, cached, 0.0),
        decodes=np.where(prefill, 0.0, batch),
        context=np.where(prefill, 0.0, cached),
        seconds=model.layers * time * _MILLI,
    )
