"""Which of the user's pytest arguments the evaluating pytest is given."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Options that select tests, end or repeat sessions, show progress, write reports, or say where things are:
# the search has done the first and does the others itself. True: a value follows.
_OURS = {
    **dict.fromkeys(("--glia-optimize", "-x", "--exitfirst", "--pdb", "--trace", "--cache-clear"), False),
    **dict.fromkeys(("--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first"), False),
    **dict.fromkeys(("--sw", "--stepwise", "--sw-skip", "--stepwise-skip", "--co", "--collect-only"), False),
    **dict.fromkeys(("--glia-designer", "--glia-budget", "--glia-json", "-n", "--numprocesses"), True),
    **dict.fromkeys(("--maxfail", "--junitxml", "--junit-xml", "--basetemp", "--deselect", "--pdbcls"), True),
    **dict.fromkeys(("-k", "-m", "-c", "--config-file", "--rootdir", "--confcutdir", "--durations"), True),
}


def forwarded(arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """The arguments without the `positional` ones and without those that are the search's own business.

    What a ``conftest.py`` or another plugin defines is kept: the specs may depend on it.
    """
    kept = []
    places = set(positional)
    rest = iter(arguments)
    for argument in rest:
        name, has_value, _ = argument.partition("=")
        short = argument[:2]
        if argument in places:
            continue
        if name in _OURS:
            if _OURS[name] and not has_value:
                next(rest, None)
        elif re.fullmatch(r"-[a-zA-Z].+", argument) and _OURS.get(short):
            continue
        elif re.fullmatch(r"-[lqsvx]+", argument):
            kept += [argument.replace("x", "")] if set(argument) != {"-", "x"} else []
        else:
            kept.append(argument)
    return kept
