"""`python -m gpu_harness bench`: what this proxy costs, and another beside it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_harness import bench
from gpu_harness.__main__ import main

SERVE = f"{sys.executable} -m gpu_harness serve --router llq --replica {{upstream}} --port {{port}}"


@pytest.mark.slow
def test_another_proxy_is_measured_in_the_same_run() -> None:
    """It gets the same requests; what each adds is told at the same rate."""
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "gpu_harness",
            "bench",
            "--seconds",
            "1",
            "--concurrency",
            "8",
            "--beside",
            SERVE,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    told = ended.stdout.splitlines()
    served = [re.match(r"(.+): ([\d,]+) streamed requests/s of 16 events", line) for line in told[:2]]
    assert [each and each[1] for each in served] == ["this proxy", Path(sys.executable).name]
    assert all(each and int(each[2].replace(",", "")) > 0 for each in served)
    assert [line.split(" at ")[0] for line in told[2:]] == [
        f"{name}: p{share} TTFT"
        for name in ("this proxy", "this proxy", Path(sys.executable).name)
        for share in (50, 99)
    ]
    assert len({line.split(" at ")[1].split(":")[0] for line in told[4:]}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "no-such-proxy --port {port}",
            r"--beside 'no-such-proxy --port {port}' does not start: .*no-such-proxy",
        ),
        (
            "sh -c 'echo no key; exit 3'",
            r"within 5 s \(exit code 3\); expected a command that serves {upstream} at",
        ),
        ("sh -c 'echo no key; exit 3'", r"its last output:\nno key$"),
        (
            "sleep 100",
            r"'sleep 100' streamed no completion at http://127.0.0.1:\d+ within 5 s \(exit code -9\)",
        ),
    ],
)
def test_a_proxy_that_does_not_come_up(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, with its exit code and what it said last."""
    assert main(["bench", "--seconds", "1", "--patience", "5", "--beside", command]) == 2
    assert re.search(message.replace("{", r"\{").replace("}", r"\}"), capsys.readouterr().err.strip())


@pytest.mark.parametrize("name", ["events", "seconds", "concurrency", "rate"])
def test_a_setting_that_measures_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named before anything starts."""
    assert main(["bench", f"--{name}", "0"]) == 2
    assert capsys.readouterr().err.strip() == f"--{name} 0; expected a number above 0"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno", b""],
    ids=["refused", "closed"],
)
def test_a_proxy_that_does_not_answer_all(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What refuses requests, or breaks them off, has no TTFT: it is named, and nothing hangs."""
    monkeypatch.setattr(bench, "_SILENCE", 0.3)

    class Refusing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(answer)
            if not answer:
                self.transport.close()

    async def measured() -> None:
        server = await asyncio.get_running_loop().create_server(Refusing, "127.0.0.1", 0)
        async with server, asyncio.timeout(20):
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            await bench._open("that proxy", url, 50, 0.2)

    with pytest.raises(ValueError, match=r"^that proxy answered 0 of \d+ requests at 50/s .* is it too slow"):
        asyncio.run(measured())
