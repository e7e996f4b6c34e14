"""Edits of a policy's source: what to change is found by its structure, and all else stays as written."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, replace
from typing import ClassVar, Self

__all__ = ["AutoscalerSource", "PolicySource", "RouterSource", "SchedulerSource"]


@dataclass(frozen=True)
class PolicySource:
    """A file with a policy in it. Every edit gives a new one; None says that it found no place."""

    METHOD: ClassVar[str]
    ARGUMENTS: ClassVar[int]

    text: str
    entry: str
    """Name of the class with the policy's method."""

    @classmethod
    def of(cls, text: str, entry: str) -> Self | None:
        """The file as such a policy's; None if `entry` is no class with that method and as many parameters,
        whatever they are called."""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == entry:
                rule = _method(node, cls.METHOD)
                if rule is not None and _takes(rule, cls.ARGUMENTS):
                    return cls(text if text.endswith("\n") else text + "\n", entry)
        return None

    @property
    def node(self) -> ast.ClassDef:
        """The policy's class."""
        classes = (each for each in ast.parse(self.text).body if isinstance(each, ast.ClassDef))
        return next(each for each in classes if each.name == self.entry)

    @property
    def rule(self) -> ast.FunctionDef:
        """The method that decides."""
        found = _method(self.node, self.METHOD)
        assert found is not None
        return found

    def parameter(self, place: int) -> str:
        """What that method calls its parameter, self being 0."""
        return self.rule.args.args[place].arg

    def method(self, name: str) -> ast.FunctionDef | None:
        """The policy's method of that name."""
        return _method(self.node, name)

    def has_constant(self, name: str) -> bool:
        """Whether the file assigns that name at its top level."""
        return self._constant(name) is not None

    def replaced(self, node: ast.expr | ast.stmt, text: str) -> Self:
        """With one node written anew."""
        begin, end = self._span(node)
        data = self.text.encode()
        return self._with((data[:begin] + text.encode() + data[end:]).decode())

    def source_of(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node."""
        begin, end = self._span(node)
        return self.text.encode()[begin:end].decode()

    def before(self, node: ast.stmt, code: str) -> Self:
        """With lines put in before a statement, indented as it is."""
        lines = self._lines()
        code = textwrap.indent(code.strip("\n"), self.indentation(node)) + "\n"
        return self._with("".join([*lines[: node.lineno - 1], code, *lines[node.lineno - 1 :]]))

    def with_method(self, code: str, *, first: bool = False) -> Self:
        """With a method at the end of the class, or before its other methods."""
        body = self.node.body
        method = textwrap.indent(code.strip("\n"), self.indentation(body[0])) + "\n"
        lines = self._lines()
        if first:
            earliest = next(each for each in body if isinstance(each, ast.FunctionDef))
            at = min([earliest.lineno, *(each.lineno for each in earliest.decorator_list)]) - 1
            return self._with("".join([*lines[:at], method, "\n", *lines[at:]]))
        end = body[-1].end_lineno
        return self._with("".join([*lines[:end], "\n", method, *lines[end:]]))

    def with_state(self, name: str, value: str) -> Self:
        """With `self.NAME = VALUE` at the end of the constructor, which is made if there is none."""
        made = self.method("__init__")
        if made is None:
            return self.with_method(f"def __init__(self):\n    self.{name} = {value}", first=True)
        lines, last = self._lines(), made.body[-1]
        line = f"{self.indentation(made.body[0])}{made.args.args[0].arg}.{name} = {value}\n"
        return self._with("".join([*lines[: last.end_lineno], line, *lines[last.end_lineno :]]))

    def with_body(self, name: str, code: str) -> Self:
        """With another method in place of the one of that name; and without what only that one used: state
        that no method reads, constants and imports of the file that nothing names."""
        old = self.method(name)
        assert old is not None
        method = textwrap.indent(code.strip("\n"), self.indentation(old)).lstrip()
        edited = self.replaced(old, method)
        unused = edited._unused()
        while unused is not None:
            edited = edited._without(unused)
            unused = edited._unused()
        return edited

    def _unused(self) -> ast.stmt | None:
        """A statement that sets what nothing reads any more, and nothing else."""
        tree = ast.parse(self.text)
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and _loaded(node)}
        attributes = {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _loaded(node)
        }
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id.isupper() and target.id not in read:
                return node
            if isinstance(node, ast.Import) and not {each.asname or each.name for each in node.names} & read:
                return node
        made = self.method("__init__")
        own = [] if made is None or not isinstance(made.body[-1], ast.Assign) else made.body
        for node in own:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Attribute) and target.attr not in attributes:
                return made if len(own) == 1 else node
        return None

    def _without(self, node: ast.stmt) -> Self:
        """Without these lines, and without the blank ones that follow a method or would begin the file."""
        lines = self._lines()
        first, end = node.lineno - 1, node.end_lineno or node.lineno
        if isinstance(node, ast.FunctionDef):
            while end < len(lines) and not lines[end].strip():
                end += 1
        return self._with("".join([*lines[:first], *lines[end:]]))

    def with_constant(self, name: str, value: float, comment: str) -> Self:
        """With a constant of the file, below its imports and constants; its new value if it is there."""
        number = repr(float(f"{value:.3g}")) if isinstance(value, float) else repr(value)
        known = self._constant(name)
        if known is not None:
            return self.replaced(known.value, number)
        head: list[ast.stmt] = []
        for node in ast.parse(self.text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                break
            head.append(node)
        lines, line = self._lines(), f"{name} = {number}  # {comment}\n"
        if not head:
            at = next(index for index, each in enumerate(lines) if not re.match(r"#|\s*$", each))
            return self._with("".join([*lines[:at], line, "\n\n", *lines[at:]]))
        end = head[-1].end_lineno
        gap = "" if isinstance(head[-1], ast.Assign | ast.AnnAssign) else "\n"
        return self._with("".join([*lines[:end], gap, line, *lines[end:]]))

    def _constant(self, name: str) -> ast.Assign | None:
        for node in ast.parse(self.text).body:
            if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == [name]:
                return node
        return None

    def _with(self, text: str) -> Self:
        return replace(self, text=text)

    def _lines(self) -> list[str]:
        return re.split(r"(?<=\n)", self.text)

    def indentation(self, node: ast.stmt) -> str:
        """What the line of a statement begins with."""
        line = self._lines()[node.lineno - 1]
        return line[: len(line) - len(line.lstrip())]

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """First byte and end of a node in the file's UTF-8."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        starts = [0]
        for line in self._lines():
            starts.append(starts[-1] + len(line.encode()))
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


@dataclass(frozen=True)
class RouterSource(PolicySource):
    """A file with a router in it: a class with a method route(self, queue, replicas, now)."""

    METHOD = "route"
    ARGUMENTS = 4

    def loop(self) -> ast.For | None:
        """The one loop of `route` over the queue, or over the queue sorted, with a plain name for the
        request."""
        queue = self.parameter(1)
        found = [
            node
            for node in ast.walk(self.rule)
            if isinstance(node, ast.For)
            and isinstance(node.target, ast.Name)
            and any(isinstance(each, ast.Name) and each.id == queue for each in ast.walk(node.iter))
        ]
        return found[0] if len(found) == 1 else None

    def choice(self) -> ast.Call | None:
        """The one `min(NAME, key=...)` in that loop: how it chooses a replica."""
        loop = self.loop()
        found = [
            node
            for node in (ast.walk(loop) if loop else ())
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "min"
            and len(node.args) == 1
            and isinstance(node.args[0], ast.Name)
            and [keyword.arg for keyword in node.keywords] == ["key"]
        ]
        return found[0] if len(found) == 1 else None

    def sends_at_once(self) -> bool:
        """Whether `route` yields its pairs: only then does each choice see the effect of those before it."""
        return any(isinstance(node, ast.Yield) for node in ast.walk(self.rule))

    def innermost_statement(self, node: ast.expr) -> ast.stmt | None:
        """The statement of the queue's loop that a node of it belongs to; None if an inner loop or function
        is between them, where a `break` would not leave the queue's loop."""
        loop = self.loop()
        if loop is None:
            return None
        todo: list[ast.stmt] = list(loop.body)
        while todo:
            statement = todo.pop()
            if not any(_same(each, node) for each in ast.walk(statement)):
                continue
            if isinstance(statement, ast.If):
                if any(_same(each, node) for each in ast.walk(statement.test)):
                    return statement
                todo = [*statement.body, *statement.orelse]
            elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr):
                return statement
            else:
                return None
        return None


