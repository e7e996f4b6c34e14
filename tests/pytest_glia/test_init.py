"""``python -m pytest_glia init``: what it writes fails, and the two commands that it names mend that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_glia.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_two_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Followed to the letter they end with a design that meets its specs."""
    folder = tmp_path / "start"
    assert main(["init", str(folder)]) == 0
    commands = re.findall(r"^  (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 2
    script = "\n".join(commands).replace("python -m pytest", f"{sys.executable} -m pytest -p no:xdist")
    who = {f"GIT_{role}_{part}": "ada@x" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **who}
    ran = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAIL  test_little_waste" in ran.stdout
    assert "packer: meets its specs" in ran.stdout


def test_it_is_the_packer_of_the_docs(tmp_path: Path) -> None:
    """Who reads docs/specs.md finds the same files."""
    assert main(["init", str(tmp_path)]) == 0
    text = (ROOT / "docs/specs.md").read_text("utf-8")
    for path in ("candidates/packer.py", "specs/test_packer.py"):
        assert f"```python\n# {path}\n{(tmp_path / path).read_text('utf-8')}```" in text


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is named, and nothing at all is written."""
    spec = tmp_path / "specs/test_packer.py"
    spec.parent.mkdir()
    spec.write_text("mine\n")
    assert main(["init", str(tmp_path)]) == 4
    assert (
        f"{spec} is there already, and nothing is overwritten: give another folder" in capsys.readouterr().err
    )
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [spec]
    assert spec.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["pyproject.toml", "pytest.ini"])
def test_a_configuration_stays(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where something configures pytest already, no second file takes its place."""
    (tmp_path / name).write_text("mine")
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / name).read_text() == "mine"
    assert {each.name for each in tmp_path.iterdir()} == {name, "candidates", "specs"}
    assert f"{name} is left as it is" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in its place is told in a sentence."""
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 4
    assert "cannot be written" in capsys.readouterr().err
