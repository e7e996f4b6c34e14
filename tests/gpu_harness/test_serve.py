"""The command line of the harness, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason='the proxy needs it: pip install "pytest-glia[harness]"')

import aiohttp

from sim.workloads import Workload
from tests.gpu_harness.upstream import Upstream, play

ROOT = Path(__file__).parents[2]
STALLS = """\
class Router:
    def route(self, queue, replicas, now):
        while queue:
            pass
        return []
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gpu_harness", *arguments]


@pytest.mark.parametrize("candidate", ["candidates/router.py", "stalls"])
def test_serves_until_told_and_drains(tmp_path: Path, candidate: str) -> None:
    """`serve` places requests by a candidate's file, one that stalls included; on SIGTERM it finishes what is
    open, writes the recording, and exits 0."""
    stalls, record = tmp_path / "stalls.py", tmp_path / "live.parquet"
    stalls.write_text(STALLS)
    file = str(stalls) if candidate == "stalls" else candidate

    async def scenario() -> None:
        upstream = Upstream()
        await upstream.start()
        upstream.hold = asyncio.Event()
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--router", file, "--replica", upstream.url, "--port", "0"),
            *("--record", str(record), "--router-time", "0.05"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            log = [json.loads(await process.stderr.readline())]
            while log[-1]["event"] != "serving":
                log.append(json.loads(await process.stderr.readline()))
            async with aiohttp.ClientSession() as client:
                body = {"prompt": [1] * 20, "max_tokens": 3, "stream": True}
                asking = asyncio.create_task(asked(client, log[-1]["url"], body))
                while not upstream.seen:
                    await asyncio.sleep(0.005)
                process.send_signal(signal.SIGTERM)
                while log[-1]["event"] != "draining":
                    log.append(json.loads(await process.stderr.readline()))
                upstream.hold.set()
                assert (await asking).endswith(b"[DONE]\n\n")
            rest = (await process.stderr.read()).decode().splitlines()
            log += [json.loads(line) for line in rest]
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await upstream.stop()
        assert log[-1]["outcomes"] == {"finished": 1}
        stalled = [line for line in log if line["event"] == "fallback"]
        assert [line["kind"] for line in stalled] == (["stalled"] if candidate == "stalls" else [])

    play(scenario)
    assert Workload.from_parquet(record).prompt_tokens.tolist() == [20]


async def asked(client: Any, url: str, body: dict[str, Any]) -> bytes:
    """The bytes of one answer."""
    async with client.post(url + "/v1/completions", json=body) as answer:
        content: bytes = await answer.read()
        return content


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--router", "lq", "--replica", "http://127.0.0.1:1"], "did you mean llq"),
        (["--router", "OracleLeastWork", "--replica", "http://h:1"], "an oracle, which knows all output"),
        (["--router", "llq"], "no replica is given; expected at least one --replica http://HOST:PORT"),
        (["--router", "llq", "--replica", "h:1"], "replica='h:1'; expected http://HOST:PORT, or dns+http"),
        (["--router", "llq", "--replica", "http://h:1", "--record", "x.txt"], "ends in .csv or .parquet"),
        (["--router", "llq", "--replica", "http://h:1", "--record", "/no/x.csv"], "its folder is not there"),
        (["--router", "llq", "--replica", "http://h:1", "--tokenizer", "/no"], "expected a tokenizer.json"),
        (["--router", "llq", "--replica", "http://h:1", "--max-queued", "0"], "max_queued=0; expected a pos"),
        (
            ["--router", "llq", "--replica", "http://h:1", "--port", "99999"],
            "--port 99999; expected one from 0",
        ),
    ],
)
def test_what_is_given_wrong_is_named(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with what was given, what was expected and what to do."""
    from gpu_harness.__main__ import main

    assert main(["serve", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The proxy ends with an error that names the port, and a recording of before is as it was."""
    record = tmp_path / "live.csv"
    record.write_text("before")

    async def scenario() -> None:
        upstream = Upstream()
        await upstream.start()
        port = upstream.url.rpartition(":")[2]
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--router", "llq", "--replica", upstream.url, "--port", port),
            *("--record", str(record)),
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        _, errors = await process.communicate()
        await upstream.stop()
        assert process.returncode == 2
        assert f"{port})" in errors.decode().splitlines()[-1]
        assert record.read_text() == "before"

    play(scenario)
