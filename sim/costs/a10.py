"""The A10 with Llama-3-8B (fp16): the published problem's cost model, each figure with its source.

linear   the linear layers, measured by batch size (sum over 32 layers; Hamadanian et al., arXiv 2510.27176,
         profile of the authors' Vidur fork). The element-wise kernels are in it.
head     LM head: 128,256 x 4,096 weights of 2 bytes are read once a step = 1.05 GB at 600 GB/s x 0.8.
decode   a decode reads keys and values of its context: 2 x 8 heads x 128 x 2 bytes x 32 layers = 131,072
         bytes a token, at 600 GB/s x 0.8.
prefill  4 x 4,096 FLOPs for each query-key pair and layer (scores and weighted sum), x 32 layers = 524,288,
         at 125 TFLOP/s x 0.5.
scale    one factor on everything, calibrated once on one published figure by `python -m sim paper`: 1.025
         (see docs/simulator.md).

0.8 of the data sheet's bandwidth and 0.5 of its FLOP/s are what good kernels reach; no table of the A10's
attention times is public. `docs/simulator.md` shows how little the results hang on these two.
"""

from __future__ import annotations

from sim.costs.profile import DecodeRow, Prefill, Profile

__all__ = ["A10"]

A10_BANDWIDTH = 600e9 * 0.8
"""Bytes/s reached: data sheet x 0.8."""
A10_FLOPS = 125e12 * 0.5
"""fp16 FLOP/s reached: data sheet x 0.5."""

A10 = Profile(
    gpu="a10",
    model="llama-3-8b",
    precision="fp16",
    linear_points=(
        (1, 0.03045),
        (8, 0.0323),
        (16, 0.0335),
        (32, 0.0326),
        (64, 0.0339),
        (96, 0.0357),
        (128, 0.0361),
        (192, 0.0562),
        (256, 0.0664),
        (512, 0.1276),
        (1024, 0.2518),
        (2048, 0.4792),
        (3072, 0.6931),
        (4096, 0.9202),
    ),
    head_points=((1, 128_256 * 4_096 * 2 / A10_BANDWIDTH),),
    decode_rows=(DecodeRow(1, fixed=0.0, per_kv_token=(131_072 / A10_BANDWIDTH,)),),
    prefill_terms=Prefill(per_pair=524_288 / A10_FLOPS),
    time_scale=1.025,
    cuda_graphs=False,
    basis={
        "linear": "measured",
        "elementwise": "measured",
        "head": "roofline",
        "sampler": "assumed",
        "decode": "roofline",
        "prefill": "roofline",
        "mixed": "assumed",
        "straggler": "assumed",
        "cpu": "assumed",
    },
    source="arXiv 2510.27176 (layers); data sheet (attention, LM head); scale 1.025 from LLQ's 54.6 s",
)
