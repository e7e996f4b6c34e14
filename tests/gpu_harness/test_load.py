"""The load generator: exact, on time, and never counting twice."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason='the load generator needs it: pip install "pytest-glia[harness]"')

from gpu_harness.__main__ import main
from gpu_harness.load import Answer, LoadError, Target, answers
from gpu_harness.prompting import Prompting
from sim.results import Run
from sim.workloads import Prefixes, Workload
from tests.gpu_harness.upstream import Upstream, play


def workload(count: int = 6, gap: float = 0.01, prefixes: Prefixes | None = None) -> Workload:
    return Workload.from_arrays(
        arrival=[gap * number for number in range(count)],
        prompt_tokens=[20 + number for number in range(count)],
        output_tokens=[3 + number for number in range(count)],
        prefixes=prefixes,
    )


async def loaded(upstream: Upstream, load: Workload, **settings: Any) -> list[Answer]:
    await upstream.start()
    try:
        return await answers(Target(upstream.url, "tiny"), load, Prompting(load), **settings)
    finally:
        await upstream.stop()


def test_token_counts_are_exact() -> None:
    """Each request has the ids of its prompt's length, and gets exactly its output, each token timed."""

    async def scenario() -> None:
        load, upstream = workload(), Upstream()
        made = await loaded(upstream, load)
        assert sorted(len(body["prompt"]) for body in upstream.seen) == load.prompt_tokens.tolist()
        assert all(body["ignore_eos"] and body["temperature"] == 0 for body in upstream.seen)
        assert [len(answer.token_times) for answer in made] == load.output_tokens.tolist()
        for answer in made:
            times = [answer.due, answer.sent, *answer.token_times]
            assert times == sorted(times)
            assert answer.finish == answer.token_times[-1]

    play(scenario)


def test_the_loop_is_open() -> None:
    """Requests are sent when they are due though no earlier one has been answered, and what a late answer
    cost counts from then."""

    async def scenario() -> None:
        upstream, load = Upstream(), workload(5, 0.02)
        upstream.hold = asyncio.Event()
        loading = asyncio.create_task(loaded(upstream, load))
        while len(upstream.seen) < 5:
            await asyncio.sleep(0.001)
        upstream.hold.set()
        made = await loading
        assert [answer.due for answer in made] == load.arrival.tolist()
        assert made[0].token_times[0] - made[0].due >= 0.08

    play(scenario)


def test_wrong_token_counts_name_the_request() -> None:
    """A server that makes another number of tokens than asked for ends the load with an error."""

    async def scenario() -> None:
        upstream = Upstream()
        upstream.lie = 1
        with pytest.raises(
            LoadError, match=r"request glia-run-0-: the server's usage has 20 prompt and 2 out"
        ):
            await loaded(upstream, workload(1))

    play(scenario)


@pytest.mark.parametrize("how", ["an error", "a broken stream"])
def test_a_failed_request_is_unfinished(how: str) -> None:
    """It has no finish, what it got before counts, and it says why."""

    async def scenario() -> None:
        upstream = Upstream()
        upstream.error = 500 if how == "an error" else None
        upstream.die_after = 2
        (answer,) = await loaded(upstream, workload(1))
        assert answer.error
        assert math.isnan(answer.finish)
        assert len(answer.token_times) <= 2

    play(scenario)


def test_at_the_horizon_all_ends() -> None:
    """What has not arrived is not sent, what has not finished is left unfinished."""

    async def scenario() -> None:
        upstream = Upstream()
        upstream.hold = asyncio.Event()
        made = await loaded(upstream, workload(6, 0.1), horizon=0.15)
        assert len(made) == 2
        assert all(math.isnan(answer.finish) for answer in made)

    play(scenario)


def test_what_is_over_waits_for_no_horizon() -> None:
    """A run ends with its last answer, where all requests have come before."""

    async def scenario() -> None:
        began = time.monotonic()
        made = await loaded(Upstream(), workload(), horizon=50.0)
        assert all(answer.finish > 0 for answer in made)
        assert time.monotonic() - began < 25

    play(scenario)


def test_prompts_are_equal_where_the_workload_says_so() -> None:
    """Equal hashes are equal tokens, others are not; another salt begins every prompt otherwise."""
    shared = workload(3, prefixes=Prefixes.from_rows([[7], [7], [8]], 16))
    one, two, three = (Prompting(shared)[number] for number in range(3))
    assert one[:16] == two[:16]
    assert one[16:] != two[16 : len(one)]
    assert one[:16] != three[:16]
    assert Prompting(shared, salt=1)[0][:16] != one[:16]
    assert Prompting(shared)[0] == one
    assert all(10 <= token < 1000 for token in np.concatenate([one, two, three]))
    with pytest.raises(ValueError, match=r"vocabulary=\(5, 5\); expected the first id and one past the last"):
        Prompting(shared, vocabulary=(5, 5))


def test_an_endpoint_is_measured_as_the_simulator_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`load` sends a workload's file to a URL, and writes a `Run`; a failed request is in it once, as
    unfinished, and makes the exit code 1."""
    workload().to_csv(tmp_path / "work.csv")
    out = tmp_path / "run.parquet"

    async def scenario() -> None:
        upstream = Upstream()
        await upstream.start()
        command = ["load", upstream.url, str(tmp_path / "work.csv"), "--model", "tiny", "--out", str(out)]
        assert await asyncio.to_thread(main, [*command, "--replica", upstream.url, "--key", "k"]) == 0
        assert upstream.headers[0]["Authorization"] == "Bearer k"
        run = Run.from_parquet(out)
        assert run.requests["output_tokens"].tolist() == workload().output_tokens.tolist()
        assert run.metrics["unfinished_fraction"] == 0
        assert run.metrics["mean_slowdown"] > 0
        upstream.broken = 4
        assert await asyncio.to_thread(main, command) == 1
        again = Run.from_parquet(out)
        assert np.isnan(again.requests["finish"]).tolist() == [False] * 4 + [True] + [False]
        assert again.totals["failed"] == 1
        await upstream.stop()

    play(scenario)
    assert "1 failed" in capsys.readouterr().out


def test_what_to_load_is_named_if_it_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An endpoint without its scheme, and a workload that is no file."""
    file = tmp_path / "live.csv"
    file.touch()
    assert main(["load", "127.0.0.1:9", str(file), "--model", "tiny"]) == 2
    assert "URL '127.0.0.1:9'; expected the endpoint with its scheme" in capsys.readouterr().err
    assert main(["load", "http://127.0.0.1:9", "sharegpt_bursty", "--model", "tiny"]) == 2
    assert "the workload 'sharegpt_bursty' is not there; expected a file" in capsys.readouterr().err
