"""What a candidate may import, and what it may take from it.

Listed is what an algorithm needs and what does not lead to the interpreter: no name that evaluates text,
reads attributes by computed names, makes classes with computed attributes, looks at the frame that calls
it, touches memory by address, or holds the state of a generator that others draw from. So not numpy: its
arrays of objects do not hold what they compare, and a comparison of a candidate's own may free it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from pytest_glia.rules.declarations import defined_in

_PUBLIC = "*"

# All that is public, or the names that may be taken.
_MODULES: Mapping[str, str] = {
    "__future__": _PUBLIC,
    "abc": "ABC abstractmethod",
    "bisect": _PUBLIC,
    "cmath": _PUBLIC,
    "collections": _PUBLIC,
    "collections.abc": _PUBLIC,
    "contextlib": "closing contextmanager nullcontext suppress",
    # Not deepcopy: what copies is asked of the objects, and can be told to set any attribute of any other.
    "copy": "copy",
    # Not make_dataclass, fields, replace: they take attributes and code from strings.
    "dataclasses": "FrozenInstanceError InitVar KW_ONLY dataclass field",
    # Not localcontext: held open, it is that of the spec as well.
    "decimal": "Decimal InvalidOperation ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_EVEN ROUND_HALF_UP "
    "ROUND_UP",
    "enum": "Enum Flag IntEnum IntFlag StrEnum auto unique",
    "fractions": _PUBLIC,
    # Not wraps and update_wrapper (copy attributes by name), singledispatch (evaluates annotations),
    # cached_property (sets an attribute by name).
    "functools": "cache cmp_to_key lru_cache partial reduce total_ordering",
    "hashlib": _PUBLIC,
    "heapq": _PUBLIC,
    "itertools": _PUBLIC,
    "math": _PUBLIC,
    "numbers": _PUBLIC,
    "operator": _PUBLIC,
    # The global generator is seeded with the replication's seed, which can be told from what it draws.
    "random": "Random",
    "re": _PUBLIC,
    "statistics": _PUBLIC,
    # Not Formatter: it reads attributes by name.
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits punctuation",
    # Not get_type_hints and ForwardRef (evaluate text), get_origin and Type (give the class of classes).
    "typing": "AbstractSet Annotated Any AnyStr Callable ClassVar Collection Container DefaultDict Deque "
    "Dict Final FrozenSet Generator Generic Hashable Iterable Iterator KeysView List Literal "
    "Mapping MutableMapping MutableSequence NamedTuple Never NewType NoReturn Optional "
    "Protocol Reversible Self Sequence Set Sized SupportsFloat SupportsInt "
    "TYPE_CHECKING Tuple TypeAlias TypeVar TypedDict Union ValuesView cast final overload "
    "override runtime_checkable",
    "zlib": "adler32 crc32",
}

# Of what is public.
_REFUSED: Mapping[str, str] = {
    # It looks again at what a comparison may have freed.
    "collections": "OrderedDict",
    # They draw from the global generator.
    "statistics": "NormalDist kde_random",
}

_ADVICE = {
    "random": "draw from the rng that its constructor can take, or from one that is made with a seed",
    "numpy": "compute with lists; numpy in glia_allow_imports opens it, and with it any memory",
    "collections.OrderedDict": "use a dict, which keeps its order, too",
}

_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


@dataclass(frozen=True)
class Modules:
    """What is open to one candidate.

    Attributes:
        allowed: Dotted names of modules (or of something in them) that the user allows, whole.
        exposed: Dotted names of the modules whose files the marker exposes, each with the names that it
            defines; None where its file was not read.
    """

    allowed: tuple[str, ...] = ()
    exposed: Mapping[str, frozenset[str] | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        exposes: Iterable[str],
        allowed: Iterable[str],
        read: Callable[[str], bytes | None] | None = None,
    ) -> Modules:
        """From the files of the marker's ``exposes`` (the top folder may be a ``src``) and from names.

        `read` gives the text of such a file, or None if there is none.
        """
        exposed: dict[str, frozenset[str] | None] = {}
        for path in exposes:
            if not path.endswith("__init__.py"):
                name, defined = dotted_path(path), None if read is None else defined_in(read(path) or b"")
                exposed |= {name: defined, name.removeprefix("src."): defined}
        return cls(tuple(allowed), exposed)

    def refusal(self, parts: tuple[str, ...]) -> str | None:
        """What to do instead of using ``parts``, a module and names in it; None if it may be used."""
        dotted = ".".join(parts)
        if self.frees(parts) or _leads(dotted, (*self.allowed, *self.exposed)):
            return None
        module, rest = self._module(parts)
        if module in self.exposed:
            return (
                None
                if not rest or self._fit(module, rest)
                else "take what is defined there, and is no list, set or dict"
            )
        if module and (not rest or rest[0] in _names(module)):
            return None
        for place in (dotted, module, parts[0]):
            if place in _ADVICE:
                return _ADVICE[place]
        needed = dotted if module else ".".join(parts[:-1] or parts)
        advice = f"list {needed} in glia_allow_imports if the algorithm needs it"
        if module or parts[0] in sys.stdlib_module_names:
            return advice
        return f"{advice}; if it is a file of the project, add that to exposes=[...] of the glia marker"

    def exposes(self, parts: tuple[str, ...]) -> bool:
        """Whether it is, or is in, a module that the marker exposes."""
        return self._module(parts)[0] in self.exposed

    def frees(self, parts: tuple[str, ...]) -> bool:
        """Whether the user allows it, without any condition."""
        return any(".".join(parts[:end]) in self.allowed for end in range(1, len(parts) + 1))

    def is_module(self, parts: tuple[str, ...]) -> bool:
        """Whether it is a module, as far as can be told without importing what is not on the list."""
        dotted = ".".join(parts)
        known = (*self.allowed, *self.exposed, *_MODULES)
        return dotted in self.exposed or dotted in _MODULES or _leads(dotted, known)

    def is_changeable(self, parts: tuple[str, ...]) -> bool:
        """Whether it is a class whose methods could be replaced by whoever holds it, or may be a module."""
        module, rest = self._module(parts)
        if self.frees(parts) or len(rest) != 1:
            return False
        if module in self.exposed:
            # Its file is not read: constants are told by their names.
            return not rest[0].isupper()
        value = vars(importlib.import_module(module)).get(rest[0]) if module else None
        if module == "typing":  # what is set on its generics is set on what they stand for
            value = getattr(value, "__origin__", value)
        return isinstance(value, type) and not value.__flags__ & _IMMUTABLE_TYPE

    def _fit(self, module: str, names: tuple[str, ...]) -> bool:
        """Whether names in an exposed module are its own: neither private nor of what it imports.

        What it imports has rules of its own (`dataclass`), which follow names, and would have another here.
        """
        first, defined = names[0], self.exposed[module]
        if (len(names) > 1 and first.islower()) or (defined is not None and first not in defined):
            return False
        return not first.startswith("_") and (first not in sys.stdlib_module_names or first in _MODULES)

    def _module(self, parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        for end in range(len(parts), 0, -1):
            if (name := ".".join(parts[:end])) in self.exposed or name in _MODULES:
                return name, parts[end:]
        return "", parts


def dotted_path(path: str) -> str:
    """The name of a file as a module below the root directory."""
    return ".".join(PurePosixPath(path).with_suffix("").parts)


def _leads(dotted: str, to: Iterable[str]) -> bool:
    return any(name.startswith(dotted + ".") for name in to)


@cache
def _names(module: str) -> frozenset[str]:
    """What a module gives to candidates."""
    if _MODULES[module] != _PUBLIC:
        return frozenset(_MODULES[module].split())
    found: dict[str, Any] = vars(importlib.import_module(module))
    public = {name for name in found.get("__all__", found) if not name.startswith("_")}
    # What it is made of, or keeps, is not to be had; some modules in it are loaded on first use.
    inner = {name for name in public if isinstance(found.get(name), (ModuleType, dict, list, set))}
    inner |= {each.name for each in pkgutil.iter_modules(found.get("__path__", ()))}
    return frozenset(public - inner - set(_REFUSED.get(module, "").split()))
