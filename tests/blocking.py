"""A search that stands still at its third candidate, to be interrupted or killed there."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.project import INI, Project, Result

# The third setting of SIZE that is tried blocks until the file GATE exists.
BLOCKING = {
    "pytest.ini": INI.replace("glia_replications = 6", "glia_replications = 3"),
    "tunable.py": "import math\n\nSIZE = 10\n\n\ndef cost():\n    return abs(math.log(SIZE / 35))\n",
    "test_tunable.py": """\
import os

import pytest

pytestmark = pytest.mark.glia(candidate="tunable.py", entry="cost")


def say(*words):
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(" ".join(map(str, words)) + "\\n")


def run(cost, seed):
    size = cost.__globals__["SIZE"]
    say("begin", size, seed)
    tried = {line.split()[1] for line in open(os.environ["RUNS"])}
    while len(tried) > 2 and not os.path.exists(os.environ["GATE"]):
        say("blocked", size, seed) if "blocked" not in tried else None
        tried.add("blocked")
    say("end", size, seed)
    return cost() + (seed % 10) / 1000


def test_cost(glia):
    assert glia.measure(run) < 1
""",
}
COMMAND = ("--glia-optimize", "--glia-budget=30 sims")


@dataclass
class Blocked:
    """A search that has come to its third candidate and stands there."""

    project: Project
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """Where the replications write, and what they wait for."""
        folder = self.project.folder.parent
        return {"RUNS": str(folder / "runs"), "GATE": str(folder / "gate")}

    def runs(self, kind: str) -> Counter[tuple[str, str]]:
        """Setting and seed of the replications that have begun, or ended."""
        lines = [line.split() for line in Path(self.environment["RUNS"]).read_text().splitlines()]
        return Counter((size, seed) for what, size, seed in lines if what == kind)

    def signalled(self, number: signal.Signals) -> Result:
        """Send a signal to the search; what it has said until it ended."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return Result(self.process.returncode, out)


def blocked(folder: Path, seconds: float = 30.0, **environment: str) -> Blocked:
    """Start a search and wait until it blocks."""
    (folder / "project").mkdir()
    project = Project(folder / "project").write(BLOCKING)
    project.commit()
    environment |= {"RUNS": str(folder / "runs"), "GATE": str(folder / "gate")}
    found = Blocked(project, project.start(*COMMAND, **environment))
    until(lambda: "blocked" in _text(folder / "runs") or found.process.poll() is not None, seconds)
    return found


def until(condition: object, seconds: float = 30.0) -> None:
    """Look again and again until something is so."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
