"""Operator times from data-sheet figures, for what nobody measured: bytes over bandwidth, FLOPs over FLOP/s.

The shares of the data sheet that good kernels reach are assumptions. BANDWIDTH and LATENCY are
aiconfigurator's own empirical corrections (mem_bw_empirical_scaling_factor, mem_empirical_constant_latency in
its system files); the element-wise kernels measured on the RTX 4090 and RTX PRO 6000 take 1.9 to 2.9 us at
one token.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.costs.measured import Attention, Measurements, Series
from sim.costs.shapes import Gpu, Model

__all__ = ["attention", "elementwise", "head", "measurements", "products", "sampler"]

Floats = NDArray[np.float64]

BANDWIDTH = 0.8
"""Of the data sheet's bytes/s."""
PRODUCTS = 0.7
"""Of the data sheet's FLOP/s, in matrix products."""
ATTENTION = 0.5
"""Of the data sheet's FLOP/s, in attention."""
LATENCY = 3e-6
"""Seconds that the smallest kernel takes."""
SAMPLER_KERNELS, SAMPLER_PASSES = 8, 2
"""Kernels of a sampler and its passes over 4-byte logits: 24 us at one request; the RTX cards measure 25."""

TOKENS = np.array(
    [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192], np.float64
)
REQUESTS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], np.float64)
CONTEXTS = np.array([64, 256, 1024, 4096, 16384], np.float64)
SIZE = 2
"""Bytes of a weight, an activation, a key or a value."""


def products(model: Model, gpu: Gpu, tensor_parallel: int = 1, tokens: Floats = TOKENS) -> Series:
    """The matrix products of all layers."""
    seconds = np.zeros(len(tokens))
    for outputs, inputs in model.products(tensor_parallel).values():
        seconds += _product(tokens, outputs, inputs, gpu)
    return Series(tokens, model.layers * seconds)


def elementwise(model: Model, gpu: Gpu, tensor_parallel: int = 1, tokens: Floats = TOKENS) -> Series:
    """Two fused residual norms, rotary embedding and gated activation per layer; embedding and last norm."""
    width = model.head_dim * (model.heads + model.kv_heads) // tensor_parallel
    norm = _moved(tokens * 4 * model.hidden * SIZE, gpu)
    rotary = _moved(tokens * 2 * width * SIZE, gpu)
    activation = _moved(tokens * 3 * model.intermediate // tensor_parallel * SIZE, gpu)
    embedding = _moved(tokens * 2 * model.hidden * SIZE, gpu)
    return Series(tokens, model.layers * (2 * norm + rotary + activation) + embedding + norm)


def head(model: Model, gpu: Gpu, tensor_parallel: int = 1, requests: Floats = REQUESTS) -> Series:
    """The LM head's product."""
    return Series(requests, _product(requests, model.vocabulary // tensor_parallel, model.hidden, gpu))


def sampler(model: Model, gpu: Gpu, requests: Floats = REQUESTS) -> Series:
    """Sampling from the logits."""
    moved = SAMPLER_PASSES * 4 * model.vocabulary * requests / (gpu.bandwidth * BANDWIDTH)
    return Series(requests, SAMPLER_KERNELS * LATENCY + moved)


def attention(model: Model, gpu: Gpu, tensor_parallel: int = 1) -> Attention:
    """Decodes at memory bandwidth, prefill chunks at FLOP/s; one kernel a layer."""
    kv_bytes = model.kv_bytes(tensor_parallel, SIZE)
    flops = 4 * model.layers * model.heads * model.head_dim / tensor_parallel
    start = model.layers * LATENCY
    grid = np.array([(n, context) for n in REQUESTS for context in CONTEXTS])
    decodes, contexts = grid.T
    read = start + decodes * contexts * kv_bytes / (gpu.bandwidth * BANDWIDTH)
    chunks, prefixes = np.array([(c, p) for c in TOKENS[4:] for p in (0, *CONTEXTS)]).T
    computed = start + chunks * (prefixes + (chunks + 1) / 2) * flops / (gpu.flops * ATTENTION)
    none, one = np.zeros(len(grid)), np.ones(len(chunks))
    return Attention(
        chunks=np.concatenate([none, one]),
        chunk=np.concatenate([none, chunks]),
        prefix=np.concatenate([none, prefixes]),
        decodes=np.concatenate([decodes, 0 * one]),
        context=np.concatenate([contexts, 0 * one]),
        seconds=np.concatenate([read, computed]),
    )


def measurements(model: Model, gpu: Gpu, tensor_parallel: int = 1) -> Measurements:
    """Everything from the data sheet; one GPU only, for a link's speed says little of an all-reduce."""
    if tensor_parallel != 1:
        raise ValueError(
            f"no roofline for tensor_parallel={tensor_parallel!r}: all-reduces need measured times"
        )
    return Measurements(
        source="data sheet",
        linear=products(model, gpu) + elementwise(model, gpu),
        head=head(model, gpu) + sampler(model, gpu),
        attention=attention(model, gpu),
        basis={
            "linear": "roofline",
            "elementwise": "roofline",
            "head": "roofline",
            "sampler": "roofline",
            "decode": "roofline",
            "prefill": "roofline",
        },
    )


def _product(rows: Floats, outputs: int, inputs: int, gpu: Gpu) -> Floats:
    moved = SIZE * (outputs * inputs + rows * (outputs + inputs)) / (gpu.bandwidth * BANDWIDTH)
    computed = 2 * rows * outputs * inputs / (gpu.flops * PRODUCTS)
    return np.maximum(np.maximum(moved, computed), LATENCY)


def _moved(size: Floats, gpu: Gpu) -> Floats:
    return LATENCY + size / (gpu.bandwidth * BANDWIDTH)
