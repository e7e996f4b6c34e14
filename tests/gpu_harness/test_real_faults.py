"""Faults of real vLLM servers: memory that ends, a model that is not there, a kill, a full disk, a clock that
steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_harness.launching import Launch
from gpu_harness.servers import ServerError
from gpu_harness.testbed import Testbed
from sim.baselines import LeastLoadedQueue
from sim.workloads import Workload
from tests.gpu_harness.test_provoked_faults import STEPS
from tests.gpu_harness.test_testbed import children
from tests.gpu_harness.tiny_model import LAUNCH, make_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

WORK = Workload.from_arrays(
    arrival=np.arange(8) * 0.05, prompt_tokens=np.full(8, 40), output_tokens=np.full(8, 6)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("model")))


def launch(kind: type[Launch] = Launch, **settings: Any) -> Launch:
    """One small server."""
    small: dict[str, Any] = {"replicas": 1, "kv_blocks": 31, "block_size": 32, "max_model_len": 512}
    return kind(**{**small, "options": LAUNCH, **settings})


def test_out_of_memory_is_named(model: str) -> None:
    """A cache of more blocks than there is memory for: what vLLM's last lines say, and what to lower."""
    with (
        Testbed(launch(model=model, kv_blocks=2**34), start_timeout=300) as testbed,
        pytest.raises(
            ServerError, match=r"(?s)out of memory: lower kv_blocks.*RuntimeError: .*can't allocate memory"
        ),
    ):
        testbed.run(WORK, LeastLoadedQueue())


def test_a_model_that_the_hub_does_not_have_here(tmp_path: Path) -> None:
    """The server ends at its start, and its last lines are shown."""
    with (
        Testbed(launch(model="nobody/nothing"), start_timeout=300) as testbed,
        pytest.raises(
            ServerError, match=r"(?s)ended with exit code 1; its last lines:\n.*LocalEntryNotFoundError"
        ),
    ):
        testbed.run(WORK, LeastLoadedQueue())


def test_a_server_that_is_killed_in_mid_run(model: str) -> None:
    """The run ends with an error, and what is left of the server's processes ends, too."""
    long = Workload.from_arrays(
        arrival=np.arange(100) * 0.5, prompt_tokens=np.full(100, 40), output_tokens=np.full(100, 6)
    )
    with Testbed(launch(model=model), start_timeout=300) as testbed:
        testbed.run(WORK, LeastLoadedQueue())
        [keeper] = testbed.pids
        [server] = children(keeper)
        killing = threading.Timer(3.0, os.kill, [server, signal.SIGKILL])
        killing.start()
        began = time.monotonic()
        with pytest.raises(
            ServerError, match=r"exit code 137 .killed, as the kernel does|was lost in mid-run"
        ):
            testbed.run(long, LeastLoadedQueue())
        assert time.monotonic() - began < 40
        assert testbed.pids == ()
    assert not Path(f"/proc/{server}").exists()


@dataclass(frozen=True, kw_only=True)
class Nowhere(Launch):
    """Servers whose request logs are on a device without space."""

    def commands(self, *arguments: Any) -> Any:
        found = super().commands(*arguments)
        return [(command, url, {**env, "GLIA_REQUEST_LOG": "/dev/full"}) for command, url, env in found]


def test_a_full_disk_is_not_a_run_without_evictions(model: str) -> None:
    """The engine serves on; the run, which cannot know what happened in it, ends with an error that says
    what to do."""
    with (
        Testbed(launch(Nowhere, model=model), start_timeout=300) as testbed,
        pytest.raises(ServerError, match=r"have not logged 8 of 8 requests.*disk full"),
    ):
        testbed.run(WORK, LeastLoadedQueue())


def test_a_clock_that_steps(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the wall clock of the servers goes an hour forth and back, admissions are when they were."""
    (tmp_path / "sitecustomize.py").write_text(STEPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Testbed(launch(model=model), start_timeout=300) as testbed:
        run = testbed.run(WORK, LeastLoadedQueue())
    table = run.requests
    assert (table["admitted"] >= table["routed"]).all()
    waited = table["admitted"] - table["routed"]
    # Neither bound of the table, which a time of another clock would be put to.
    assert ((waited > 0) & (table["admitted"] < table["first_token"])).all()
