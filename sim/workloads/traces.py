"""Recorded traces: the formats that are published, read into a workload; a bad row is named by file and line.

| format | columns | times |
|---|---|---|
| Azure LLM inference trace, CSV | TIMESTAMP, ContextTokens, GeneratedTokens | date and time |
| Mooncake, JSONL | timestamp, input_length, output_length, hash_ids (512 tokens each) | ms |
| vLLM benchmark, JSONL | input_toks, output_toks, arrival_time_ns or arrival_time | ns or s |
| Vidur, CSV | arrived_at, num_prefill_tokens, num_decode_tokens | s |

The first arrival becomes 0 s. ShareGPT has no times: see `sim.workloads.sharegpt`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sim.prefixes import Prefixes
from sim.workloads.columns import MOST_TOKENS
from sim.workloads.table import Workload

__all__ = ["TraceError", "azure_2023", "load", "mooncake", "vidur", "vllm_bench"]

_SPACES = {"hash_ids": 512, "input_tok_ids": 16}
"""Tokens per name: as Mooncake publishes them; and as vLLM's default block size has them."""


class TraceError(ValueError):
    """A trace file is not what it should be; the message names the file, and the line if there is one."""

    def __init__(self, path: str | Path, line: int | None, problem: str) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {problem}")


@dataclass(frozen=True)
class _Format:
    time: str
    prompt: str
    output: str
    read: Callable[[Any], float]
    """The number in an entry of the column of times; ValueError or TypeError if there is none."""
    per_second: float
    unit: str
    """What a time is, for messages."""

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output


def _date(text: Any) -> int:
    """Nanoseconds since 1970, exact; those of an empty text are below all others."""
    plain = str(text).strip().removesuffix("Z").removesuffix("+00:00")
    if "-" not in plain[1:]:  # seconds since 1970, say, which NumPy would read as a year
        raise ValueError(plain)
    return int(np.datetime64(plain, "ns").astype(np.int64))


_NO_DATE = int(np.datetime64("NaT", "us").astype(np.int64))
AZURE = _Format(
    "TIMESTAMP", "ContextTokens", "GeneratedTokens", _date, 1e9, "a date and time as 2023-11-16 18:15:46.68"
)
MOONCAKE = _Format("timestamp", "input_length", "output_length", float, 1e3, "a number of milliseconds")
VLLM_NS = _Format("arrival_time_ns", "input_toks", "output_toks", float, 1e9, "a number of nanoseconds")
VLLM = _Format("arrival_time", "input_toks", "output_toks", float, 1, "a number of seconds")
VIDUR = _Format("arrived_at", "num_prefill_tokens", "num_decode_tokens", float, 1, "a number of seconds")


def azure_2023(path: str | Path) -> Workload:
    """A CSV of Azure's LLM inference traces (github.com/Azure/AzurePublicDataset), 2023 or 2024."""
    return _read(path, (AZURE,))


def mooncake(path: str | Path) -> Workload:
    """A JSONL of Mooncake's traces (github.com/kvcache-ai/Mooncake), with its shared prefixes."""
    return _read(path, (MOONCAKE,))


def vllm_bench(path: str | Path) -> Workload:
    """A JSONL of requests of a vLLM benchmark; with `input_tok_ids` also what prefixes they share."""
    return _read(path, (VLLM_NS, VLLM))


def vidur(path: str | Path) -> Workload:
    """A CSV of arrivals and lengths as the simulator Vidur takes it."""
    return _read(path, (VIDUR,))


