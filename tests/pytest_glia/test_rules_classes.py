"""Static rules of classes: none that passes makes code, or further classes, out of strings."""

from __future__ import annotations

import sys
from enum import EnumMeta
from typing import Any

import pytest

from tests.pytest_glia.test_rules import told

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


# Until Python 3.13 reading a class runs a property in a classmethod: here as dataclass reads the default of y,
# when the name of x stands and is not written into code yet.
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
    assert "uses classmethod other than on a function" in str(told(text))
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
