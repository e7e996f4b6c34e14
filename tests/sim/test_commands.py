"""The commands: they print what they promise, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import bench, curve, paper
from sim.__main__ import main
from sim.baselines import LeastLoadedQueue, RoundRobin

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_bench_counts_its_calls(capsys: pytest.CaptureFixture[str]) -> None:
    """Compile time apart, then requests/s with the calls asserted."""
    assert main(["bench", "--duration", "30", "--repeats", "2"]) == 0
    compiled, measured = capsys.readouterr().out.splitlines()
    assert "not counted below" in compiled
    assert "requests/s" in measured
    assert "router calls counted" in measured


def test_bench_takes_azures_lengths_and_a_scheduler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workload W, if its lengths are there, under a batch scheduler that is called at every step."""
    trace = tmp_path / "azure.csv"
    arguments = ["bench", "--repeats", "1", "--scheduler", "--azure", str(trace)]
    assert main(arguments) == 1
    assert f"Azure's trace is not at '{trace}'" in " ".join(capsys.readouterr().err.split())
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "t,900,30\n" * 50)
    assert main(arguments) == 0
    measured = capsys.readouterr().out.splitlines()[1]
    assert "50 requests at 28/s on 4 replicas, vllm engine, a batch scheduler in Python" in measured


def test_bench_fails_if_a_call_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure for a router that was not asked every time is no figure."""
    read = bench.ReadingLeastLoadedQueue.route

    def forgetful(self: bench.ReadingLeastLoadedQueue, *call: object) -> object:
        pairs = read(self, *call)  # type: ignore[arg-type]
        self.views_read -= 1
        return pairs

    monkeypatch.setattr(bench.ReadingLeastLoadedQueue, "route", forgetful)
    with pytest.raises(AssertionError, match="expected one call for each of 85 arrivals"):
        list(bench.report(rate=8.5, duration=10, repeats=1))


def test_paper_says_where_its_data_should_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the data: one sentence, exit code 1."""
    assert main(["paper", "--data", str(tmp_path)]) == 1
    assert f"the paper's lengths are not at '{tmp_path}" in " ".join(capsys.readouterr().err.split())


def test_paper_arrivals_are_the_published_ones() -> None:
    """7,859 requests, the last at 999.79995 s."""
    arrivals = paper.arrivals()
    assert len(arrivals) == 7859
    assert arrivals[-1] == pytest.approx(999.79995, abs=1e-5)


def test_another_generator_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If NumPy's legacy generator ever changed, the command would not quietly compare another trace."""
    monkeypatch.setattr(paper, "REQUESTS", 7000)
    with pytest.raises(RuntimeError, match=r"gives 7859 arrivals .* the paper's trace has 7000"):
        paper.arrivals()


@pytest.mark.skipif(
    not (DATA / paper.TRACE).is_file(), reason=f"the published lengths are not at {DATA / paper.TRACE}"
)
def test_the_paper_is_reproduced() -> None:
    """Calibrated on LLQ's 54.6 s alone, Round Robin is within 8 % of its published 63.3 s (median of 20)."""
    workloads = paper.traces(DATA, 20)
    for router, tolerance in ((LeastLoadedQueue, 0.03), (RoundRobin, 0.08)):
        means = paper.replicate(router, workloads, 1.0, lambda run: run.metrics["mean_response_time"])
        median = sorted(means)[9:11]
        assert sum(median) / 2 == pytest.approx(paper.PUBLISHED[router.__name__], rel=tolerance)


