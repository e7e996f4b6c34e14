"""The workflows: who may do what in them, and what their shell steps do when they are run."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forge import StandIn, forge
from tests.project import PACKING, Project

WORKFLOWS = sorted((Path(__file__).parents[1] / ".github/workflows").glob("*.yml"))
TOKEN = "ghs_0123456789abcdefghijklmnop"
# What a job may do beyond reading, and which step may have which secret.
RIGHTS = {("discover.yml", "propose"): {"contents": "write", "pull-requests": "write"}}
SECRETS = {
    ("discover.yml", "search", "Search"): {"OPENAI_API_KEY"},
    ("discover.yml", "propose", "Propose"): {"GLIA_PROPOSE_TOKEN"},
}


def load(file: Path) -> dict[str, Any]:
    """A workflow; YAML takes its key ``on`` for true."""
    data = yaml.safe_load(file.read_text("utf-8"))
    assert isinstance(data, dict)
    return {"on" if key is True else key: value for key, value in data.items()}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every job with the names of its file and of itself."""
    for file in WORKFLOWS:
        for name, job in load(file)["jobs"].items():
            yield file.name, name, job


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every step with the names of its file and job."""
    return ((file, name, step) for file, name, job in jobs() for step in job["steps"])


def test_there_are_workflows_to_look_at() -> None:
    """The laws below are about these."""
    assert [file.name for file in WORKFLOWS] == ["ci.yml", "discover.yml", "guard.yml", "nightly.yml"]


def test_jobs_have_the_least_rights() -> None:
    """Nothing is granted to a whole workflow, and to a job what it is listed with above."""
    for file in WORKFLOWS:
        assert load(file)["permissions"] == {}
        assert "pull_request_target" not in load(file)["on"]
    for where, name, job in jobs():
        assert job["permissions"] == RIGHTS.get((where, name), {"contents": "read"}), f"{where} {name}"


def test_jobs_end_by_themselves() -> None:
    """Each has a time-out, of two hours at most."""
    assert all(0 < job["timeout-minutes"] <= 120 for _, _, job in jobs())


def test_actions_are_pinned_by_their_commits() -> None:
    """A tag may be moved; the comment beside a pin says which one it was."""
    for file in WORKFLOWS:
        for line in re.findall(r"uses:.*", file.read_text("utf-8")):
            assert re.fullmatch(r"uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_no_checkout_keeps_its_credentials() -> None:
    """What runs after it finds no token in git's configuration."""
    checkouts = [step for _, _, step in steps() if "actions/checkout" in step.get("uses", "")]
    assert len(checkouts) == 7
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_secrets_are_where_they_are_needed() -> None:
    """In the environment of one step, never in its text; the job that may write has no model's key."""
    for file in WORKFLOWS:
        text = file.read_text("utf-8")
        expected = [name for (which, *_), names in SECRETS.items() if which == file.name for name in names]
        assert sorted(re.findall(r"secrets\.(\w+)", text)) == sorted(expected)
    for where, job, step in steps():
        held = set(re.findall(r"secrets\.(\w+)", str(step.get("env", {}))))
        assert held == SECRETS.get((where, job, step.get("name", "")), set())
        # An expression in a script is text that somebody else may have written.
        assert "${{" not in step.get("run", "")


