"""Evaluations whose processes are killed, as the kernel does where memory ends: what becomes of a search."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.project import INI, MakeProject, Project
from tests.pytest_glia.test_storm import in_role

# A replication without sandbox kills what the test says, at the second setting of SIZE that is tried.
FILES = {
    "pytest.ini": INI.replace("glia_replications = 6", "glia_replications = 3"),
    "tunable.py": "import math\n\nSIZE = 10\n\n\ndef cost():\n    return abs(math.log(SIZE / 35))\n",
    "test_tunable.py": """\
import os
import signal
import time

import pytest

pytestmark = pytest.mark.glia(candidate="tunable.py", entry="cost")


def job():
    return os.getppid()


def child():
    with open(f"/proc/{os.getppid()}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def run(cost, seed):
    size = cost.__globals__["SIZE"]
    with open(os.environ["RUNS"], "a+") as runs:
        runs.write(f"{size} {seed}\\n")
        runs.seek(0)
        tried = list(dict.fromkeys(line.split()[0] for line in runs))
    if "VICTIM" in os.environ and tried.index(str(size)) == 2 and (
        "AGAIN" in os.environ or not os.path.exists(os.environ["RUNS"] + ".killed")
    ):
        open(os.environ["RUNS"] + ".killed", "w").close()
        os.kill(globals()[os.environ["VICTIM"]](), signal.SIGKILL)
        time.sleep(60)
    return cost() + (seed % 10) / 1000


def test_cost(glia):
    assert glia.measure(run) < 1
""",
}
COMMAND = ("--glia-optimize", "--glia-budget=40 sims")


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    return make_project(FILES)


def sizes(project: Project) -> list[str]:
    """The settings and seeds that were run, in order."""
    return (project.folder.parent / "runs").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["job", "child"])
def test_killed_evaluation_is_taken_up_again(victim: str, project: Project) -> None:
    """Once: only what was under way is run again, it is not charged again, and no candidate is blamed."""
    files = {"RUNS": str(project.folder.parent / "runs")}
    ran = project.pytest(*COMMAND, **files, VICTIM=victim)
    assert ran.code == 0, ran.out
    assert "was killed" not in ran.out
    assert "broken" not in ran.out
    lines = sizes(project)
    assert 1 <= len(lines) - len(set(lines)) <= 2
    [told] = re.findall(r"meets its specs \(\w+\), (\d+) simulations", ran.out)
    # The first look, at the present candidate on three guard seeds, is not charged.
    assert int(told) == len(set(lines)) - 3


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["job", "child"])
def test_evaluation_that_is_killed_twice_fails_its_candidate(victim: str, project: Project) -> None:
    """The search goes on with the next one, and what that measured is its own."""
    files = {"RUNS": str(project.folder.parent / "runs")}
    ran = project.pytest(*COMMAND, **files, VICTIM=victim, AGAIN="1")
    assert ran.code == 0, ran.out
    assert ran.text.count("the evaluating process was killed by SIGKILL, and again when it was run") == 1
    assert len(ran.lines(" broken")) == 1
    [branch] = project.branches("/1")
    for commit in project.git("rev-list", f"main..{branch}").split():
        size = int(project.show(commit, "tunable.py").partition("SIZE = ")[2].split()[0])
        evidence = json.loads(
            project.git("log", "-1", "--format=%(trailers:key=Glia-Evidence,valueonly)", commit)
        )
        assert evidence.get("value", abs(math.log(size / 35))) == pytest.approx(
            abs(math.log(size / 35)), abs=0.01
        )
    until_none(project)


def until_none(project: Project) -> None:
    """No process of the project is alive in the end."""
    deadline = time.monotonic() + 10
    while project.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert project.processes() == []


STARTS_ANOTHER = """
import os, subprocess, sys, time
import pytest

pytestmark = pytest.mark.glia(candidate="tunable.py", entry="cost")


def run(cost, seed):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(f"{other.pid}\\n")
    time.sleep(60)


def test_cost(glia):
    assert glia.measure(run) < 1
"""


def test_what_a_replication_has_started_ends_with_the_search(make_project: MakeProject) -> None:
    """Without sandbox a replication may start programs; a killed search leaves none of them."""
    project = make_project({**FILES, "test_tunable.py": STARTS_ANOTHER})
    runs = project.folder.parent / "runs"
    search = project.start(*COMMAND, RUNS=str(runs))
    try:
        deadline = time.monotonic() + 30
        while not (runs.exists() and runs.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert runs.read_text()
    finally:
        search.kill()
        search.communicate()
    until_none(project)


ENDING = """\
import os, signal, subprocess, sys, time
from pytest_glia.processes import end_session_with

pid = os.fork()
if not pid:
    end_session_with(os.getppid())
    subprocess.Popen([sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)"])
    time.sleep(60)
time.sleep(60)
"""


def test_session_ends_with_the_parent() -> None:
    """All of it: the fork that hears of the death, and what that has started."""
    process = subprocess.Popen([sys.executable, "-c", ENDING], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    process.kill()
    # Its end is told only when nobody holds the other end of the pipe any more.
    assert process.stdout.read() == b""
    process.communicate()


@pytest.mark.slow
def test_a_nursery_that_is_killed_costs_nothing(make_project: MakeProject) -> None:
    """Before the confirmation: another process evaluates that, with a nursery that knows no seeds."""
    project = make_project(
        {
            **FILES,
            "test_tunable.py": FILES["test_tunable.py"].replace(
                "    return cost() +", "    time.sleep(0.1)\n    return cost() +"
            ),
        }
    )
    runs = project.folder.parent / "runs"
    runs.touch()
    search = project.start(*COMMAND, RUNS=str(runs))
    nursery = None
    try:
        while search.poll() is None and not nursery:
            if len(sizes(project)) > 6 and (nursery := in_role(search.pid, "nursery")):
                os.kill(nursery, signal.SIGKILL)
            time.sleep(0.02)
        out, _ = search.communicate(timeout=100)
    finally:
        search.kill()
    assert nursery
    assert search.returncode == 0, out
    assert "meets its specs" in out
    assert "was killed" not in out
    until_none(project)
