"""What a class statement of a candidate may not say: it, too, can make code out of strings."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from pytest_glia.rules.tree import Tree

_FLAGS = frozenset({("enum", "Flag"), ("enum", "IntFlag")})
_DATACLASS = ("dataclasses", "dataclass")
_FIELD = ("dataclasses", "field")
# What a field holds; of all else dataclass asks whether it is true, which runs a method of the candidate's.
_HELD = frozenset({"default", "default_factory", "metadata"})


def class_faults(node: ast.ClassDef, tree: Tree) -> Iterator[str]:
    """What is wrong with the head of a class, with the members of an enum, and with a dataclass."""
    for keyword in node.keywords:
        yield f"makes a class with {keyword.arg or '**'}=: leave it out"
    origins = [tree.origin(base) for base in node.bases]
    if any(origin in _FLAGS for origin in origins):
        if not _has_bit(node, tree):
            yield (
                "makes a Flag that does not begin with a member of one bit, which could be called to make "
                "more: inherit from it alone, and let its first statements be such as ONE = 1"
            )
    elif _is_enum(node, tree) and not _has_member(node, tree):
        yield "makes an enum without a member, which could be called to make more: give it one"
    yield from _dataclass_faults(node, tree)


def enum_names(tree: Tree) -> frozenset[str]:
    """The names of the candidate's own enums."""
    return frozenset(
        node.name for node in tree.parents if isinstance(node, ast.ClassDef) and _is_enum(node, tree)
    )


def _is_enum(node: ast.ClassDef, tree: Tree) -> bool:
    return any((tree.origin(base) or ("",))[0] == "enum" for base in node.bases)


def _dataclass_faults(node: ast.ClassDef, tree: Tree) -> Iterator[str]:
    """It writes the names of the fields of what it decorates into code: they must be those of the text."""
    calls = [each for each in node.decorator_list if isinstance(each, ast.Call)]
    heads = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    found = [place for place, head in enumerate(heads) if tree.origin(head) == _DATACLASS]
    if not found:
        return
    if found != [len(heads) - 1]:
        yield "decorates with dataclass what another decorator made: write @dataclass next to the class"
    for call in calls:
        if tree.origin(call.func) != _DATACLASS:
            continue
        if call.args:
            yield "uses dataclass other than as a decorator: call it with keywords only"
        if not _are_constant(call.keywords):
            yield "calls dataclass with what is no constant, and could change its fields: write True"
    yield from _field_faults(node, tree)
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    if not all(tree.origin(base) for base in bases):
        yield (
            "makes a dataclass that inherits from a class of its own, whose fields could be code: "
            "write all fields in one class"
        )


def _field_faults(node: ast.ClassDef, tree: Tree) -> Iterator[str]:
    """Nobody may hold a field before its name is written into code: it could be given another."""
    fields = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and _makes_field(each, tree)
    }
    waiting: list[ast.AST] = [*node.body] if fields else []
    while waiting:
        each = waiting.pop()
        match each:
            # What stands in annotations may be evaluated by nobody: then it is not in the tree.
            case ast.Name(id=name, ctx=ast.Load()) if name in fields and each in tree.parents:
                yield f"reads the field {name} in its class: give one of the two another name"
        inner = [*ast.iter_child_nodes(each)]
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # What its body names is never the class's.
            inner = [part for part in inner if part not in each.body]
        waiting += inner


def _makes_field(statement: ast.AnnAssign, tree: Tree) -> bool:
    return isinstance(statement.value, ast.Call) and tree.origin(statement.value.func) == _FIELD


def is_field_of_dataclass(node: ast.AST, tree: Tree) -> bool:
    """Whether the name ``field`` stands in ``x: T = field(...)`` in a dataclass, its options constants."""
    call = tree.called(node)
    if call is None or call.args:
        return False
    statement, _ = tree.parents[call]
    if not isinstance(statement, ast.AnnAssign) or statement.value is not call:
        return False
    holder, place = tree.parents[statement]
    if not isinstance(holder, ast.ClassDef) or place != "body":
        return False
    heads = [each.func if isinstance(each, ast.Call) else each for each in holder.decorator_list]
    options = [each for each in call.keywords if each.arg not in _HELD]
    return any(tree.origin(head) == _DATACLASS for head in heads) and _are_constant(options)


def _are_constant(keywords: Sequence[ast.keyword]) -> bool:
    return all(each.arg and isinstance(each.value, ast.Constant) for each in keywords)


def _has_member(node: ast.ClassDef, tree: Tree) -> bool:
    return not _unsays_members(node, tree) and any(
        isinstance(each, ast.Assign)
        and isinstance(each.value, ast.Constant)
        and any(isinstance(name, ast.Name) and not name.id.startswith("_") for name in each.targets)
        for each in node.body
    )


def _has_bit(node: ast.ClassDef, tree: Tree) -> bool:
    """Python counts no other member of a flag, and none that equals what stands before it."""
    if len(node.bases) > 1 or _unsays_members(node, tree):
        return False
    for each in node.body:
        match each:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                if type(value) is int and value.bit_count() == 1 and not name.startswith("_"):
                    return True
            case _:
                return False
    return False


def _unsays_members(node: ast.ClassDef, tree: Tree) -> bool:
    """Whether what the body assigns may be no member: ignored by name, or the module's variable."""
    return node in tree.unsaying
