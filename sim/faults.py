"""What a user reads at the command line when a policy fails: file, line and call, at 80 columns."""

from __future__ import annotations

import linecache
import os
import textwrap
import traceback
from pathlib import Path

from sim.policies import PolicyError

__all__ = ["explain"]

_WIDTH = 80


def explain(error: BaseException, path: Path | None, line: int | None = None, method: str = "") -> list[str]:
    """Lines on what went wrong in the policy of this file, none longer than 80 columns unless a path is.

    File and line stand on a line of their own, so that an editor or terminal can follow them. They are those
    that raised, else those of the policy's method.
    """
    cause = error.__cause__ if isinstance(error, PolicyError) and error.__cause__ is not None else error
    lines = []
    raised = _place(cause, path)
    place = raised or (None if path is None or line is None else (str(path), line, method))
    if place is not None:
        file, at, function = place
        lines.append(f"{_shown(file)}:{at}" + (f" in {function}" if function else ""))
        source = linecache.getline(file, at).strip()
        if source:
            lines.append(textwrap.shorten(f"    {source}", _WIDTH - 4, placeholder=" ...").strip())
            lines[-1] = f"    {lines[-1]}"
    if not isinstance(error, PolicyError) or raised is not None:
        message = cause.msg if isinstance(cause, SyntaxError) else str(cause)
        lines += _wrapped(f"{type(cause).__name__}: {message}")
    if isinstance(error, PolicyError):
        lines += _wrapped(_without_place(str(error), cause))
    return lines


def _place(error: BaseException, path: Path | None) -> tuple[str, int, str] | None:
    """File, line and function of the innermost frame in the policy's file."""
    if path is None:
        return None
    if isinstance(error, SyntaxError) and error.filename and _same(error.filename, path):
        return error.filename, error.lineno or 1, ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _same(frame.filename, path)]
    if not frames:
        return None
    last = frames[-1]
    return last.filename, last.lineno or 1, "" if last.name == "<module>" else last.name


def _same(filename: str, path: Path) -> bool:
    return os.path.abspath(filename) == os.path.abspath(path)


def _shown(file: str) -> str:
    """Relative to the current folder where that is shorter."""
    relative = os.path.relpath(file)
    return relative if len(relative) < len(file) else file


def _without_place(message: str, cause: BaseException) -> str:
    """The message of a PolicyError without what the lines above have said."""
    call, colon, _ = message.partition(f": {type(cause).__name__}: ")
    if colon:
        return call
    before, opening, place = message.rpartition(" (")
    return before if opening and place.endswith(")") and ", line " in place else message


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
