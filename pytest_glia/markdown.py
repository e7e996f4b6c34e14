"""Text that candidates and designers may have written, as Markdown that it can neither change nor leave.

In a code span or a code block there is no markup, no HTML, no image, no link, and no mention that a forge
would send to somebody. Prose may have code, emphasis and links, but is one paragraph, whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_glia.visible import visible

_LONGEST_LINE = 300


def code(text: object) -> str:
    """A code span of one line; empty text is a dash."""
    line = visible(str(text), line=True).strip()
    if not line:
        return "-"
    if len(line) > _LONGEST_LINE:
        line = line[:_LONGEST_LINE] + "..."
    fence = "`" * (1 + _longest_run(line))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def prose(text: str) -> str:
    """Words as one line of a paragraph or an item: they begin no heading, list, table, quote or HTML."""
    line = " ".join(visible(text).split()).replace("<", "&lt;").replace("|", "&#124;").replace("![", "!\\[")
    return re.sub(r"^(?:(?=[-#>+*=_~`:])|(\d+)(?=[.)](?:\s|$)))", r"\1\\", line)


def cell(text: object) -> str:
    """A code span for a table, where a pipe ends the cell even in code: it is broken (¦)."""
    return code(str(text).replace("|", "¦"))


def fenced(text: str, language: str = "", most: int | None = None) -> str:
    """A code block whose fence is longer than any in it; with `most`, cut to so many characters."""
    shown = visible(text).rstrip("\n")
    if most is not None and len(shown) > most:
        shown = shown[:most].rpartition("\n")[0] + "\n... (cut here)"
    fence = "`" * max(3, 1 + _longest_run(shown))
    return f"{fence}{language}\n{shown}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
