"""Tables on their way from a replication to an analysis; what is no table is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_glia.replication import Failure, ReplicationError
from pytest_glia.tables import keep_tables, tables_of


@dataclass
class Result:
    """What a replication gives back."""

    tables: Any
    metrics: dict[str, float] = field(default_factory=lambda: {"waste": 1.5})


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    """Numbers, truth values and strings, by table and column; the metrics come with them."""
    columns: dict[str, Any] = {
        "id": [1, 2],
        "late": [True, False],
        "who": ["a", "bé"],
        "wait": np.array([0.5, np.nan]),
    }
    file = tmp_path / "deep/er/key.npz"
    assert keep_tables(file, tables_of(Result({"requests": columns, "empty": {}}))) == {"waste": 1.5}
    with np.load(file, allow_pickle=False) as found:
        assert set(found.files) == {f"requests/{name}" for name in columns}
        for name, values in columns.items():
            assert np.array_equal(found[f"requests/{name}"], values, equal_nan=name == "wait")
    assert [each.name for each in file.parent.iterdir()] == ["key.npz"]


def test_a_result_without_tables_has_none(tmp_path: Path) -> None:
    """Its metrics are kept all the same."""
    assert keep_tables(tmp_path / "key.npz", tables_of({"waste": 2})) == {"waste": 2.0}
    with np.load(tmp_path / "key.npz") as found:
        assert found.files == []


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ([1, 2], "the result has tables list: give a mapping from names to mappings of columns"),
        ({"requests": [1, 2]}, "the result has tables dict: give a mapping from names to mappings"),
        (
            {"requests": {"wait": [[1.0], [2.0]]}},
            "the column 'wait' of the table 'requests' is float64 with 2 dimensions: give one dimension of",
        ),
        ({"requests": {"wait": 3.0}}, "the column 'wait' of the table 'requests' is float64 with 0 dim"),
        ({"requests": {"id": [1, 2], "wait": [1.0]}}, "the columns of the table 'requests' have 1 to 2 rows"),
        ({"requests": {"who": [object()]}}, "the column 'who' of the table 'requests' is object with 1"),
    ],
)
def test_what_is_no_table_is_refused(tables: Any, says: str) -> None:
    """The sentence names table and column, and what to give."""
    with pytest.raises(ReplicationError) as refused:
        tables_of(Result(tables))
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    "head", [b"", b"{", b"[1]", b'{"waste": "much"}', b'{"waste": null}', b"[" * 100_000]
)
def test_bytes_that_are_no_tables_fail(tmp_path: Path, head: bytes) -> None:
    """A candidate's process may send anything: that is a failure of the replication, and no file."""
    failure = keep_tables(tmp_path / "key.npz", head + b"\nrest")
    assert isinstance(failure, Failure)
    assert list(tmp_path.iterdir()) == []
