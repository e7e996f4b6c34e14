"""Markdown as a real parser reads it: the blocks, and what is in their lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def tokens(text: str) -> list[Any]:
    """All tokens of a page, those inside lines included, as GitHub's dialect has them."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    return list(_flat(parser.parse(text)))


def _flat(found: list[Any]) -> Iterator[Any]:
    for token in found:
        yield token
        yield from token.children or ()


def headings(text: str) -> list[str]:
    """The page's headings, as it stands in the source."""
    found = tokens(text)
    return [found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open"]


def plain_text(text: str) -> str:
    """What is not code: the only place where a forge looks for mentions, links and references."""
    return " ".join(token.content for token in tokens(text) if token.type == "text")


def kinds(text: str) -> set[str]:
    """The types of all tokens."""
    return {token.type for token in tokens(text)}
