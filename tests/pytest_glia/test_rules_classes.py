"""Static rules of classes: none that passes makes code, or further classes, out of strings."""

from __future__ import annotations

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
