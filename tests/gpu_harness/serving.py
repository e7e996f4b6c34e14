"""How tests run vLLM itself, on the CPU and in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUIET = {
    "PYTHONPATH": str(ROOT),
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


def serve(scheduler: str = "", blocks: int = 50, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run of `real_engine.py` with that scheduler class, vLLM's own by default; 50 blocks are few, and many
    requests are preempted."""
    script = str(Path(__file__).with_name("real_engine.py"))
    return subprocess.run(
        [sys.executable, script, str(blocks), *filter(None, [scheduler])],
        capture_output=True,
        text=True,
        env={**os.environ, **QUIET, **environment},
        check=False,
    )


def served(scheduler: str = "", **environment: str) -> dict[str, Any]:
    """What such a run, which must succeed, says of itself."""
    done = serve(scheduler, 50, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
