"""The simulator's pages run: snippets are executed, sessions print what they show."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sim.__main__ import main

DOCS = Path(__file__).parents[2] / "docs"
SNIPPET = re.compile(r"^```python\n(?!# \S+\.py\n)(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n\$ (?:python -m )?(\w+) ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = (DOCS / "workloads.md").read_text("utf-8")

ROUTER = """class Router:
    def route(self, queue, replicas, now):
        for request in queue:
            yield request, min(replicas, key=lambda replica: replica.waiting)
"""
BROKEN = """class Router:
    def route(self, queue, replicas, now):
        for request in queue:
            yield request, replicas[len(replicas)]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page shows or speaks of."""
    monkeypatch.chdir(tmp_path)
    files = {"candidates/router.py": ROUTER, "candidates/broken.py": BROKEN, "pytest.ini": "[pytest]\n"}
    for name, text in (files | dict(FILE.findall(PAGE))).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path


def check(shown: str, printed: str) -> None:
    """The shown lines occur in order; ``...`` stands for any lines, ``*`` for anything within one."""
    lines = [line.rstrip() for line in printed.splitlines()]
    for expected in filter(lambda line: line.strip() != "...", shown.splitlines()):
        pattern = expected.rstrip().replace("[", "[[]")
        while lines and not fnmatch.fnmatchcase(lines[0], pattern):
            lines.pop(0)
        assert lines, f"{expected!r} was not printed:\n{printed}"


@pytest.mark.parametrize("page", ["workloads.md", "simulator.md", "cost-models.md"])
def test_snippets_run(page: str, project: Path) -> None:
    """One after the other, in one namespace."""
    namespace: dict[str, object] = {}
    snippets = SNIPPET.findall((DOCS / page).read_text("utf-8"))
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), namespace)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(arguments, shown) for program, arguments, shown in CONSOLE.findall(PAGE) if program == "sim"],
)
def test_commands_print_what_is_shown(
    arguments: str, shown: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report on standard output, or the fault on standard error."""
    main(shlex.split(arguments))
    printed = capsys.readouterr()
    check(shown, printed.out + printed.err)


@pytest.mark.slow
def test_the_robustness_spec_finds_a_counterexample(project: Path) -> None:
    """It fails, with the smallest workload as the call that makes it."""
    [(arguments, shown)] = [
        (rest, shown) for program, rest, shown in CONSOLE.findall(PAGE) if program == "pytest"
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *shlex.split(arguments)],
        env=environment | {"PYTHONPATH": f"{DOCS.parent}{os.pathsep}{project}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    check(shown, done.stdout + done.stderr)
    rows = re.search(r"arrival=\[([^]]*)\]", done.stdout)
    assert rows is not None
    assert len(rows[1].split(",")) <= 8
