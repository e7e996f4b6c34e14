"""The sides of a comparison: the candidate, what it was before, or a baseline of the spec's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pytest_glia.candidate import Candidate, load
from pytest_glia.content import content_key, digest
from pytest_glia.context import Context
from pytest_glia.decisions import Objects
from pytest_glia.misuse import Misuse

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: For people.
        key: Stands for its content.
        entries: Loads its classes or functions, by role.
        is_candidate: Whether its runs are simulations, which are paid for.
        trusted: Whether it is the spec's own code, rather than a candidate's text.
        candidates, sources: If it is made of text: of which, and the text by path.
        files: Where their lines are.
    """

    name: str
    key: str
    entries: Callable[[], Objects]
    is_candidate: bool
    trusted: bool
    candidates: Sequence[Candidate] = ()
    sources: Mapping[str, bytes] = field(default_factory=dict)
    files: frozenset[str] = frozenset()


def source_arm(
    name: str,
    candidates: Sequence[Candidate],
    sources: Mapping[str, bytes],
    root: Path,
    *,
    is_candidate: bool,
) -> Arm:
    """The arm of candidates with these texts, by path below `root`."""

    parts = [f"{each.path}:{each.entry}:{each.role}".encode() for each in candidates]
    files = frozenset(str(root / each.path) for each in candidates)
    return Arm(
        name,
        digest(*parts, *sources.values()),
        partial(loaded, candidates, sources, root),
        is_candidate,
        trusted=False,
        candidates=candidates,
        sources=sources,
        files=files,
    )


def loaded(candidates: Sequence[Candidate], sources: Mapping[str, bytes], root: Path) -> Objects:
    """The entries of candidates with these texts, by role; only ever called in a fork."""
    return {each.role: load(each, sources[each.path], root) for each in candidates}


def baseline_arm(
    against: Any,
    argument: str,
    candidates: Sequence[Candidate],
    context: Context,
    otherwise: Callable[[], bytes],
) -> Arm:
    """What a spec gave as `argument`: a class, a function, a mapping of such by role, or ``"base"``.

    `otherwise` makes the key of what cannot be told by its content. Raises `Misuse` for anything else.
    """
    if isinstance(against, str):
        if against != "base":
            raise Misuse(
                f'{argument}={against!r}: give a class, a function, or "base" (the candidate before this '
                "branch's changes)"
            )
        sources = {each.path: context.base_source(each.path) for each in candidates}
        return source_arm("base", candidates, sources, context.root, is_candidate=False)
    entries: dict[str | None, Any] = (
        dict(against) if isinstance(against, Mapping) else {candidates[0].role: against}
    )
    roles = {each.role for each in candidates}
    if set(entries) != roles:
        raise Misuse(
            f"{argument}= gives {sorted(map(str, entries))}, but the candidates' roles are "
            f"{sorted(map(str, roles))}: give a mapping with one baseline for each role"
        )
    for entry in entries.values():
        if not callable(entry):
            raise Misuse(f"{argument}={entry!r}: give a class, a function, or the string 'base'")
    names = [getattr(entry, "__name__", repr(entry)) for entry in entries.values()]
    key = digest(*(content_key(entry) or otherwise() for entry in entries.values()))
    return Arm(" + ".join(names), key, lambda: entries, is_candidate=False, trusted=True)