def test_paper_prints_all_routers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calibration grid, then a line for each of the six routers with the published figures beside."""
    (tmp_path / "traces").mkdir()
    (tmp_path / paper.TRACE).write_text(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "0,50,3\n" * 3973
    )
    monkeypatch.setattr(paper, "GRID", [1.0])
    assert main(["paper", "--data", str(tmp_path), "--resamplings", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-6:]] == [router.__name__ for router in paper.ROUTERS]
    assert "63.3" in lines[-5]
    assert "54.6" in lines[-4]


def test_curve_has_a_line_per_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table from which a load is chosen."""
    monkeypatch.setattr(curve, "RATES", (4.0, 5.0))
    assert main(["curve", "--seeds", "2", "--duration", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["4.0", "5.0"]


def test_a_count_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """As a usage error that names it."""
    with pytest.raises(SystemExit):
        main(["bench", "--repeats", "0"])
    assert "'0'; expected a whole number of at least 1" in " ".join(capsys.readouterr().err.split())


def azures_trace() -> Path:
    """Azure's trace, or a skip that says where it should be."""
    trace = DATA / "traces" / "AzureLLMInferenceTrace_conv.csv"
    if not trace.is_file():
        pytest.skip(f"Azure's trace is not at {trace}")
    return trace


def test_workload_w_is_what_it_is_called() -> None:
    """2,000 of Azure's conversations, clipped at 4,096 tokens, Poisson at 28 requests/s."""
    workload = bench.azure(azures_trace())
    figures = workload.describe()
    assert len(workload) == 2000
    assert max(workload.prompt_tokens.max(), workload.output_tokens.max()) == 4096
    assert figures["rate"] == pytest.approx(28, rel=0.05)
    assert figures["gap_cv"] == pytest.approx(1, abs=0.05)


def test_large_and_start_need_azures_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it: one sentence, exit code 1."""
    for option in ("--large", "--start", "--stages"):
        assert main(["bench", option]) == 1
        assert "expected --azure TRACE" in " ".join(capsys.readouterr().err.split())
        assert main(["bench", option, "--azure", str(tmp_path / "none.csv")]) == 1
        assert "Azure's trace is not at" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_request_costs_the_same_in_large_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """From 10,000 to 100,000 requests on 64 replicas CPU time per request grows by less than 60 % (30 % on an
    idle machine), and memory by less than 1 kB per request; the system is in the same state."""
    assert main(["bench", "--azure", str(azures_trace()), "--large", "10000", "10000", "100000"]) == 0
    rows = [line.replace(",", "").split() for line in capsys.readouterr().out.splitlines()[2:]]
    requests, steps, response, _, cpu, memory = np.array(
        [[float(cell) for cell in row if cell[0].isdigit()] for row in rows]
    ).T
    assert requests.tolist() == [10_000, 10_000, 100_000]
    assert steps[2] / steps[0] == pytest.approx(10, rel=0.2)
    assert response[2] == pytest.approx(response[0], rel=0.1)
    assert cpu[2] < 1.6 * cpu[:2].min()
    assert memory[2] - memory[0] < 90


@pytest.mark.slow
def test_a_start_is_soon_and_small(capsys: pytest.CaptureFixture[str]) -> None:
    """A fork is ready far sooner than a fresh process, which compiles nothing; workload W stays below 200
    MB."""
    assert main(["bench", "--azure", str(azures_trace()), "--start", "--repeats", "5"]) == 0
    fresh, fork, memory = (line.split(": ")[1].split() for line in capsys.readouterr().out.splitlines())
    assert fresh[1] == "s"
    assert float(fresh[0]) < 5
    assert fork[1] == "ms"
    assert float(fork[0]) < 100
    assert 100 < float(memory[0]) < 200


@pytest.mark.slow
def test_workload_w_is_fast_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """A seventh of what an idle machine does, with a router, and with a batch scheduler in Python, too."""
    for more, least in (([], 10_000), (["--scheduler"], 2_000)):
        assert main(["bench", "--azure", str(azures_trace()), *more]) == 0
        measured = capsys.readouterr().out.splitlines()[1]
        assert float(measured.split(" requests/s")[0].replace(",", "")) > least


def test_stages_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    """To the time of a request, each of them some of it."""
    assert main(["bench", "--azure", str(azures_trace()), "--stages", "--repeats", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    *parts, whole = (float(line.split(" us per request")[0].split()[-1]) for line in lines)
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(whole, abs=0.05)
