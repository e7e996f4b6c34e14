"""Walks a candidate's syntax tree and finds the first thing in it that a candidate may not do.

The rules follow names, not values, so they rest on three that make names reliable: what is imported is bound
to one name and never bound again; a module, or a class that could be changed, is used where it stands and
never handed on; whatever reads attributes by name is called at once, with names that are constants.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pytest_glia.rules.classes import class_faults, enum_names, is_field_of_dataclass
from pytest_glia.rules.declarations import constant_names, declared
from pytest_glia.rules.modules import Modules, dotted_path
from pytest_glia.rules.names import (
    DECLARATIONS,
    LOOKUPS,
    METHODS,
    READABLE,
    is_special,
    refused_attribute,
    refused_binding,
    refused_builtin,
)
from pytest_glia.rules.tree import Parts, Tree

# Called, they make classes with computed attributes.
_BASE_ONLY = frozenset(
    {f"enum.{name}" for name in ("Enum", "Flag", "IntEnum", "IntFlag", "StrEnum")}
    | {"typing.NamedTuple", "typing.TypedDict"}
)
# Where each has the names of attributes among its arguments.
_BY_NAME: Mapping[str, slice] = {
    "getattr": slice(1, 2),
    "hasattr": slice(1, 2),
    "setattr": slice(1, 2),
    "delattr": slice(1, 2),
    "operator.attrgetter": slice(None),
    "operator.methodcaller": slice(0, 1),
    "collections.namedtuple": slice(0, 2),
}

# The rules tell by these names what is done with a class.
_FIXED = frozenset({"isinstance", "issubclass", "super"})
_READ = READABLE | {"__debug__"}
_FORMATS = frozenset({"format", "format_map"})
_FORMATS_WITHIN = 3
"""A format, those of its fields, and theirs, in which Python takes no fields any more."""


def violation(tree: ast.Module, path: str, modules: Modules) -> str | None:
    """The first violation in the text's order, as a sentence with file and line; None if there is none."""
    text = _Text(Tree.of(tree, tuple(dotted_path(path).split(".")[:-1])), modules)
    found = [(_place(node), told) for node in text.tree.parents for told in text.of(node)]
    if not found:
        return None
    (line, *_), told = min(found, key=lambda each: each[0])
    return f"{path}:{line} {told}"


def _place(node: ast.AST) -> tuple[int, int, int]:
    """Where a node begins, and where it ends: of ``a.b.c`` the part ``a.b`` comes first."""
    line = getattr(node, "lineno", 1)
    return line, getattr(node, "end_lineno", line), getattr(node, "end_col_offset", 0)


