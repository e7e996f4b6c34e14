"""Kernel times that LLMServingSim's profiler takes of vLLM, layer by layer: a folder of CSV files.

dense.csv (layer, tokens, time_us), per_sequence.csv (layer, sequences, time_us), attention.csv
(prefill_chunk, kv_prefill, n_decode, kv_decode, time_us) and, if there, skew.csv (n decodes of which nb have
kv_big tokens and the others kvs; t_mean_us with kv_mean tokens for all, t_skew_us as they are).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.costs.measured import Attention, Measurements, Series, Skew
from sim.costs.shapes import Model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ONCE", "PER_LAYER", "read"]

PER_LAYER = {
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
"""Kernels of a layer and how often they run."""
ONCE = ("embedding", "final_layernorm")

_MICRO = 1e-6


def read(folder: Path, model: Model) -> Measurements:
    """The measurements in that folder; FileNotFoundError or ValueError naming what is missing."""
    import pandas as pd

    frames: dict[str, pd.DataFrame] = {}
    for name in ("dense", "per_sequence", "attention", "skew"):
        path = folder / f"{name}.csv"
        if path.is_file():
            frames[name] = pd.read_csv(path)
        elif name != "skew":
            raise FileNotFoundError(f"LLMServingSim's {name}.csv is not at {str(path)!r}")
    dense = frames["dense"].pivot(index="tokens", columns="layer", values="time_us")
    missing = [layer for layer in (*PER_LAYER, *ONCE) if layer not in dense]
    if missing:
        raise ValueError(f"{str(folder / 'dense.csv')!r} has no rows for the layers {', '.join(missing)}")
    counts = {layer: model.layers * times for layer, times in PER_LAYER.items()} | dict.fromkeys(ONCE, 1)
    linear = np.sum([count * dense[layer].to_numpy(np.float64) for layer, count in counts.items()], axis=0)
    head = frames["per_sequence"].groupby("sequences")["time_us"].sum()
    return Measurements(
        source=f"LLMServingSim profile {'/'.join(folder.parts[-5:])}",
        linear=Series(dense.index.to_numpy(np.float64), linear * _MICRO),
        head=Series(head.index.to_numpy(np.float64), head.to_numpy(np.float64) * _MICRO),
        attention=_attention(frames["attention"], model),
        skew=_skew(frames["skew"]) if "skew" in frames else None,
        basis=dict.fromkeys(("linear", "elementwise", "head", "sampler"), "measured"),
    )


def _attention(frame: pd.DataFrame, model: Model) -> Attention:
    chunk, prefix, decodes, context, time = (
        frame[name].to_numpy(np.float64)
        for name in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    )
    return Attention(
        np.where(chunk > 0, 1.0, 0.0), chunk, prefix, decodes, context, model.layers * time * _MICRO
    )


def _skew(frame: pd.DataFrame) -> Skew:
    chunk, prefix, decodes, mean = (frame[name].to_numpy(np.float64) for name in ("pc", "kp", "n", "kv_mean"))
    steps = Attention(np.where(chunk > 0, 1.0, 0.0), chunk, prefix, decodes, mean, np.zeros(len(frame)))
    return Skew(
        steps,
        frame["kv_big"].to_numpy(np.float64) - mean,
        (frame["t_skew_us"] / frame["t_mean_us"]).to_numpy(np.float64),
    )
