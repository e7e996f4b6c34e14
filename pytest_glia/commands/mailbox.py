"""``python -m pytest_glia mailbox FOLDER``: play the model's part by hand, with files."""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_glia.misuse import Misuse
from pytest_glia.models.mailbox import Mailbox

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "mailbox",
        help="serve a model whose replies you write",
        description="Serve a model with OpenAI's API on this machine. Each request is written to "
        "FOLDER/NNNN.request.md (and .json), and answered with FOLDER/NNNN.reply.md once that is written.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--port", type=int, default=8099, metavar="P", help="0 is any free one; default 8099")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; raises `Misuse` if the folder or the port cannot be used."""
    try:
        mailbox = Mailbox(args.folder, args.port, lambda line: print(line, flush=True))
    except (OSError, OverflowError) as error:
        raise Misuse(
            f"no mailbox in {str(args.folder)!r} at port {args.port} ({error}): give another folder or --port"
        ) from None
    with mailbox:
        print(f"A model at glia_base_url = {mailbox.url}; its mail is in {args.folder}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
