"""`python -m sim transfer`: a policy on other systems and traces, as a table that says what is better, worse
or neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import Cluster, transfer, workloads
from sim.__main__ import main
from sim.layers import LAYERS, policy
from sim.scaling import Autoscaling
from sim.transfer import PLANS, Plan, Setting, rivals

SMALL = Cluster(replicas=2, kv_blocks=900)
TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(
    f"{at},{40 + at % 7},{5 + at % 3}\n" for at in range(90)
)

FIRST = """\
class Router:
    def route(self, queue, replicas, now):
        return [(request, replicas[0]) for request in queue]
"""


def plan(*settings: Setting, **changes: object) -> dict[str, Plan]:
    """Short ones for each layer."""
    quick = {"requests": 60, "against": ("llq", "rr"), "metrics": ("mean_response_time",), **changes}
    return {"router": Plan(settings=settings, **quick)}  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 requests a replica."""
    monkeypatch.setattr(transfer, "BACKLOG", 40)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def first(tmp_path: Path) -> str:
    """The file of a router that uses one replica alone."""
    file = tmp_path / "first.py"
    file.write_text(FIRST, "utf-8")
    return str(file)


def test_the_table_says_where_what_changed(
    monkeypatch: pytest.MonkeyPatch, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a setting, load and metric: against itself nothing is shown, against a worse one it is better."""
    home = Setting(SMALL, "sharegpt_bursty", (0.8, 1.2), home=True)
    monkeypatch.setattr(transfer, "PLANS", plan(home, against=("llq", first)))
    assert main(["transfer", "router", "LeastLoadedQueue", "--seeds", "4"]) == 0
    head, blank, names, _, *rows = capsys.readouterr().out.splitlines()
    assert "smaller is better" in head
    assert not blank
    assert cells(names)[-2:] == ["against llq", f"against {first}"]
    assert len(rows) == 2
    for row, load in zip(rows, ("0.8", "1.2"), strict=True):
        assert cells(row)[:4] == ["a10, 2", "llama-3-8b", "sarathi", "sharegpt_bursty (home)"]
        assert cells(row)[4].startswith(f"{load} (")
        assert cells(row)[-2] == "+0.0 % [+0.0, +0.0], not shown"
        assert cells(row)[-1].endswith(", better")


def test_a_policy_that_is_worse_is_told_so(
    monkeypatch: pytest.MonkeyPatch, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bold; the candidate may be a file. Of a single seed nothing is shown."""
    monkeypatch.setattr(transfer, "PLANS", plan(Setting(SMALL, "sharegpt_bursty", (1.0,))))
    assert main(["transfer", "router", first, "--seeds", "4"]) == 0
    assert cells(capsys.readouterr().out.splitlines()[-1])[-2].endswith("**worse**")
    assert main(["transfer", "router", first, "--seeds", "1"]) == 0
    assert cells(capsys.readouterr().out.splitlines()[-1])[-2].endswith("not shown")


def test_traces_that_are_not_there_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With their files' names; where they are, they are served."""
    settings = Setting(SMALL, "sharegpt", (0.8,)), Setting(SMALL, "mooncake", (0.8,))
    monkeypatch.setattr(transfer, "PLANS", plan(*settings))
    assert main(["transfer", "router", "llq", "--seeds", "2"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == (
        "Left out, for there is no traces/mooncake_conversation.jsonl, no "
        "traces/sharegpt_inflated_12qps_300s.csv (give its folder with --data)."
    )
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "sharegpt_inflated_12qps_300s.csv").write_text(TRACE)
    assert main(["transfer", "router", "llq", "--seeds", "2", "--data", str(tmp_path)]) == 0
    rows = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert [row[3] for row in rows if len(row) > 5][2:] == ["sharegpt"]


def test_requests_that_fit_nowhere_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the load, for their times are made up."""
    tiny = Cluster(replicas=1, kv_blocks=100)
    monkeypatch.setattr(transfer, "PLANS", plan(Setting(tiny, "sharegpt_bursty", (0.8,))))
    assert main(["transfer", "router", "llq", "--seeds", "2"]) == 0
    assert "% rejected)" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["router", "llq", "--data", "no"],
            "--data 'no' is no folder; expected one that holds traces/, or none",
        ),
        (["router", "none.py"], "the router's file is not there: 'none.py'"),
        (["scheduler", "llq"], "no scheduler is called 'llq'; expected a file"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence, before anything is measured."""
    assert main(["transfer", *arguments]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert told in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["routers", "llq"], "argument layer: invalid choice: 'routers'"),
        (["router", "llq", "--seeds", "0"], "'0'; expected a whole number of at least 1"),
        (["router"], "the following arguments are required: FILE[:CLASS]"),
    ],
)
def test_what_is_no_command_is_said(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With where to look."""
    with pytest.raises(SystemExit) as ended:
        main(["transfer", *arguments])
    assert ended.value.code == 2
    err = " ".join(capsys.readouterr().err.split())
    assert told in err
    assert err.endswith("see python -m sim transfer --help")


def test_a_trace_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its file and what it lacks."""
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "sharegpt_inflated_12qps_300s.csv").write_text("when,what\n1,2\n")
    monkeypatch.setattr(transfer, "PLANS", plan(Setting(SMALL, "sharegpt", (0.8,))))
    assert main(["transfer", "router", "llq", "--data", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "python -m sim transfer:" in err
    assert "sharegpt_inflated_12qps_300s.csv" in "".join(err.split())


def test_a_candidate_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its line."""
    file = tmp_path / "hoarder.py"
    file.write_text("class Router:\n    def route(self, queue, replicas, now):\n        return []\n")
    monkeypatch.setattr(transfer, "PLANS", plan(Setting(SMALL, "sharegpt_bursty", (0.8,))))
    assert main(["transfer", "router", str(file), "--seeds", "2"]) == 1
    assert "for ever" in " ".join(capsys.readouterr().err.split())


def test_autoscalers_pay_and_miss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPU-hours as a ratio, violations in points."""
    scaled = Cluster(replicas=2, kv_blocks=900, autoscaling=Autoscaling(max_replicas=4))
    autoscaler = Plan(
        against=("ThroughputThreshold", "Fixed(replicas=1)"),
        metrics=("gpu_hours", "slo_violations"),
        settings=(Setting(scaled, "sharegpt_poisson", (1.5,)),),
        duration=600.0,
        slo=(5.0, 0.15),
    )
    monkeypatch.setattr(transfer, "PLANS", {"autoscaler": autoscaler})
    assert main(["transfer", "autoscaler", "Fixed(replicas=4)", "--seeds", "3"]) == 0
    names, _, hours, missed = (cells(line) for line in capsys.readouterr().out.splitlines()[-4:])
    assert names[-2:] == ["against ThroughputThreshold", "against Fixed"]
    assert (hours[0], hours[5], missed[5]) == ("a10, autoscaled", "gpu_hours", "slo_violations")
    assert hours[-1].endswith("**worse**")
    assert " pt [" in missed[-1]
    assert missed[-1].endswith("better")


def test_a_threshold_is_the_same_share_of_what_a_replica_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was tuned it is 0.525 requests/s; other baselines are as they are."""
    assert rivals(PLANS["autoscaler"], 10.0) == [
        "ThroughputThreshold(per_replica=4.9)",
        "KvUtilisation(target=0.5)",
        "ConcurrencyTarget(target=14)",
    ]
    monkeypatch.setattr(transfer, "BACKLOG", 1000)
    home = PLANS["autoscaler"].settings[0]
    most = transfer.capacity(home.cluster, workloads.changing_mix(rate=5.0, duration=1800.0, seed=0))
    assert rivals(PLANS["autoscaler"], most)[0].startswith("ThroughputThreshold(per_replica=0.52")


def test_capacity_is_what_is_finished_of_a_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows with the replicas; an autoscaled cluster's is that of one."""
    monkeypatch.setattr(transfer, "BACKLOG", 200)
    lengths = workloads.generate(
        workloads.Poisson(5.0, 100.0),
        workloads.Independent(workloads.Fixed(200), workloads.Fixed(50)),
        seed=0,
    )
    one, two = (transfer.capacity(Cluster(replicas=count), lengths) for count in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.1)
    scaled = Cluster(replicas=2, autoscaling=Autoscaling())
    assert transfer.capacity(scaled, lengths) == one


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_a_plan(layer: str) -> None:
    """It begins at home; its baselines are policies of the layer, its workloads have names."""
    settings = PLANS[layer].settings
    assert [setting.home for setting in settings] == [True, *[False] * (len(settings) - 1)]
    for text in PLANS[layer].against:
        wanted = f"{text}(per_replica=1)" if text == "ThroughputThreshold" else text
        assert policy(layer, wanted).path is None
