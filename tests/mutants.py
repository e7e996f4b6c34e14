"""Mutants of a discovered candidate: without one of its ideas, or with a number doubled or halved."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CANDIDATES = Path(__file__).parents[1] / "candidates"

Edits = tuple[tuple[str, str], ...]
"""Texts of a candidate, each with what stands in its place in the mutant."""

START: Edits = ()
"""No edits: without this idea the candidate is what the search began from, ``candidates/start``."""

_HOLDS: Mapping[str, Edits] = {
    "shortest prompt first": (("sorted(queue, key=lambda request: request.prompt_tokens)", "queue"),),
    "reserve for new requests": (("        tokens += RESERVE_TOKENS * (replica.waiting + 1)\n", ""),),
}
_CHUNKS: Mapping[str, Edits] = {
    "shortest prefill first": (("sorted(engine.waiting, key=self.due)", "list(engine.waiting)"),),
    "small chunks beside decodes": (
        (
            "self.chunked(engine, sorted(engine.waiting, key=self.due))",
            "sorted(engine.waiting, key=self.due), {}",
        ),
    ),
}

REMOVALS: Mapping[str, Mapping[str, Edits]] = {
    "router": {
        "hold requests without room": (
            ("if self.fits(request, replica) and self.spreads(", "if self.spreads("),
        ),
        **_HOLDS,
        "spread prefills": (
            ("self.fits(request, replica) and self.spreads(request, replica)", "self.fits(request, replica)"),
        ),
    },
    "scheduler": _CHUNKS,
    "autoscaler": {"size by cache": START},
    "pair/router": {
        "hold requests without room": (("if self.fits(request, replica)]", "]"),),
        **_HOLDS,
        "reserve in proportion to the prompt": (
            (
                "        tokens += RESERVE_RATIO * (replica.waiting_prompt_tokens + request.prompt_tokens)\n",
                "",
            ),
        ),
    },
    "pair/scheduler": {
        "fill steps, no more": (("self.filled(engine, list(engine.waiting))", "list(engine.waiting), {}"),),
    },
    "stack/router": {"place by blocks": START},
    "stack/scheduler": _CHUNKS,
    "stack/autoscaler": {"size by cache": START},
}
"""Of each candidate, by its file, the ideas that its search added, as its design note has them, and how to
take them out. The note of several candidates tells of the ideas of all."""


@dataclass(frozen=True)
class Mutant:
    """A candidate that somebody might take for as good: what was done to it, and its text."""

    layer: str
    change: str
    source: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.change}"


def mutants(layer: str) -> Iterator[Mutant]:
    """All of the candidate of a layer."""
    source = (CANDIDATES / f"{layer}.py").read_text("utf-8")
    yield from (Mutant(layer, f"without {idea!r}", without(layer, idea, source)) for idea in REMOVALS[layer])
    yield from (Mutant(layer, change, text) for change, text in scaled(source))


def ideas(note: str) -> list[str]:
    """What a design note says that its design is made of: the sections under "The design", and what is in
    italics under "Before", where the design was itself begun from one."""
    design, before = (
        note.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] for heading in ("The design", "Before")
    )
    return [*re.findall(r"^### (.+)$", design, re.MULTILINE), *re.findall(r"\*(.+?)\*", before)]


def without(layer: str, idea: str, source: str) -> str:
    """A candidate's text without one of its ideas; raises `LookupError` if it is not there as listed."""
    edits = REMOVALS[layer][idea]
    if edits == START:
        return (CANDIDATES / f"start/{Path(layer).name}.py").read_text("utf-8")
    for old, new in edits:
        if source.count(old) != 1:
            raise LookupError(
                f"candidates/{layer}.py has {old!r} {source.count(old)} times, and not once: say in REMOVALS "
                f"of tests/mutants.py how the candidate as it is now loses {idea!r}"
            )
        source = source.replace(old, new)
    return source


def scaled(source: str) -> Iterator[tuple[str, str]]:
    """For each number or sequence of numbers at the top of a module: the module with its double and half."""
    scope: dict[str, Any] = {"__name__": "candidate"}
    exec(compile(source, "candidate", "exec"), scope)
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        [name] = [target.id for target in targets if isinstance(target, ast.Name)] or [""]
        for sign, factor in (("x", 2), ("/", 0.5)):
            value = _times(scope.get(name), factor)
            if value is not None and value != scope[name]:
                yield f"{name} {sign} 2", _replaced(source, node.value, repr(value))


def _times(value: object, factor: float) -> Any:
    """A number, or numbers, times a factor, whole ones rounded down; None of what is neither."""
    if isinstance(value, tuple | list):
        each = [_times(one, factor) for one in value]
        return None if not each or None in each else type(value)(each)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return type(value)(value * factor // 1 if isinstance(value, int) else value * factor)


def _replaced(source: str, node: ast.expr, text: str) -> str:
    """A module's text with another one in the place of an expression."""
    lines = source.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before = b"".join(lines[:first]) + lines[first][: node.col_offset]
    after = lines[last][node.end_col_offset :] + b"".join(lines[last + 1 :])
    return (before + text.encode() + after).decode()
