"""A candidate: the file and entry that a spec names, its text, and the object made of it."""

from __future__ import annotations

import ast
import importlib
import inspect
import linecache
import random
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from pytest_glia.misuse import Misuse
from pytest_glia.replication import ReplicationError
from pytest_glia.rules import Modules, parsed, violation

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True

_FIELDS = ("candidate", "entry", "role", "exposes")


@dataclass(frozen=True)
class Candidate:
    """What one ``glia`` marker names.

    Attributes:
        path: The candidate's file, relative to pytest's root directory, with forward slashes.
        entry: The class or function in it.
        role: The keyword by which a spec of several candidates receives it; None if it is the only one.
        exposes: Files besides the candidate that a designer may read, relative to the root directory.
    """

    path: str
    entry: str
    role: str | None = None
    exposes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The file's name without its suffix, fit for a branch: how branches and reports call it."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(self.path).stem).strip("-") or "candidate"

    @property
    def note_path(self) -> str:
        """Where the design note of this candidate belongs."""
        return str(PurePosixPath(self.path).with_suffix(".md"))

    @classmethod
    def of(cls, item: pytest.Item) -> tuple[Candidate, ...]:
        """The candidates that the test's ``glia`` markers name; raises `Misuse` for a bad marker."""
        found: dict[str | None, tuple[object, Candidate]] = {}
        for node, mark in item.iter_markers_with_node("glia"):
            candidate = cls._from_mark(mark)
            holder, other = found.setdefault(candidate.role, (node, candidate))
            if holder is node and other != candidate:
                raise Misuse(
                    f"two glia markers name {other.path} and {candidate.path} for one role: give each its "
                    "own role=..."
                )
        if None in found and len(found) > 1:
            raise Misuse("several glia markers, and one has no role: give each its own role=...")
        return tuple(found[role][1] for role in sorted(found, key=str))

    @classmethod
    def _from_mark(cls, mark: pytest.Mark) -> Candidate:
        unknown = sorted(set(mark.kwargs) - set(_FIELDS))
        if mark.args or unknown:
            what = f"{unknown[0]!r}" if unknown else "positional arguments"
            raise Misuse(f"the glia marker has {what}: it takes the keywords {', '.join(_FIELDS)}")
        path, entry = mark.kwargs.get("candidate"), mark.kwargs.get("entry")
        if not isinstance(path, str) or not isinstance(entry, str):
            raise Misuse(
                f"the glia marker has candidate={path!r}, entry={entry!r}: give the candidate's file, "
                "relative to pytest's root directory, and the name of a class or function in it"
            )
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or pure.suffix != ".py":
            raise Misuse(
                f"the glia marker has candidate={path!r}: give a .py file below pytest's root directory, "
                "as a relative path with forward slashes"
            )
        exposes = mark.kwargs.get("exposes", ())
        if not isinstance(exposes, (list, tuple)) or not all(isinstance(each, str) for each in exposes):
            raise Misuse(f"the glia marker has exposes={exposes!r}: give a list of file names")
        role = mark.kwargs.get("role")
        if role is not None and not (isinstance(role, str) and role.isidentifier()):
            raise Misuse(
                f"the glia marker has role={role!r}: give a name, for it is the keyword of the candidate"
            )
        return cls(str(pure), entry, role, tuple(exposes))


def read(root: Path, path: str) -> bytes:
    """The candidate's text in the working tree; raises `Misuse` if there is none."""
    file = root / path
    try:
        return file.read_bytes()
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"is not readable: {error}"
        raise Misuse(
            f"the candidate {path} {reason} (looked in {root}): create it, or correct candidate=... "
            "in the glia marker"
        ) from None


def exposed_below(root: Path) -> Callable[[str], bytes | None]:
    """Reads files of ``exposes`` in a tree."""

    def read(path: str) -> bytes | None:
        try:
            return (root / path).read_bytes()
        except OSError:
            return None

    return read


