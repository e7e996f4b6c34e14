"""The problem statement: the same words for every designer that reads, made of the spec and its first run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import pytest

from pytest_glia.budget import Budget
from pytest_glia.candidate import Candidate
from pytest_glia.markdown import fenced
from pytest_glia.merit import Evaluation

_RULES = """\
A candidate is ordinary Python (3.11 or later) that imports nothing but algorithmic parts of the standard
library, {allowed}and the exposed files. It reads no file, clock, environment or global random
generator, starts nothing, and uses no dunder tricks and no getattr with a computed name: static rules and a
sandbox see to that, and a candidate that breaks one fails with a sentence that says which. A class is made
anew for each replication; a constructor with a parameter rng gets a seeded random.Random. Only its
decisions count: metrics are made by replaying them where it has never been. A design is accepted on seeds
that nobody knows, in worlds drawn anew, and audited for knowledge of the future. A replication may take
{timeout:.0f} s, and no more than 20 times as long as the present candidate's (10 s at least)."""

_LOSS = """\
By one number, the loss, on the same seeds as the candidate before: how far the first goal is on the wrong
side of its threshold (in logarithms of a ratio or shares of the threshold; below zero if it is met), plus ten
times what any spec, that goal included, lacks on average to meet its own with enough to spare: 0.5 %, or
what it takes for as many other seeds to show it five times in six, if that is more. So a broken demand
outweighs any gain; once all are met, only the first goal counts. A candidate is better if the interval of the
change lies below the margin. In the end all specs must be shown on other seeds: meet them with room."""

_LONGEST = 60_000
"""Characters of an exposed file that the statement shows."""


def problem_statement(
    candidates: Sequence[Candidate],
    items: Sequence[pytest.Item],
    start: Evaluation,
    knobs: Mapping[str, str],
    meaning: Sequence[str],
    *,
    exposed: Mapping[str, str],
    timeout: float,
    budget: Budget,
    replications: int,
    allow_imports: Sequence[str],
) -> str:
    """As Markdown: what is asked, of what, by which rules, and what the present candidate does."""
    allowed = "".join(f"{name}, " for name in allow_imports)
    parts = [
        "# The problem",
        *_docstrings(items),
        "## What is asked",
        _asked(items, start),
        "## What is to be designed",
        *(_candidate(each, start.sources[each.path]) for each in candidates),
        *(_exposed(path, text) for path, text in exposed.items()),
        "## Rules",
        _RULES.format(allowed=allowed, timeout=timeout),
        "## What the present candidate does",
        f"Means over {len(start.seeds)} replications on the development seeds:",
        _metrics(start),
        *meaning,
        "## How candidates are judged",
        _LOSS,
        "## What it may cost",
        f"A simulation is one candidate with one seed; a full look at a candidate takes {replications} seeds "
        f"of each quantity. The budget is {budget}; the end of the run (audit, confirmation, ablations) is "
        "paid from it.",
    ]
    if knobs:
        listed = "\n".join(f"- `{name}`: {word}" for name, word in knobs.items())
        parts += ["## What an experiment may change of the world, by a factor", listed]
    return "\n\n".join(parts) + "\n"


def _docstrings(items: Sequence[pytest.Item]) -> list[str]:
    """Of the specs' files, each once."""
    modules = dict.fromkeys(getattr(item, "module", None) for item in items)
    return [doc for module in modules if module is not None and (doc := inspect.getdoc(module))]


def _asked(items: Sequence[pytest.Item], start: Evaluation) -> str:
    lines = []
    for item in items:
        doc = inspect.getdoc(getattr(item, "function", None)) if hasattr(item, "function") else None
        lines.append(f"- **{item.name}**{f': {doc}' if doc else ''}")
        checks = [check for (nodeid, _), check in start.checks.items() if nodeid == item.nodeid]
        lines += [
            f"  - {check.what()} {check.demand()}; at present {check.measured()}: {check.outcome}"
            for check in checks
        ]
    return "\n".join(lines)


def _candidate(candidate: Candidate, source: bytes) -> str:
    role = f", which the specs call {candidate.role!r}" if candidate.role else ""
    text = source.decode().replace("\r\n", "\n")
    return f"`{candidate.entry}` in `{candidate.path}`{role}. At present:\n\n{fenced(text, 'python')}"


def _exposed(path: str, text: str) -> str:
    return f"`{path}`, which may be read and imported:\n\n{fenced(text, 'python', _LONGEST)}"


def _metrics(start: Evaluation) -> str:
    return "\n".join(f"- `{name}`: {value:.4g}" for name, value in start.evidence.items()) or "none"
