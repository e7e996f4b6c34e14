"""``python -m pytest_glia init [FOLDER]``: a start that fails on purpose, to design from or to rewrite."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_glia.misuse import Misuse

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_FILES = {"candidates/packer.py": "packer.txt", "specs/test_packer.py": "test_packer.txt"}
"""By path the files of the folder ``start`` with their texts."""

_CONFIGURED = (
    "pyproject.toml",
    "pytest.toml",
    ".pytest.toml",
    "pytest.ini",
    ".pytest.ini",
    "tox.ini",
    "setup.cfg",
)
"""Any of which may configure pytest already."""

_CONFIGURATION = """\
[pytest]
glia_replications = 10
glia_budget = 200 sims, 5 min
"""


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "init",
        help="write a spec that fails, its candidate, and the configuration",
        description="Write a start for design by test: a spec that fails on purpose, its candidate, and "
        "pytest.ini if nothing configures pytest there yet. No file is overwritten.",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: here"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files, and say how to go on; raises `Misuse`, and writes nothing, if one is there."""
    folder: Path = args.folder
    texts = {path: (files(__package__) / "start" / name).read_text("utf-8") for path, name in _FILES.items()}
    configured = next((name for name in _CONFIGURED if (folder / name).exists()), None)
    if configured is None:
        texts["pytest.ini"] = _CONFIGURATION
    if there := next((path for path in texts if (folder / path).exists()), None):
        raise Misuse(f"{folder / there} is there already, and nothing is overwritten: give another folder")
    try:
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
    except OSError as error:
        raise Misuse(f"{folder} cannot be written ({error}): give another folder") from None
    print(f"Written: {', '.join(texts)}.")
    if configured:
        print(f"{configured} is left as it is; settings of its own go there, in [tool.pytest] or [pytest].")
    where = "" if folder == Path() else f"cd {folder} && "
    print("Commit them, then let the candidate be designed until the specs pass:\n")
    print(f"  {where}git init -q && git add {' '.join(texts)} && git commit -q -m 'A start that fails'")
    print("  python -m pytest specs --glia-optimize")
    return 0
