"""How a testbed starts servers: vLLM on GPUs or the CPU, or any command that speaks as it does."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_harness.installed import INSTALL, vllm_is_here
from gpu_harness.servers import ServerError, free_port
from sim import schedulers
from sim.scaling import Autoscaling

__all__ = ["NAME", "Launch", "TooFewDevices", "named_scheduler"]

NAME = "testbed"
"""The model's name at the servers."""
_PLANNED = "GLIA_BATCH_SCHEDULER"
_LOG = "GLIA_REQUEST_LOG"
_STEPS = "GLIA_STEP_LOG"
_QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
_ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


class TooFewDevices(ServerError):
    """There are not as many GPUs as the replicas need."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One server for each replica, on ports of this machine; None leaves a setting to vLLM."""

    model: str
    """A folder, or a name of the Hugging Face hub that is in this machine's cache."""
    replicas: int = 2
    tensor_parallel: int = 1
    """GPUs of each replica: those of `devices`, else of CUDA_VISIBLE_DEVICES, else of nvidia-smi."""
    devices: tuple[str, ...] = ()
    """GPUs to use, by the names that CUDA knows."""
    kv_blocks: int | None = None
    """KV blocks of each replica; vLLM keeps one of them for itself."""
    block_size: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    prefix_caching: bool | None = None
    options: tuple[str, ...] = ()
    """More of vLLM's options, as on its command line."""
    command: tuple[str, ...] | None = None
    """Instead of vLLM: a command with {model}, {port} and {name} in it."""
    ports: tuple[int, ...] = ()
    """One for each replica; () for any that are free."""
    autoscaling: Autoscaling | None = None
    """How it scales under an autoscaler, from `replicas` at the start; starting takes the time that it takes,
    whatever this says."""
    step_log: bool = False
    """Log what each engine step computed, too (`gpu_harness.step_log`)."""
    request_log: bool = True
    """Run vLLM's scheduler in a subclass that logs evictions and admissions of each request; vLLM then runs
    without asynchronous scheduling. Without, restarts are not known by request."""

    def __post_init__(self) -> None:
        for name in ("replicas", "tensor_parallel"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}; expected a whole number of at least 1")
        if self.replicas > self.size:
            raise ValueError(
                f"replicas={self.replicas} with autoscaling of max_replicas={self.size}; expected at most so "
                "many at the start"
            )
        if self.ports and len(self.ports) != self.size:
            raise ValueError(f"ports={self.ports!r}; expected one for each of {self.size} replicas, or ()")

    @property
    def size(self) -> int:
        """Replicas at most."""
        return self.replicas if self.autoscaling is None else self.autoscaling.max_replicas

    @property
    def logs_requests(self) -> bool:
        """Whether its servers write request logs."""
        return self.request_log and self.command is None

    def commands(
        self, scheduler: str | None, logs: Path, slots: Iterable[int] | None = None
    ) -> list[tuple[list[str], str, dict[str, str]]]:
        """Command, URL and environment of each server, with a batch scheduler by name and request logs in
        this folder: in these slots (a port and GPUs each), or all that there are at the start. ServerError,
        ImportError or FileNotFoundError if they cannot be started."""
        if scheduler is not None and self.command is not None:
            raise ValueError("a scheduler with command=...; expected servers of vLLM, which can run it")
        if self.step_log and (scheduler is not None or self.command is not None):
            raise ValueError(
                "step_log=True with a scheduler or command=...; expected servers of vLLM under its own rule"
            )
        if self.command is None:
            self._check()
        devices = self._devices()
        found = []
        for slot in range(self.replicas) if slots is None else slots:
            port = free_port(self.ports[slot] if self.ports else 0)
            own = {_LOG: str(logs / f"{slot}.jsonl"), _STEPS: str(logs / f"{slot}.csv")}
            environment = {**_QUIET, **os.environ, **own}
            if scheduler is not None:
                environment[_PLANNED] = scheduler
            if devices is None:
                environment = {**_ON_CPU, **environment}
            else:
                mine = devices[slot * self.tensor_parallel : (slot + 1) * self.tensor_parallel]
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
            template = self.command or self._vllm(scheduler is not None, on_cpu=devices is None)
            command = [part.format(model=self.model, port=port, name=NAME) for part in template]
            found.append((command, f"http://127.0.0.1:{port}", environment))
        return found

    def device_names(self) -> tuple[str, ...]:
        """What it uses of this machine: GPUs, or the CPU; TooFewDevices if there are not enough."""
        return tuple(f"GPU {each}" for each in self._devices() or ()) or ("cpu",)

    def _check(self) -> None:
        path = Path(self.model).expanduser()
        if (path.is_absolute() or self.model.startswith(".")) and not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"model={self.model!r} is no model folder: it has no config.json; expected a folder of a "
                "Hugging Face model, or a name of the hub"
            )
        if not vllm_is_here():
            raise ImportError(f"vLLM is not installed: {INSTALL}")

    def _vllm(self, planned: bool, *, on_cpu: bool) -> list[str]:
        options: dict[str, Any] = {
            "--tensor-parallel-size": self.tensor_parallel if self.tensor_parallel > 1 else None,
            "--num-gpu-blocks-override": self.kv_blocks,
            "--block-size": self.block_size,
            "--max-num-seqs": self.max_num_seqs,
            "--max-num-batched-tokens": self.max_num_batched_tokens,
            "--max-model-len": self.max_model_len,
        }
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}"]
        command += ["--host", "127.0.0.1", "--port", "{port}", "--served-model-name", "{name}"]
        for name, value in options.items():
            command += [] if value is None else [name, str(value)]
        if self.prefix_caching is not None:
            command.append("--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching")
        if planned or self.request_log or self.step_log:
            logged = "LoggedPlannedScheduler" if planned else "LoggedScheduler"
            if self.step_log:
                logged = "LoggedStepsScheduler"
            command += ["--scheduler-cls", f"gpu_harness.request_log.{logged}", "--no-async-scheduling"]
        if on_cpu:
            command += ["--distributed-executor-backend", "uni", "--enforce-eager"]
        return [*command, *(option.replace("{", "{{").replace("}", "}}") for option in self.options)]

    def _devices(self) -> list[str] | None:
        """GPUs to use, by the names that CUDA knows; None on the CPU."""
        if self.command is None and _is_for_cpu():
            return None
        given = ",".join(self.devices) or os.environ.get("CUDA_VISIBLE_DEVICES")
        if given is None:
            smi = shutil.which("nvidia-smi")
            listed = subprocess.run([smi, "-L"], capture_output=True, text=True, check=False) if smi else None
            devices = [
                str(number)
                for number, line in enumerate(listed.stdout.splitlines() if listed else ())
                if line
            ]
        else:
            devices = [each.strip() for each in given.split(",") if each.strip()]
        if self.command is not None and not devices:
            return None
        needed = self.size * self.tensor_parallel
        if len(devices) < needed:
            raise TooFewDevices(
                f"replicas={self.size} of tensor_parallel={self.tensor_parallel} need {needed} GPUs; "
                f"there are {len(devices)} (CUDA_VISIBLE_DEVICES={given!r})"
            )
        return devices


def _is_for_cpu() -> bool:
    """Whether the vLLM that is installed is one for the CPU."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return name == "vllm-cpu" or "cpu" in version(name)
        except PackageNotFoundError:
            continue
    return False


def named_scheduler(scheduler: object) -> str:
    """The name by which a server makes this batch scheduler anew; ValueError if its class cannot say all that
    it is."""
    kind = type(scheduler)
    try:
        alike = repr(vars(kind())) == repr(vars(scheduler))
        file = inspect.getsourcefile(kind)
    except TypeError:
        alike, file = False, None
    if not alike or file is None or "<" in kind.__qualname__:
        raise ValueError(
            f"scheduler={scheduler!r}; expected one whose class, at the top of a file, makes it without "
            "arguments: each server makes its own"
        )
    return (
        kind.__name__ if getattr(schedulers, kind.__name__, None) is kind else f"{file}:{kind.__qualname__}"
    )
