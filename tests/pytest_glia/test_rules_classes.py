"""Static rules of classes: none that passes makes code, or further classes, out of strings."""

from __future__ import annotations

import ast
import sys
from enum import EnumMeta
from typing import Any

import pytest

from pytest_glia.rules import Modules
from pytest_glia.rules.checking import _Text
from pytest_glia.rules.tree import Tree
from tests.pytest_glia.test_rules import told


def faults(text: str) -> list[str]:
    """All that is wrong with a text."""
    found = _Text(Tree.of(ast.parse(text), ()), Modules())
    return [each for node in found.tree.parents for each in found.of(node)]


CODE_IN_A_FIELD = """
from dataclasses import dataclass
from enum import Flag
class Seed(Flag): NONE = 0
def run(code):
    made = Seed("Made", [("ONE", 0), ("__annotations__", {"value or exec(" + repr(code) + ", {})": int})])
    @dataclass(init=False, repr=False)
    @(lambda ignored: made)
    class Ignored: pass
    made.ONE == made.ONE
"""

# Each defines E.
ENUMS = {
    "flag": """
from enum import Flag
class E(Flag):
    'What is known of a request.'
    NONE = 0
    LONG = 1
    URGENT = 2
    BOTH = LONG | URGENT
    @property
    def heavy(self): return bool(self & E.LONG)
x = E(2) | E.LONG, list(E), isinstance(E.BOTH, E), E['LONG'], E.BOTH.heavy
""",
    "flag of ints": """
from enum import IntFlag
class E(IntFlag):
    A = 4
x = E(4), {each: 0 for each in E}
""",
    "enum of strings": """
from enum import Enum, unique
@unique
class E(str, Enum):
    SHORT = 'short'
    LONG = 'long'
    @classmethod
    def _missing_(cls, value): return cls.SHORT
    def __str__(self): return self.value
x = {kind: E(kind.value).name for kind in E}, E('other')
""",
}

DATACLASSES = """
from dataclasses import dataclass
from functools import total_ordering
@total_ordering
@dataclass(frozen=True)
class Item:
    size: int
    def __lt__(self, other): return self.size < other.size
@dataclass
class Pair:
    first: Item
    second: Item
"""


def test_code_in_the_name_of_a_field_is_refused() -> None:
    """An enum made of strings, decorated in place of a class, is told by each of its three steps."""
    assert str(told(CODE_IN_A_FIELD)).startswith("c.py:4 makes a Flag that does not begin with")
    mended = CODE_IN_A_FIELD.replace("NONE = 0", "ONE = 1")
    assert str(told(mended)).startswith("c.py:6 calls the enum Seed with more than a value")
    mended = mended.replace('made = Seed("Made", ', "made = make((")
    assert "decorates with dataclass what another decorator made" in str(told(mended.replace("])", "]))")))


@pytest.mark.parametrize("name", ENUMS)
def test_enum_that_passes_makes_no_other(name: str) -> None:
    """Ordinary enums and flags have no fault, and Python itself refuses to extend them."""
    assert told(ENUMS[name]) is None
    names: dict[str, Any] = {"__name__": name}
    exec(ENUMS[name], names)
    own = names["E"]
    assert isinstance(own, EnumMeta)
    with pytest.raises(TypeError, match="cannot extend"):
        own("Made", [("ONE", 0)])


def test_dataclass_next_to_its_class_has_no_fault() -> None:
    """Other decorators may stand above it."""
    assert told(DATACLASSES) is None


