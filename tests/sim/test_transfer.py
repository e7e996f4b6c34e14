"""`python -m sim transfer`: a policy on other systems and traces, as a table that says what is better, worse
or neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import Cluster, transfer, workloads
from sim.__main__ import main
from sim.layers import LAYERS, policy
from sim.scaling import Autoscaling
from sim.transfer import PLANS, Plan, Setting

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


def test_the_table_says_where_what_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a setting, load and metric: against itself nothing is shown, against a worse one it is better."""
    monkeypatch.setattr(
        transfer, "PLANS", plan(Setting(SMALL, "sharegpt_bursty", (0.8, 1.2), home=True), requests=300)
    )
    assert main(["transfer", "router", "LeastLoadedQueue", "--seeds", "4"]) == 0
    head, blank, names, _, *rows = capsys.readouterr().out.splitlines()
    assert "smaller is better" in head
    assert not blank
    assert cells(names)[-2:] == ["against llq", "against rr"]
    assert len(rows) == 2
    for row, load in zip(rows, ("0.8", "1.2"), strict=True):
        assert cells(row)[:4] == ["a10, 2", "llama-3-8b", "sarathi", "sharegpt_bursty (home)"]
        assert cells(row)[4].startswith(f"{load} (")
        assert cells(row)[-2] == "+0.0 % [+0.0, +0.0], not shown"
    assert cells(rows[0])[-1].endswith(", better")


def test_a_policy_that_is_worse_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bold; the candidate may be a file."""
    file = tmp_path / "first.py"
    file.write_text(
        "class Router:\n    def route(self, q, r, now):\n        return [(each, r[0]) for each in q]\n"
    )
    monkeypatch.setattr(transfer, "PLANS", plan(Setting(SMALL, "sharegpt_bursty", (1.0,))))
    assert main(["transfer", "router", str(file), "--seeds", "4"]) == 0
    assert cells(capsys.readouterr().out.splitlines()[-1])[-2].endswith("**worse**")


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
    assert main(["transfer", "router", "llq", "--data", str(tmp_path / "no")]) == 1
    assert "expected a folder that holds traces/, or none" in " ".join(capsys.readouterr().err.split())


def test_requests_that_fit_nowhere_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the load, for their times are made up."""
    tiny = Cluster(replicas=1, kv_blocks=100)
    monkeypatch.setattr(transfer, "PLANS", plan(Setting(tiny, "sharegpt_bursty", (0.8,))))
    assert main(["transfer", "router", "llq", "--seeds", "2"]) == 0
    assert "% rejected)" in capsys.readouterr().out.splitlines()[-1]


def test_autoscalers_pay_and_miss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPU-hours as a ratio, violations in points; the threshold is the same share of a replica's capacity."""
    made: list[float] = []
    threshold = policy("autoscaler", "ThroughputThreshold(per_replica=1)").make
    scaled = Cluster(replicas=2, kv_blocks=900, autoscaling=Autoscaling(max_replicas=4))
    autoscaler = Plan(
        against=("ThroughputThreshold", "Fixed(replicas=2)"),
        metrics=("gpu_hours", "slo_violations"),
        settings=(Setting(scaled, "sharegpt_poisson", (2.0,)),),
        duration=120.0,
        slo=(5.0, 0.15),
    )
    monkeypatch.setattr(transfer, "PLANS", {"autoscaler": autoscaler})
    names = transfer.policy

    def noted(layer: str, text: str) -> object:
        found = names(layer, text)
        if found.make is threshold:
            made.append(found.arguments["per_replica"])
        return found

    monkeypatch.setattr(transfer, "policy", noted)
    assert main(["transfer", "autoscaler", "Fixed(replicas=3)", "--seeds", "2"]) == 0
    hours, missed = (cells(line) for line in capsys.readouterr().out.splitlines()[-2:])
    assert (hours[0], hours[5], missed[5]) == ("a10, autoscaled", "gpu_hours", "slo_violations")
    assert hours[-1].startswith("+50.0 %") or hours[-1].startswith("+4")
    assert " pt [" in missed[-1]
    lengths = workloads.generate(workloads.Poisson(5.0, 120.0), workloads.SHAREGPT, seed=0)
    assert made == [pytest.approx(0.49 * transfer.capacity(scaled, lengths), rel=1e-4)]


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
