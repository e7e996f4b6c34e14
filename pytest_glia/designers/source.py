"""Small edits of Python source that keep everything else as it was written."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping

Number = int | float


def constants(source: str) -> dict[str, Number]:
    """The numeric constants that a file assigns at its top level, by name, in order."""
    return {name: value for name, (value, _) in _constant_nodes(source).items()}


def with_constants(source: str, values: Mapping[str, Number]) -> str:
    """The source with those constants set to new values; their comments and places stay."""
    for name, value in values.items():
        _, node = _constant_nodes(source)[name]
        source = _replaced(source, node, number_text(value))
    return source


def number_text(value: Number) -> str:
    """A number as a person would write it: three significant digits for a float."""
    return repr(float(f"{value:.3g}")) if isinstance(value, float) else repr(value)


def rounded(value: Number) -> Number:
    """The number that `number_text` writes."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def docstring(source: str, entry: str) -> str:
    """The docstring of the class or function `entry`; empty if there is none, or no such entry."""
    node = _definition(source, entry)
    return (ast.get_docstring(node) if node else None) or ""


def _definition(source: str, entry: str) -> ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # as ast.parse says
        return None
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return next((each for each in tree.body if isinstance(each, definitions) and each.name == entry), None)


def with_docstring(source: str, entry: str, text: str) -> str:
    """The source with the docstring of the class or function `entry` replaced, or put in.

    A source that is not valid Python, or has no such entry, is left as it is.
    """
    node = _definition(source, entry)
    if node is None:
        return source
    first = node.body[0]
    if first.lineno == node.lineno:
        # A body on the line of its definition has no line of its own for a docstring.
        literal = _literal(textwrap.indent(text.strip(), " " * 4).strip(), " " * 4)
        has_one = ast.get_docstring(node, clean=False) is not None
        rest = node.body[1:] if has_one else node.body
        body = "".join(f"\n    {ast.get_source_segment(source, each)}" for each in rest)
        head = source.encode().splitlines(keepends=True)
        start = head[first.lineno - 1][: first.col_offset].decode().rstrip()
        last = node.body[-1]
        assert last.end_lineno is not None
        before = "".join(line.decode() for line in head[: first.lineno - 1])
        after = head[last.end_lineno - 1][last.end_col_offset :].decode()
        tail = "".join(line.decode() for line in head[last.end_lineno :])
        return f"{before}{start}\n    {literal}{body}{after}{tail}"
    indent = " " * first.col_offset
    literal = _literal(textwrap.indent(text.strip(), indent).strip(), indent)
    if ast.get_docstring(node, clean=False) is not None:
        return _replaced(source, first, literal)
    lines = source.splitlines(keepends=True)
    decorators = getattr(first, "decorator_list", [])
    at = min([first.lineno, *(each.lineno for each in decorators)]) - 1
    gap = "\n" if isinstance(node, ast.ClassDef) else ""
    return "".join([*lines[:at], f"{indent}{literal}\n{gap}", *lines[at:]])


def _literal(body: str, indent: str) -> str:
    """A triple-quoted string; the closing quotes of a long one stand on a line of their own."""
    body = body.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if "\n" in body:
        return f'"""{body}\n{indent}"""'
    if body.endswith('"'):
        body = body[:-1] + '\\"'
    return f'"""{body}"""'


def _constant_nodes(source: str) -> dict[str, tuple[Number, ast.expr]]:
    found: dict[str, tuple[Number, ast.expr]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if not isinstance(target, ast.Name):
            continue
        try:
            number = ast.literal_eval(value)
        except (ValueError, TypeError):  # no literal; or one that cannot be, as {[]: 1}
            continue
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            found[target.id] = (number, value)
    return found


def _replaced(source: str, node: ast.stmt | ast.expr, text: str) -> str:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    data = source.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    begin = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    return (data[:begin] + text.encode() + data[end:]).decode()


def texts_of(sources: Mapping[str, bytes]) -> dict[str, str]:
    """Sources by path as text, for JSON."""
    return {path: source.decode("utf-8", "replace") for path, source in sources.items()}


def sources_of(texts: Mapping[str, str]) -> dict[str, bytes]:
    """What `texts_of` was given."""
    return {path: text.encode() for path, text in texts.items()}
