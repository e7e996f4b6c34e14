"""The tables behind a replication's metrics - a row a request, say - on their way to whoever analyses them.

A replication's result may have an attribute ``tables``: a mapping from names to columns, each a mapping from
names to arrays of one length. They are kept only where an experiment asks for them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_glia.calling import metrics_of
from pytest_glia.replication import Failure, Metrics, ReplicationError


def tables_of(result: Any) -> bytes:
    """A replication's metrics and tables as bytes: a line of JSON, then NumPy's npz (never a pickle).

    Raises `ReplicationError` for tables of another form; a result without any has none.
    """
    found = getattr(result, "tables", {})
    columns: dict[str, NDArray[Any]] = {}
    if not isinstance(found, Mapping) or not all(isinstance(each, Mapping) for each in found.values()):
        raise ReplicationError(
            f"the result has tables {type(found).__name__}: give a mapping from names to mappings of columns"
        )
    for table, members in found.items():
        for name, values in members.items():
            column = np.asarray(values)
            if column.ndim != 1 or column.dtype.kind not in "biufU":
                raise ReplicationError(
                    f"the column {name!r} of the table {table!r} is {column.dtype} with {column.ndim} "
                    "dimensions: give one dimension of numbers or strings"
                )
            columns[f"{table}/{name}"] = column
        rows = sorted({len(columns[f"{table}/{name}"]) for name in members})
        if len(rows) > 1:
            raise ReplicationError(
                f"the columns of the table {table!r} have {rows[0]} to {rows[-1]} rows: give one length"
            )
    packed = io.BytesIO()
    np.savez(packed, **columns)  # type: ignore[arg-type]
    return json.dumps(metrics_of(result)).encode() + b"\n" + packed.getvalue()


def keep_tables(file: Path, packed: bytes) -> Metrics | Failure:
    """Write what `tables_of` gave, all of it or nothing; the metrics. The bytes may be a candidate's."""
    head, _, body = packed.partition(b"\n")
    try:
        metrics = {str(name): float(value) for name, value in json.loads(head).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Failure("the replication's tables cannot be read")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_bytes(body)
    part.replace(file)
    return metrics
