"""What all tests share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.project import MakeProject, Project


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