# Until Python 3.13 reading a class runs a property in a classmethod: here as dataclass reads the default of
# y, when the field of x has its name, and that is not written into code yet.
CODE_IN_A_NAME = """
from dataclasses import dataclass, field
taken = field(init=False, repr=False, compare=False)
def rename(cls):
    taken.name = "x=print('executed'),*"
    return 3
@dataclass
class C:
    x: int = taken
{hidden}
    y: int
"""
HIDDEN = {
    "decorators": "    @classmethod\n    @property\n    def y(cls): return rename(cls)",
    "calls": "    y = classmethod(property(rename))",
    "own decorator": "    @classmethod\n    @(lambda f: property(f))\n    def y(cls): return rename(cls)",
    "alias": "    bound = classmethod\n    y = bound(property(rename))",
    "handed on": "    [y] = map(classmethod, [property(rename)])",
    "subclass": "    class bound(classmethod): ...\n    y = bound(property(rename))",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_code_that_reading_a_class_would_run_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could change the name of a field before the dataclass writes it into code."""
    text = CODE_IN_A_NAME.format(hidden=HIDDEN[name])
    assert any("uses classmethod other than on a function" in each for each in faults(text))
    if sys.version_info < (3, 13):
        with pytest.raises(TypeError):
            exec(text, {"__name__": __name__})
        assert capsys.readouterr().out == "executed\n"


def test_classmethods_have_no_fault() -> None:
    """Of functions, abstract and cached ones included."""
    text = """
from abc import ABC, abstractmethod
from functools import cache, lru_cache
class C(ABC):
    @classmethod
    def plain(cls): return cls()
    @classmethod
    @abstractmethod
    def abstract(cls): ...
    @classmethod
    @lru_cache(maxsize=3)
    def cached(cls, n): return n
    @property
    def size(self): return 3
    @staticmethod
    def other(): return 4
"""
    assert told(text) is None


# Each holds the field of x when dataclass asks whether something is true, and renames it then.
FIELDS = {
    "truth of an option": """
from dataclasses import dataclass, field
taken = field(init=False, repr=False, compare=False)
class Yes:
    def __bool__(self):
        taken.name = "x=print('executed'),*"
        return True
@dataclass(init=Yes())
class C:
    x: int = taken
""",
    "truth of a field's": """
from dataclasses import dataclass, field
held = []
class Yes:
    def __bool__(self):
        held[0].name = "x=print('executed'),*"
        return False
@dataclass
class C:
    x: int = field(init=Yes(), repr=False, compare=False)
    held.append(x)
""",
    "of no dataclass": """
from dataclasses import dataclass, field
class Holder:
    x: int = field(init=False, repr=False, compare=False)
class Yes:
    def __bool__(self):
        Holder.x.name = "x=print('executed'),*"
        return True
@dataclass(init=Yes())
class C:
    x: int = Holder.x
""",
    "read in its class": """
from dataclasses import dataclass, field
class Yes:
    def __init__(self, taken): self.taken = taken
    def __bool__(self):
        self.taken.name = "x=print('executed'),*"
        return True
@dataclass
class C:
    x: int = field(init=False, repr=False, compare=False)
    y: int = field(default=1, kw_only=False, init=Yes(x))
""",
}
SAID = {
    "truth of an option": ("uses field other than", "calls dataclass with what is no constant"),
    "truth of a field's": ("uses field other than", "reads the field x in its class"),
    "of no dataclass": ("uses field other than", "calls dataclass with what is no constant"),
    "read in its class": ("uses field other than", "reads the field x in its class"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_somebody_holds_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It could be given a name that is code; each of the steps to that is told."""
    assert told(FIELDS[name]) is not None
    for step in SAID[name]:
        assert any(step in each for each in faults(FIELDS[name]))
    with pytest.raises(TypeError):
        exec(FIELDS[name], {"__name__": __name__})
    assert "executed" in capsys.readouterr().out


def test_fields_have_no_fault() -> None:
    """With defaults of any kind, options that are constants, and methods that read them."""
    text = """
from __future__ import annotations
from collections import deque
from dataclasses import KW_ONLY, InitVar, dataclass, field
limit = 3
@dataclass(slots=True, order=True, kw_only=False)
class C:
    size: int = field(default=limit, compare=False)
    waiting: deque[int] = field(default_factory=deque, repr=False, init=False, metadata={"unit": limit})
    size_of: InitVar[int] = 3
    _: KW_ONLY
    later: size = field(default_factory=lambda: [limit])
    def total(self, size=4): return size + self.size + len(self.waiting)
"""
    assert told(text) is None
