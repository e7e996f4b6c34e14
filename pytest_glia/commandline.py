"""Which of the user's pytest arguments the evaluating pytest is given, and which of them decide samples."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

# Options that select tests, end or repeat sessions, show progress, write reports, or say where things are:
# the search has done the first and does the others itself. True: a value follows.
_OURS = {
    **dict.fromkeys(("--glia-optimize", "-x", "--exitfirst", "--pdb", "--trace", "--cache-clear"), False),
    **dict.fromkeys(("--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first"), False),
    **dict.fromkeys(("--sw", "--stepwise", "--sw-skip", "--stepwise-skip", "--co", "--collect-only"), False),
    **dict.fromkeys(("--glia-designer", "--glia-budget", "--glia-report", "-n", "--numprocesses"), True),
    **dict.fromkeys(("--glia-model", "--glia-contexts", "--glia-testbed"), True),
    **dict.fromkeys(("--maxfail", "--junitxml", "--junit-xml", "--basetemp", "--deselect", "--pdbcls"), True),
    **dict.fromkeys(("-k", "-m", "-c", "--config-file", "--rootdir", "--confcutdir", "--durations"), True),
}

# Settings that are the search's own business, too.
_SEARCH_ONLY = re.compile(
    r"glia_(designer|budget|model\w*|command\w*|base_url|api_key_env|price|reasoning_effort|"
    r"max_output_tokens|hand_over)="
)

# Options that name files to write.
_FILES = dict.fromkeys(("--glia-report", "--junitxml", "--junit-xml", "--basetemp", "--report-log"), True)

# Options that change nothing but what is shown.
_SHOWN = {
    **dict.fromkeys(
        ("-q", "--quiet", "-v", "--verbose", "-l", "--showlocals", "--no-showlocals", "-s"), False
    ),
    **dict.fromkeys(("--no-header", "--no-summary", "--full-trace", "--disable-warnings"), False),
    **dict.fromkeys(("-r", "--tb", "--color", "--code-highlight", "--capture", "--show-capture"), True),
    **dict.fromkeys(("--verbosity", "--durations-min"), True),
}


def forwarded(arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """The arguments without the `positional` ones and without those that are the search's own business.

    What a ``conftest.py`` or another plugin defines is kept: the specs may depend on it.
    """
    return _without(_OURS, arguments, frozenset(positional))


def deciding(arguments: Sequence[str]) -> list[str]:
    """Of forwarded arguments, those on which what a replication measures may depend."""
    return _without(_SHOWN, arguments)


def without_files(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that name files to write."""
    return _without(_FILES, arguments)


def _without(
    options: Mapping[str, bool], arguments: Sequence[str], places: Collection[str] = frozenset()
) -> list[str]:
    kept = []
    rest = iter(arguments)
    for argument in rest:
        name, has_value, _ = argument.partition("=")
        if argument in places:
            continue
        if argument in ("-o", "--override-ini"):
            setting = next(rest, "")
            kept += [] if _SEARCH_ONLY.match(setting) else [argument, setting]
            continue
        if _SEARCH_ONLY.match(re.sub(r"^(-o|--override-ini=)", "", argument)):
            continue
        if name in options:
            if options[name] and not has_value:
                next(rest, None)
        elif re.fullmatch(r"-[a-zA-Z].+", argument) and options.get(argument[:2]):
            continue
        elif re.fullmatch(r"-[lqsvx]+", argument):
            left = "".join(letter for letter in argument[1:] if f"-{letter}" not in options)
            kept += [f"-{left}"] if left else []
        else:
            kept.append(argument)
    return kept