def test_zizmor_finds_nothing() -> None:
    """The linter of workflows, where it is installed."""
    if importlib.util.find_spec("zizmor") is None and shutil.which("zizmor") is None:
        pytest.skip("zizmor is not installed")
    tool = Path(sys.executable).parent / "zizmor"
    command = [str(tool) if tool.exists() else "zizmor", "--offline", "--no-progress", *map(str, WORKFLOWS)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


@dataclass(frozen=True)
class Runner:
    """A machine that runs a job: the environment of its steps, and a clone of the remote for each job."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, file: str, job: str, step: str, **secrets: str) -> subprocess.CompletedProcess[str]:
        """A step's script as the forge runs it, in a clean clone for its job."""
        checkout = self.folder / job
        if not checkout.exists():
            subprocess.run(
                ["git", "clone", "-q", "--no-local", str(self.folder / "remote.git"), str(checkout)],
                check=True,
            )
        [found] = [
            each
            for each in load(WORKFLOWS[0].parent / file)["jobs"][job]["steps"]
            if each.get("name") == step
        ]
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
            cwd=checkout,
            env={**self.environment, **secrets},
            capture_output=True,
            text=True,
            timeout=240,
        )

    def written(self, name: str) -> str:
        """What a job has told the forge."""
        return Path(self.environment[name]).read_text("utf-8")


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with forge(TOKEN) as here:
        yield here


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, standin: StandIn) -> Runner:
    """One whose remote holds the packing project, and whose ``python`` is this one."""
    folder = tmp_path_factory.mktemp("runner")
    project = Project(folder / "project")
    project.folder.mkdir()
    project.write({**PACKING, ".gitignore": "__pycache__/\n.glia/\n"}).commit()
    project.git("clone", "-q", "--bare", ".", str(folder / "remote.git"))
    python = folder / "bin/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    told = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in told.values():
        Path(file).touch()
    github = {
        "GITHUB_REF_NAME": "main",
        "GITHUB_REPOSITORY": "ada/packing",
        "GITHUB_API_URL": standin.url,
        "RUNNER_TEMP": str(folder / "temp"),
    }
    environ = project._environ()
    return Runner(folder, {**environ, **told, **github, "PATH": f"{python.parent}:{environ['PATH']}"})


@pytest.mark.slow
def test_from_a_search_to_a_pull_request(runner: Runner, standin: StandIn) -> None:
    """discover.yml: what the job without rights finds, the job without a model proposes."""
    found = runner.run("discover.yml", "search", "Search", OPENAI_API_KEY="sk-nobody", PYTEST_ADDOPTS="")
    assert found.returncode == 0, found.stdout + found.stderr
    assert runner.written("GITHUB_OUTPUT") == "designs=yes\n"
    left = {each.name for each in (runner.folder / "temp/design").iterdir()}
    assert left >= {"report.md", "glia.json", "best-so-far-1.svg", "designs.bundle"}

    proposed = runner.run("discover.yml", "propose", "Propose", GITHUB_TOKEN=TOKEN)
    assert proposed.returncode == 0, proposed.stdout + proposed.stderr
    [pull] = standin.pulls
    assert pull["head"]["ref"] == "glia/packer/proposed"
    # What the report says of the search, below what was verified, without the picture that is beside it.
    page = (runner.folder / "temp/design/report.md").read_text("utf-8")
    shown = page.partition("### The design\n")[2].partition("### Spent\n")[0]
    assert len(shown) > 2000
    assert shown in pull["body"]
    branches = Project(runner.folder / "project").git("ls-remote", "--heads", "../remote.git")
    assert [line.partition("refs/heads/")[2] for line in branches.splitlines()] == [
        "glia/packer/proposed",
        "main",
    ]
    data = json.loads((runner.folder / "temp/design/glia.json").read_text())
    assert data["designs"][0]["outcome"] == "met"


def test_a_failing_guard_shows_why(runner: Runner) -> None:
    """guard.yml: the job fails with its specs, and its summary is the report."""
    ran = runner.run("guard.yml", "specs", "Specs")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert runner.run("guard.yml", "specs", "Summary").returncode == 0
    assert "| **`refuted`** |" in runner.written("GITHUB_STEP_SUMMARY")


@pytest.mark.slow
def test_a_red_night_can_be_had_again(runner: Runner) -> None:
    """nightly.yml: log and summary name the text of its seeds, with which all is measured again."""
    ran = runner.run("nightly.yml", "fresh-seeds", "Specs")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    [date] = re.findall(r"^guard seeds: '(\d{4}-\d\d-\d\d)' \(glia_guard_seeds\)$", ran.stdout, re.MULTILINE)
    assert runner.run("nightly.yml", "fresh-seeds", "Summary").returncode == 0
    assert f"On the guard seeds of `{date}`" in runner.written("GITHUB_STEP_SUMMARY")

    project = Project(runner.folder / "project")
    again = project.pytest("specs", "-o", f"glia_guard_seeds={date}")
    measured = [line for line in ran.stdout.splitlines() if "; asked " in line]
    assert len(measured) == 2
    assert [line for line in again.out.splitlines() if "; asked " in line] == measured
    fixed = project.pytest("specs").out.splitlines()
    assert [line for line in fixed if "; asked " in line] != measured
