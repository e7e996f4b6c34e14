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

from pytest_glia.comparing.curves import reaching
from pytest_glia.comparing.runs import SearchRun
from tests.project import PACKING, Project
from tests.rivals import FILES, costing
from tests.scripted_model import Says, ScriptedModel

# Whole searches; the command's words are in the ordinary suite.
pytestmark = pytest.mark.slow

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


BASE_SPEC = '''\
import pytest

pytestmark = pytest.mark.glia(candidate="candidate.py", entry="answer")


def test_no_worse(glia):
    """It costs no more than before."""
    estimate = glia.compare(lambda answer, seed: answer() + seed % 7 / 100, against="base")
    assert estimate.increase < 0
'''


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


def test_without_a_winner_nothing_is_confirmed(tmp_path: Path) -> None:
    """On a branch of its own base, a run that finds nothing better has no result, and the page says none."""
    project = Project(tmp_path / "project").write(FILES)
    project.write({"test_base.py": BASE_SPEC}).commit()
    project.git("switch", "-q", "-c", "feature")
    for answer in (8.0, 8.5):
        project.write({"candidate.py": f"def answer():\n    return {answer}\n"}).commit()
    with ScriptedModel([Says("Sorry.")]) as model:
        options = f"--glia-model=scripted -o glia_base_url={model.url} -o glia_price='0 0'"
        arguments = ["--runs=1", "--budget=60 sims, 10000 tokens", f"--options={options}", "--output=out"]
        ran = compare(project, "test_spec.py", "test_base.py", "--designers=best-of-n", *arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| `best-of-n` | 1 | 0 of 1 | none | - |" in ran.stdout
    # Dearer than the commit before, and cheaper than main.
    assert "1 failed, 1 passed" in (project.folder / "out/runs/best-of-n-1.log").read_text()
    data = json.loads((project.folder / "out/compare.json").read_text())
    assert [run["final"] for run in data["runs"]] == [None]
    assert not (project.folder / "out/confirmed.svg").exists()
