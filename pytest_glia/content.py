"""What decides the code that a replication runs: a key of its content, for samples to be known by."""

from __future__ import annotations

import functools
import hashlib
import pickle
import types
from typing import Any


def content_key(function: Any) -> bytes | None:
    """What decides a function or class of this tree, or None if that cannot be told.

    Its place in the source says which code it is (the harness key stands for the source itself). What a
    function has captured, and the globals that it and the functions it calls read, are told by their pickle:
    a test may have changed them.
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
        return "module", value.__name__
    if isinstance(value, (list, tuple)):
        return [of(each) for each in value]
    if isinstance(value, dict):
        return [(of(key), of(each)) for key, each in value.items()]
    if not isinstance(value, types.FunctionType):
        return value
    if id(value) in seen or value.__module__ != home:
        return "function", value.__module__, value.__qualname__
    seen.add(id(value))
    code = value.__code__
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    # Two lambdas may stand on one line: the columns of their code tell them apart.
    place = (value.__module__, value.__qualname__, list(code.co_positions()), code.co_code)
    names = sorted(name for name in _names(code) if name in value.__globals__)
    read = [(name, of(value.__globals__[name])) for name in names]
    return "function", place, of([cells, value.__defaults__, value.__kwdefaults__]), read


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