@dataclass(frozen=True)
class _Text:
    tree: Tree
    modules: Modules

    @cached_property
    def own(self) -> frozenset[str]:
        return frozenset(name for node in self.tree.parents for name in declared(node))

    @cached_property
    def enums(self) -> frozenset[str]:
        return enum_names(self.tree)

    def of(self, node: ast.AST) -> Iterator[str]:
        """What is wrong with one node."""
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from self._import(node)
            case ast.Name() | ast.Attribute():
                yield from self._name(node)
            case ast.ClassDef():
                yield from class_faults(node, self.tree)
            case ast.Call(func=ast.Name(id=name)) if name in self.enums and not _looks_up(node):
                yield f"calls the enum {name} with more than a value: write its members in a class statement"
            case ast.AnnAssign(target=ast.Name(id=name)) if name not in DECLARATIONS:
                # As a field of a dataclass, it is what a match statement reads by position.
                if isinstance(self.tree.scope(node), ast.ClassDef):
                    yield from self._attribute(name)
            case ast.Subscript(slice=ast.Slice(step=ast.expr()), ctx=ast.Store()):
                yield "assigns to a slice with a step: assign the items in a loop"
            case ast.TryStar():
                yield "uses except*: write except"
            case ast.MatchClass():
                for name in node.kwd_attrs:
                    yield from self._attribute(name)
        if not isinstance(node, ast.Attribute):
            yield from self._identifiers(node)
        for name in self.tree.bound(node):
            if name in self.tree.origins:
                yield f"binds {name} again, which it imports: give one of the two another name"
            if name in _FIXED:
                yield f"binds {name}, which is Python's own: give it another name"

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        level = 0 if isinstance(node, ast.Import) else node.level
        for alias in node.names:
            parts = self.tree.imported(node, alias)
            name, stands_for = self.tree.binding(node, alias)
            if alias.name == "*":
                yield f"imports * from {'.'.join(parts[:-1])}: name what it takes"
            elif level and not self.modules.exposes(parts):
                yield (
                    f"imports {'.'.join(parts)}, which a candidate may not: add the file that defines it to "
                    "exposes=[...] of the glia marker"
                )
            elif told := self.modules.refusal(parts):
                yield f"imports {'.'.join(parts)}, which a candidate may not: {told}"
            elif refused_binding(name):
                yield f"binds {name}, which is Python's own: give it another name"
            elif isinstance(self.tree.scope(node), ast.ClassDef):
                yield f"imports {'.'.join(parts)} into a class, whose attribute it would be: import it above"
            elif self.tree.origins[name] != stands_for:
                yield f"imports two things as {name}: give each its own name"

    def _name(self, node: ast.Name | ast.Attribute) -> Iterator[str]:
        parts = self.tree.origin(node)
        if parts is None:
            if isinstance(node, ast.Attribute):
                yield from self._plain_attribute(node)
            elif isinstance(node.ctx, ast.Load):
                yield from self._builtin(node)
        elif not self.tree.is_within(node, ast.Attribute, "value"):
            yield from self._taken(node, parts)
        elif isinstance(node, ast.Attribute) and not any(map(self.modules.is_module, (parts, parts[:-1]))):
            # Of something imported: where modules end, the rules of all attributes begin.
            yield from self._plain_attribute(node)

    def _taken(self, node: ast.Name | ast.Attribute, parts: Parts) -> Iterator[str]:
        """What is wrong with the use of something imported."""
        shown = ".".join(parts)
        if self.modules.frees(parts) and not self.modules.is_module(parts):
            return
        if not isinstance(node.ctx, ast.Load):
            yield f"changes {shown}: what is imported stays as it is; keep state in an object of its own"
        elif self.modules.is_module(parts):
            yield f"uses the module {shown} as a value: write {ast.unparse(node)}.name where it is needed"
        elif told := self.modules.refusal(parts):
            yield f"takes {shown}, which a candidate may not: {told}"
        elif shown in _BY_NAME:
            yield from self._by_name(node, shown)
        elif shown in _BASE_ONLY:
            if not self.tree.is_within(node, ast.ClassDef, "bases"):
                yield f"uses {shown} other than as the base of a class: write a class statement"
        elif shown == "dataclasses.dataclass":
            if not self.tree.decorates(node):
                yield "uses dataclass other than as a decorator: write @dataclass above a class statement"
        elif shown == "dataclasses.field":
            if not is_field_of_dataclass(node, self.tree):
                yield (
                    "uses field other than in a dataclass, as x: int = field(...) with keywords that are "
                    "True or False: whoever holds a field could change the code that is made of it"
                )
        elif self.modules.is_changeable(parts) and not self.tree.stays_a_type(node):
            yield (
                f"hands on {shown}, which could then be changed for all: call it, inherit from it or ask "
                "isinstance where it stands (or use a lambda)"
            )
        elif isinstance(node, ast.Attribute) and not self.modules.is_module(parts[:-1]):
            yield from self._plain_attribute(node)

    def _builtin(self, node: ast.Name) -> Iterator[str]:
        match node.id:
            case "getattr" | "hasattr" | "setattr" | "delattr":
                yield from self._by_name(node, node.id)
            case "type":
                if not self.tree.compares_type(node):
                    yield "uses type other than as type(x) is ... or type(x).__name__: use isinstance"
            case "classmethod":
                if not self.tree.decorates_function(node):
                    yield (
                        "uses classmethod other than on a function, where reading the class could run code: "
                        "write @classmethod above def, and between them no more than abstractmethod or cache"
                    )
            case "iter":
                call = self.tree.called(node)
                if call is None or len(call.args) != 1:
                    yield "uses iter other than as iter(x): write a loop"
            case "super":
                if not self.tree.is_plain_super(node):
                    yield "uses super other than as super().method(...): write it so"
            case name if refused_builtin(name):
                yield (
                    f"uses {name}, which a candidate may not: compute from the arguments alone; rename it if "
                    "it is a variable"
                )

    def _by_name(self, node: ast.Name | ast.Attribute, shown: str) -> Iterator[str]:
        """What reads, sets or makes attributes by name is called at once, with constant names."""
        call = self.tree.called(node)
        names = constant_names(call.args[_BY_NAME[shown]]) if call else None
        if (
            call is None
            or not names
            or any(isinstance(each, ast.Starred) for each in call.args)
            or not {each.arg for each in call.keywords} <= {"defaults", "rename"}
        ):
            yield f"uses {shown} other than in a call with constant names: write the attribute, x.name"
            return
        for name in names:
            yield from self._attribute(name)

    def _plain_attribute(self, node: ast.Attribute) -> Iterator[str]:
        plain = node.attr in READABLE or (self.tree.is_super(node.value) and node.attr in METHODS)
        plain |= node.attr in LOOKUPS and isinstance(node.ctx, ast.Load)
        if not plain and not (self.tree.called(node) and _formats_values_only(node)):
            yield from self._attribute(node.attr)

    def _attribute(self, name: str) -> Iterator[str]:
        if name in _FORMATS:
            yield f"names the attribute {name}, which reads attributes by name: use an f-string"
        elif told := refused_attribute(name, self.own):
            yield f"names the attribute {name}: {told}"

    def _identifiers(self, node: ast.AST) -> Iterator[str]:
        """Special names: methods that the language calls, and a few declarations that are constants."""
        if isinstance(node, (ast.Name, ast.arg, ast.Global, ast.Nonlocal, ast.alias)):
            for name in self.tree.identifiers(node):
                if name.startswith("__") and not is_special(name):
                    yield f"names {name}, which in a class is another name: use one underscore"
        for name in filter(is_special, self.tree.identifiers(node)):
            if name in DECLARATIONS and isinstance(node, ast.Name):
                names = self.tree.assigned_constants(node)
                if names is None:
                    yield f"sets {name} to what is no constant: write the strings out"
                for each in names or () if name != "__all__" else ():
                    yield from self._attribute(each)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and name in _READ:
                continue
            elif name not in METHODS:
                yield f"names {name}: the only special names for a candidate are methods such as __init__"


def _formats_values_only(node: ast.Attribute) -> bool:
    """Whether it is the method of a constant string none of whose fields reads attributes or items."""
    if node.attr != "format" or not (
        isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ):
        return False
    texts: list[str] = [node.value.value]
    try:
        for _ in range(_FORMATS_WITHIN):
            fields = [field for text in texts for field in string.Formatter().parse(text)]
            if any(name and not name.isalnum() and not name.isidentifier() for _, name, _, _ in fields):
                return False
            texts = [inner for _, _, inner, _ in fields if inner]
            if not texts:
                return True
    except ValueError:
        pass
    return False


def _looks_up(call: ast.Call) -> bool:
    """Whether a class is called with one plain argument, which finds a member of an enum."""
    return len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Starred)
