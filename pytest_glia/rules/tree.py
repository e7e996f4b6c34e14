"""The syntax tree of a candidate with what is above each node, and what each imported name stands for."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pytest_glia.rules.declarations import constant_names

Parts = tuple[str, ...]
"""A module and names in it: ("numpy", "random", "default_rng")."""

# What they make of a function is bound to a class, or to an instance, as the function would be.
_LIKE_FUNCTIONS = frozenset({("abc", "abstractmethod"), ("functools", "cache"), ("functools", "lru_cache")})
_WITHOUT_NAMES = (ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop)


@dataclass(frozen=True)
class Tree:
    """All nodes that are executed, each with its parent and the parent's field that holds it.

    Left out are annotations under ``from __future__ import annotations``, which are never evaluated, and
    the bodies of ``if TYPE_CHECKING:``.

    Attributes:
        parents: By node; the order is that of a walk.
        origins: What each name that is imported stands for.
        package: Of the candidate's file, to resolve relative imports.
    """

    parents: Mapping[ast.AST, tuple[ast.AST, str]]
    origins: Mapping[str, Parts]
    package: Parts

    @classmethod
    def of(cls, module: ast.Module, package: Parts) -> Tree:
        """Look through a module."""
        origins: dict[str, Parts] = {}
        parents: dict[ast.AST, tuple[ast.AST, str]] = {}
        tree = cls(parents, origins, package)
        # Imports of the top level are executed whatever else is: they tell what type checking is called.
        for statement in module.body:
            tree._note(statement, origins)
        postponed = origins.get("annotations") == ("__future__", "annotations")
        waiting: list[ast.AST] = [module]
        while waiting:
            node = waiting.pop()
            for name, value in ast.iter_fields(node):
                if (postponed and name in ("annotation", "returns")) or (
                    name == "body" and isinstance(node, ast.If) and tree._checks_types(node.test)
                ):
                    continue
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST) and not isinstance(child, _WITHOUT_NAMES):
                        parents[child] = (node, name)
                        waiting.append(child)
        for each in parents:
            tree._note(each, origins)
        return tree

    @cached_property
    def unsaying(self) -> frozenset[ast.AST]:
        """The classes in which something makes a name another scope's, or `_ignore_` stands; also in what is
        not executed, for that counts there, too. All at once: classes may be nested, and hold a lot."""
        found: set[ast.AST] = set()
        above: dict[ast.AST, ast.AST | None] = {}
        waiting: list[tuple[ast.AST, ast.AST | None]] = [
            (module, None) for module, _ in [*self.parents.values()][:1]
        ]
        while waiting:
            node, holder = waiting.pop()
            if isinstance(node, ast.ClassDef):
                above[node], holder = holder, node
            if isinstance(node, (ast.Global, ast.Nonlocal)) or "_ignore_" in self.identifiers(node):
                within = holder
                while within is not None and within not in found:
                    found.add(within)
                    within = above[within]
            waiting += [(child, holder) for child in ast.iter_child_nodes(node)]
        return frozenset(found)

    def binding(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, Parts]:
        """The name that an import binds, and what it stands for then."""
        parts = self.imported(node, alias)
        if isinstance(node, ast.Import) and not alias.asname:
            return parts[0], parts[:1]
        return alias.asname or alias.name, parts

    def imported(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Parts:
        """What an import names, from the root directory on if it is relative."""
        if isinstance(node, ast.Import):
            return tuple(alias.name.split("."))
        above = self.package[: max(0, len(self.package) + 1 - node.level)] if node.level else ()
        return (*above, *(node.module.split(".") if node.module else ()), alias.name)

    def origin(self, node: ast.AST) -> Parts | None:
        """What a name, or a chain of attributes of one, stands for if it was imported."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.origins:
            return None
        return (*self.origins[node.id], *reversed(names))

    def is_within(self, node: ast.AST, kind: type[ast.AST], name: str) -> bool:
        """Whether the node is in that field of a node of that kind."""
        parent, field = self.parents[node]
        return isinstance(parent, kind) and field == name

    def scope(self, node: ast.AST) -> ast.AST:
        """The class, function or module that a node stands in."""
        node, _ = self.parents[node]
        while not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)):
            node, _ = self.parents[node]
        return node

    def called(self, node: ast.AST) -> ast.Call | None:
        """The call of which the node is the function."""
        parent, field = self.parents[node]
        return parent if isinstance(parent, ast.Call) and field == "func" else None

    def decorates(self, node: ast.AST) -> bool:
        """Whether the node is the decorator of a class, or is called to make it."""
        return self.is_within(self.called(node) or node, ast.ClassDef, "decorator_list")

    def decorates_function(self, node: ast.AST) -> bool:
        """Whether the node is a decorator of a function, and what it decorates still binds like one."""
        parent, field = self.parents[node]
        if field != "decorator_list" or not isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        within = parent.decorator_list[parent.decorator_list.index(node) + 1 :]  # type: ignore[arg-type]
        heads = [each.func if isinstance(each, ast.Call) else each for each in within]
        return all(self.origin(head) in _LIKE_FUNCTIONS for head in heads)

    def is_super(self, node: ast.AST) -> bool:
        """Whether the node is ``super()``."""
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "super"
            and not node.args
            and not node.keywords
        )

    def is_plain_super(self, node: ast.AST) -> bool:
        """Whether the name ``super`` stands in ``super().attribute``."""
        call = self.called(node)
        return call is not None and self.is_super(call) and self.is_within(call, ast.Attribute, "value")

    def compares_type(self, node: ast.AST) -> bool:
        """Whether the name ``type`` stands in ``type(x) is ...``, or in ``type(x).__name__``."""
        call = self.called(node)
        if call is None or len(call.args) != 1 or call.keywords:
            return False
        parent, _ = self.parents[call]
        if isinstance(parent, ast.Compare):
            # Any other comparison would hand the class to a method of the other side.
            return all(isinstance(each, (ast.Is, ast.IsNot)) for each in parent.ops)
        return isinstance(parent, ast.Attribute) and parent.attr in ("__name__", "__qualname__")

    def stays_a_type(self, node: ast.AST) -> bool:
        """Whether a class goes nowhere from here: it is called, inherited from, asked for, annotated."""
        parent, field = self.parents[node]
        group = isinstance(node, (ast.Tuple, ast.List))
        match parent:
            case ast.Tuple() | ast.List():
                return not group and self.stays_a_type(parent)
            case ast.Call(args=args) if any(each is node for each in args):
                return self.is_asked_for(node)
            case ast.Subscript() if field == "slice":
                # A generic of typing's kind compares what it holds.
                return self._is_class(parent.value) and not isinstance(self.parents[parent][0], ast.Compare)
            case ast.Subscript():
                # A generic of typing's kind passes on to its class what is set on it; one of collections not.
                plain = (self.origin(node) or ("",))[0] == "collections"
                return not group and (plain or self.stays_a_type(parent))
            case ast.BinOp(op=ast.BitOr()):
                other = parent.right if parent.left is node else parent.left
                return not group and self._is_class(other)
            case ast.ExceptHandler():
                return field == "type"
            case ast.Compare() if not group:
                return all(isinstance(each, (ast.Is, ast.IsNot)) for each in parent.ops)
        used = ("func", "bases", "exc", "cls", "annotation", "returns", "decorator_list")
        return not group and field in used

    def is_asked_for(self, node: ast.AST) -> bool:
        """Whether a class, or a tuple of classes, is what ``isinstance`` or ``issubclass`` asks for."""
        parent, _ = self.parents[node]
        match parent:
            case ast.Tuple():
                return self.is_asked_for(parent)
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, asked]):
                return asked is node
        return False

    def bound(self, node: ast.AST) -> Iterator[str]:
        """The names that a node binds other than by import."""
        match node:
            case ast.Name(ctx=ast.Store() | ast.Del()):
                yield node.id
            case ast.arg():
                yield node.arg
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                yield from [node.name] if node.name else []
            case ast.MatchMapping():
                yield from [node.rest] if node.rest else []
            case _ if type(node).__name__ in ("TypeVar", "ParamSpec", "TypeVarTuple"):
                yield from self.identifiers(node)

    def identifiers(self, node: ast.AST) -> Iterator[str]:
        """All names that stand in a node itself, but for what an import names."""
        if isinstance(node, (ast.Constant, ast.ImportFrom)):
            return
        for name, value in ast.iter_fields(node):
            if not (isinstance(node, ast.alias) and name == "name"):
                values = value if isinstance(value, list) else [value]
                yield from (each for each in values if isinstance(each, str))

    def assigned_constants(self, node: ast.Name) -> list[str] | None:
        """The words of the constant strings that a name is assigned; None if it is assigned anything else."""
        if isinstance(node.ctx, ast.Load):
            return []
        match self.parents[node][0]:
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                return constant_names([value])
        return None

    def _is_class(self, node: ast.AST) -> bool:
        """Whether it is a class, or made of one, that nothing of the candidate's own can pose as."""
        match node:
            case ast.Constant(value=None):
                return True
            case ast.Subscript(value=value):
                return self._is_class(value)
            case ast.Name(id=name) if name not in self.origins:
                return isinstance(getattr(builtins, name, None), type) and name not in self._rebound
        parts = self.origin(node)
        # What is no class may give back what it is subscripted with, as numpy.s_ does.
        return parts is not None and (parts[0] in ("collections", "typing") or parts[-1][:1].isupper())

    @cached_property
    def _rebound(self) -> frozenset[str]:
        return frozenset(name for node in self.parents for name in self.bound(node))

    def _checks_types(self, test: ast.AST) -> bool:
        return self.origin(test) == ("typing", "TYPE_CHECKING")

    def _note(self, node: ast.AST, origins: dict[str, Parts]) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                origins.setdefault(*self.binding(node, alias))
