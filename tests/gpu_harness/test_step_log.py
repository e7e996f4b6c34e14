"""A profile fitted to the steps of vLLM itself, logged by the harness's scheduler on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import costs
from sim.costs.sources.steps import read
from sim.costs.step_fitting import fit_steps
from tests.gpu_harness.serving import serve

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
LOGGING = "gpu_harness.step_log.LoggingScheduler"


def test_vllms_own_steps_are_fitted(tmp_path: Path) -> None:
    """Half of its steps tell the others: the median error is below 20 % (6 to 7 % seen on a busy machine; the
    median time of all steps is 34 % off), and every step's composition passes the checks."""
    path = tmp_path / "steps.csv"
    done = serve(LOGGING, blocks=1024, GLIA_STEP_LOG=str(path))
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
    done = serve(LOGGING, GLIA_STEP_LOG="")
    assert done.returncode != 0
    assert "GLIA_STEP_LOG=''; expected the path of a CSV file" in done.stderr
