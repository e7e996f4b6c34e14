"""A rival's search that was killed goes on with the same draws, and asks nothing again that was answered."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project
from tests.rivals import FILES, costing
from tests.scripted_model import Says, ScriptedModel

KILLED_AT = 7


@pytest.mark.parametrize(
    "designer",
    [
        pytest.param("funsearch", marks=pytest.mark.slow),
        pytest.param("eoh", marks=pytest.mark.slow),
        pytest.param("best-of-n", marks=pytest.mark.slow),
        pytest.param(
            "openevolve",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("openevolve") is None,
                reason="OpenEvolve is not installed, so it is NOT TESTED here",
            ),
        ),
    ],
)
def test_killed_search_goes_on(designer: str, tmp_path: Path) -> None:
    """Killed while a reply is awaited, a search asks for that one again, and for no other; all count once."""
    project = Project(tmp_path / "project").write(FILES)
    project.commit()
    started: list[subprocess.Popen[str]] = []
    asked: list[str] = []

    def says(body: dict[str, Any]) -> Says:
        asked.append(str(body["messages"]))
        if len(asked) == KILLED_AT:
            started[0].send_signal(signal.SIGKILL)
        return costing(round(8.5 - len(asked) / 10, 2), "{A thought.}")

    with ScriptedModel(says) as model:
        options = ("-o", f"glia_base_url={model.url}", "-o", "glia_price=0 0", "--glia-model=scripted")
        said = []
        for _ in range(2):
            search = (f"--glia-designer={designer}", "--glia-budget=60 sims, 120 s, 10M tokens")
            started.append(project.start("--glia-optimize", *search, *options))
            said.append(started[-1].communicate(timeout=240)[0])
    assert [each.returncode for each in started] == [-signal.SIGKILL, 1], said[-1]
    assert "was killed. It goes on" in said[1]
    assert asked[KILLED_AT - 1] == asked[KILLED_AT]
    assert f"{110 * (len(asked) - 1)} tokens" in said[1]
    assert project.processes() == []
