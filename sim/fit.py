"""Fitting cost profiles to measured operator times: `python -m sim fit`, and `python -m sim profiles`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sim import costs
from sim.costs import toml
from sim.costs.recipes import SHIPPED, Recipe, make

__all__ = ["profiles", "report"]


def report(recipes: tuple[Recipe, ...], data: Path, out: Path | None) -> Iterator[str]:
    """Fit each, show how well it reproduces its measurements, and write it to `out` if given."""
    for recipe in recipes:
        fitted = make(recipe, data)
        profile = fitted.profile
        gpus = profile.tensor_parallel
        yield f"{profile.gpu} {profile.model} {profile.precision} on {gpus} GPU: {profile.source}"
        yield f"  {profile.marks() or 'all measured'}"
        for part, errors in fitted.errors.items():
            yield f"  {part:16s} {errors}"
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            path = out / recipe.file
            _check_same(path, profile)
            path.write_text(toml.text(profile), encoding="utf-8")
            yield f"  -> {path}"
    yield "errors relative to the time measured; of a step: attention's error relative to attention + layers"


def _check_same(path: Path, profile: costs.Profile) -> None:
    """ValueError if writing would lose a profile of other measurements, or a file that is none."""
    if not path.exists():
        return
    try:
        source = toml.read(path).source
    except ValueError:
        source = "something else"
    if source != profile.source:
        raise ValueError(
            f"{str(path)!r} is from {source}, and not from {profile.source}; remove it, or give another --out"
        )


def chosen(
    source: str,
    gpu: str | None,
    model: str | None,
    tensor_parallel: int,
    folder: str | None,
    eager: bool,
) -> tuple[Recipe, ...]:
    """The recipes that the command line names; ValueError if it names none."""
    if eager and source != "steps":
        raise ValueError(f"--eager with --source {source}; expected --source steps, whose steps may be eager")
    if source == "shipped":
        found = tuple(
            recipe
            for recipe in SHIPPED
            if gpu in (None, recipe.gpu) and model in (None, recipe.model) and folder is None
        )
        if not found:
            names = ", ".join(f"{recipe.gpu} {recipe.model}" for recipe in SHIPPED)
            raise ValueError(
                f"no shipped profile is fitted for gpu={gpu!r}, model={model!r}; there is {names}"
            )
        return found
    if gpu is None or model is None or (folder is None and source != "roofline"):
        raise ValueError(f"--source {source} needs --gpu, --model and (unless roofline) --folder")
    return (Recipe(gpu, model, source, folder or "", tensor_parallel, eager),)


def profiles() -> Iterator[str]:
    """What profiles there are, and what of them is not measured."""
    for gpu, model, gpus in costs.available():
        profile = costs.profile(gpu, model, gpus)
        yield f"{gpu:13s} {model:12s} {profile.precision} on {gpus}: {profile.source}"
        yield f"{'':13s} {profile.marks() or 'all measured'}"
