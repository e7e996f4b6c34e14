"""Sizes of models and data sheets of GPUs: what rooflines and the number of KV blocks are computed from."""

from __future__ import annotations

from dataclasses import dataclass

from sim.settings import check

__all__ = ["GPUS", "MODELS", "Gpu", "Model", "kv_blocks"]


@dataclass(frozen=True, slots=True)
class Model:
    """A dense decoder with grouped-query attention and a gated MLP (the Llama family)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    def products(self, tensor_parallel: int = 1) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each matrix product of a layer on one of the GPUs."""
        tp = tensor_parallel
        return {
            "qkv": ((self.heads + 2 * self.kv_heads) * self.head_dim // tp, self.hidden),
            "o": (self.hidden, self.heads * self.head_dim // tp),
            "gate_up": (2 * self.intermediate // tp, self.hidden),
            "down": (self.hidden, self.intermediate // tp),
        }

    def layer_weights(self, tensor_parallel: int = 1) -> int:
        """Weights of a layer on one of the GPUs."""
        return sum(outputs * inputs for outputs, inputs in self.products(tensor_parallel).values())

    def weight_bytes(self, tensor_parallel: int = 1, size: int = 2) -> int:
        """Bytes of all weights on one of the GPUs, embedding and LM head apart from each other."""
        embeddings = 2 * self.vocabulary * self.hidden // tensor_parallel
        return size * (self.layers * self.layer_weights(tensor_parallel) + embeddings)

    def kv_bytes(self, tensor_parallel: int = 1, size: int = 2) -> int:
        """Bytes of keys and values of one token on one of the GPUs."""
        return 2 * self.layers * max(1, self.kv_heads // tensor_parallel) * self.head_dim * size


@dataclass(frozen=True, slots=True)
class Gpu:
    """Data-sheet figures: bytes/s, dense 16-bit FLOP/s with 32-bit accumulation, bytes."""

    bandwidth: float
    flops: float
    memory: int


MODELS = {
    "llama-3-8b": Model(32, 4096, 32, 8, 128, 14_336, 128_256),
    "llama-3-70b": Model(80, 8192, 64, 8, 128, 28_672, 128_256),
    "llama-2-7b": Model(32, 4096, 32, 32, 128, 11_008, 32_000),
}
"""From the models' config.json."""

GPUS = {
    "a10": Gpu(600e9, 125e12, 24 * 1024**3),
    "l4": Gpu(300e9, 121e12, 24 * 1024**3),
    "a100-80g": Gpu(2039e9, 312e12, 80 * 1024**3),
    "a800": Gpu(2039e9, 312e12, 80 * 1024**3),
    "h100": Gpu(3350e9, 989e12, 80 * 1024**3),
    "h200": Gpu(4800e9, 989e12, 141 * 1024**3),
    "rtx-4090": Gpu(1008e9, 165.2e12, 25_250_627_584),
    "rtx-pro-6000": Gpu(1597e9, 503.8e12, 96 * 1024**3),
}
"""NVIDIA's data sheets (dense, not sparse, FLOP/s); memory of the RTX 4090 as CUDA reports it, bandwidth of
the RTX PRO 6000 Blackwell Server Edition."""

OTHER_MEMORY = 1_238_145_433
"""Bytes that vLLM 0.19 keeps for itself besides weights and KV blocks (activations of its profiling run,
graphs, CUDA context): what is left on the RTX 4090 of 0.9 x 25,250,627,584 less 16,059,990,016 of weights and
the 2,588 blocks of 16 x 131,072 bytes in its meta.json, with 2,048 tokens a step and 256 requests."""


def kv_blocks(
    gpu: str, model: str, *, tensor_parallel: int = 1, utilisation: float = 0.9, block_size: int = 16
) -> int:
    """KV blocks per replica that vLLM would allocate, from the GPU's memory; ValueError if none fits, or if
    there is no such GPU or model here."""
    if model not in MODELS:
        raise ValueError(f"model={model!r} has no sizes here; there is {', '.join(MODELS)}")
    if gpu not in GPUS:
        raise ValueError(f"gpu={gpu!r} has no data sheet here; there is {', '.join(GPUS)}")
    check("tensor_parallel", tensor_parallel, 1, 1024, "GPUs per replica", whole=True)
    check("utilisation", utilisation, 0.0, 1.0, "as a fraction of the memory", whole=False)
    check("block_size", block_size, 1, 65_536, "tokens per block", whole=True)
    shape, sheet = MODELS[model], GPUS[gpu]
    room = utilisation * sheet.memory - shape.weight_bytes(tensor_parallel) - OTHER_MEMORY
    blocks = int(room // (block_size * shape.kv_bytes(tensor_parallel)))
    if blocks < 1:
        raise ValueError(
            f"{model!r} on {tensor_parallel} x {gpu!r} leaves {room / 2**30:.1f} GiB for KV blocks at "
            f"utilisation={utilisation!r}; use more GPUs per replica"
        )
    return blocks
