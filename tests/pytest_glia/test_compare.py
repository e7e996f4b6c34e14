"""``python -m pytest_glia compare``: real runs in fresh clones, and what is made of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_glia.comparing.curves import Curve, band, best_so_far, reaching, t95
from pytest_glia.comparing.drawing import round_steps
from pytest_glia.comparing.page import page
from pytest_glia.comparing.pictures import best_so_far_picture, direct_picture
from pytest_glia.comparing.runs import Goal, Measured, Row, SearchRun
from tests.project import PACKING, Project
from tests.rivals import FILES, costing
from tests.scripted_model import Says, ScriptedModel

# Whole searches; the command's words are in the ordinary suite.
pytestmark = pytest.mark.slow

GOAL = Goal("share", "<", 1.1)
FIRST_FIT = """\
def pack(items):
    bins = []
    for item in items:
        for i, level in enumerate(bins):
            if level + item <= 1:
                bins[i] += item
                break
        else:
            bins.append(item)
    return len(bins)
"""


@dataclass(frozen=True)
class Compared:
    """A comparison in a project."""

    project: Project
    out: str

    def compare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command in the project as a user would."""
        return compare(self.project, *arguments)


def compare(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest_glia", "compare", *arguments],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


OFFLINE = ("specs", "--designers=offline", "--runs=2", "--budget=60 sims, 120 s", "--output=out")
BASELINE = "--baseline=first fit=first_fit.py"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Two runs of the offline designer, beside a baseline."""
    project = Project(tmp_path_factory.mktemp("compared") / "project").write(PACKING)
    project.commit()
    project.write({"first_fit.py": FIRST_FIT})
    before = project.fingerprint()
    ran = compare(project, *OFFLINE, BASELINE)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    after = {name: text for name, text in project.fingerprint().items() if not name.startswith("out/")}
    assert after == before
    return Compared(project, ran.stdout)


def test_runs_are_real_and_apart(compared: Compared) -> None:
    """Each run confirms on seeds of its own; the checkout has no branch and no ledger of them."""
    data = json.loads((compared.project.folder / "out/compare.json").read_text())
    assert [(run["designer"], run["number"], run["outcome"]) for run in data["runs"]] == [
        ("offline", 1, "passed"),
        ("offline", 2, "passed"),
    ]
    points = [run["final"]["point"] for run in data["runs"]]
    assert points[0] != points[1]
    assert max(points) < 1.1
    assert compared.project.branches("glia/") == []
    assert not (compared.project.folder / ".glia").exists()


def test_page_has_the_figures_of_the_runs(compared: Compared) -> None:
    """What the table says is what the data gives; the command to reproduce it is there."""
    folder = compared.project.folder / "out"
    data = json.loads((folder / "compare.json").read_text())
    runs = [SearchRun.from_json(each) for each in data["runs"]]
    text = (folder / "compare.md").read_text()
    low, high = sorted(run.final.point for run in runs if run.final)
    assert f"[{low:.4g}, {high:.4g}]" in text
    reached = reaching(runs, data["baselines"]["first fit"]["point"])
    assert f"| {reached} of 2 |" in text
    assert "not committed, and so no part of it: first_fit.py" in compared.out
    assert "python -m pytest_glia compare specs --designers offline --runs 2" in text


def test_pictures_are_drawn(compared: Compared) -> None:
    """Every picture that the page shows is well-formed, and the progress has goal and baseline as lines."""
    folder = compared.project.folder / "out"
    named = re.findall(r"!\[.*?\]\((.*?)\)", (folder / "compare.md").read_text())
    assert named == ["best-so-far-simulations.svg", "best-so-far-minutes.svg", "confirmed.svg"]
    for name in named:
        words = [each.text for each in ElementTree.parse(folder / name).iter() if each.text]
        assert {"asked: < 1.1", "first fit"} <= set(words)


def test_what_is_there_is_not_run_again(compared: Compared) -> None:
    """The same command draws again at once; with another budget it refuses to mix."""
    again = compared.compare(*OFFLINE, BASELINE)
    assert again.returncode == 0
    assert "run 1 ..." not in again.stdout
    other = compared.compare("specs", "--designers=offline", "--budget=50 sims", "--output=out")
    assert other.returncode == 4
    assert "has runs of another commit, other specs, another budget or other options" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--designers=nobody"], "there is no designer 'nobody'"),
        (["--designers=,"], "give names, and at least 1"),
        (["--designers=offline", "--budget=much"], "the budget 'much'"),
    ],
)
def test_misuse_is_told(compared: Compared, arguments: list[str], told: str, tmp_path: Path) -> None:
    """A designer that is none, none at all, and a budget that is none end with one sentence."""
    ran = compared.compare("specs", f"--output={tmp_path}", *arguments)
    assert ran.returncode == 4
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_unusable_baseline_is_told(compared: Compared) -> None:
    """A baseline is a file with a name."""
    ran = compared.compare(*OFFLINE, "--baseline=gone.py")
    assert ran.returncode == 4
    assert "give NAME=FILE" in ran.stderr


def test_runs_that_ask_a_model(tmp_path: Path) -> None:
    """Options of pytest reach each run, what a model took is counted, and its programs have a picture."""
    project = Project(tmp_path / "project").write(FILES)
    project.commit()
    with ScriptedModel([costing(5.0), Says("Sorry."), costing(2.0), Says(status=400)]) as model:
        options = f"--glia-model=scripted -o glia_base_url={model.url} -o glia_price='1000 1000'"
        ran = compare(
            project,
            "test_spec.py",
            "--designers=best-of-n",
            "--runs=1",
            "--budget=60 sims, 900 usd",
            f"--options={options}",
            "--output=out",
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| `best-of-n` | 1 | 1 of 1 |" in ran.stdout
    assert "| designer | simulations | minutes | tokens | dollars |" in ran.stdout
    assert re.search(r"\| 330 \| 0.33 \|", ran.stdout)
    assert "1 of 3 that failed" in (project.folder / "out/direct-programs.svg").read_text()


def row(simulations: float, loss: float | None, seeds: int = 4) -> Row:
    measured = None if loss is None else loss + 1.1
    spent = {"simulations": simulations, "seconds": simulations * 60, "tokens": simulations * 100}
    return {"seeds": seeds, "loss": loss, "measured": measured, "spent": spent}


def search_run(*rows: Row, final: float = 1.0, designer: str = "best-of-n") -> SearchRun:
    return SearchRun(designer, 1, "not met", "a.py", GOAL, rows, Measured(final, None, None, 4))


def test_best_so_far_is_of_full_looks() -> None:
    """A candidate that was stopped early, or is no better, or does not work changes nothing."""
    run = search_run(
        row(4, 0.5), row(6, 0.1, seeds=2), row(10, 0.3), row(14, 0.4), row(16, None), row(20, 0.2)
    )
    curve = best_so_far(run, "simulations")
    assert curve.places == (4, 10, 20)
    assert curve.values == pytest.approx((1.6, 1.4, 1.3))


def test_band_is_of_the_runs_themselves() -> None:
    """At each place from the least to the most of what runs had then; one that has ended keeps its last."""
    found = band([Curve((0, 4), (9, 5)), Curve((0, 8), (9, 1)), Curve((0,), (9,))])
    assert found.places == (0, 4, 8)
    assert (found.low, found.middle, found.high) == ((9, 5, 1), (9, 9, 5), (9, 9, 9))


def test_band_of_many_runs_leaves_out_a_tenth() -> None:
    """Of forty runs the two least and the two most."""
    found = band([Curve((0,), (float(n),)) for n in range(40)])
    assert (found.low, found.high) == ((2,), (37,))


def test_t95_is_when_nearly_all_was_gained() -> None:
    """The first full look with 95 % of the fall in loss; none for a run that gained nothing."""
    assert t95(search_run(row(4, 1.0), row(8, 0.06), row(12, 0.05), row(16, 0.0))) == 12
    assert t95(search_run(row(4, 1.0), row(8, 1.5))) is None


def test_reaching_a_baseline_goes_by_the_goal() -> None:
    """Smaller is better where the goal is an upper limit, larger where it is a lower one."""
    runs = [search_run(row(4, 1.0), final=final) for final in (1.0, 1.2, 1.4)]
    assert reaching(runs, 1.2) == 2
    assert Goal("gain", ">", 0.3).better(0.5, 0.4)


def test_histogram_counts_failures() -> None:
    """The programs of all runs of best-of-n, those that failed in a bar of their own."""
    run = search_run(row(4, 1.0), row(8, 0.5), row(9, None), row(12, 0.5), row(13, None), row(14, None))
    svg = direct_picture([run], {})
    assert "3 of 5 that failed" in svg
    heights = [float(each) for each in re.findall(r'height="([\d.]+)" fill="#(?:1f5fa8|b3261e)"', svg)]
    assert sorted(heights)[-2:] == pytest.approx([max(heights) * 2 / 3, max(heights)], rel=0.01)


def test_costs_of_a_model_are_shown() -> None:
    """Tokens have a column and a picture where a run has spent any; names are escaped."""
    runs = {"<b>": [search_run(row(4, 1.0), row(8, 0.5), designer="<b>")]}
    text = page(runs, GOAL, {}, "8 sims", "command", [])
    assert "| designer | simulations | minutes | tokens |" in text
    svg = best_so_far_picture(runs, GOAL, {}, "tokens")
    assert "&lt;b&gt;" in svg
    ElementTree.fromstring(svg)


def test_axes_have_round_steps() -> None:
    """Steps are 1, 2 or 5 times a power of ten."""
    assert round_steps(0, 97) == [0, 20, 40, 60, 80]
    assert round_steps(-0.03, 0.61) == [0, 0.2, 0.4, 0.6]
    assert round_steps(1234, 1236) == [1234, 1234.5, 1235, 1235.5, 1236]
