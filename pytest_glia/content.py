"""What decides the code that a replication runs: a key of its content, for samples to be known by."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import sys
import types
from typing import Any
from unittest.mock import NonCallableMock as Mock


def content_key(function: Any) -> bytes | None:
    """What decides a function or class of this tree, or None if that cannot be told.

    Its place in the source says which code it is (the harness key stands for the source itself). What a
    function has captured, and the globals that it and the functions it calls read, are told by their pickle:
    a test may have changed them. Of other modules that it reaches the constants count, for the same reason;
    a mock there cannot be told.
    """
    try:
        return pickle.dumps(_content(function, getattr(function, "__module__", None), set()))
    except Exception:
        return None


def _content(value: Any, home: str | None, seen: set[int]) -> Any:
    """A picklable stand-in for a value; functions of the module `home` are looked into."""

    def of(inner: Any) -> Any:
        return _content(inner, home, seen)

    if isinstance(value, functools.partial):
        return "partial", of(value.func), of(value.args), of(value.keywords)
    if isinstance(value, types.MethodType):
        return "method", of(value.__func__), value.__self__
    if isinstance(value, types.ModuleType):
        return _module(value, seen)
    if isinstance(value, Mock):
        raise ValueError("a mock does what a test tells it to")
    if isinstance(value, type):
        return value, _module(sys.modules.get(value.__module__), seen)
    if isinstance(value, (list, tuple)):
        return [of(each) for each in value]
    if isinstance(value, (set, frozenset)):
        # Their own order depends on the process.
        return "set", sorted(pickle.dumps(of(each)) for each in value)
    if isinstance(value, dict):
        return [(of(key), of(each)) for key, each in value.items()]
    if not isinstance(value, types.FunctionType):
        return value
    if id(value) in seen:
        return "function", value.__module__, value.__qualname__
    if value.__module__ != home:
        where = _module(sys.modules.get(value.__module__), seen)
        return "function", value.__module__, value.__qualname__, where
    seen.add(id(value))
    code = value.__code__
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    # Two lambdas may stand on one line: the columns of their code tell them apart.
    place = (value.__module__, value.__qualname__, list(code.co_positions()), code.co_code)
    names = sorted(name for name in _names(code) if name in value.__globals__)
    read = [(name, of(value.__globals__[name])) for name in names]
    return "function", place, of([cells, value.__defaults__, value.__kwdefaults__]), read


def _module(module: types.ModuleType | None, seen: set[int]) -> Any:
    """A module's name and, once, the constants in it; those of Python's own modules are not for tests."""
    if module is None or id(module) in seen:
        return "module", module and module.__name__
    seen.add(id(module))
    members = {name: each for name, each in vars(module).items() if not name.startswith("__")}
    if any(isinstance(each, Mock) for each in members.values()):
        raise ValueError("a mock does what a test tells it to")
    if module.__name__.partition(".")[0] in sys.stdlib_module_names:
        return "module", module.__name__
    return "module", module.__name__, sorted((n, v) for n, v in members.items() if _is_constant(v))


def _is_constant(value: Any) -> bool:
    # Where the tree lies is another place for each run.
    return isinstance(value, (int, float, complex, bytes, str, type(None))) and not (
        isinstance(value, str) and os.path.isabs(value)
    )


def _names(code: types.CodeType) -> set[str]:
    """The global names that a function's code may read, its inner functions' included."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*(_names(each) for each in inner))


def digest(*parts: bytes | str) -> str:
    """A hash of all the parts, in order."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.hexdigest()
