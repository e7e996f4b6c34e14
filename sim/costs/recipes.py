"""The shipped profiles: which measurements each is fitted to, and the same for measurements of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.costs.fitting import Fit, fit
from sim.costs.measured import Measurements
from sim.costs.profile import Basis, Profile
from sim.costs.shapes import GPUS, MODELS, kv_blocks
from sim.costs.sources import aiconfigurator, llmservingsim, roofline, steps, vidur
from sim.costs.step import step_seconds
from sim.costs.step_fitting import fit_steps

FASTEST, SLOWEST = 0.3, 100.0
"""Times of steps over those of a roofline at usual efficiencies, half of a data sheet and more."""

__all__ = ["SHIPPED", "SOURCES", "Recipe", "make"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A profile to be fitted."""

    gpu: str
    model: str
    source: str
    """One of SOURCES, or "steps"."""
    folder: str
    """Of the measurements (steps: the file), below the data folder."""
    tensor_parallel: int = 1
    eager: bool = False
    """Whether engine steps were measured without CUDA graphs."""
    linear: str = ""
    """A Vidur mlp.csv to take the layers from, instead of the source's matrix products and a roofline."""

    @property
    def file(self) -> str:
        """Name of the profile's file."""
        return f"{self.gpu}__{self.model}__tp{self.tensor_parallel}.toml"


SHIPPED = (
    Recipe(
        "a100-80g",
        "llama-3-8b",
        "aiconfigurator",
        "profiles/aiconfigurator/a100_sxm",
        linear="profiles/vidur_a100_llama3_8b/mlp.csv",
    ),
    Recipe("h100", "llama-3-8b", "aiconfigurator", "profiles/aiconfigurator/h100_sxm"),
    Recipe("h100", "llama-3-70b", "aiconfigurator", "profiles/aiconfigurator/h100_sxm", tensor_parallel=4),
    Recipe("h200", "llama-3-8b", "aiconfigurator", "profiles/aiconfigurator/h200_sxm"),
    Recipe(
        "rtx-4090",
        "llama-3-8b",
        "llmservingsim",
        "profiles/llmservingsim/RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1",
    ),
    Recipe(
        "rtx-pro-6000",
        "llama-3-8b",
        "llmservingsim",
        "profiles/llmservingsim/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16/tp1",
    ),
)


def make(recipe: Recipe, data: Path) -> Fit:
    """Fit a profile; FileNotFoundError or ValueError if its measurements are missing or of another model."""
    if recipe.source == "steps":
        return _steps(recipe, data)
    if recipe.model not in MODELS:
        raise ValueError(f"model={recipe.model!r} has no sizes here; there is {', '.join(MODELS)}")
    if recipe.gpu not in GPUS:
        raise ValueError(f"gpu={recipe.gpu!r} has no data sheet here; there is {', '.join(GPUS)}")
    blocks = kv_blocks(recipe.gpu, recipe.model, tensor_parallel=recipe.tensor_parallel)
    return fit(
        SOURCES[recipe.source](recipe, data),
        gpu=recipe.gpu,
        model=recipe.model,
        precision="bf16",
        tensor_parallel=recipe.tensor_parallel,
        kv_tokens=16 * blocks,
    )


def _steps(recipe: Recipe, data: Path) -> Fit:
    """Engine steps as a whole; a roofline, where there are data sheets, for what they do not show."""
    known = recipe.model in MODELS and recipe.gpu in GPUS and recipe.tensor_parallel == 1
    path = data / recipe.folder
    measured = steps.read(path)
    sheet = make(replace(recipe, source="roofline"), data).profile if known else None
    if sheet is not None:
        _check_plausible(measured, sheet, path)
    return fit_steps(
        measured,
        gpu=recipe.gpu,
        model=recipe.model,
        tensor_parallel=recipe.tensor_parallel,
        cuda_graphs=not recipe.eager,
        source=f"engine steps {path.name}",
        otherwise=sheet,
    )


def _check_plausible(measured: NDArray[np.float64], sheet: Profile, path: Path) -> None:
    """ValueError if the steps took other times than that GPU can: another unit, most likely."""
    tables = sheet.tables(int(measured[:, 0].max()), int(measured[:, 1].max()), cuda_graphs=False)
    times = [step_seconds(tables, *map(int, step[:-1])) for step in measured]
    ratio = float(np.median(measured[:, -1] / times))
    if not FASTEST <= ratio <= SLOWEST:
        raise ValueError(
            f"{path}: the median step takes {ratio:.3g} times what the data sheet of gpu={sheet.gpu!r} with "
            f"model={sheet.model!r} says; expected {FASTEST:g} to {SLOWEST:g} times. Is `seconds` in seconds?"
        )


def _llmservingsim(recipe: Recipe, data: Path) -> Measurements:
    if recipe.tensor_parallel != 1:
        raise ValueError(
            f"LLMServingSim's folders hold no all-reduce; tensor_parallel={recipe.tensor_parallel!r}"
        )
    return llmservingsim.read(data / recipe.folder, MODELS[recipe.model])


def _aiconfigurator(recipe: Recipe, data: Path) -> Measurements:
    model, sheet, folder, gpus = (
        MODELS[recipe.model],
        GPUS[recipe.gpu],
        data / recipe.folder,
        recipe.tensor_parallel,
    )
    basis: dict[str, Basis] = {"linear": "measured", "elementwise": "roofline", "sampler": "roofline"}
    source = f"aiconfigurator {folder.name}"
    if recipe.linear:
        linear = vidur.read_linear(data / recipe.linear, model, gpus)
        basis["elementwise"] = "measured"
        source += f"; layers {'/'.join(Path(recipe.linear).parts[-2:])}"
    else:
        linear = aiconfigurator.read_products(folder, model, gpus)
        linear += roofline.elementwise(model, sheet, gpus, linear.at)
    head = aiconfigurator.read_head(folder, model, gpus)
    communication = aiconfigurator.read_all_reduces(folder, model, gpus) if gpus > 1 else None
    if communication is not None:
        basis["communication"] = "measured"
    return Measurements(
        source=source,
        linear=linear,
        head=head + roofline.sampler(model, sheet, head.at),
        attention=aiconfigurator.read_attention(folder, model, gpus),
        communication=communication,
        basis={**basis, "head": "measured"},
    )


def _vidur(recipe: Recipe, data: Path) -> Measurements:
    """mlp.csv and, where there is one, attention.csv; a roofline for the rest."""
    model, sheet, folder = MODELS[recipe.model], GPUS[recipe.gpu], data / recipe.folder
    basis: dict[str, Basis] = {
        "linear": "measured",
        "elementwise": "measured",
        "head": "roofline",
        "sampler": "roofline",
    }
    if (folder / "attention.csv").is_file():
        attention = vidur.read_attention(folder / "attention.csv", model)
    else:
        attention = roofline.attention(model, sheet)
        basis |= {"decode": "roofline", "prefill": "roofline"}
    return Measurements(
        source=f"Vidur profile {folder.name}",
        linear=vidur.read_linear(folder / "mlp.csv", model),
        head=roofline.head(model, sheet) + roofline.sampler(model, sheet),
        attention=attention,
        basis=basis,
    )


def _roofline(recipe: Recipe, data: Path) -> Measurements:
    return roofline.measurements(MODELS[recipe.model], GPUS[recipe.gpu], recipe.tensor_parallel)


SOURCES: dict[str, Callable[[Recipe, Path], Measurements]] = {
    "aiconfigurator": _aiconfigurator,
    "llmservingsim": _llmservingsim,
    "roofline": _roofline,
    "vidur": _vidur,
}
"""By the tool that took the measurements."""
