"""Workloads in files: to and from Parquet and CSV, losing nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from sim.prefixes import Prefixes
from sim.workloads import sharing
from sim.workloads.table import COLUMNS, Workload
from sim.workloads.traces import TraceError

__all__ = ["read_csv", "read_parquet", "write_csv", "write_parquet"]

_HASHES = "hash_ids_of_{}_tokens"
_KEY = b"sim.workload.block_size"


def write_csv(workload: Workload, path: str | Path) -> None:
    """One line a request under a line of names; names of prefixes, with spaces between, in a last column."""
    names = [name for name in COLUMNS if getattr(workload, name) is not None]
    columns: list[list[Any]] = [getattr(workload, name).tolist() for name in names]
    if workload.prefixes is not None:
        names.append(_HASHES.format(workload.prefixes.block_size))
        columns.append(
            [" ".join(map(str, sharing.row(workload.prefixes, k).tolist())) for k in range(len(workload))]
        )
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))  # a float is written so that it reads back the same


def read_csv(path: str | Path) -> Workload:
    """What `write_csv` wrote; TraceError naming file and line of a bad row."""
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    hashed = [name for name in header if name.startswith("hash_ids_of_") and name.endswith("_tokens")]
    missing = [name for name in COLUMNS[:3] if name not in header]
    unknown = [name for name in header if name not in COLUMNS and name not in hashed]
    if missing or unknown:
        problem = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r} is unknown"
        raise TraceError(
            path,
            1,
            f"the column {problem}; expected {', '.join(COLUMNS[:3])}, and perhaps {', '.join(COLUMNS[3:])}",
        )
    columns: dict[str, list[Any]] = {name: [] for name in header}
    for line, row in rows:
        if len(row) != len(header):
            raise TraceError(path, line, f"it has {len(row)} entries; expected {len(header)}, one a column")
        for name, text in zip(header, row, strict=True):
            columns[name].append(_parsed(path, line, name, text))
    prefixes = None
    try:
        if hashed:
            prefixes = Prefixes.from_rows(columns.pop(hashed[0]), int(hashed[0].split("_")[3]))
        return Workload.from_arrays(**columns, prefixes=prefixes)
    except ValueError as error:
        raise TraceError(path, *_placed(error, [line for line, _ in rows])) from error


def _parsed(path: str | Path, line: int, name: str, text: str) -> Any:
    try:
        if name.startswith("hash_ids_of_"):
            return [int(part) for part in text.split()]
        number = float(text)
        # Whole numbers beyond 2^53 would lose digits as floats.
        return number if name == "arrival" or not _is_whole(text) else int(text)
    except ValueError:
        raise TraceError(path, line, f"{name} is {text!r}; expected a number") from None


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit()


def _placed(error: ValueError, lines: list[int]) -> tuple[int | None, str]:
    """The line of the file that `Workload.from_arrays` complains of, and the complaint without its row."""
    before, _, rest = str(error).partition(" of row ")
    row, _, after = rest.partition(" ")
    return (lines[int(row)], f"{before} {after}") if row.isdigit() else (None, str(error))


def write_parquet(workload: Workload, path: str | Path) -> None:
    """The columns; names of prefixes as a column of lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: getattr(workload, name) for name in COLUMNS if getattr(workload, name) is not None}
    metadata = {_KEY: b"0"}
    if workload.prefixes is not None:
        metadata[_KEY] = str(workload.prefixes.block_size).encode()
        columns["hash_ids"] = pa.LargeListArray.from_arrays(
            workload.prefixes.starts, workload.prefixes.hashes
        )
    pq.write_table(pa.table(columns, metadata=metadata), path)


def read_parquet(path: str | Path) -> Workload:
    """What `write_parquet` wrote, or any Parquet file with such columns; TraceError if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise TraceError(path, None, f"it is no Parquet file: {error}") from None
    missing = [name for name in COLUMNS[:3] if name not in table.column_names]
    if missing:
        raise TraceError(
            path, None, f"the column {missing[0]!r} is missing; it has {', '.join(table.column_names)}"
        )
    columns = {name: table[name].to_numpy() for name in COLUMNS if name in table.column_names}
    prefixes = None
    if "hash_ids" in table.column_names:
        lists = table["hash_ids"].combine_chunks()
        size = int((table.schema.metadata or {}).get(_KEY, b"512"))
        try:
            # A slice would start behind 0; `combine_chunks` of a whole column does not.
            prefixes = Prefixes(np.array(lists.offsets, np.int64), np.array(lists.values, np.int64), size)
        except (AttributeError, TypeError, ValueError) as error:
            raise TraceError(
                path, None, f"hash_ids is no column of lists of whole numbers: {error}"
            ) from error
    try:
        return Workload.from_arrays(**columns, prefixes=prefixes)
    except ValueError as error:
        raise TraceError(path, None, f"{error} (rows from 0)") from error
