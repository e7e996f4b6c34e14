"""``python -m pytest_glia compare``: designers on the same specs with the same budget, several runs each."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_glia import __version__
from pytest_glia.budget import Budget
from pytest_glia.comparing.page import page
from pytest_glia.comparing.pictures import (
    KINDS,
    best_so_far_picture,
    confirmed_picture,
    direct_picture,
    kinds,
)
from pytest_glia.comparing.runs import Comparison, Measured, SearchRun
from pytest_glia.misuse import Misuse
from pytest_glia.repository import Repository

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SCHEMA = 1


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "compare",
        help="run designers side by side",
        description="Run designers on the same specs with the same budget, each several times, every run "
        "in a fresh clone of the commit that is checked out. Leaves compare.md, its pictures and "
        "compare.json in a folder; called again, it goes on with what is there.",
    )
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="what pytest is to collect")
    parser.add_argument("--designers", required=True, metavar="A,B,...", help="by name")
    parser.add_argument("--runs", type=int, default=3, metavar="K", help="of each designer; default 3")
    parser.add_argument(
        "--budget", default="100 sims, 10 min", metavar="B", help="of each run, as in --glia-budget"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a file whose text is measured in the candidate's place",
    )
    parser.add_argument("--options", default="", metavar="TEXT", help="more options of pytest, for each run")
    parser.add_argument("--output", type=Path, default=Path("compare"), metavar="DIR", help="default compare")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the runs that are missing, and draw all; raises `Misuse` for what cannot be compared."""
    designers = [each for each in args.designers.split(",") if each]
    if not designers or args.runs < 1:
        raise Misuse(
            f"--designers is {args.designers!r} and --runs is {args.runs}: give names, and at least 1"
        )
    try:
        Budget.parse(args.budget)
        options = tuple(shlex.split(args.options))
    except (pytest.UsageError, ValueError) as error:
        raise Misuse(str(error)) from None
    comparison = Comparison(Path.cwd(), tuple(args.specs), args.budget, options)
    kept = _Kept(args.output, comparison)
    repository = Repository(comparison.root)
    changed = [each for each in repository.changed() if not Path(each).is_relative_to(args.output)]
    if changed:
        print(f"not committed, and so no part of it: {', '.join(changed[:3])}{' ...' * (len(changed) > 3)}")
    runs = {designer: [kept.search(designer, n) for n in range(1, args.runs + 1)] for designer in designers}
    [goal, *others] = [each.goal for of in runs.values() for each in of]
    if any(other != goal for other in others):
        raise Misuse(f"the runs in {args.output} have different goals: give another --output")
    candidate = runs[designers[0]][0].candidate
    baselines = {
        name: kept.baseline(name, Path(file), candidate, runs[designers[0]][0])
        for name, _, file in (each.partition("=") for each in args.baseline)
    }
    pictures = _draw(args.output, runs, baselines)
    command = ["python", "-m", "pytest_glia", "compare", *args.specs, "--designers", args.designers]
    command += ["--runs", str(args.runs), "--budget", args.budget]
    command += [part for each in args.baseline for part in ("--baseline", each)]
    command += ["--options", args.options] if args.options else []
    text = page(runs, goal, baselines, args.budget, shlex.join(command), pictures)
    (args.output / "compare.md").write_text(text, "utf-8")
    data = {
        "schema": SCHEMA,
        "version": __version__,
        "base": repository.head(),
        "specs": args.specs,
        "budget": args.budget,
        "baselines": {name: asdict(each) for name, each in baselines.items()},
        "runs": [each.as_json() for of in runs.values() for each in of],
    }
    (args.output / "compare.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    print(text.partition("## Each run")[0].rstrip())
    print(f"\nWritten: {args.output / 'compare.md'}")
    return 0


class _Kept:
    """Runs that are made once and kept in a folder.

    Raises:
        Misuse: the folder has runs of another commit, other specs, another budget or other options.
    """

    def __init__(self, output: Path, comparison: Comparison) -> None:
        self._comparison = comparison
        self._folder = output / "runs"
        made_with = json.dumps(
            [Repository(comparison.root).head(), comparison.specs, comparison.budget, comparison.options]
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            note = self._folder / "made-with.json"
            before = note.read_text("utf-8") if note.exists() else made_with
            note.write_text(before, "utf-8")
        except OSError as error:
            raise Misuse(f"--output={output}: the folder cannot be written ({error}); give another") from None
        if before != made_with:
            raise Misuse(
                f"--output={output} has runs of another commit, other specs, another budget or other options "
                f"({before}): give another"
            )

    def search(self, designer: str, number: int) -> SearchRun:
        """A run of a designer, made unless it is there."""
        file = self._folder / f"{designer}-{number}.json"
        if not file.exists():
            print(f"{designer}, run {number} ...", flush=True)
            made = self._comparison.search(designer, number, file.with_suffix(".log"))
            self._write(file, made.as_json())
        return SearchRun.from_json(json.loads(file.read_text("utf-8")))

    def baseline(self, name: str, source: Path, candidate: str, like: SearchRun) -> Measured:
        """What a baseline measures, looked at unless it is there."""
        if not source.is_file() or not name or "+" in candidate:
            raise Misuse(
                f"--baseline is {f'{name}={source}'!r}: give NAME=FILE, a file to be put in the place of the "
                f"one candidate {candidate}"
            )
        file = self._folder / f"baseline-{name}.json"
        if not file.exists():
            print(f"baseline {name} ...", flush=True)
            self._write(
                file,
                asdict(self._comparison.baseline(source, candidate, like.goal, file.with_suffix(".log"))),
            )
        return Measured(**json.loads(file.read_text("utf-8")))

    def _write(self, file: Path, data: Mapping[str, object]) -> None:
        """The whole file or none of it."""
        part = file.with_suffix(".part")
        part.write_text(json.dumps(data) + "\n", "utf-8")
        part.replace(file)


def _draw(
    output: Path, runs: Mapping[str, Sequence[SearchRun]], baselines: Mapping[str, Measured]
) -> list[str]:
    """Write the pictures; their names."""
    goal = next(iter(runs.values()))[0].goal
    pictures = {
        f"best-so-far-{KINDS[kind][0]}.svg": best_so_far_picture(runs, goal, baselines, kind)
        for kind in kinds(runs)
    }
    if any(run.final for of in runs.values() for run in of):
        pictures["confirmed.svg"] = confirmed_picture(runs, goal, baselines)
    if "best-of-n" in runs:
        pictures["direct-programs.svg"] = direct_picture(runs["best-of-n"], baselines)
    for name, picture in pictures.items():
        (output / name).write_text(picture, "utf-8")
    return list(pictures)
