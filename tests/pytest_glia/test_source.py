"""Edits of source text that leave everything else as it was written."""

from __future__ import annotations

import ast
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_glia.designers.source import (
    constants,
    docstring,
    number_text,
    rounded,
    with_constants,
    with_docstring,
)

SOURCE = '''\
"""Größe matters."""

LIMIT = 10  # Stück, at most
SHARE: float = 0.25; RATE = -1.5e3   # two on a line
NAMES = ["a"]
FLAG = True
A = B = 3


def entry():
    LOCAL = 7
    return LIMIT
'''


def test_constants_are_numbers_at_the_top_level() -> None:
    """Numbers with or without annotation and sign; no flags, lists, chains or locals."""
    assert constants(SOURCE) == {"LIMIT": 10, "SHARE": 0.25, "RATE": -1500.0}


def test_new_values_leave_comments_and_places() -> None:
    """Only the number itself is another, also behind letters of several bytes."""
    assert with_constants(SOURCE, {"RATE": 0.125, "LIMIT": 2048}) == SOURCE.replace(
        "LIMIT = 10 ", "LIMIT = 2048 "
    ).replace("-1.5e3", "0.125")


names = st.from_regex(r"[A-Z][A-Z_0-9]{0,6}", fullmatch=True)
numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6).map(rounded)
comments = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=10)


@given(st.dictionaries(names, st.tuples(numbers, numbers, comments), min_size=1, max_size=5))
def test_values_written_are_values_read(table: dict[str, tuple[float, float, str]]) -> None:
    """Whatever is written is read again, and everything but the values is the same text."""
    lines = [f"{name} = {before!r}  # {comment}" for name, (before, _, comment) in table.items()]
    source = "\n".join([*lines, "def entry(): return 0", ""])
    after = {name: new for name, (_, new, _) in table.items()}
    edited = with_constants(source, after)
    assert constants(edited) == after
    blank = dict.fromkeys(table, 0)
    assert with_constants(edited, blank) == with_constants(source, blank)


@given(st.floats(-1e300, 1e300) | st.integers())
def test_number_is_written_as_it_will_be_read(value: float) -> None:
    """Three digits of a float, all of an int; the text is the number that the search remembers."""
    assert ast.literal_eval(number_text(value)) == rounded(value)
    assert math.isclose(rounded(value), value, rel_tol=5.1e-3, abs_tol=1e-300)
    assert type(rounded(value)) is type(value)


@pytest.mark.parametrize(
    "source",
    [
        'class Entry:\n    """Old."""\n\n    def run(self):\n        pass\n',
        "class Entry:\n    def run(self):\n        pass\n",
        "class Entry:\n    @property\n    def run(self):\n        pass\n",
        "@decorator\n@other(1)\nclass Entry(Base):\n    size = 3\n",
        'def Entry(x):\n    """Old\n\n    text."""\n    return x\n',
        "@decorator\ndef Entry(x):\n    return x\n",
        "def Entry(x):\n    # a remark\n    return x\n",
        "async def Entry(x):\n    return x\n",
        "def Entry(x): return x\n",
        'def Entry(x): "Old."; return x\n',
        "def other():\n    pass\n\n\nclass Entry:\n    class Inner:\n        pass\n",
    ],
)
def test_docstring_is_put_in_and_the_code_stays(source: str) -> None:
    """The entry has the new docstring; without docstrings, the program is the same as before."""
    edited = with_docstring(source, "Entry", "Several:\n\n- first\n- second")
    assert _docstring(edited) == "Several:\n\n- first\n- second"
    assert _code(edited) == _code(source)


@pytest.mark.parametrize(
    "text", ["One line.", 'It says "so" often.', r"A \back slash", 'Ends in "', 'Has """three""" of them']
)
def test_docstring_may_hold_any_text(text: str) -> None:
    """Quotes and backslashes of a claim come out as they went in."""
    assert _docstring(with_docstring("class Entry:\n    size = 3\n", "Entry", text)) == text


def test_docstring_keeps_remarks() -> None:
    """Comments are not lost with the old docstring."""
    edited = with_docstring('def f():  # why\n    """Old."""  # here\n    return 1  # end\n', "f", "New.")
    assert edited == 'def f():  # why\n    """New."""  # here\n    return 1  # end\n'


def test_no_such_entry_no_docstring() -> None:
    """Text without the entry, such as a plain assignment, stays as it is."""
    assert with_docstring("entry = make()\n", "entry", "New.") == "entry = make()\n"


def _docstring(source: str) -> str | None:
    [entry] = [node for node in ast.parse(source).body if getattr(node, "name", "") == "Entry"]
    assert isinstance(entry, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    return ast.get_docstring(entry)


def _code(source: str) -> str:
    """A program's syntax tree without any docstring."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
    return ast.dump(tree)


def test_docstring_of_an_entry() -> None:
    """Empty where there is none, or no such entry, or no Python."""
    assert docstring('class Entry:\n    """Of\n    two lines."""\n', "Entry") == "Of\ntwo lines."
    for source in ("class Entry:\n    size = 3\n", '"""Of the module."""\n', "class Entry("):
        assert docstring(source, "Entry") == ""
