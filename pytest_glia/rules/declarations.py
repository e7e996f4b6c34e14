"""What the statements of a candidate's classes declare, and the constants that name attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence


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
