"""What is read from a model's reply as a program, and what is told if there is none."""

from __future__ import annotations

import pytest

from pytest_glia.designers.programs import Unreadable, program_in, wanted
from pytest_glia.models import Reply

ONE = {"a.py": b"old\n"}
TWO = {"a.py": b"old a\n", "b/c.py": b"old c\n"}


def test_one_block_is_the_file() -> None:
    """What stands around the block is no part of it, and a fence may be longer than three."""
    assert program_in(Reply("Here:\n```python\nx = 1\n```\nDone."), ONE) == {"a.py": b"x = 1\n"}
    assert program_in(Reply('````py\ns = """\n```\n"""\n````'), ONE) == {"a.py": b's = """\n```\n"""\n'}


def test_longest_block_is_the_file() -> None:
    """An excerpt before it and an example after it are not taken for it."""
    text = "```\nx\n```\nthen\n```python\nx = 1\ny = 2\n```\nuse:\n```python\nprint(x)\n```"
    assert program_in(Reply(text), ONE) == {"a.py": b"x = 1\ny = 2\n"}


def test_several_files_stand_under_their_paths() -> None:
    """A path in the line before a block or after its fence names the file; one left out stays as it was."""
    assert program_in(Reply("### `b/c.py`\n\n```python\nnew\n```"), TWO) == {**TWO, "b/c.py": b"new\n"}
    both = program_in(Reply("```python a.py\nnew a\n```\nb/c.py:\n```python\nnew c\n```"), TWO)
    assert both == {"a.py": b"new a\n", "b/c.py": b"new c\n"}


@pytest.mark.parametrize(
    ("reply", "start", "told"),
    [
        (Reply("Sorry, no."), ONE, "no fenced block of code; it begins 'Sorry, no.'"),
        (Reply("```python\nx = 1\n", cut=True), ONE, r"\(it was cut at the limit of its tokens\)"),
        (Reply("Take:\n```python\nx = 1\n```"), TWO, "'Take: python', where the path of one of a.py, b/c.py"),
        (Reply("a.py and b/c.py\n```\nx = 1\n```"), TWO, "'a.py and b/c.py'"),
    ],
)
def test_what_is_no_program_is_told(reply: Reply, start: dict[str, bytes], told: str) -> None:
    """A reply without a block, with half of one, or with one that names no file or two, says so."""
    with pytest.raises(Unreadable, match=told):
        program_in(reply, start)


def test_form_is_asked_for_as_it_is_read() -> None:
    """One file is asked for by its path, several with their paths above the blocks."""
    assert "whole file `a.py`" in wanted(["a.py"])
    assert "under a line with its path (`a.py`, `b/c.py`)" in wanted(list(TWO))