@dataclass(frozen=True)
class SchedulerSource(PolicySource):
    """A file with a batch scheduler in it: a class with a method plan(self, engine, now)."""

    METHOD = "plan"
    ARGUMENTS = 3

    def made(self) -> ast.Call | None:
        """The one call in `plan` that makes the plan: it has the keyword `admit`."""
        found = [
            node
            for node in ast.walk(self.rule)
            if isinstance(node, ast.Call) and "admit" in {keyword.arg for keyword in node.keywords}
        ]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class AutoscalerSource(PolicySource):
    """A file with an autoscaler in it: a class with a method target(self, cluster, now)."""

    METHOD = "target"
    ARGUMENTS = 3

    def answer(self) -> ast.expr | None:
        """What `target` returns, if it returns in one place only."""
        found = [node for node in ast.walk(self.rule) if isinstance(node, ast.Return)]
        return found[0].value if len(found) == 1 else None


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    found = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == name)
    return next(found, None)


def _loaded(node: ast.Name | ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load)


def _takes(function: ast.FunctionDef, count: int) -> bool:
    arguments = function.args
    return len(arguments.posonlyargs) == 0 and len(arguments.args) == count and not arguments.vararg


def _same(one: ast.AST, other: ast.AST) -> bool:
    """Whether two nodes, perhaps of two parses of one text, are the same."""
    places = [
        (each.lineno, each.col_offset, each.end_lineno, each.end_col_offset)
        if isinstance(each, ast.expr)
        else None
        for each in (one, other)
    ]
    return places[0] is not None and places[0] == places[1] and type(one) is type(other)
