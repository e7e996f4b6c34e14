"""The output of a timed call: as bytes that leave its process, and where it differs from another.

Bytes of a candidate's process may be anything, so they are read as data only, never as a pickle.
"""

from __future__ import annotations

import io
import json
import math
import reprlib
from array import array
from types import NoneType
from typing import Any

import numpy as np

from pytest_glia.replication import ReplicationError

# Of numpy's types of number those that are the same on every machine.
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_DTYPES = {np.dtype(f"{kind}{size}") for kind, sizes in _SIZES.items() for size in sizes}
_SCALARS = {dtype.type for dtype in _DTYPES}
_SEQUENCES: dict[str, type[list[Any]] | type[tuple[Any, ...]]] = {"list": list, "tuple": tuple}
# What JSON tells exactly, without a mark.
_PLAIN = {bool, float, str, NoneType}
# Sequences of one type of number are packed: else the writing would take longer than what is timed.
_PACKED = {float: "d", int: "q"}


def encode(value: Any) -> bytes:
    """The bytes of numbers, text, bytes, booleans, None, and lists, tuples, dicts and numpy arrays of such.

    Types are exact: an object of a subclass, which may compare or convert as it likes, raises
    `ReplicationError`, as does anything else.
    """
    blobs: list[bytes] = []
    head = json.dumps(_tree(value, blobs)).encode()
    return b"".join([len(head).to_bytes(8, "big"), head, *blobs])


def _tree(value: Any, blobs: list[bytes]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return ["int", hex(value)]
    if kind is bytes:
        blobs.append(value)
        return ["bytes", len(value)]
    if kind is list or kind is tuple:
        return [kind.__name__, _items(value, blobs)]
    if kind is dict:
        return ["dict", [[_tree(key, blobs), _tree(each, blobs)] for key, each in value.items()]]
    if (kind is np.ndarray or kind in _SCALARS) and value.dtype in _DTYPES:
        blobs.append(value.tobytes())
        return ["array" if kind is np.ndarray else "scalar", value.dtype.str, value.shape]
    raise ReplicationError(
        f"the timed function returned an object of {kind.__module__}.{kind.__qualname__}: return numbers, "
        "text, bytes, booleans, None, or lists, tuples, dicts or numpy arrays of such (no subclasses)"
    )


def _items(values: Any, blobs: list[bytes]) -> Any:
    kinds = set(map(type, values))
    if len(kinds) == 1 and (code := _PACKED.get(next(iter(kinds)))):
        try:
            blobs.append(array(code, values).tobytes())
            return {code: len(values)}
        except OverflowError:
            pass
    return list(values) if kinds <= _PLAIN else [_tree(each, blobs) for each in values]


def decode(data: bytes) -> Any:
    """The value that `encode` wrote; raises `ValueError` for bytes that it has not written."""
    try:
        start = 8 + int.from_bytes(data[:8], "big")
        return _value(json.loads(data[8:start]), io.BytesIO(data[start:]))
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, RecursionError):
        raise ValueError(f"{data[:40]!r} is no output") from None


def _value(tree: Any, blobs: io.BytesIO) -> Any:
    if type(tree) in _PLAIN:
        return tree
    kind, body, *shape = tree
    if kind == "int":
        return int(body, 16)
    if kind == "bytes":
        return _blob(blobs, body)
    if kind in _SEQUENCES:
        if isinstance(body, dict):
            [(code, count)] = body.items()
            if code not in _PACKED.values():
                raise ValueError
            return _SEQUENCES[kind](array(code, _blob(blobs, 8 * count)))
        return _SEQUENCES[kind](_value(each, blobs) for each in body)
    if kind == "dict":
        return {_value(key, blobs): _value(each, blobs) for key, each in body}
    dtype = np.dtype(str(body))
    if kind not in ("array", "scalar") or dtype not in _DTYPES:
        raise ValueError
    size = dtype.itemsize * math.prod(shape[0])
    found = np.frombuffer(_blob(blobs, size), dtype).reshape(shape[0])
    return found if kind == "array" else found[()]


def _blob(blobs: io.BytesIO, size: int) -> bytes:
    blob = blobs.read(size) if size >= 0 else b""
    if len(blob) != size:
        raise ValueError
    return blob


def difference(found: Any, expected: Any, place: str = "") -> str | None:
    """Where two decoded outputs first differ, in words; None if they do not.

    Floats, also in arrays, may differ in the second half of their digits (by the square root of their
    type's epsilon, relative), for another order of additions gives others. Types must be the same.
    """
    at = f" at {place}" if place else ""
    what = f"{_brief(found)}{at} where {_brief(expected)} was expected"
    if type(found) is not type(expected):
        return f"{what} ({type(found).__name__}, not {type(expected).__name__})"
    if isinstance(expected, (list, tuple)):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
            if (parted := difference(ours, theirs, f"{place}[{index}]")) is not None:
                return parted
        return None if len(found) == len(expected) else f"{len(found)} items{at}, not {len(expected)}"
    if isinstance(expected, dict):
        for key, theirs in expected.items():
            if key not in found:
                return f"no key {_brief(key)}{at}"
            if (parted := difference(found[key], theirs, f"{place}[{_brief(key)}]")) is not None:
                return parted
        return None if len(found) == len(expected) else f"{len(found)} keys{at}, not {len(expected)}"
    if isinstance(expected, (float, np.ndarray, np.generic)):
        return _numbers_differ(np.asarray(found), np.asarray(expected), place, what)
    return None if found == expected else what


def _numbers_differ(found: Any, expected: Any, place: str, what: str) -> str | None:
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{what} ({found.dtype} of shape {found.shape}, not {expected.dtype} of {expected.shape})"
    if expected.dtype.kind in "fc":
        close = np.isclose(found, expected, math.sqrt(np.finfo(expected.dtype).eps), 0.0, equal_nan=True)
    else:
        close = found == expected
    if np.all(close):
        return None
    if not expected.shape:
        return what
    first = tuple(int(axis[0]) for axis in np.nonzero(~close))
    where = f"{place}[{', '.join(map(str, first))}]"
    return f"{found[first]!r} at {where} where {expected[first]!r} was expected"


def _brief(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:
        # Python does not write out an int of more than 4300 digits.
        return f"a huge {type(value).__name__}"
