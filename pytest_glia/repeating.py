"""What repeats a run's command: its record, a temporary copy of the repository at its base, pytest there."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_glia.childprocess import without_secrets
from pytest_glia.commandline import without_files
from pytest_glia.ledger import Command, Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.repository import Repository

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def of_a_run(
    subparsers: Subparsers, name: str, word: str, description: str, run: Callable[[argparse.Namespace], int]
) -> None:
    """Declare a command that takes the name of a run, and the root in which it was made."""
    parser = subparsers.add_parser(name, help=word, description=description)
    parser.add_argument("name", metavar="RUN", help="such as 20261120-144312-a581")
    parser.add_argument("--root", type=Path, default=Path(), help="pytest's root directory; default: here")
    parser.set_defaults(run=run)


@contextmanager
def recorded(root: Path) -> Iterator[tuple[Repository, Ledger]]:
    """The repository around pytest's root directory and its ledger; raises `Misuse` if there is none."""
    if not (root / ".glia/ledger.db").exists():
        raise Misuse(f"{root} has no .glia/ledger.db: give --root the folder in which the run was made")
    ledger = Ledger(root)
    try:
        yield Repository(root), ledger
    finally:
        ledger.close()


@contextmanager
def copied(repository: Repository, base: str, without: str) -> Iterator[Path]:
    """A copy at a commit, deleted in the end, with the refs whose names do not contain `without`.

    Raises `Misuse` if the commit is gone.
    """
    if not repository.has(base):
        raise Misuse(
            f"the commit {base[:9]}, with which the run began, is not in the repository {repository.top} "
            "any more (git deletes what no branch leads to): fetch it from where it was pushed, or begin a "
            "new run"
        )
    with tempfile.TemporaryDirectory(prefix="glia-copy-") as folder:
        copy = Path(folder) / "copy"
        repository.clone(copy, base, without)
        yield copy


def repeated(
    copy: Path, command: Command, *more: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The run's command in the copy, with more arguments and variables; it writes no reports."""
    addopts = shlex.join(without_files(shlex.split(command.addopts)))
    return subprocess.run(
        [sys.executable, "-m", "pytest", *without_files(command.arguments), *more],
        cwd=copy / command.folder,
        env={**without_secrets(os.environ), "PYTEST_ADDOPTS": addopts, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
