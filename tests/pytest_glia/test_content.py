"""The key of a replication's content: the same for the same code, another for whatever a test may change."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import unittest.mock
from pathlib import Path

import pytest

from pytest_glia import seeds
from pytest_glia.content import content_key

KINDS = {"chat", "code", "batch", "summaries", "agents"}
NESTED = {"all": [frozenset({"a", "b", "c"}), frozenset({"d", "e", "f"})]}


def of_kinds(candidate: object, seed: int) -> int:
    return len(KINDS) + len(NESTED)


def by_module(candidate: object, seed: int) -> int:
    return seeds.known("guard", seed)[0]


def by_function(candidate: object, seed: int) -> int:
    return known("guard", seed)[0]


known = seeds.known


def test_sets_have_the_same_key_in_every_process() -> None:
    """The order of a set, which depends on the process, does not count."""
    command = "import tests.pytest_glia.test_content as t; print(t.content_key(t.of_kinds).hex())"
    keys = {
        subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(keys) == 1


def test_another_set_has_another_key() -> None:
    """What is in a set counts."""
    before = content_key(of_kinds)
    with unittest.mock.patch(f"{__name__}.KINDS", {"chat"}):
        assert content_key(of_kinds) != before


@pytest.mark.parametrize("function", [by_module, by_function])
def test_a_constant_of_another_module_counts(function: types.FunctionType) -> None:
    """A test may have changed it where the function finds it, or what the function calls does."""
    before = content_key(function)
    assert before is not None
    with unittest.mock.patch.object(seeds, "SIZE", 50, create=True):
        assert content_key(function) != before
    assert content_key(function) == before


@pytest.mark.parametrize("where", [seeds, "random"])
def test_what_a_mock_does_cannot_be_told(where: object) -> None:
    """There is no key where a module that is read has a mock in it."""
    import random

    with unittest.mock.patch.object(random if where == "random" else where, "choice", create=True):
        assert content_key(lambda candidate, seed: (random, seeds)) is None


def test_where_a_module_lies_does_not_count() -> None:
    """A search has the tree in another folder every time."""
    with unittest.mock.patch.object(seeds, "HERE", "/one", create=True):
        before = content_key(by_module)
    with unittest.mock.patch.object(seeds, "HERE", "/two", create=True):
        assert content_key(by_module) == before
