"""Execution time of an engine step: small profiles per GPU and model, each figure with its source.

A step takes
    scale x (linear(tokens) + head + decode x KV tokens read + prefill x query-key pairs)
seconds. A10 + Llama-3-8B (fp16, one GPU):

linear   the linear layers, measured by batch size (sum over 32 layers; Hamadanian et al., arXiv 2510.27176,
profile
         of the authors' Vidur fork). Linear between the points; beyond the last point as between the last
         two.
head     LM head: 128,256 x 4,096 weights of 2 bytes are read once a step = 1.05 GB at 600 GB/s x 0.8.
decode   a decode reads keys and values of its context: 2 x 8 heads x 128 x 2 bytes x 32 layers = 131,072
bytes a
         token, at 600 GB/s x 0.8.
prefill  4 x 4,096 FLOPs for each query-key pair and layer (scores and weighted sum), x 32 layers = 524,288,
at
         125 TFLOP/s x 0.5.
scale    one factor on everything, calibrated once on one published figure by `python -m sim paper`: 1.025
         (see docs/simulator.md).

0.8 of the data sheet's bandwidth and 0.5 of its FLOP/s are what good kernels reach; no table of the A10's
attention times is public. `docs/simulator.md` shows how little the results hang on these two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROFILES", "Profile", "profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a step costs on one GPU with one model; formulas and sources in the module's docstring."""

    gpu: str
    model: str
    linear_points: tuple[tuple[int, float], ...]
    """(tokens in the batch, seconds) of the linear layers."""
    head: float
    """Seconds a step."""
    decode: float
    """Seconds per KV token read by a decode."""
    prefill: float
    """Seconds per query-key pair of a prefill."""
    time_scale: float
    """Factor on all of the above, calibrated on LLQ's published 54.6 s by `python -m sim paper`."""

    def linear_table(self, max_tokens: int, time_scale: float = 1.0) -> NDArray[np.float64]:
        """Seconds of the linear layers by tokens in the batch, 0 to `max_tokens`; `time_scale` comes on
        top."""
        tokens, seconds = np.array(self.linear_points).T
        slope = (seconds[-1] - seconds[-2]) / (tokens[-1] - tokens[-2])
        grid = np.arange(max_tokens + 1, dtype=np.float64)
        table = np.interp(grid, tokens, seconds) + slope * np.maximum(grid - tokens[-1], 0.0)
        table[0] = 0.0
        return table * (self.time_scale * time_scale)  # type: ignore[no-any-return]

    def rates(self, time_scale: float = 1.0) -> tuple[float, float, float]:
        """Seconds per KV token read, per half a query-key pair, and per step, scaled; `time_scale` comes on
        top."""
        scale = self.time_scale * time_scale
        return self.decode * scale, self.prefill / 2 * scale, self.head * scale

    def alone(
        self,
        prompt_tokens: NDArray[np.int64],
        output_tokens: NDArray[np.int64],
        budget: int,
        time_scale: float = 1.0,
    ) -> NDArray[np.float64]:
        """Response time of each request on an idle replica with so many tokens a step, in seconds."""
        linear = self.linear_table(budget, time_scale)
        decode, half_pair, step = self.rates(time_scale)
        full, rest = np.divmod(prompt_tokens, budget)
        prefill_steps = full + (rest > 0)
        prefill = full * linear[budget] + linear[rest] + prefill_steps * step
        prefill += prompt_tokens * (prompt_tokens + 1) * half_pair
        steps = output_tokens - 1
        context = steps * prompt_tokens + steps * (steps + 1) // 2
        return prefill + steps * (linear[1] + step) + context * decode  # type: ignore[no-any-return]


A10_BANDWIDTH = 600e9 * 0.8
"""Bytes/s reached: data sheet x 0.8."""
A10_FLOPS = 125e12 * 0.5
"""fp16 FLOP/s reached: data sheet x 0.5."""

PROFILES = (
    Profile(
        gpu="a10",
        model="llama-3-8b",
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
        head=128_256 * 4_096 * 2 / A10_BANDWIDTH,
        decode=131_072 / A10_BANDWIDTH,
        prefill=524_288 / A10_FLOPS,
        time_scale=1.025,
    ),
)


def profile(gpu: str, model: str) -> Profile:
    """The profile of a GPU with a model; ValueError naming what there is if there is none."""
    for known in PROFILES:
        if (known.gpu, known.model) == (gpu, model):
            return known
    choices = ", ".join(f"gpu={known.gpu!r} with model={known.model!r}" for known in PROFILES)
    raise ValueError(f"no cost profile for gpu={gpu!r} with model={model!r}; there is {choices}")
