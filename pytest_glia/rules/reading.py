"""Reads a candidate's text into a syntax tree, or says why it cannot be: encoding, size, syntax, nesting."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator

from pytest_glia.visible import steering

MOST_BYTES = 100_000
DEEPEST = 200
"""Levels of the syntax tree. An ordinary candidate has less than 30; Python itself fails at some hundreds."""

LONGEST_NAME = 1000
"""Characters of an identifier, or of a module's name with its dots: the rules look at each of their parts."""


def parsed(path: str, source: bytes) -> ast.Module | str:
    """The syntax tree of a text, or a sentence that says what is wrong with it."""
    if len(source) > MOST_BYTES:
        return f"{path} has {len(source)} bytes, and a candidate at most {MOST_BYTES}: make it shorter"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        if encoding != "utf-8":
            return f"{path} is encoded as {encoding!r}: save it as UTF-8, without a byte-order mark"
        text = source.decode("utf-8")
        if shown := steering(text):
            at = text.count("\n", 0, shown.start()) + 1
            return (
                f"{path}:{at} has the character U+{ord(shown[0]):04X}, by which a reader is shown another "
                "text than what runs: take it out, or write it as an escape"
            )
        with warnings.catch_warnings():
            # Of a backslash too many, for example: whoever runs the text hears of it then.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
    except UnicodeDecodeError as error:
        return f"{path} is not UTF-8 ({error}): save it as UTF-8"
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else path
        return f"{where} is not valid Python: {getattr(error, 'msg', error)}"
    except (MemoryError, RecursionError):
        return _too_deep(path)
    if _depth(tree) > DEEPEST:
        return _too_deep(path)
    longest = max((len(name) for node in ast.walk(tree) for name in _names(node)), default=0)
    if longest > LONGEST_NAME:
        return f"{path} has a name of {longest} characters, and the most are {LONGEST_NAME}: make it shorter"
    return tree


def _too_deep(path: str) -> str:
    return f"{path} nests its expressions or statements too deep: take them apart"


def _depth(tree: ast.AST) -> int:
    """Levels of a tree; without recursion, for it may be deeper than Python's stack."""
    deepest, level = 0, [tree]
    while level:
        deepest += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return deepest


def _names(node: ast.AST) -> Iterator[str]:
    """The names that stand in a node itself."""
    if not isinstance(node, ast.Constant):
        for _, value in ast.iter_fields(node):
            values = value if isinstance(value, list) else [value]
            yield from (each for each in values if isinstance(each, str))
