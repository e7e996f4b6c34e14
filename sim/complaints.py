"""What a user reads when a policy fails: file and line of the policy, what was wrong, and the call."""

from __future__ import annotations

import difflib
import inspect
import linecache
import os
import sysconfig
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from sim.policies import Place, PolicyError

__all__ = ["Refused", "cause", "complaint", "defined_at", "explain", "nearest", "shown", "wrapped"]

_WIDTH = 80
_LONGEST = 120
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_POLICIES = tuple(
    _PACKAGE + name for name in ("baselines.py", "schedulers.py", "autoscalers.py", "balancing.py")
)
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep


class Refused(ValueError):
    """What a policy gave is not what its protocol says."""


def cause(error: BaseException) -> BaseException | None:
    """What a `complaint` is raised from: nothing where its text says it all."""
    return None if isinstance(error, Refused) else error


def complaint(policy: object, method: str, call: str, error: BaseException) -> PolicyError:
    """The error for a call of a policy's method that raised, or whose result was refused; also for a policy's
    file that does not load (`policy` is None then)."""
    place = defined_at(policy, method)
    if isinstance(error, Refused):
        return PolicyError(str(error), call, place)
    message = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        place, message = Place(error.filename, error.lineno or 1, ""), error.msg
    else:
        own = [each for each in traceback.extract_tb(error.__traceback__) if not _is_library(each.filename)]
        if own:
            function = "" if own[-1].name == "<module>" else own[-1].name
            place = Place(own[-1].filename, own[-1].lineno or 1, function)
    return PolicyError(f"{type(error).__name__}: {message}", call, place)


def nearest(given: str, names: Iterable[str]) -> str:
    """A remark on the names that are written like the given one; empty if none is."""
    found = difflib.get_close_matches(given, names, n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def defined_at(policy: object, method: str) -> Place | None:
    """Where a policy's method is written; None if it is not written in Python."""
    written = getattr(policy, "__wrapped__", policy)
    code: Any = getattr(getattr(written, method, None), "__code__", None)
    return Place(code.co_filename, code.co_firstlineno, method) if code else None


def shown(value: object) -> str:
    """What a policy gave, cut where it is long; a coroutine is closed, or Python warns of it later."""
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine (of `async def`; leave `async` out)"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def explain(error: PolicyError) -> Iterator[str]:
    """Lines on what went wrong, none longer than 80 columns unless a path is.

    File and line stand on a line of their own, so that an editor or terminal can follow them.
    """
    if error.place is not None:
        file, line, function = error.place
        yield f"{error.place}" + (f" in {function}" if function else "")
        source = linecache.getline(file, line).strip()
        if source:
            yield "    " + textwrap.shorten(source, _WIDTH - 4, placeholder=" ...")
    yield from wrapped(error.reason)
    if error.call:
        yield from wrapped(error.call)


def wrapped(text: str) -> list[str]:
    """Lines of at most 80 columns, the later ones indented; a path is not broken."""
    longest = max(text.split(), key=len, default="")
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=os.sep not in longest,
    )


def named(policy: object) -> str:
    """What a policy is called: its class."""
    return type(getattr(policy, "__wrapped__", policy)).__name__


def _is_library(filename: str) -> bool:
    """Whether a frame is of this package, the standard library or an installed one, rather than of a
    policy."""
    if filename.startswith(_POLICIES):
        return False
    return filename.startswith((_PACKAGE, _STANDARD_LIBRARY, "<frozen")) or "site-packages" in filename
