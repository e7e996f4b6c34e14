"""The house: who may import whom, what is public, and what the plugin costs where it is not used."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import MakeProject, Project

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = sorted((ROOT / "pytest_glia").rglob("*.py"))
SIMULATOR = sorted((ROOT / "sim").rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or later, by name or as text of a dynamic import."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))


def packages(file: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported(file)}


@pytest.mark.parametrize("file", PLUGIN, ids=name_of)
def test_plugin_knows_no_domain(file: Path) -> None:
    """The plugin never imports the simulator or the testbed, and nothing private of pytest."""
    assert not packages(file) & {"sim", "gpu_harness", "candidates", "specs", "_pytest"}


@pytest.mark.parametrize("file", SIMULATOR, ids=name_of)
def test_simulator_knows_no_plugin(file: Path) -> None:
    """The simulator never imports pytest or the plugin: it can be used alone."""
    assert not packages(file) & {"pytest", "_pytest", "pytest_glia", "gpu_harness"}


DESCRIBED_BY_A_PROTOCOL = {"find", "add", "ran", "find_spec"}
"""Methods of stores and of import finders."""


def test_there_is_a_house_to_look_at() -> None:
    """The files that the two laws above are about were found."""
    assert len(PLUGIN) > 15
    assert len(SIMULATOR) > 3


@pytest.mark.parametrize("file", PLUGIN, ids=name_of)
def test_what_is_public_says_what_it_is(file: Path) -> None:
    """Every module has a docstring, and every public class, method and function but pytest's hooks."""
    tree = ast.parse(file.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{name_of(file)} has no docstring"
    assert [name for name in undocumented(tree) if not name.startswith("pytest_")] == []


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public definitions of a module and of its public classes that have no docstring."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            if isinstance(node, ast.ClassDef) and not protocol(node):
                for part in node.body:
                    if (
                        isinstance(part, ast.FunctionDef)
                        and not part.name.startswith(("_", "pytest_"))
                        and not ast.get_docstring(part)
                        and part.name not in DESCRIBED_BY_A_PROTOCOL
                    ):
                        yield f"{node.name}.{part.name}"


def protocol(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


def test_no_more_than_ten_options() -> None:
    """The plugin's part of ``pytest --help`` stays small enough to be read."""
    tree = ast.parse((ROOT / "pytest_glia/plugin.py").read_text("utf-8"))
    options = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--glia-")
    }
    options = {option for option in options if " " not in option}
    assert 1 <= len(options) <= 10


IMPORT_COST = """\
import json, sys, time
import pytest
before = set(sys.modules)
start = time.perf_counter()
import pytest_glia.plugin
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


def test_import_costs_less_than_five_milliseconds() -> None:
    """After pytest itself, the plugin's module brings in nothing but its package."""
    # Compiling it, which Python does once unless it is told to keep nothing, is no cost of each run.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    costs = []
    for _ in range(4):
        out = subprocess.run(
            [sys.executable, "-c", IMPORT_COST],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        seconds, modules = json.loads(out)
        costs.append(seconds)
        assert set(modules) <= {"pytest_glia", "pytest_glia.plugin"}
    assert min(costs) < 0.005


WATCH = """\
import json
import sys

STARTED = []


def watch(event, arguments):
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"):
        STARTED.append(event)


sys.addaudithook(watch)


def pytest_sessionfinish():
    with open("watched.json", "w") as file:
        json.dump({"started": STARTED, "modules": sorted(sys.modules)}, file)
"""


def test_plain_run_elsewhere_pays_nothing(make_project: MakeProject) -> None:
    """With the plugin installed, a run without specs starts no process, loads no part, and has no warning."""
    project: Project = make_project(
        {"conftest.py": WATCH, "test_it.py": "def test_it():\n    assert True\n"}, commit=False
    )
    ran = project.pytest("-W", "error", "-p", "no:cacheprovider")
    assert ran.code == 0, ran.out
    assert "plugins: glia-" in ran.out
    assert "warning" not in ran.out
    assert "glia verdicts" not in ran.out
    watched = json.loads((project.folder / "watched.json").read_text())
    assert watched["started"] == []
    modules = set(watched["modules"])
    assert {name for name in modules if name.partition(".")[0] == "pytest_glia"} == {
        "pytest_glia",
        "pytest_glia.plugin",
    }
    assert not modules & {"numpy", "git", "sqlite3", "sim", "optuna", "numba"}
