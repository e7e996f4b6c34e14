"""Faults of use: each is one sentence at 80 columns that says what to do, before any work is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim import Cluster, Workload, costs, strategies, workloads
from sim.__main__ import main
from sim.costs.shapes import kv_blocks
from sim.policies import PolicyError
from tests.sim.test_steps import steps_of, write

ROOT = Path(__file__).parents[2]
PLAIN = "class Router:\n    def route(self, queue, replicas, now):\n        "


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that fails says, its lines put together; none is longer than 80 unless a path is."""
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(len(line) <= 80 or "/" in max(line.split(), key=len) for line in lines), lines
    return " ".join(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.exit()", "SystemExit:"),
        ("raise GeneratorExit", "GeneratorExit:"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError:"),
    ],
)
def test_a_policy_cannot_end_the_command(
    body: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sys.exit()` in a call, in a constructor or on loading is a fault of the policy's line."""
    path = tmp_path / "router.py"
    for text in (PLAIN + body, body, f"class Router:\n    def __init__(self): {body}\n    route = 1"):
        path.write_text(text.replace("route = 1", "def route(self, *call): ..."))
        shown = told(["run", "--router", str(path), "--duration", "10"], capsys)
        assert "router.py:" in shown
        assert message in shown


def test_an_interrupt_is_no_fault_of_a_policy() -> None:
    """Control-C during a call of a policy ends the run."""

    class Interrupted:
        def route(self, queue: object, replicas: object, now: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cluster().run(workloads.sharegpt_bursty(2.0, 5, seed=1), Interrupted())  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_an_async_policy_is_told() -> None:
    """It names `async`, and Python does not warn of a coroutine that nobody awaited."""

    class Late:
        async def route(self, queue: object, replicas: object, now: float) -> None: ...

    with pytest.raises(PolicyError, match="coroutine \\(of `async def`"):
        Cluster().run(workloads.sharegpt_bursty(2.0, 5, seed=1), Late())  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [1.7e12, 1.7e15])
def test_epoch_times_are_refused(first: float) -> None:
    """Milliseconds and microseconds since 1970 would lose what lies between two arrivals."""
    with pytest.raises(
        ValueError, match=r"arrival of row 0 .*expected at most 4,294,967,296 seconds, .*less the"
    ):
        Workload.from_arrays(arrival=[first, first + 1], prompt_tokens=[1, 1], output_tokens=[1, 1])
    moment = 2.0**32
    assert np.spacing(np.nextafter(moment, 0)) < 1e-6 < 2 * np.spacing(moment)


def test_steps_in_another_unit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Milliseconds and microseconds in the column of seconds; the same steps in seconds are fitted."""
    rows = steps_of(costs.profile("h100", "llama-3-8b"), 100, 0.05, 1)
    path = tmp_path / "steps.csv"
    fit = ["fit", "--source", "steps", "--gpu", "h100", "--model", "llama-3-8b", "--folder", str(path)]
    for factor in (1e3, 1e6, 1e-3):
        write(path, [[*row[:-1], row[-1] * factor] for row in rows])
        shown = told(fit, capsys)
        assert "times what the data sheet of gpu='h100'" in shown
        assert "Is `seconds` in seconds?" in shown
    write(path, rows)
    assert main(fit) == 0


def test_a_profile_of_other_measurements_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same fit may be made anew; a file of another source, or another file, is not overwritten."""
    fit = ["fit", "--source", "roofline", "--gpu", "l4", "--model", "llama-3-8b", "--out", str(tmp_path)]
    assert main(fit) == 0
    assert main(fit) == 0
    capsys.readouterr()
    path = tmp_path / "l4__llama-3-8b__tp1.toml"
    path.write_text(path.read_text().replace('source = "', 'source = "my own '))
    assert "is from my own" in told(fit, capsys)
    path.write_text("mine")
    assert "is from something else" in told(fit, capsys)
    assert path.read_text() == "mine"


def test_outputs_are_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The suffix, the folder, and that it is none; the router's own file is not overwritten."""
    router = tmp_path / "router.py"
    router.write_text(PLAIN + "raise AssertionError('it has run')")
    run = ["run", "--router", str(router)]
    assert "does not end in .html" in told([*run, "--html", str(router)], capsys)
    assert "is a folder; expected a file NAME.html" in told([*run, "--html", str(tmp_path)], capsys)
    absent = str(tmp_path / "none" / "out.html")
    assert "lies in a folder that is not there; make" in told([*run, "--html", absent], capsys)
    assert "does not end in .svg" in told(["describe", "--svg", "out.png"], capsys)
    fit = ["fit", "--source", "roofline", "--gpu", "l4", "--model", "llama-3-8b", "--out", str(router)]
    assert "is a file; expected a folder" in told(fit, capsys)


@pytest.mark.parametrize("option", [["--rate", "1e9"], ["--duration", "1e12"]])
def test_too_many_requests_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What they would be, how many may be, and what to do."""
    shown = told(["describe", *option], capsys)
    assert "requests; expected at most 10,000,000; lower one" in shown


def test_blocks_of_an_unknown_gpu() -> None:
    """The GPU, the model and the number of GPUs are checked."""
    with pytest.raises(ValueError, match="gpu='h10' has no data sheet here; there is a10"):
        kv_blocks("h10", "llama-3-8b")
    with pytest.raises(ValueError, match="model='gpt-2' has no sizes here"):
        kv_blocks("h100", "gpt-2")
    with pytest.raises(ValueError, match="tensor_parallel=0; expected a whole number from 1"):
        kv_blocks("h100", "llama-3-8b", tensor_parallel=0)


def test_a_strategy_needs_arrivals_and_a_range() -> None:
    """A closed loop has no arrivals to be like; a number is no range."""
    chat = workloads.sharegpt_bursty(2.0, 10, seed=1)
    with pytest.raises(ValueError, match=r"expected a sim.Workload, whose arrivals are known"):
        strategies.like(workloads.ClosedLoop(users=2, requests=4, lengths=workloads.SHAREGPT).workload(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="requests=10; expected a range"):
        strategies.like(chat, requests=10)  # type: ignore[arg-type]


def test_a_usage_error_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    """The error and where help is, without all options there are."""
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--router", "llq", "--rates", "1"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("python -m sim: unrecognized arguments: --rates 1; see python -m sim --help")
    assert len(shown.splitlines()) <= 2


def test_a_reader_may_stop_and_a_user_interrupt() -> None:
    """`| head -1` and Control-C end a command without a traceback, with the exit codes of a shell."""
    command = [sys.executable, "-m", "sim"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "profiles"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        assert done.stdout is not None
        done.stdout.close()
        assert done.stderr is not None
        assert done.stderr.read() == b""
        assert done.wait(60) == 128 + signal.SIGPIPE
    long = subprocess.Popen(
        [*command, "curve"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert long.stdout is not None
    assert long.stdout.readline()
    long.send_signal(signal.SIGINT)
    _, shown = long.communicate(timeout=60)
    assert shown == b""
    assert long.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--router", "lql"], "(did you mean llq?)"),
        (["--router", "RoundRobbin"], "(did you mean RoundRobin"),
        (["--autoscaler", "QueueLenght"], "(did you mean QueueLength"),
        (["--router", "zzz"], "LeastLoadedQueue (llq), LeastOutstandingRequests (lor)"),
        (["--router", "llq", "--workload", "sharegpt_posson"], "(did you mean sharegpt_poisson"),
        (["--autoscaler", "QueueLength(per_replica=nan)"], "per_replica=nan is no number"),
    ],
)
def test_a_name_that_is_nearly_right(
    option: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names most like it are told, and the short ones beside the long."""
    assert message in told(["run", *option], capsys)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("TIME,ContextTokens,GeneratedTokens\n1,2,3\n", "line 1: the columns are TIME"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1700000000,2,3\n", "line 2: .* a date and time as 2023-"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15,2\n",
            "the row has TIMESTAMP, ContextTokens$",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15,2,3,4\n",
            "4 entries; expected 3, one a col",
        ),
        (
            "arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n0,1e12,1\n",
            "line 3: num_prefill_tokens is",
        ),
        ("arrived_at,num_prefill_tokens,num_decode_tokens\nnoon,1,1\n", "expected a number of seconds"),
    ],
)
def test_a_wrong_row_of_a_trace(rows: str, message: str, tmp_path: Path) -> None:
    """File, line, what is there, and the form that is expected."""
    path = tmp_path / "trace.csv"
    path.write_text(rows)
    with pytest.raises(ValueError, match=message):
        workloads.load(path)
