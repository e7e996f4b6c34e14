"""Prefixes: hashes are checked, and mean the same in blocks of another size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Prefixes


def rows(prefixes: Prefixes, block_size: int) -> list[list[int]]:
    """The hashes of each request in blocks of this size."""
    starts, hashes = prefixes.in_blocks(block_size)
    return [hashes[begin:end].tolist() for begin, end in pairwise(starts)]


def test_smaller_blocks_split_and_larger_ones_take_the_last_hash() -> None:
    """A chained hash tells all before it, so the last of several small blocks is that of the large one."""
    prefixes = Prefixes.from_rows([[5, 6, 7], [], [5]], 16)
    assert rows(prefixes, 16) == [[5, 6, 7], [], [5]]
    assert rows(prefixes, 8) == [[10, 11, 12, 13, 14, 15], [], [10, 11]]
    assert rows(prefixes, 32) == [[6], [], []]
    with pytest.raises(ValueError, match="in blocks of 16 tokens and the cluster's block_size is 24"):
        prefixes.in_blocks(24)


def test_numbers_in_place_of_hashes_do_not_tell_what_comes() -> None:
    """A request's prefix is the same whatever requests come after it."""
    first = [2**63 - 5, 2**62 + 1]
    later = [2**62 + each for each in range(2, 200)]
    alone = Prefixes.from_rows([first], 16)
    before = Prefixes.from_rows([first, later, later[:7]], 16)
    for size in (16, 8, 4):
        assert rows(before, size)[0] == rows(alone, size)[0]


HASHES = st.integers(2**62, 2**64 - 1) | st.integers(2**60, 2**60 + 3)


@given(
    named=st.lists(st.lists(HASHES, max_size=4), max_size=4),
    size=st.sampled_from([1, 8, 16]),
    unsigned=st.booleans(),
)
def test_hashes_of_64_bits_stay_apart(named: list[list[int]], size: int, unsigned: bool) -> None:
    """As lists or unsigned, hashes are equal after as before, split or not, also next to an empty row."""
    columns: list[Any] = [np.array(row, np.uint64) if unsigned else row for row in [*named, []]]
    found = [each for row in rows(Prefixes.from_rows(columns, 16), size) for each in row]
    meant = [(each, part) for row in named for each in row for part in range(16 // size)]
    assert len(set(zip(found, meant, strict=True))) == len(set(found)) == len(set(meant))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prefixes.from_rows([[1.5]], 16), r"the hashes of row 0 are \[1.5\]; expected whole numbers"),
        (
            lambda: Prefixes.from_rows([[1]], 0),
            "block_size=0; expected a whole number from 1 .* tokens per block",
        ),
        (lambda: Prefixes(np.array([0, 2]), np.array([7]), 16), "starts=.*from 0 to the number of hashes, 1"),
        (
            lambda: Prefixes(np.array([0, 1]), np.array([0.5]), 16),
            "hashes=.*expected one column of whole numb",
        ),
        (lambda: Prefixes(np.array([0, 1]), np.array([5]), 1.5), "block_size=1.5; expected a whole number"),  # type: ignore[arg-type]
    ],
)
def test_bad_prefixes_are_named(make: Any, message: str) -> None:
    """Row, value and what was expected."""
    with pytest.raises(ValueError, match=message):
        make()
