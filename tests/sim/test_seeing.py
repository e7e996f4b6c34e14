"""Seeing: a run and a comparison are printed and drawn, and a fault of a policy is told by file and line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sim import Cluster, Failure, Replica, Workload
from sim.__main__ import main
from sim.baselines import RoundRobin
from sim.intervals import paired_difference, paired_ratio, t_quantile
from sim.page import page
from sim.workloads import sharegpt_bursty

ROOT = Path(__file__).parents[2]
GOOD = '''"""Sends each request to the replica with the fewest."""


class Router:
    def __init__(self, rng):
        self.rng = rng

    def route(self, queue, replicas, now):
        for request in queue:
            best = min(replicas, key=lambda replica: (replica.waiting + replica.running, self.rng.random()))
            yield request, best
'''


@pytest.fixture
def candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with candidates/router.py."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "candidates" / "router.py"
    path.parent.mkdir()
    path.write_text(GOOD)
    return path


SMALL = ["--duration", "40", "--rate", "9", "--kv-blocks", "600"]


class Balanced(HTMLParser):
    """Every tag that is opened is closed; nothing is loaded from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "href"} & {name for name, _ in attrs}, (tag, attrs)
        self.seen.add(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawn(path: Path) -> str:
    """The page's text, checked to be whole and self-contained."""
    text = path.read_text("utf-8")
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert "svg" in parser.seen
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", text)
    return text


def test_run_prints_and_draws(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics, and one page with the distributions, each replica over time, and the restarts."""
    assert main(["run", "--router", "candidates/router.py", *SMALL, "--html", "run.html"]) == 0
    out = capsys.readouterr().out
    for name in ("response time, s", "TTFT, s", "TPOT, ms", "restarted_fraction", "kv_use_mean"):
        assert name in out
    text = drawn(Path("run.html"))
    for title in ("Response time", "Time to first token", "KV cache in use", "Waiting at each", "Restarts"):
        assert title in text
    assert text.count("replica 3") > 1
    assert not list(candidate.parent.glob("__pycache__"))


def test_what_is_not_measured_is_said(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line of the reports and of the pages: the profile, and its parts by what they rest on."""
    marks = "roofline: head, decode, prefill; assumed: sampler, mixed, straggler, cpu"
    line = f"costs of a10 with llama-3-8b ({marks})"
    assert main(["run", "--router", "llq", *SMALL, "--html", "run.html"]) == 0
    assert line in capsys.readouterr().out.splitlines()
    assert main(["compare", "llq", "rr", *SMALL, "--seeds", "2", "--html", "c.html"]) == 0
    assert line in capsys.readouterr().out.splitlines()
    for path in ("run.html", "c.html"):
        assert f"<p>{line}</p>" in drawn(Path(path))
    large = ["--gpu", "h100", "--model", "llama-3-70b", "--tensor-parallel", "4"]
    assert main(["run", "--router", "llq", *SMALL, *large]) == 0
    assert "4 x h100 (4 GPUs each) with llama-3-70b" in (out := capsys.readouterr().out)
    assert "costs of h100 x 4 with llama-3-70b (roofline: elementwise, sampler; assumed: mixed" in out


def test_the_use_of_a_cache_is_that_of_its_own_blocks() -> None:
    """Where replicas differ, a small cache that is full is drawn full and a large one is not."""
    caches = (Replica(kv_blocks=250), Replica(kv_blocks=8000))
    run = Cluster(replicas=2, each=caches).run(sharegpt_bursty(6.0, 60, seed=1), RoundRobin())
    used, shown = run.series["blocks_used"].max(axis=0), page("title", [], {"RoundRobin": run})
    assert run.replicas["kv_blocks"].tolist() == [250, 8000]
    for replica, kv_blocks in enumerate((250, 8000)):
        most = used[replica] / kv_blocks * 100
        assert re.search(rf"replica {replica}: mean [\d.]+, at most {most:.3g} %", shown)
    assert used[0] / 250 > 0.9 > 0.3 > used[1] / 8000


def test_run_is_of_its_seed(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed prints the same, rng included; another does not."""
    printed = []
    for seed in ("1", "1", "2"):
        assert main(["run", "--router", "candidates/router.py:Router", *SMALL, "--seed", seed]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


@pytest.mark.parametrize("name", ["sharegpt_mmpp", "sharegpt_sessions", "sharegpt_surge", "sharegpt_ramp"])
def test_every_named_workload_runs(name: str, candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, with a rate and a duration; and it can be described."""
    assert main(["run", "--router", "llq", "--workload", name, "--rate", "4", "--duration", "30"]) == 0
    assert main(["describe", "--workload", name, "--duration", "30", "--svg", "w.svg"]) == 0
    assert "requests in" in capsys.readouterr().out
    assert Path("w.svg").read_text("utf-8").startswith("<svg")


def test_a_trace_runs(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As recorded, at another rate, resampled; from a file."""
    Workload.from_arrays(
        arrival=np.arange(50) * 0.5, prompt_tokens=np.arange(1, 51), output_tokens=np.arange(1, 51)
    ).to_csv("trace.csv")
    for more in ([], ["--rate", "20"], ["--seed", "3"], ["--duration", "5"]):
        assert main(["run", "--router", "llq", "--workload", "trace.csv", *more]) == 0
    first = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trace.csv: ")]
    assert [line.split(" (")[1].split("/s")[0] for line in first][:2] == ["2", "20"]
    assert "trace.csv: 10 requests" in first[3]


def test_compare_prints_paired_intervals_and_draws(
    candidate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against itself nothing changes; an interval for each other router and metric; one page."""
    arguments = ["compare", "llq", "hra", "candidates/router.py", *SMALL, "--seeds", "3", "--html", "c.html"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    blocks = out.split("\n\n")
    assert blocks[1].splitlines()[0] == "mean_response_time"
    assert re.search(r"HeadRoomAdmission +[\d.]+ +[+-][\d.]+% +\[[+-][\d.]+%, [+-][\d.]+%\]", blocks[1])
    assert " pt" in out
    least, router = (float(found) for found in re.findall(r"(?:below|Queue +) *([\d.]+)", blocks[1])[::-1])
    assert 0 < least < router
    text = drawn(Path("c.html"))
    assert text.count("candidates/router.py") > 2
    Path("same.py").write_text(GOOD)
    assert (
        main(["compare", "candidates/router.py", "same.py", *SMALL, "--seeds", "2", "--metric", "mean_ttft"])
        == 0
    )
    assert "[+0.0%, +0.0%]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (
            "replica.waiting +",
            "replica.wating +",
            ["candidates/router.py:10 in <lambda>", "AttributeError: 'ReplicaView' object has no"],
        ),
        ("self.rng = rng", "self.rng = rgn", ["candidates/router.py:6 in __init__", "NameError: name 'rgn'"]),
        ('"""Sends', 'import nothing_like_it\n"""Sends', ["candidates/router.py:1", "ModuleNotFoundError"]),
        ("class Router:", "class Router", ["candidates/router.py:4", "SyntaxError: expected ':'"]),
        (
            "yield request, best",
            "yield best",
            ["candidates/router.py:8 in route", "Router.route, call 1 at", "the router gave", "a pair"],
        ),
        ("for request in queue:", "for request in ():", ["candidates/router.py:8 in route", "for ever"]),
        ("yield request, best", "yield 'junk' * 999, best", ["candidates/router.py:8 in route", "'junkjunk"]),
        (
            "yield request, best",
            "yield request, 3",
            ["candidates/router.py:8 in route", "to 3, which is not"],
        ),
        (
            "yield request, best",
            "yield 'junk ' * 99",
            ["candidates/router.py:8 in route", "the router gave 'j"],
        ),
        (
            "        for request in queue:",
            "        for request in sum(queue, 'a' * 500) and queue:",
            ["candidates/router.py:9 in route", "TypeError: "],
        ),
        ("def route", "def rout", ["candidates/router.py:1", "the file has none; expected a class Router"]),
        (
            "(self, rng)",
            "(self, rgn)",
            ["candidates/router.py:5 in __init__", "missing 1 required"],
        ),
        (
            "in queue:",
            "in queue:\n            replicas[0].waiting = 0",
            ["candidates/router.py:10 in route", "replicas[0].waiting = 0", "a view is read-only"],
        ),
    ],
)
def test_a_fault_is_told_by_file_and_line(
    candidate: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, shown: list[str]
) -> None:
    """At 80 columns: where, the line itself, the error, the call; exit code 1 and no traceback."""
    candidate.write_text(GOOD.replace(old, new))
    assert main(["run", "--router", "candidates/router.py", *SMALL]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("candidates/router.py:")
    assert max(map(len, lines)) <= 80
    for text in shown:
        assert text in " ".join(line.strip() for line in lines), lines


DYING = """class Router:
    def route(self, queue, replicas, now):
        self.first = getattr(self, "first", replicas[0])
        return [(request, self.first) for request in queue]
"""


def test_a_dead_replica_is_told_by_file_and_line(
    candidate: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that goes on sending to a replica that failed."""
    candidate.write_text(DYING)
    failing = Cluster(failures=(Failure(0, at=2.0),))
    monkeypatch.setattr("sim.showing.cluster_of", lambda options, autoscaled: failing)
    assert main(["run", "--router", "candidates/router.py", *SMALL]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "candidates/router.py:2 in route"
    assert max(map(len, lines)) <= 80
    assert "takes no requests now" in " ".join(lines)


def test_another_class_than_the_files_is_named(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are."""
    assert main(["run", "--router", "candidates/router.py:Other"]) == 1
    text = " ".join(capsys.readouterr().err.split())
    assert text.startswith("candidates/router.py:1 ")
    assert "the file has Router; expected a class Other with a method route(queue, replicas, now)" in text


FAILING = """from sim import Autoscaling, Cluster, workloads
from sim.baselines import RoundRobin
from policy import Policy

CLUSTER = Cluster(engine="vllm", autoscaling=Autoscaling(interval=1.0))
WORKLOAD = workloads.sharegpt_bursty(4.0, 20, seed=1)


def test_it():
    CLUSTER.run(WORKLOAD, {arguments})
"""


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("route(self, queue, replicas, now)", "Policy()"),
        ("plan(self, engine, now)", "RoundRobin(), Policy()"),
        ("target(self, cluster, now)", "RoundRobin(), autoscaler=Policy()"),
    ],
)
@pytest.mark.parametrize(
    ("body", "reason", "line"),
    [
        ("return nothing", "NameError: name 'nothing' is not defined", 3),
        pytest.param("return 3.5", "returned 3.5 where", 2, marks=pytest.mark.slow),
    ],
)
def test_a_failing_spec_shows_the_policys_line(
    tmp_path: Path, method: str, arguments: str, body: str, reason: str, line: int
) -> None:
    """pytest's output at 80 columns has file and line of router, scheduler or autoscaler, and the reason."""
    (tmp_path / "policy.py").write_text(f"class Policy:\n    def {method}:\n        {body}\n")
    (tmp_path / "test_it.py").write_text(FAILING.format(arguments=arguments))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    told = [row.removeprefix("E").strip() for row in done.stdout.splitlines() if row.startswith("E  ")]
    assert all(len(row) <= 76 for row in told)
    assert f"sim.policies.PolicyError: policy.py:{line}: " in (text := " ".join(told))
    assert reason in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--router", "best"], "no router is called 'best'; expected a file"),
        (["run", "--router", "nowhere.py"], "the router's file is not there: 'nowhere.py'"),
        (
            ["run", "--router", "llq", "--workload", "chat"],
            "no workload is called 'chat'; expected a file or",
        ),
        (
            ["run", "--router", "llq", "--workload", "chat.csv"],
            "the workload's file is not there: 'chat.csv'",
        ),
        (["run", "--router", "llq", "--replicas", "0"], "replicas=0; expected a whole number from 1"),
        (["run", "--router", "llq", "--rate", "-1"], "rate=-1.0; expected a positive, finite number"),
        (["compare", "llq", "llq"], "a router is given twice"),
        (
            ["run", "--router", "llq", "--workload", "sharegpt_poisson", "--rate", "0.6", "--duration", "1"],
            "no request",
        ),
        (
            ["compare", "llq", "--metric", "speed", *SMALL],
            "no metric is called 'speed'; expected one of mean_",
        ),
    ],
)
def test_a_wrong_argument_is_named(
    candidate: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """In one sentence, with what would be right."""
    assert main(arguments) == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 19, 100, 1000])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.975, 0.999])
