"""What the harness gives to pytest-glia: the testbed `gpu`, specs' clusters made of real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy

hookimpl = pluggy.HookimplMarker("glia")


@hookimpl
def glia_testbed(name: str, file: Path) -> Callable[..., Any] | str | None:
    """For `gpu` the servers that the file maps specs' clusters to; a reason to skip where there are none."""
    if name != "gpu":
        return None
    try:
        from gpu_harness.mapping import read
        from gpu_harness.specified import SpecTestbed
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "uvloop", "numba"):
            raise
        return f'{error.name} is not installed: pip install "pytest-glia[harness]"'
    if not file.is_file():
        return (
            f"no servers are known here: {file} (glia_testbed_file) does not exist; it maps the clusters "
            "that specs describe to servers (docs/harness.md)"
        )
    return SpecTestbed(read(file), file.name)
