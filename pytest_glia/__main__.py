"""``python -m pytest_glia COMMAND``: what is done beside a run of pytest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_glia.commands import compare, init, mailbox, mcp, prompt, propose, replay, verify
from pytest_glia.misuse import Misuse

_COMMANDS = (init, prompt, compare, replay, verify, propose, mailbox, mcp)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 4 for misuse."""
    parser = argparse.ArgumentParser(prog="python -m pytest_glia", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(subparsers)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except Misuse as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
