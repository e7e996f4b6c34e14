"""What a user reads when a policy fails: the call, what was wrong, and file and line of the policy."""

from __future__ import annotations

import os
import sysconfig
import traceback
from typing import Any

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_POLICIES = tuple(
    _PACKAGE + name for name in ("baselines.py", "schedulers.py", "autoscalers.py", "balancing.py")
)
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep


def complaint(policy: object, method: str, call: str, error: Exception) -> str:
    """One sentence on a call of a policy's method that raised, or whose result this package refused with a
    ValueError."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    if own:
        where = own[-1]
        return f"{call}: {type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
    if all(frame.filename.startswith(_PACKAGE) for frame in frames):  # this package refused what it gave
        return f"{call}: {error}{defined_at(policy, method)}"
    return f"{call}: {type(error).__name__}: {error} ({frames[-1].filename}, line {frames[-1].lineno})"


def defined_at(policy: object, method: str) -> str:
    """Where a policy's method is written, in brackets; nothing if it is not written in Python."""
    written = getattr(policy, "__wrapped__", policy)
    code: Any = getattr(getattr(written, method, None), "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


def named(policy: object) -> str:
    """What a policy is called: its class."""
    return type(getattr(policy, "__wrapped__", policy)).__name__


def _is_library(filename: str) -> bool:
    """Whether a frame is of this package, the standard library or an installed one, rather than of a
    policy."""
    if filename.startswith(_POLICIES):
        return False
    return filename.startswith((_PACKAGE, _STANDARD_LIBRARY, "<frozen")) or "site-packages" in filename
