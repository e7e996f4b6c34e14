"""Execution time of an engine step: profiles per GPU, model, precision and tensor parallelism.

from sim import costs

h100 = costs.profile("h100", "llama-3-8b")
h100.marks()  # what of it is not measured
"""

from __future__ import annotations

from pathlib import Path

from sim.costs.a10 import A10
from sim.costs.profile import PARTS, Basis, DecodeRow, Prefill, Profile, capture_sizes
from sim.costs.step import Batch, Tables, step_seconds

__all__ = [
    "PARTS",
    "Basis",
    "Batch",
    "DecodeRow",
    "Prefill",
    "Profile",
    "Tables",
    "available",
    "capture_sizes",
    "is_file",
    "profile",
    "step_seconds",
]

FITTED = Path(__file__).parent / "fitted"
"""One file of coefficients per profile, made by `python -m sim fit`."""

SAME_SHAPES = {"llama-3.1-8b": "llama-3-8b", "llama-3.1-70b": "llama-3-70b", "llama-3.3-70b": "llama-3-70b"}
"""Models whose layers have the same sizes, and so the same costs."""


def available() -> tuple[tuple[str, str, int], ...]:
    """(gpu, model, GPUs per replica) of every profile there is."""
    fitted = (path.stem.split("__") for path in sorted(FITTED.glob("*.toml")))
    return ((A10.gpu, A10.model, 1), *((gpu, model, int(tp[2:])) for gpu, model, tp in fitted))


def profile(gpu: str, model: str, tensor_parallel: int = 1) -> Profile:
    """The profile of a GPU with a model, or in a file that `python -m sim fit` wrote, `gpu="mine.toml"`,
    which has a model and GPUs of its own.

    ValueError naming what there is if there is none, or if the file is no profile; FileNotFoundError if there
    is no such file.
    """
    if is_file(gpu):
        from sim.costs.toml import read

        if not Path(gpu).is_file():
            raise FileNotFoundError(
                f"the cost profile's file is not there: {gpu!r}; `python -m sim fit` makes one"
            )
        return read(Path(gpu).absolute())
    name = SAME_SHAPES.get(model, model)
    if (gpu, name, tensor_parallel) == (A10.gpu, A10.model, 1):
        return A10
    path = FITTED / f"{gpu}__{name}__tp{tensor_parallel}.toml"
    if (gpu, name, tensor_parallel) in available():
        from sim.costs.toml import read

        return read(path)
    choices = ", ".join(_named(*there) for there in available())
    raise ValueError(
        f"no cost profile for {_named(gpu, model, tensor_parallel)}; there is {choices}. `python -m sim fit` "
        "makes one from measurements or, with --source roofline, from data-sheet figures; give its file as "
        "the gpu ('DIR/NAME.toml')"
    )


def is_file(gpu: str) -> bool:
    """Whether a GPU is given as the file of a profile."""
    return gpu.endswith(".toml")


def _named(gpu: str, model: str, gpus: int) -> str:
    return f"gpu={gpu!r} with model={model!r}" + (f" and tensor_parallel={gpus!r}" if gpus != 1 else "")
