"""What the statements of a candidate's classes declare, and the constants that name attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache

_CHANGEABLE = frozenset(
    {"list", "set", "dict", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"}
)


def declared(node: ast.AST) -> Iterator[str]:
    """The private names that a class statement declares: its methods, its own names, ``self.name = ...``."""
    if not isinstance(node, ast.ClassDef):
        return
    for each in node.body:
        match each:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from _private(each.name)
                if isinstance(each, ast.FunctionDef):
                    yield from _set_in(each)
            case ast.Assign():
                for target in each.targets:
                    if isinstance(target, ast.Name):
                        yield from _private(target.id)
                        if target.id == "__slots__":
                            for name in constant_names([each.value]) or ():
                                yield from _private(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield from _private(name)


@cache
def defined_in(text: bytes) -> frozenset[str]:
    """The names that a module's text defines at its top level: not what it imports, nor aliases of that, nor
    lists, sets and dicts, which whoever takes them could change for all.

    None of them if it does not parse.
    """
    try:
        waiting: list[ast.AST] = [ast.parse(text)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    own: set[str] = set()
    others: set[str] = set()
    aliases: list[tuple[str, str]] = []
    while waiting:
        node = waiting.pop()
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                own.add(node.name)
                continue
            case ast.Import() | ast.ImportFrom():
                others |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case ast.Name(ctx=ast.Store()):
                own.add(node.id)
            case ast.Assign() | ast.AnnAssign() | ast.NamedExpr():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if _can_be_changed(node.value):
                    others |= {each.id for each in targets if isinstance(each, ast.Name)}
                root = _root(node.value)
                aliases += [(each.id, root) for each in targets if isinstance(each, ast.Name) and root]
        waiting.extend(ast.iter_child_nodes(node))
    for _ in aliases:  # one may be the alias of another
        others |= {name for name, root in aliases if root in others}
    return frozenset(own - others)


def _can_be_changed(value: ast.expr | None) -> bool:
    """Whether it is written as a list, a set or a dict, or made by one's name."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id in _CHANGEABLE
    return isinstance(value, ast.List | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp)


def _root(value: ast.expr | None) -> str | None:
    """The name that a chain of attributes begins with; None for anything else."""
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else None


def constant_names(values: Sequence[ast.expr]) -> list[str] | None:
    """The words of constant strings and of sequences of them; None if there is anything else."""
    names: list[str] = []
    for value in values:
        match value:
            case ast.Constant(value=str() as text):
                names += text.replace(",", " ").replace(".", " ").split()
            case ast.Tuple(elts=inner) | ast.List(elts=inner):
                found = constant_names(inner)
                if found is None:
                    return None
                names += found
            case _:
                return None
    return names


def _set_in(method: ast.FunctionDef) -> Iterator[str]:
    first = [*method.args.posonlyargs, *method.args.args][:1]
    for each in ast.walk(method):
        match each:
            case ast.Attribute(value=ast.Name(id=holder), ctx=ast.Store()) if (
                first and holder == first[0].arg
            ):
                yield from _private(each.attr)


def _private(name: str) -> Iterator[str]:
    if name.startswith("_") and not (name.startswith("__") and name.endswith("__")):
        yield name
