"""The text of a pull request: what was verified here, then what the search has reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_glia.markdown import code
from pytest_glia.misuse import Misuse
from pytest_glia.proposing.verification import Verified
from pytest_glia.report import SCHEMA
from pytest_glia.report.findings import plain, verdicts
from pytest_glia.report.page import design, verdict_table

_LARGEST = 20_000_000
# Of the diff and of each note, so that the rest has room beside them.
_LONGEST_TEXT = 20_000
_CUT = "(The rest is in the report of the search, and in the design note.)"


def reported(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """The designs that a report tells of, by their branch.

    Raises:
        Misuse: there is no ``glia.json``, or it is not one.
    """
    file = folder / "glia.json"
    try:
        if file.stat().st_size > _LARGEST:
            raise Misuse(f"{file} has {file.stat().st_size} bytes: {_LARGEST} is the most")
        data = json.loads(file.read_text("utf-8"))
        if data["schema"] != SCHEMA:
            raise Misuse(
                f"{file} is of schema {data['schema']!r}, and {SCHEMA} is known here: search and propose "
                "with the same version of pytest-glia"
            )
        return {each["best"]["branch"]: dict(each) for each in data["designs"] if each["best"]}
    except OSError as error:
        raise Misuse(
            f"{file} cannot be read ({error}): give the folder of --glia-report as --report"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Misuse(f"{file} is no report: give the folder of --glia-report as --report") from None


def body(verified: Verified, told: Mapping[str, Any], diff: str, base: str, most: int) -> str:
    """The body of the pull request, in at most so many bytes.

    What was measured here and the texts that are proposed stand in it as they are; what the search `told` is
    rendered anew from its data, so that no Markdown of it is taken.

    Raises:
        Misuse: what was told is not what a search tells.
    """
    seeds = verified.evaluation.seeds
    notes = {
        path: text.decode("utf-8", "replace") for path, text in verified.files.items() if path[-3:] != ".py"
    }
    try:
        blocks = [
            "## Verified again",
            f"From base {code(base)}, on {len(seeds)} seeds drawn after the design was handed over, "
            f"by a job without a model ({code(verified.sandbox)}):",
            verdict_table(plain(verdicts(verified.reports)), told["before"]),
            f"Seeds: HMAC-SHA256 under {code(verified.secret.hex())} of {code(verified.content)}: "
            f"{' '.join(map(str, seeds))}.",
            "What was before and what follows is as the search has reported it.",
        ]
        best = {**told["best"], "diff": diff, "notes": notes}
        blocks += design({**told, "best": best, "before": ()}, (), most=_LONGEST_TEXT)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Misuse(f"the report of {verified.design.branch} is none ({error!r:.200})") from None
    return _fitted(blocks, most)


def _fitted(blocks: Sequence[str], most: int) -> str:
    """As many whole blocks as there is room for: half of one would change how the rest is read."""
    text = "\n\n".join(blocks) + "\n"
    if len(text.encode()) <= most:
        return text
    kept, size = [], len(_CUT) + 1
    for block in blocks:
        size += len(block.encode()) + 2
        if size > most:
            break
        kept.append(block)
    return "\n\n".join([*kept, _CUT]) + "\n"
