"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from gpu_harness.installed import INSTALL, vllm_is_here
from tests.project import MakeProject, Project


def pytest_configure() -> None:
    """In a shell's background Ctrl-C is ignored, also by all that is started there; here it must not be."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `vllm` run real vLLM: skipped where there is none; what it warns of is its own affair."""
    missing = pytest.mark.skip(reason=f"NOT CHECKED AGAINST REAL vLLM, which is not installed: {INSTALL}")
    for item in items:
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.filterwarnings("ignore") if vllm_is_here() else missing)


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    """Makes a project of some files in a temporary folder, committed unless told otherwise."""

    def make(files: Mapping[str, str], commit: bool = True, name: str = "project") -> Project:
        folder = tmp_path / name
        folder.mkdir()
        project = Project(folder).write(files)
        if commit:
            project.commit()
        return project

    return make
