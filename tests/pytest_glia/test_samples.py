"""A replication's result is reused only where the same would be run again; each draws its own randomness."""

from __future__ import annotations

import json

import pytest

from tests.project import MakeProject, Project

HELPER = "SIZE = 1.0\n\n\ndef times():\n    return SIZE\n"
CANDIDATE = "def answer():\n    return 2.0\n"

SPEC = """\
import os
import random
import unittest.mock

import helper
import numpy as np
import pytest

pytestmark = pytest.mark.glia(candidate="candidate.py", entry="answer")
SCALE = 1.0


def scaled(answer, seed):
    return answer() * SCALE


class State:
    # What no key can tell: it is pickled by its name.
    factor = 1.0

    def __reduce__(self):
        return "STATE"


STATE = State()


def stateful(answer, seed):
    return answer() * STATE.factor


def drawn(answer, seed):
    return {"numpy": np.random.random(), "python": random.random()}


class Load:
    factor = 1.0

    def times(self, answer, seed):
        return answer() * self.factor


def test_two_lambdas_on_one_line(glia):
    ours, twice = (glia.measure(run).point for run in (lambda a, seed: a(), lambda a, seed: 2 * a()))
    assert (ours, twice) == (2.0, 4.0)


def test_patched_global(glia):
    assert glia.measure(scaled).point == 2.0
    with unittest.mock.patch(__name__ + ".SCALE", 10.0):
        assert glia.measure(scaled).point == 20.0


def test_patched_environment(glia, monkeypatch):
    def run(answer, seed):
        return answer() * float(os.environ.get("FACTOR", "1"))

    assert glia.measure(run).point == 2.0
    monkeypatch.setenv("FACTOR", "3")
    assert glia.measure(run).point == 6.0


def test_method_of_an_object(glia):
    load = Load()
    assert glia.measure(load.times).point == 2.0
    load.factor = 5.0
    assert glia.measure(load.times).point == 10.0


def test_patched_constant_of_a_module(glia):
    def run(answer, seed):
        return answer() * helper.SIZE * helper.times()

    assert glia.measure(run).point == 2.0
    with unittest.mock.patch.object(helper, "SIZE", 3.0):
        assert glia.measure(run).point == 18.0
    with unittest.mock.patch.object(helper, "times", return_value=5.0):
        assert glia.measure(run).point == 10.0


class TestAlone:
    @pytest.fixture(autouse=True)
    def world(self):
        STATE.factor = 1.0

    def test_it(self, glia):
        assert glia.measure(stateful).point == 2.0


class TestFourfold:
    @pytest.fixture(autouse=True)
    def world(self):
        STATE.factor = 4.0

    def test_it(self, glia):
        assert glia.measure(stateful).point == 8.0


@pytest.fixture
def mocker():
    return STATE


def test_with_a_mocker(glia, mocker):
    mocker.factor = 6.0
    assert glia.measure(stateful).point == 12.0
    mocker.factor = 7.0
    assert glia.measure(stateful).point == 14.0


def test_replications_draw_different_numbers(glia):
    for generator in ("numpy", "python"):
        assert glia.measure(drawn, metric=generator) < 1.0
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The spec's project after two runs: what they said in one.txt and two.txt, their verdicts as JSON."""
    folder = tmp_path_factory.mktemp("samples")
    project = Project(folder).write(
        {"pytest.ini": "[pytest]\n", "candidate.py": CANDIDATE, "helper.py": HELPER, "test_it.py": SPEC}
    )
    for name in ("one", "two"):
        result = project.pytest(f"--glia-report={name}")
        (folder / f"{name}.txt").write_text(result.out, "utf-8")
    return project


@pytest.mark.slow
def test_samples_are_shared_only_where_nothing_differs(ran: Project) -> None:
    """Lambdas, patched globals, modules and environments, fixtures of one name: each is measured as it is."""
    out = (ran.folder / "one.txt").read_text("utf-8")
    assert "9 passed" in out, out


@pytest.mark.slow
def test_global_generators_are_seeded_by_the_replication(ran: Project) -> None:
    """Forks of one process do not all draw the same, and a second run draws what the first did."""
    first, second = (
        json.loads((ran.folder / name / "glia.json").read_text("utf-8")) for name in ("one", "two")
    )
    checks = [check for test in first["tests"] for check in test["checks"]]
    assert len(checks) == 2
    assert all(check["low"] < check["point"] < check["high"] for check in checks)
    assert [t["checks"] for t in first["tests"]] == [t["checks"] for t in second["tests"]]


def test_future_imports_of_the_plugin_do_not_reach_a_candidate(make_project: MakeProject) -> None:
    """A candidate is compiled as its own file says, as an import would."""
    candidate = "import dataclasses\n\n\n@dataclasses.dataclass\nclass Size:\n    n: int = 2\n\n\n"
    candidate += "def answer():\n    return dataclasses.fields(Size)[0].type(2.0)\n"
    project = make_project(
        {
            "pytest.ini": "[pytest]\nglia_allow_imports = dataclasses\n",
            "candidate.py": candidate,
            "helper.py": HELPER,
            "test_it.py": SPEC.partition("def test_two")[0]
            + "def test_it(glia):\n    assert glia.measure(scaled).point == 2\n",
        },
        commit=False,
    )
    result = project.pytest()
    assert result.code == 0, result.out
