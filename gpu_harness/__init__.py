"""The same cluster made of real vLLM servers, behind the policy protocols of `sim.policies`.

`referee` compares the simulator's engine with vLLM's own scheduler, step by step; `vllm_scheduler` runs
a batch scheduler on vLLM, and `step_log` logs what its steps cost. vLLM is imported when one of them is
used: see `installed`. `Testbed` has the interface of `sim.Cluster`; `python -m gpu_harness` runs the router
proxy, the load generator and a benchmark of the proxy. `glia` gives pytest-glia the testbed `gpu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_harness.launching import Launch
    from gpu_harness.testbed import Testbed

__all__ = ["Launch", "Testbed"]


def __getattr__(name: str) -> Any:
    """`Launch` and `Testbed`, imported when asked for: only they need an HTTP client."""
    if name == "Launch":
        from gpu_harness.launching import Launch

        return Launch
    if name == "Testbed":
        from gpu_harness.testbed import Testbed

        return Testbed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
