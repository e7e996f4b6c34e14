"""Validation: the report, what is kept of runs, and what is said of a wrong setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("aiohttp", reason='the harness needs it: pip install "pytest-glia[harness]"')

from gpu_harness import Testbed
from gpu_harness.__main__ import main
from gpu_harness.validating import Measured, alone, outside, report, shrunk, times
from sim import Cluster
from sim.baselines import RoundRobin
from sim.costs import toml
from sim.results import Run
from sim.workloads import Workload
from tests.gpu_harness.test_calibrating import TRUE
from tests.gpu_harness.test_testbed import trivial

LIMITS = ["--max-num-seqs", "16", "--max-num-batched-tokens", "256", "--max-model-len", "900"]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A profile's file."""
    path = tmp_path_factory.mktemp("profile") / "cpu.toml"
    path.write_text(toml.text(TRUE), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    """Two servers that are trivial, as arguments."""
    with Testbed(trivial()) as testbed:
        testbed.start()
        yield [part for url in testbed.urls for part in ("--url", url)]


def run(policy: str, seed: int, servers: float, simulator: float, steps: float = 1.1) -> Measured:
    """One whose times are all these."""
    sides = [dict.fromkeys(("ttft", "tpot", "response"), value) for value in (servers, simulator, 0.5)]
    return Measured(4.0, seed, policy, sides[0], sides[1], sides[2], steps, 0.012 * seed)


def test_the_report_has_errors_and_agreement() -> None:
    """Errors of means over seeds, at the pace of the steps, too; the pairs on which the testbeds part are
    named: here b is above a on servers, below it in the simulator, and c above both on either."""
    real = {"a": (1.0, 2.0), "b": (1.1, 2.2), "c": (1.5, 3.0)}
    told = {"a": (1.2, 2.4), "b": (1.08, 2.16), "c": (1.5, 3.0)}
    runs = [run(name, seed, real[name][seed], told[name][seed]) for name in real for seed in (0, 1)]
    lines = list(report(runs))
    assert lines[0].startswith("4 requests/s, 2 seeds")
    (a,) = (line for line in lines if line.startswith("  a "))
    assert a.split() == ["a", *["1,500", "1,800", "ms", "+20.0%", "-66.7%"] * 3]
    assert any("steps took +10.0% against the profile" in line for line in lines)
    assert "  requests were sent up to 12 ms late" in lines
    (ranking,) = (line for line in lines if "ranking by response" in line)
    assert "tau-b 0.33; of 3 pairs 0 tied on both, 0 on one, 1 opposed" in ranking
    assert "    opposed: a and b" in lines


def test_one_seed_ranks_nothing() -> None:
    """There is no interval; errors are told all the same, without the pace where servers log no steps."""
    lines = list(report([run("a", 1, 1.0, 1.0, np.nan), run("b", 1, 1.0, 1.0, np.nan)]))
    assert lines[-1] == "  no ranking: that takes at least two routers and two seeds"
    assert not any("against the profile" in line for line in lines)


def test_times_are_those_of_the_metrics(profile: str) -> None:
    """Mean TTFT, TPOT and response time are the simulator's own; latency is added to two of them. A run cut
    off is refused."""
    cluster = Cluster(replicas=2, gpu=profile, engine="vllm")
    load = Workload.from_arrays(
        arrival=np.arange(20) * 0.05,
        prompt_tokens=np.arange(20) * 9 + 1,
        output_tokens=np.arange(20) % 7 + 1,
    )
    full = cluster.run(load, RoundRobin())
    found = times(full, latency=0.25)
    assert found["ttft"] == pytest.approx(full.metrics["mean_ttft"] + 0.25)
    assert found["tpot"] == pytest.approx(full.metrics["mean_tpot"])
    assert found["response"] == pytest.approx(full.metrics["mean_response_time"] + 0.25)
    assert outside(full, full)[0] == 0
    with pytest.raises(ValueError, match=r"\d+ of \d+ requests did not finish; nothing to compare"):
        times(cluster.run(load, RoundRobin(), horizon=0.7))


def steps_of(run: Run, seconds: float) -> list[NDArray[np.float64]]:
    """What servers would log of requests alone, prompts in steps of 100 tokens, each of so many seconds."""
    table = run.requests
    logs: list[list[list[float]]] = [[], []]
    for number, replica in enumerate(table["replica"]):
        prompt, output = (int(table[name][number]) for name in ("prompt_tokens", "output_tokens"))
        chunks = [min(100, prompt - done) for done in range(0, prompt, 100)]
        logs[replica] += [[float(tokens), *[0.0] * 7, seconds] for tokens in [*chunks, *[1] * (output - 1)]]
    return [np.array(log) for log in logs]


def test_what_is_outside_of_steps(profile: str) -> None:
    """TTFT without the steps of the prompt; where the log is not that of these requests, or there is none,
    what the servers take longer than the simulator."""
    load = Workload.from_arrays(
        arrival=np.arange(9) * 3.0, prompt_tokens=np.arange(9) * 30 + 1, output_tokens=[1, 4, 2] * 3
    )
    run = Cluster(replicas=2, gpu=profile, engine="vllm").run(load, RoundRobin())
    ttft = run.requests["first_token"] - run.requests["arrival"]
    logs = steps_of(run, 0.001)
    prompts = np.ceil(load.prompt_tokens / 100)
    seconds, how = outside(run, run, logs)
    assert seconds == pytest.approx(np.median(ttft - 0.001 * prompts))
    assert how == "by the logged steps"
    for other in ([], [logs[0], logs[1][:-1]], [logs[0], logs[1][1:]], [logs[0], np.tile(logs[1], (2, 1))]):
        assert outside(run, run, other) == (0, "by the simulator, for the steps are not known")


def test_probes_are_alone(profile: str) -> None:
    """Each has finished at its replica before the next one comes there, even if that is half as fast as the
    profile says, and not long before; their prompts go from the shortest to the longest."""
    load = Workload.from_arrays(
        arrival=np.arange(50) * 0.01, prompt_tokens=np.arange(50) * 8 + 1, output_tokens=[40] * 50
    )
    cluster = Cluster(replicas=2, gpu=profile, engine="vllm")
    probes = alone(cluster, load)
    table = cluster.run(probes, RoundRobin()).requests
    for replica in (0, 1):
        mine = table["replica"] == replica
        gaps = np.diff(table["arrival"][mine])
        assert (gaps > 2 * table["alone"][mine][:-1]).all()
        assert gaps.max() < 2.1 * table["alone"].max()
    assert (table["prompt_tokens"][0], table["prompt_tokens"][-1]) == (1, 393)


def test_a_workload_is_shrunk() -> None:
    """All tokens by the factor, at least one; arrivals as they were."""
    load = Workload.from_arrays(arrival=[0.0, 1.0], prompt_tokens=[1, 100], output_tokens=[9, 80])
    small = shrunk(load, 8)
    assert small.arrival.tolist() == [0.0, 1.0]
    assert small.prompt_tokens.tolist() == [1, 12]
    assert small.output_tokens.tolist() == [1, 10]


@pytest.mark.slow
def test_runs_are_kept_and_not_run_again(
    urls: list[str], profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second call with another seed runs that alone, and reports on both."""
    out = tmp_path / "runs.csv"
    common = [*LIMITS, *urls, "--profile", profile, "--rate", "20", "--duration", "0.5", "--shrink", "20"]
    common += ["--workload", "sharegpt_poisson", "--out", str(out), "rr", "llq"]
    assert main(["validate", "--seeds", "1", *common]) == 0
    assert "no ranking" in capsys.readouterr().out
    before = out.read_text("utf-8").splitlines()
    assert len(before) == 3
    with out.open("a") as file:
        file.write("20.0,2,LeastLoa")  # killed in mid-write
    assert main(["validate", "--seeds", "2", *common]) == 0
    told = capsys.readouterr().out
    assert "20 requests/s, 2 seeds" in told
    assert "ms of TTFT are outside of steps (by the simulator, for the steps are not known)" in told
    after = out.read_text("utf-8").splitlines()
    assert after[:3] == before
    assert [line.split(",")[1:3] for line in after[3:]] == [["2", "LeastLoadedQueue"], ["2", "RoundRobin"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "1", "llq", "llq"], "a router is given twice; expected different ones"),
        (["--rate", "1", "nobody"], "no router is called 'nobody'"),
        (
            ["--rate", "1", "--workload", "short_prompts_long_outputs", "llq"],
            r"the workload has a request of \d+ tokens, and --max-model-len is 900; .* --shrink divides",
        ),
        (["--rate", "1", "--workload", "sharegpt_closed:users=2", "llq"], "whose users come when they have"),
        (["--rate", "1", "--shrink", "0.5", "llq"], r"--shrink 0\.5; expected a number of at least 1"),
        (["--rate", "1", "--seeds", "0", "llq"], r"--seeds 0; expected at least 1"),
        (
            ["--rate", "1", "--shrink", "20", "--steps", "steps0.csv", "llq"],
            r"1 --steps with \d+ --url; expected the step log of each running server",
        ),
        (
            ["--rate", "1", "--shrink", "20", "--steps", "no0.csv", "--steps", "no1.csv", "llq"],
            r"the step log of the server at http://\S+ is not at 'no0.csv'; start it with GLIA_STEP_LOG",
        ),
        (
            ["--rate", "1", "--shrink", "20", "--out", "/no/runs.csv", "llq"],
            "--out /no/runs.csv; its folder is",
        ),
    ],
)
def test_a_wrong_setting_is_named(
    arguments: list[str], message: str, urls: list[str], profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything runs."""
    import re

    assert main(["validate", *LIMITS, *urls, "--profile", profile, *arguments]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_another_file_is_not_overwritten(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that `validate` did not write; a profile that is none."""
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    common = [*LIMITS, "--url", "http://127.0.0.1:1", "--rate", "1", "--shrink", "8", "llq"]
    assert main(["validate", *common, "--profile", profile, "--out", str(other)]) == 2
    assert f"--out {other} is no table of `validate`; give another name, or remove it" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["validate", *common, "--profile", str(other.with_suffix(".toml"))]) == 2
    assert "the cost profile's file is not there" in capsys.readouterr().err
    assert main(["validate", *common, "--profile", profile]) == 2
    assert "the server at http://127.0.0.1:1 does not say its version" in capsys.readouterr().err
    assert main(["validate", *common, "--profile", "h100"]) == 2
    assert "--profile h100; expected the file of a profile" in capsys.readouterr().err
