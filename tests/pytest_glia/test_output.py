"""The output of a timed call: what may leave its process, how it comes back, and what counts as the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pytest_glia.output import decode, difference, encode
from pytest_glia.replication import ReplicationError

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | npst.arrays(
        st.sampled_from([np.bool_, np.int8, np.uint64, np.float32, np.float64, np.complex128]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
    | npst.from_dtype(np.dtype("f8"))
    | npst.from_dtype(np.dtype("i4"))
)
keys = st.text() | st.integers() | st.tuples(st.booleans(), st.binary())
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner) | st.lists(st.integers())
    ),
    max_leaves=8,
)


@given(values)
def test_comes_back_as_it_was(value: Any) -> None:
    """What is decoded differs in nothing from what was encoded, and is encoded as the same bytes again."""
    assert difference(decode(encode(value)), value) is None
    assert encode(decode(encode(value))) == encode(value)


@given(values, values)
def test_what_differs_is_told(one: Any, other: Any) -> None:
    """Equal bytes mean no difference, and a difference is a sentence of bounded length, both ways."""
    told, back = difference(one, other), difference(other, one)
    assert (told is None) == (back is None)
    if told is None:
        assert type(one) is type(other)
    else:
        assert encode(one) != encode(other)


@given(st.binary() | values.flatmap(lambda each: st.just(encode(each)).map(lambda data: data[:-1] + b"?")))
def test_any_bytes_are_read_safely(data: bytes) -> None:
    """Bytes that a candidate's process made up give a value of the known types or a ValueError."""
    try:
        value = decode(data)
    except ValueError:
        return
    encode(value)


@pytest.mark.parametrize(
    "head",
    [
        '["array", "O", [1]]',
        '["array", "V8", [1]]',
        '["array", "<f8", [-1, -1]]',
        '["array", "<f8", [999999999999]]',
        '["bytes", -1]',
        '["list", {"u": 4}]',
        '["list", {"d": 1e9}]',
        '["dict", [[["list", []], 1]]]',
        '["code", "x"]',
        "{}",
        "[" * 100_000,
    ],
)
def test_forged_heads_are_refused(head: str) -> None:
    """No object, no size beyond what was sent, no unhashable key and no depth gets past the reader."""
    data = head.encode()
    with pytest.raises(ValueError, match="is no output"):
        decode(len(data).to_bytes(8, "big") + data)


class Lying(float):
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = float.__hash__


class Lazy(list[int]):
    """Computes its items when they are asked for."""


@pytest.mark.parametrize(
    "value",
    [
        Lying(1.0),
        Lazy(),
        {"a": [Lying(1.0)]},
        (each for each in range(3)),
        {1, 2},
        np.array([object()]),
        np.ma.masked_array([1.0]),
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused(value: Any) -> None:
    """A subclass, a generator or an array of objects does not leave the process; the error names it."""
    with pytest.raises(ReplicationError, match=r"an object of \S+: return numbers, text, bytes"):
        encode(value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_may_differ_in_their_second_half(dtype: type[np.floating[Any]]) -> None:
    """A relative difference below the square root of the type's epsilon is none; one above it is."""
    bound = math.sqrt(np.finfo(dtype).eps)
    one = np.array([1.0, 3.0], dtype)
    assert difference((one * dtype(1 + bound / 4)).astype(dtype), one) is None
    assert difference((one * dtype(1 + 4 * bound)).astype(dtype), one) is not None


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (1, 2, "1 where 2 was expected"),
        (1, 1.0, "1 where 1.0 was expected (int, not float)"),
        (True, 1, "True where 1 was expected (bool, not int)"),
        ([1, [2, 3]], [1, [2, 4]], "3 at [1][1] where 4 was expected"),
        ([1, 2], [1, 2, 3], "2 items, not 3"),
        ({"a": 1}, {"b": 1}, "no key 'b'"),
        ({"a": 1, "b": 2}, {"a": 1}, "2 keys, not 1"),
        ({"a": [1]}, {"a": [2]}, "1 at ['a'][0] where 2 was expected"),
        (math.nan, 1.0, "nan where 1.0 was expected"),
        (np.array([[1, 2]]), np.array([[1, 3]]), "np.int64(2) at [0, 1] where np.int64(3) was expected"),
        ([10**5000], [10**5000 + 1], "a huge int at [0] where a huge int was expected"),
    ],
    ids=range(11),
)
def test_first_difference_is_named(found: Any, expected: Any, told: str) -> None:
    """The sentence says where, what was found and what was expected, shortened."""
    assert difference(found, expected) == told


def test_shapes_and_types_of_arrays_count() -> None:
    """An array of another shape or type of number is another output."""
    one = np.zeros(2)
    assert "float64 of (2,)" in str(difference(np.zeros((2, 1)), one))
    assert "float32 of shape (2,)" in str(difference(np.zeros(2, np.float32), one))