def test_t_quantiles_are_scipys(level: float, freedom: int) -> None:
    """To nine digits."""
    assert t_quantile(level, freedom) == pytest.approx(stats.t.ppf(level, freedom), rel=1e-9, abs=1e-12)


def test_paired_intervals() -> None:
    """That of a ratio is scipy's of the logarithms; a single pair bounds nothing; 95 % cover 95 %."""
    rng = np.random.default_rng(1)
    below = rng.lognormal(2.0, 1.0, 8)
    above = below * rng.lognormal(-0.2, 0.1, 8)
    ours = paired_ratio(above, below)
    theirs = stats.ttest_rel(np.log(above), np.log(below)).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((np.exp(theirs.low), np.exp(theirs.high)))
    assert paired_difference([3.0], [1.0]).high == np.inf
    with pytest.raises(ValueError, match="expected pairs of positive numbers"):
        paired_ratio([1.0, 0.0], [1.0, 1.0])
    covered = [
        interval.low < 1.1 < interval.high
        for interval in (paired_ratio(1.1 * np.exp(rng.normal(0, 0.3, 6)), np.ones(6)) for _ in range(1000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_rejected_requests_are_told(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line of `run` and of `compare`, a tile, and no requests that the router would hold for ever."""
    small = ["--kv-blocks", "60", "--duration", "40", "--html", "out.html"]
    assert main(["run", "--router", "llq", *small]) == 0
    shown = capsys.readouterr().out
    [told] = [line for line in shown.splitlines() if line.startswith("warning")]
    assert re.fullmatch(
        r"warning: \d+ of 320 requests rejected under LeastLoadedQueue, too long for a KV cache", told
    )
    text = Path("out.html").read_text("utf-8")
    assert "of the requests rejected" in text
    assert "of the requests unfinished" not in text
    assert main(["compare", "llq", "rr", "--seeds", "2", *small]) == 0
    assert capsys.readouterr().out.count("warning: ") == 2


def test_one_seed_has_no_interval(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A change, and no made-up spread."""
    assert main(["compare", "llq", "rr", "--seeds", "1", *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "so no interval" in shown
    assert "[" not in shown
    assert "?" not in shown


def test_a_policy_that_fails_leaves_the_others(candidate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their rows are printed and drawn, with the bound; it is named, and told on standard error."""
    candidate.write_text("class Router:\n    def route(self, queue, replicas, now):\n        return []\n")
    policies = ["llq", "candidates/router.py", "rr"]
    assert main(["compare", *policies, "--seeds", "2", "--html", "out.html", *SMALL]) == 1
    shown = capsys.readouterr()
    assert "candidates/router.py failed and is left out" in shown.out
    assert re.search(r"^  RoundRobin .*%", shown.out, re.MULTILINE)
    assert "candidates/router.py:2" in shown.err
    assert "no policy can be below" in shown.out
    assert "mean_ttft: no policy can be below" in Path("out.html").read_text("utf-8")