def fault(
    candidate: Candidate,
    source: bytes,
    allowed: Sequence[str] = (),
    exposed: Callable[[str], bytes | None] | None = None,
) -> str | None:
    """What is wrong with a candidate's text, as can be told without running it; None if nothing is.

    It must parse, define its entry, and keep the static rules (`pytest_glia.rules`); `allowed` are the names
    of modules that it may import besides, and `exposed` reads a file of the marker's ``exposes``.
    """
    tree = parsed(candidate.path, source)
    if isinstance(tree, str):
        return tree
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))
    if candidate.entry not in names and "*" not in names:
        return _no_entry(candidate, names)
    return violation(tree, candidate.path, Modules.of(candidate.exposes, allowed, exposed))


def load(candidate: Candidate, source: bytes, root: Path) -> Any:
    """The entry of a candidate, from its text: a class or a function.

    A file inside a package is loaded as that package's module, so that its relative imports work; the
    package must be the one below `root`. Call this only in a process that ends with the replication.

    Raises:
        ReplicationError: the text does not load, or has no such entry.
    """
    file = root / candidate.path
    name = _module_name(file)
    module = types.ModuleType(name)
    module.__file__ = str(file)
    module.__package__ = name.rpartition(".")[0]
    if module.__package__:
        _own_package(module.__package__, file)
        setattr(sys.modules[module.__package__], file.stem, module)
    sys.modules[name] = module
    text = source.decode("utf-8", "replace")
    # What a traceback shows is the candidate's text, which need not be the file's.
    linecache.cache[str(file)] = (len(text), None, text.splitlines(keepends=True), str(file))
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        where = _where(error, str(file))
        raise ReplicationError(
            f"the candidate {candidate.path}{where} does not import: {type(error).__name__}: {error}"
        ) from error
    try:
        return module.__dict__[candidate.entry]
    except KeyError:
        raise ReplicationError(_no_entry(candidate, set(module.__dict__))) from None


def make(entry: Any, rng: random.Random) -> Any:
    """The object that a replication receives: a fresh instance of a class, a function as it is.

    A class whose constructor has a parameter ``rng`` is given `rng`, the policy's own random stream.
    """
    if not isinstance(entry, type):
        if not callable(entry):
            raise ReplicationError(f"the entry is {entry!r}: it must be a class or a function")
        return entry
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(entry).parameters
    except (ValueError, TypeError):
        parameters = {}
    needed = [
        each.name
        for each in parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if set(needed) - {"rng"}:
        raise ReplicationError(
            f"the class {entry.__name__} needs {', '.join(needed)} to be made: a candidate is made without "
            "arguments (or with rng); give its parameters defaults"
        )
    return entry(rng=rng) if "rng" in parameters else entry()


def _no_entry(candidate: Candidate, names: set[str]) -> str:
    defined = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "nothing"
    return (
        f"the candidate {candidate.path} has no {candidate.entry!r}, the entry that the glia marker names; "
        f"it defines {defined}"
    )


def _where(error: BaseException, file: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == file:
        return f":{error.lineno}"
    lines = [frame.tb_lineno for frame in _frames(error) if frame.tb_frame.f_code.co_filename == file]
    return f":{lines[-1]}" if lines else ""


def _frames(error: BaseException) -> list[types.TracebackType]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames


def package_root(file: Path) -> Path:
    """The folder from which the file's module is imported: above its outermost package."""
    folder = file.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _module_name(file: Path) -> str:
    parts = file.with_suffix("").relative_to(package_root(file)).parts
    return (
        ".".join(parts)
        if len(parts) > 1
        else "glia_candidate_" + re.sub(r"\W", "_", str(file.with_suffix("")))
    )


def _own_package(package: str, file: Path) -> None:
    """Import the candidate's package and make sure that it is the one around `file`."""
    folder = package_root(file)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    imported = importlib.import_module(package)
    found = [Path(place).resolve() for place in imported.__path__]
    if file.parent.resolve() not in found:
        raise ReplicationError(
            f"the package {package!r} is imported from {found[0]}, not from {file.parent}, where the "
            "candidate is: install the project with pip install -e, or run from its own tree"
        )
