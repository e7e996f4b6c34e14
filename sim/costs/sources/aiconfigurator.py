"""Operator times that NVIDIA's aiconfigurator collects: parquet tables of one system, in milliseconds.

gemm/vllm/*/gemm_perf.parquet (m, n, k), attention/vllm/*/{context,generation}_attention_perf.parquet and
comm/nccl/*/nccl_perf.parquet (message_size in elements). Sizes between those measured are interpolated.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.costs.measured import Attention, Series
from sim.costs.shapes import Model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_all_reduces", "read_attention", "read_head", "read_products"]

Floats = NDArray[np.float64]

_MILLI = 1e-3
MOST_REQUESTS = 512
"""Requests in a step up to which tables are used."""
MOST_TOKENS = 8192


def read_products(folder: Path, model: Model, tensor_parallel: int = 1) -> Series:
    """The matrix products of all layers on one of the GPUs, by tokens."""
    table = _products(folder)
    each = [_product(table, *sizes) for sizes in model.products(tensor_parallel).values()]
    at = np.array(sorted(set.intersection(*(set(one.at) for one in each))))
    at = at[at <= MOST_TOKENS]
    return Series(at, model.layers * np.sum([one(at) for one in each], axis=0))


def read_head(folder: Path, model: Model, tensor_parallel: int = 1) -> Series:
    """The LM head's product, by requests; in proportion to the widest one measured if that is narrower."""
    outputs = model.vocabulary // tensor_parallel
    table = _products(folder)
    widest = int(table.loc[table["k"] == model.hidden, "n"].max())
    of = _product(table, min(outputs, widest), model.hidden)
    chosen = of.at <= MOST_REQUESTS
    return Series(of.at[chosen], of.seconds[chosen] * max(1.0, outputs / widest))


def read_attention(folder: Path, model: Model, tensor_parallel: int = 1) -> Attention:
    """Attention of all layers on one of the GPUs: prompts without prefix, and decodes; no steps with both."""
    heads, kv_heads = model.heads // tensor_parallel, max(1, model.kv_heads // tensor_parallel)
    context = _of_shape(
        _table(folder, "attention/vllm/*/context_attention_perf.parquet"), model, heads, kv_heads
    )
    decode = _of_shape(
        _table(folder, "attention/vllm/*/generation_attention_perf.parquet"), model, heads, kv_heads
    )
    context = context[context["batch_size"] * context["isl"] <= MOST_TOKENS]
    context = context[context["isl"] > 1]
    decode = decode[decode["batch_size"] <= MOST_REQUESTS]
    none, zero = np.zeros(len(context)), np.zeros(len(decode))
    latency = np.concatenate([_floats(context, "latency"), _floats(decode, "latency")])
    return Attention(
        chunks=np.concatenate([_floats(context, "batch_size"), zero]),
        chunk=np.concatenate([_floats(context, "isl"), zero]),
        prefix=np.concatenate([none, zero]),
        decodes=np.concatenate([none, _floats(decode, "batch_size")]),
        context=np.concatenate([none, _floats(decode, "step") + 1]),
        seconds=model.layers * latency * _MILLI,
    )


def read_all_reduces(folder: Path, model: Model, tensor_parallel: int) -> Series:
    """Two all-reduces of the hidden states per layer, by tokens; NCCL's, the newest version measured.

    vLLM's own all-reduce is faster for small messages, so small batches are rather slower here than there.
    """
    table = _table(folder, "comm/nccl/*/nccl_perf.parquet", op_name="all_reduce")
    table = table[(table["nccl_dtype"] == "half") & (table["num_gpus"] == tensor_parallel)]
    if table.empty:
        raise ValueError(f"{str(folder)!r} has no all-reduce of half precision among {tensor_parallel} GPUs")
    medians = table.groupby("message_size")["latency"].median()
    tokens = medians.index.to_numpy(np.float64) / model.hidden
    small = (tokens >= 1) & (tokens <= 2 * MOST_TOKENS)
    return Series(tokens[small], 2 * model.layers * medians.to_numpy(np.float64)[small] * _MILLI)


def _table(folder: Path, pattern: str, **wanted: str) -> pd.DataFrame:
    """The newest table of that name that holds what is wanted."""
    import pandas as pd

    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in path.parent.name.split(".") if part.isdigit())

    for path in sorted(folder.glob(pattern), key=version, reverse=True):
        frame: pd.DataFrame = pd.read_parquet(path)
        for column, value in wanted.items():
            frame = frame.loc[frame[column] == value]
        if not frame.empty:
            return frame
    raise FileNotFoundError(f"aiconfigurator's {pattern} is not under {str(folder)!r}")


def _products(folder: Path) -> pd.DataFrame:
    frame = _table(folder, "gemm/vllm/*/gemm_perf.parquet", gemm_dtype="bfloat16")
    medians: pd.DataFrame = frame.groupby(["n", "k", "m"], as_index=False)[["latency"]].median()
    return medians


def _product(table: pd.DataFrame, outputs: int, inputs: int) -> Series:
    """Seconds of one product by rows, bilinear between the sizes measured around it."""
    lines: list[tuple[float, Series]] = []
    for n, share_n in _around(np.unique(table.loc[table["k"].isin(_near(table, "k", inputs)), "n"]), outputs):
        for k, share_k in _around(np.unique(table.loc[table["n"] == n, "k"]), inputs):
            rows: Any = table[(table["n"] == n) & (table["k"] == k)]
            lines.append((share_n * share_k, Series(_floats(rows, "m"), _floats(rows, "latency") * _MILLI)))
    at = np.array(sorted(set.intersection(*(set(line.at) for _, line in lines))))
    return Series(at, np.sum([share * line(at) for share, line in lines], axis=0))


def _near(table: pd.DataFrame, column: str, size: int) -> list[float]:
    return [near for near, _ in _around(np.unique(table[column]), size)]


def _around(sizes: NDArray[Any], size: int) -> list[tuple[float, float]]:
    """The measured sizes below and above, with their shares in a linear interpolation."""
    if not sizes[0] <= size <= sizes[-1]:
        raise ValueError(f"a product of size {size} lies outside those measured, {sizes[0]} to {sizes[-1]}")
    above = int(np.searchsorted(sizes, size))
    if sizes[above] == size:
        return [(float(size), 1.0)]
    low, high = float(sizes[above - 1]), float(sizes[above])
    return [(low, (high - size) / (high - low)), (high, (size - low) / (high - low))]


def _of_shape(frame: pd.DataFrame, model: Model, heads: int, kv_heads: int) -> pd.DataFrame:
    chosen = (
        (frame["num_heads"] == heads)
        & (frame["num_key_value_heads"] == kv_heads)
        & (frame["head_dim"] == model.head_dim)
        & (frame["attn_dtype"] == "bfloat16")
        & (frame["kv_cache_dtype"] == "bfloat16")
    )
    if "window_size" in frame:
        chosen &= frame["window_size"] == 0
    if not chosen.any():
        raise ValueError(f"no attention of {heads} heads, {kv_heads} of keys, was measured")
    keys = ["batch_size", "isl", "step"]
    medians: pd.DataFrame = frame[chosen].groupby(keys, as_index=False)[["latency"]].median()
    return medians


def _floats(frame: pd.DataFrame, column: str) -> Floats:
    return frame[column].to_numpy(np.float64)