def load(path: str | Path) -> Workload:
    """A workload from a file of any of the formats above, or written by `Workload.to_csv` or `to_parquet`.

    They are told apart by the name's ending and the columns. Raises TraceError, or FileNotFoundError.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return Workload.from_parquet(path)
    if path.suffix == ".json":
        raise TraceError(path, None, "a JSON file has no arrival times; see sim.workloads.conversations")
    if path.suffix == ".csv" and "prompt_tokens" in _header(path):
        return Workload.from_csv(path)
    return _read(path, (AZURE, MOONCAKE, VLLM_NS, VLLM, VIDUR))


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def _read(path: str | Path, formats: tuple[_Format, ...]) -> Workload:
    """The workload in this file, of the first of the formats whose columns its first row has."""
    path = Path(path)
    chosen: _Format | None = None
    times: list[float] = []
    prompts: list[int] = []
    outputs: list[int] = []
    names: list[ArrayLike] = []
    spaced: str | None = None
    chain: dict[tuple[int, tuple[int, ...]], int] = {}
    for line, row in _rows(path):
        if chosen is None:
            chosen = next((f for f in formats if set(f.columns) <= set(row)), None)
            if chosen is None:
                wanted = " or ".join(", ".join(f.columns) for f in formats)
                header = line if path.suffix == ".jsonl" else 1
                raise TraceError(path, header, f"the columns are {', '.join(row)}; expected {wanted}")
            spaced = next((name for name in _SPACES if name in row), None)
        times.append(_time(path, line, row, chosen, times[-1] if times else None))
        prompts.append(_tokens(path, line, row, chosen.prompt))
        outputs.append(_tokens(path, line, row, chosen.output))
        if spaced is not None:
            ids = _list(path, line, row, spaced)
            names.append(ids if spaced == "hash_ids" else _chained(ids, chain))
    if chosen is None:
        raise TraceError(path, None, "it holds no request; expected at least one row")
    try:
        return Workload.from_arrays(
            arrival=[(time - times[0]) / chosen.per_second for time in times],
            prompt_tokens=prompts,
            output_tokens=outputs,
            prefixes=Prefixes.from_rows(names, _SPACES[spaced]) if spaced is not None else None,
        )
    except ValueError as error:
        raise TraceError(path, None, f"{error} (rows from 0)") from error


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a CSV or JSONL file, each with the number of its line."""
    try:
        yield from _parsed(path)
    except UnicodeDecodeError as error:
        raise TraceError(path, None, f"it is no text in UTF-8: {error}") from None


def _parsed(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix != ".jsonl":
            reader = csv.DictReader(file, skipinitialspace=True)
            for row in reader:
                if None in row:
                    columns = len(row) - 1
                    problem = f"it has {columns + len(row[None])} entries; expected {columns}, one a column"
                    raise TraceError(path, reader.line_num, problem)
                yield reader.line_num, row
            return
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise TraceError(path, line, f"{error.msg} at column {error.colno}; expected JSON") from None
            if not isinstance(row, dict):
                raise TraceError(path, line, f"it is {text.strip()[:40]!r}; expected a JSON object")
            yield line, row


def _entry(path: Path, line: int, row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        have = ", ".join(key for key, value in row.items() if value is not None) or "nothing"
        raise TraceError(path, line, f"{name} is missing; the row has {have}")
    return row[name]


def _time(path: Path, line: int, row: Mapping[str, Any], of: _Format, before: float | None) -> float:
    given = _entry(path, line, row, of.time)
    try:
        time = of.read(given)
    except (ValueError, TypeError):
        time = math.nan
    if not math.isfinite(time) or time == _NO_DATE:
        raise TraceError(path, line, f"{of.time} is {given!r}; expected {of.unit}")
    if before is not None and time < before:
        raise TraceError(
            path, line, f"{of.time} is {given!r}, before the row above it; sort the rows by arrival"
        )
    return time


def _tokens(path: Path, line: int, row: Mapping[str, Any], name: str) -> int:
    given = _entry(path, line, row, name)
    try:
        number = float(given)
    except (ValueError, TypeError):
        number = math.nan
    if not (math.isfinite(number) and number == int(number) and number >= 1) or isinstance(given, bool):
        raise TraceError(path, line, f"{name} is {given!r}; expected a whole number of at least 1 token")
    if number > MOST_TOKENS:
        raise TraceError(path, line, f"{name} is {given!r}; expected at most {MOST_TOKENS:,} tokens")
    return int(number)


def _list(path: Path, line: int, row: Mapping[str, Any], name: str) -> list[int]:
    given = _entry(path, line, row, name)
    if not isinstance(given, list) or not all(type(name) is int and name >= 0 for name in given):
        raise TraceError(
            path, line, f"{name} is {given!r:.60}; expected a list of whole numbers of at least 0"
        )
    return given


def _chained(tokens: list[int], chain: dict[tuple[int, tuple[int, ...]], int]) -> list[int]:
    """Names of the full blocks of these tokens: a name for each pair of the name before and the block."""
    size, name, names = _SPACES["input_tok_ids"], -1, []
    for start in range(0, len(tokens) - size + 1, size):
        name = chain.setdefault((name, tuple(tokens[start : start + size])), len(chain))
        names.append(name)
    return names
