"""Text of candidates and designers as it may be shown: without what steers a terminal or a CI job, and in its
bounds."""

from __future__ import annotations

import re

# C0 and C1 controls; what ends a line or turns its direction (Unicode's bidi controls); and surrogates, which
# cannot be written at all.
_STEERS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_STEERS}]")
_IN_LINE = re.compile(f"[{_STEERS}\n]")
_IN_SOURCE = re.compile(rf"(?!\r\n)[{_STEERS}]")
# What CI services take for commands where it stands in a job's log: GitHub's ::error:: at the beginning of a
# line and ##[group] anywhere, Azure's ##vso[...], TeamCity's ##teamcity[...].
_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|#(?=#\w*\[)", re.MULTILINE)


def steering(text: str) -> re.Match[str] | None:
    """The first character by which a terminal or an editor may show another text than there is.

    The ends of Windows' lines are none.
    """
    return _IN_SOURCE.search(text)


def visible(text: str, *, line: bool = False) -> str:
    r"""The text with control characters but ``\n`` and ``\t`` as escapes; in a `line` also ``\n``.

    So is the first character of what would be a command of a CI job: ``\x3a:error::``, ``\x23#[group]``.
    """
    shown = (_IN_LINE if line else _IN_TEXT).sub(lambda found: ascii(found[0])[1:-1], text)
    return _COMMAND.sub(lambda found: rf"{found[1]}\x3a" if found[1] is not None else r"\x23", shown)


def abridged(text: str, most: int) -> str:
    """The text in at most so many characters (80 at least): of a longer one beginning and end, and a word
    on what is left out between them."""
    if len(text) <= most:
        return text
    kept = max(0, most - 80)
    head, tail = text[: kept - kept // 3], text[len(text) - kept // 3 :]
    return f"{head}\n... ({len(text) - kept} of {len(text)} characters are left out here) ...\n{tail}"
