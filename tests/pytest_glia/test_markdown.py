"""Text that is not trusted, as Markdown: it neither changes a page nor calls anybody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_glia.markdown import cell, code, fenced, prose, table
from tests.rendered import kinds, plain_text, tokens

HOSTILE = st.text(alphabet="`|~<>!@#[]()\\*_-=:/& \n\t\r\x1b\u202e\ud800a1", max_size=60)
INLINE = {"em_open", "strong_open", "link_open", "s_open"}


@settings(deadline=None)
@given(HOSTILE)
def test_code_is_one_span_whatever_is_in_it(text: str) -> None:
    """Between two words there is a span of code and nothing else."""
    found = [token.type for token in tokens(f"before {code(text)} after")]
    span = ["text", "code_inline", "text"] if text.strip(" \t") else ["text"]
    assert found == ["paragraph_open", "inline", *span, "paragraph_close"]


@settings(deadline=None)
@given(HOSTILE)
def test_prose_is_one_paragraph_whatever_it_says(text: str) -> None:
    """It begins no heading, list, table, quote, code block or HTML, alone and as an item of a list."""
    found = [token.type for token in tokens(f"{prose(text)}\n\n# after\n")]
    assert [each for each in found if each.endswith("_open") and each not in INLINE] in (
        ["paragraph_open", "heading_open"],
        ["heading_open"],
    )
    assert not {"html_inline", "html_block", "image", "fence", "code_block", "hr"} & set(found)
    item = [token.type for token in tokens(f"- **{prose(text)}** and\n- more\n")]
    assert [item.count(each) for each in ("bullet_list_open", "list_item_open", "heading_open")] == [1, 2, 0]


@settings(deadline=None)
@given(HOSTILE, HOSTILE)
def test_cells_stay_in_their_columns(one: str, two: str) -> None:
    """A table of two columns has two in every row, and no markup in them."""
    page = table(["a", "b"], [[cell(one), cell(two)], [cell(two), cell(one)]])
    found = [token.type for token in tokens(page)]
    assert (found.count("tr_open"), found.count("td_open"), found.count("table_open")) == (3, 4, 1)
    assert plain_text(page).replace("-", "").split() == ["a", "b"]


@settings(deadline=None)
@given(HOSTILE, st.integers(0, 40))
def test_a_block_of_code_ends_where_it_ends(text: str, most: int) -> None:
    """What follows a fenced text is a heading still, also where the text is cut."""
    for page in (f"{fenced(text)}\n\n# after\n", f"{fenced(text, 'diff', most)}\n\n# after\n"):
        found = [token.type for token in tokens(page)]
        assert found == ["fence", "heading_open", "inline", "text", "heading_close"]


@pytest.mark.parametrize(
    "text", ["@ada see #1", "<img src=x>", "![x](https://example.org)", "www.example.org"]
)
def test_nobody_is_called(text: str) -> None:
    """A mention, a reference, an image, a link: all of it is code."""
    page = f"{code(text)}\n\n{table(['a'], [[cell(text)]])}\n\n{fenced(text)}\n"
    assert plain_text(page) == "a"
    assert not kinds(page) & {"image", "link_open", "html_inline", "html_block"}
