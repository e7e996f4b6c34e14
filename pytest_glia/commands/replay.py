"""``python -m pytest_glia replay RUN``: repeats a run from its record, and compares the commits."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_glia.ledger import Ledger
from pytest_glia.repeating import copied, of_a_run, recorded, repeated
from pytest_glia.repository import Repository
from pytest_glia.search import REPLAYED

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    of_a_run(
        subparsers,
        "replay",
        "repeat a run from its record, without a model",
        "Repeat a run of --glia-optimize in a temporary copy of the repository, from the record in .glia: no "
        "model is asked, and what is on record is not run again. Ends with 0 if it makes the same commits, "
        "byte for byte.",
        run,
    )


def run(args: argparse.Namespace) -> int:
    """0 if the run makes the same commits again; raises `Misuse` if it cannot be repeated."""
    with recorded(args.root.resolve()) as (repository, ledger):
        begun, command = ledger.begun(args.name)
        with copied(repository, begun.base, without=f"/{begun.id}/") as copy:
            _copy_record(ledger, copy / repository.prefix, begun.id)
            ended = repeated(copy, command, **{REPLAYED: begun.id})
            before = repository.branches(begun.id)
            after = Repository(copy / repository.prefix).branches(begun.id)
    if before == after:
        print(f"The run {begun.id} repeats: {len(after)} branches, the same commits.")
        return 0
    sys.stdout.write(ended.stdout)
    for branch in sorted(before | after):
        one, other = before.get(branch, "nothing"), after.get(branch, "nothing")
        if one != other:
            print(f"{branch}: {one[:9]} then, {other[:9]} now")
    return 1


def _copy_record(ledger: Ledger, root: Path, run: str) -> None:
    """The ledger with that run as one to go on with, and its tables."""
    copied = Ledger(root)
    copied.close()
    (root / ".glia/ledger.db").unlink()
    ledger.copy(root / ".glia/ledger.db")
    if ledger.tables.exists():
        shutil.copytree(ledger.tables, root / ".glia/tables")
    copied = Ledger(root)
    copied.reopen(run)
    copied.close()
