"""``report.md``: what `pytest_glia.report.findings` gathered, as Markdown for people.

Every text is shown as code (`pytest_glia.markdown`): it may come from a candidate or a designer, or
the data from a job that is not trusted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pytest_glia.budget import Kind, listed
from pytest_glia.estimate import Check
from pytest_glia.markdown import cell, code, fenced, table
from pytest_glia.seeds import FIXED

Data = Mapping[str, Any]

_COLUMNS = 100

# What a search's end means, by the word for it.
_ENDS = {
    "met": "It meets its specs, confirmed on seeds that nobody could know.",
    "not met": "No design meets the specs; the best one that was found is shown.",
    "not confirmed": "The best design found was not confirmed: the budget was spent.",
    "refused by the audit": "The audit refused the best candidate, so nothing is delivered.",
    "nothing better found": "No better candidate than the present one was found.",
    "nothing to do": "No spec failed, so there was nothing to do.",
    "budget spent": "The budget was spent before a candidate was tried.",
    "interrupted": "The search was interrupted.",
    "failed": "The search could not go on.",
}

# Where pytest has reported of a design in the end, and not of the present candidate.
_OF_THE_BEST = ("met", "not met", "not confirmed")


def page(data: Data) -> str:
    """The whole report.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the data is not that of a report.
    """
    parts = ["# Design by test: report"]
    designed = {nodeid for each in data["designs"] for nodeid in each["specs"]}
    others = [test for test in data["tests"] if test["nodeid"] not in designed]
    if others:
        parts += ["## Verdicts", verdict_table(others)]
    elif not data["designs"]:
        parts.append("No spec was run.")
    for number, each in enumerate(data["designs"], start=1):
        tests = [test for test in data["tests"] if test["nodeid"] in each["specs"]]
        parts += design(each, tests, number=number)
    parts += ["## The command", fenced(data["command"], "sh")]
    if (name := data["guard_seeds"]) != FIXED:
        parts.append(
            f"On the guard seeds of {code(name)}: `-o glia_guard_seeds=...` with this text has them again."
        )
    parts.append(f"pytest-glia {code(data['version'])}, exit code {int(data['exit'])}.")
    return "\n\n".join(parts) + "\n"


def picture_name(number: int | str) -> str:
    """The file beside the report that shows the progress of the `number`-th search."""
    return f"best-so-far-{number}.svg"


def trade_off_name(number: int | str, other: int | str) -> str:
    """The file that shows the first objective of the `number`-th search against the `other`-th."""
    return f"pareto-{number}-{other}.svg"


def verdict_table(tests: Sequence[Data], before: Sequence[Data] = ()) -> str:
    """A line a comparison, with its interval; `before` is what the present candidate has shown."""
    earlier = {
        (test["nodeid"], check.what(), check.demand()): check for test in before for check in checks_of(test)
    }
    rows = []
    for test in tests:
        checks = checks_of(test)
        for check in checks:
            was = earlier.get((test["nodeid"], check.what(), check.demand()))
            row = [
                *(cell(each) for each in (_name(test), check.what(), check.demand())),
                cell(check.measured()),
            ]
            rows.append([*row, *([cell(was.measured() if was else "")] if before else []), _verdict(check)])
        if test["outcome"] != "passed" and all(check.outcome == "shown" for check in checks):
            gap = [""] * (4 if before else 3)
            message = cell(test["message"] or "")
            rows.append(
                [cell(_name(test)), message, *gap, f"**{_known(test['outcome'], ('failed', 'skipped'))}**"]
            )
    head = ["spec", "quantity", "asked", "measured", *(["before"] if before else []), "verdict"]
    return table(head, rows) if rows else "No comparison was made."


def checks_of(test: Data) -> list[Check]:
    """The comparisons of a spec."""
    return [Check.from_json(dict(each)) for each in test["checks"]]


def design(
    each: Data, tests: Sequence[Data], *, number: int | None = None, most: int | None = None
) -> list[str]:
    """The blocks that tell of one search, the most important first.

    Args:
        tests: What pytest has reported of its specs in the end.
        number: Of the search, where its pictures are beside the page.
        most: The number of characters to which its diff and each note are cut.
    """
    what = ", ".join(f"{code(one['path'])} ({code(one['entry'])})" for one in each["candidates"])
    parts = [
        f"## {code(each['name'])}: {_known(each['outcome'], _ENDS)}",
        f"{_ENDS[each['outcome']]} {what}.",
    ]
    if tests:
        best = each["outcome"] in _OF_THE_BEST
        of = "Of the best candidate:" if best else "Of the present candidate:"
        parts += ["### Verdicts", of, verdict_table(tests, each["before"] if best else ())]
    elif each["before"]:
        parts += ["### Verdicts", "Of the present candidate:", verdict_table(each["before"])]
    if each["trials"]:
        parts += ["### Best so far", *_progress(each, number)]
    if each.get("front"):
        parts += ["### Pareto set", *_front(each["front"], number)]
    found = each["best"]
    if found:
        parts += ["### The design", f"Branch {code(found['branch'])}, commit {code(found['commit'])}."]
        parts += [fenced(found["diff"], "diff", most)]
        for path, note in found["notes"].items():
            parts += [f"Design note {code(path)}:", fenced(_wrapped(note), "markdown", most)]
    if each["run"]:
        parts += [*_confirmation(each), "### Spent", _spent(each), "### To reproduce", *_reproduced(each)]
    return parts


def _progress(each: Data, number: int | None) -> list[str]:
    goal = each["goal"]
    parts = [f"![best so far against simulations]({picture_name(number)})"] if number else []
    asked = f", asked {code(goal['asked'])}" if goal["asked"] else ""
    parts.append(f"Of {code(goal['quantity'])}{asked}:")
    rows = [
        [
            str(int(one["simulations"])),
            str(int(one["number"])) if one["number"] else "-",
            cell(one["name"]),
            str(int(one["seeds"])),
            cell(one["shown"]),
            cell(one["result"]),
            cell(one["best"]["shown"]) + (f" (#{number})" if (number := int(one["best"]["number"])) else ""),
        ]
        for one in each["trials"]
    ]
    head = ["simulations", "candidate", "what was tried", "seeds", "measured", "against the one before"]
    return [*parts, table([*head, "best so far"], rows)]


def _front(front: Data, number: int | None) -> list[str]:
    objectives, candidates = front["objectives"], front["candidates"]
    members = [one for one in candidates if one["member"]]
    parts = [
        f"{len(members)} of the {len(candidates)} candidates that were tried to the end, the present one "
        "included. No other is shown to be better than one of these in something that the specs ask, and no "
        "worse in the rest. This is on the development seeds; only the winner goes on to be confirmed."
    ]
    if number:
        names = [trade_off_name(number, other) for other in range(2, len(objectives) + 1)]
        parts += [f"![one objective against another]({name})" for name in names]
    rows = [
        [
            str(int(one["number"])) if one["number"] else "-",
            code(str(one["commit"])[:9]),
            cell(one["name"]),
            *(cell(each["shown"]) for each in one["measured"]),
            "all" if one["met"] else "not all",
            _place(one),
        ]
        for one in candidates
        if one["member"] or one["winner"]
    ]
    asked = [f"{cell(each['quantity'])} {cell(each['asked'])}" for each in objectives]
    head = ["candidate", "commit", "what was tried", *asked, "specs met there", ""]
    return [*parts, table(head, rows)]


def _place(one: Data) -> str:
    """What distinguishes a candidate among those to choose from."""
    if not one["winner"]:
        return ""
    if one["refuted"]:
        return "**winner**, but did not hold on other seeds"
    return "**winner**" if one["member"] else "**winner**, but another is better"


def _confirmation(each: Data) -> list[str]:
    parts = ["### Attempts to confirm"]
    if not each["attempts"]:
        parts.append("None: no design came so far.")
    else:
        rows = [
            [str(number), cell(one["run"]), cell(one["outcome"] or "not ended")]
            for number, one in enumerate(each["attempts"], start=1)
        ]
        parts += ["From this base commit; each further one must show more.", table(["#", "run", "end"], rows)]
    if each["audit"]:
        parts.append(f"Audit: {code(each['audit'])}")
    return parts


def _spent(each: Data) -> str:
    rows = [[cell(kind), str(int(number))] for kind, number in each["spent"]["simulations"].items()]
    rows.append(["all", str(sum(int(number) for number in each["spent"]["simulations"].values()))])
    kinds: tuple[Kind, ...] = ("tokens", "dollars", "gpu_minutes")
    more = listed({kind: float(spent) for kind in kinds if (spent := each["spent"].get(kind))})
    time = f"In {float(each['spent']['seconds']):.0f} s{f', with {more}' if more else ''}"
    return table(["for", "simulations"], rows) + f"\n\n{time}, of a budget of {code(each['budget'])}."


def _reproduced(each: Data) -> list[str]:
    lines = [f"git checkout {each['base']}", f"pytest {' '.join(_files(each))} --glia-optimize"]
    if each["best"]:
        lines += [f"git checkout {each['best']['branch']}", f"pytest {' '.join(_files(each))}"]
    parts = [f"Run {code(each['run'])} of designer {code(each['designer'])}.", fenced("\n".join(lines), "sh")]
    found = each["confirmation"]
    if found:
        seeds = " ".join(str(int(seed)) for seed in found["seeds"])
        parts.append(
            f"Confirmation seeds: HMAC-SHA256 under the run's secret {code(found['secret'])} of the "
            f"candidate's git blob {code(found['content'])}: {seeds} (attempt {int(found['attempt'])}, "
            f"{100 * float(found['confidence']):.4g} %)."
        )
    return parts


def _wrapped(note: str) -> str:
    """Its prose in lines that need no scrolling; tables stay as they are."""
    return "\n".join(
        line if line.startswith("|") else textwrap.fill(line, _COLUMNS, break_long_words=False)
        for line in note.splitlines()
    )


def _files(each: Data) -> list[str]:
    return list(dict.fromkeys(str(nodeid).partition("::")[0] for nodeid in each["specs"]))


def _known(word: str, words: Collection[str]) -> str:
    """The word, if it is one of ours: as such it needs no code span."""
    if word not in words:
        raise ValueError(f"{word!r} is none of {', '.join(words)}")
    return word


def _name(test: Data) -> str:
    return str(test["nodeid"]).rpartition("::")[2]


def _verdict(check: Check) -> str:
    return cell(check.outcome) if check.outcome == "shown" else f"**{cell(check.outcome)}**"
