"""The file of a fitted profile: its coefficients as TOML, in microseconds, five digits each."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from sim.costs.profile import PARTS, Basis, DecodeRow, Prefill, Profile
from sim.costs.step import CONTEXT_KNOTS, SEGMENTS
from sim.settings import check

__all__ = ["read", "text"]

_MICRO = 1e-6
_LONGEST = 1e9
"""Microseconds of any part of a step at most."""
_TERMS = ("per_pair", "per_key", "fixed", "per_token", "per_grid")


def read(path: Path) -> Profile:
    """The profile in that file; ValueError that names the file if it is not one."""
    return _read(path, path.read_bytes())


@lru_cache(maxsize=64)
def _read(path: Path, content: bytes) -> Profile:
    try:
        return _profile(tomllib.loads(content.decode()))
    except (KeyError, TypeError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise ValueError(
            f"{str(path)!r} is no cost profile: {type(error).__name__} {error}; "
            "make it with `python -m sim fit`"
        ) from error


def text(profile: Profile) -> str:
    """The content of a profile's file."""
    lines = [
        f"gpu = {_quoted(profile.gpu)}",
        f"model = {_quoted(profile.model)}",
        f"precision = {_quoted(profile.precision)}",
        f"tensor_parallel = {profile.tensor_parallel}",
        f"source = {_quoted(profile.source)}",
        f"cpu_us = {_number(profile.cpu)}",
        *([] if profile.cuda_graphs else ["cuda_graphs = false"]),
        *_points("linear", "tokens in the step, us", profile.linear_points),
        *_points("head", "requests in the step, us", profile.head_points),
        *_points("communication", "tokens in the step, us", profile.communication_points),
        *_rows("decode", profile.decode_rows),
        *_rows("mixed", profile.mixed_rows),
        "",
        "[prefill]",
        *(f"{name}_us = {_number(getattr(profile.prefill_terms, name))}" for name in _TERMS),
        "",
        "[basis]",
        *(f"{part} = {_quoted(profile.basis[part])}" for part in PARTS if part in profile.basis),
    ]
    return "\n".join(lines) + "\n"


def _profile(table: dict[str, Any]) -> Profile:
    unknown = set(table["basis"]) - set(PARTS)
    if unknown:
        raise ValueError(f"basis of unknown parts {sorted(unknown)}")
    wrong = set(table["basis"].values()) - set(get_args(Basis))
    if wrong:
        raise ValueError(f"basis {sorted(map(str, wrong))}; expected {', '.join(get_args(Basis))}")
    for name in ("gpu", "model", "precision", "source"):
        if not isinstance(table[name], str):
            raise ValueError(f"{name}={table[name]!r}; expected text")
    check("tensor_parallel", table["tensor_parallel"], 1, 1024, "GPUs per replica", whole=True)
    check("cpu_us", table["cpu_us"], 0, _LONGEST, "us", whole=False)
    for name in _TERMS:
        check(f"{name}_us", table["prefill"][f"{name}_us"], 0, _LONGEST, "us", whole=False)
    for name in ("linear", "head", "communication", "decode", "mixed"):
        _check_rows(name, table[name], most=3 + SEGMENTS if name in ("decode", "mixed") else 2)
    return Profile(
        gpu=table["gpu"],
        model=table["model"],
        precision=table["precision"],
        tensor_parallel=table["tensor_parallel"],
        source=table["source"],
        cpu=table["cpu_us"] * _MICRO,
        cuda_graphs=table.get("cuda_graphs", True),
        linear_points=_pairs(table["linear"]),
        head_points=_pairs(table["head"]),
        communication_points=_pairs(table["communication"]),
        decode_rows=_decode_rows(table["decode"]),
        mixed_rows=_decode_rows(table["mixed"]),
        prefill_terms=Prefill(**{name: table["prefill"][f"{name}_us"] * _MICRO for name in _TERMS}),
        basis=table["basis"],
    )


def _check_rows(name: str, rows: Any, most: int) -> None:
    """ValueError unless they are rows of 2 numbers, or of 4 to `most`, by a rising whole number."""
    least = min(most, 4)
    columns = f"{least} to {most}" if most > least else f"{most}"
    if not isinstance(rows, list) or not (rows or name in ("communication", "mixed")):
        raise ValueError(f"{name}={rows!r}; expected at least one row of {columns} numbers")
    before = -1
    for row in rows:
        if not isinstance(row, list) or not least <= len(row) <= most:
            raise ValueError(f"{name} has the row {row!r}; expected {columns} numbers")
        check(f"{name}'s first column", row[0], before + 1, 10**9, "(rising from row to row)", whole=True)
        for value in row[1:]:
            check(f"{name} in the row of {row[0]}", value, 0, _LONGEST, "us", whole=False)
        before = row[0]


def _pairs(rows: list[list[float]]) -> tuple[tuple[int, float], ...]:
    return tuple((int(at), us * _MICRO) for at, us in rows)


def _decode_rows(rows: list[list[float]]) -> tuple[DecodeRow, ...]:
    return tuple(
        DecodeRow(int(decodes), fixed * _MICRO, tuple(us * _MICRO for us in slopes), straggler * _MICRO)
        for decodes, fixed, straggler, *slopes in rows
    )


def _points(name: str, columns: str, points: tuple[tuple[int, float], ...]) -> list[str]:
    if not points:
        return [f"{name} = []"]
    return [f"{name} = [  # {columns}", *(f"    [{at}, {_number(value)}]," for at, value in points), "]"]


def _rows(name: str, rows: tuple[DecodeRow, ...]) -> list[str]:
    if not rows:
        return [f"{name} = []"]
    knots = ", ".join(str(knot) for knot in CONTEXT_KNOTS)
    return [
        f"# us per token of longest - mean context; us per KV token up to a mean context of {knots}, beyond",
        f"{name} = [  # decodes, us, then as above",
        *(
            "    ["
            + ", ".join([str(row.decodes), *map(_number, (row.fixed, row.straggler, *row.per_kv_token))])
            + "],"
            for row in rows
        ),
        "]",
    ]


def _number(seconds: float) -> str:
    """Microseconds with five digits, as TOML writes a float."""
    number = f"{seconds / _MICRO:.5g}"
    return number if any(mark in number for mark in ".en") else f"{number}.0"


def _quoted(string: str) -> str:
    return '"' + string.replace("\\", "\\\\").replace('"', '\\"') + '"'
