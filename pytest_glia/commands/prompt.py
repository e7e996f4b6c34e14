"""``python -m pytest_glia prompt``: the problem statement, word for word, as any designer gets it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import pluggy
import pytest

from pytest_glia.designers import Designer, Proposal
from pytest_glia.misuse import Misuse

if TYPE_CHECKING:
    from pytest_glia.lab import Lab

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "prompt",
        help="print the problem statement that any designer gets",
        description="Evaluate the specs as --glia-optimize would before it designs, and print the problem "
        "statement; pytest's own words go to standard error. Nothing is designed: no branch, no attempt. "
        "What was run is known to a later search.",
        # All that follows is pytest's, options too.
        prefix_chars="\0",
        add_help=False,
    )
    parser.add_argument("arguments", nargs="*", metavar="...", help="as pytest is given them: specs, options")
    parser.set_defaults(run=run, help=parser.format_help)


def run(args: argparse.Namespace) -> int:
    """0 if there is a statement; raises `Misuse` if pytest fails, or no spec does."""
    if {"-h", "--help"} & set(args.arguments):
        print(args.help())
        return 0
    teller = Teller()
    options = ["--glia-optimize", f"--glia-designer={Teller.NAME}", *_OPTIONS]
    with redirect_stdout(sys.stderr):
        code = pytest.main([*args.arguments, *options], plugins=[teller])
    if not teller.statements:
        if code == pytest.ExitCode.OK:
            raise Misuse("no spec fails, so there is nothing to design, and no problem statement")
        raise Misuse(f"there is no problem statement: pytest ended with exit code {int(code)}, see above")
    print("\n".join(teller.statements), end="")
    return 0


# pytest warns that it cannot rewrite the asserts of a plugin that is imported already: this one.
_OPTIONS = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


class Teller:
    """A designer, and the plugin of pytest that offers it, that keeps the statements and tries nothing."""

    NAME = "prompt"
    tries_nothing = True

    def __init__(self) -> None:
        self.statements: list[str] = []

    def design(self, lab: Lab) -> Proposal:
        """The start, as it is."""
        self.statements.append(lab.statement)
        return Proposal(lab.start)

    @pluggy.HookimplMarker("glia")
    def glia_designers(self) -> Mapping[str, Designer]:
        """By the name that the command gives it."""
        return {self.NAME: self}
