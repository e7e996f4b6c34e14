"""Traces: each format is read right, a bad row is named by file and line, and nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Workload
from sim import workloads as w
from sim.workloads import Prefixes, TraceError
from sim.workloads.sharing import row, written

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
COLUMNS = ("arrival", "prompt_tokens", "output_tokens", "priority", "session")

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
MOONCAKE = [
    {"timestamp": 27, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1]},
    {"timestamp": 1027, "input_length": 1100, "output_length": 6, "hash_ids": [0, 2, 3]},
]
VLLM = [
    {"input_toks": 33, "output_toks": 5, "arrival_time_ns": 46926808, "input_tok_ids": [*range(33)]},
    {"input_toks": 20, "output_toks": 6, "arrival_time_ns": 347938951, "input_tok_ids": [*range(20)]},
]


def lines(rows: list[dict[str, Any]]) -> str:
    """As JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def same(one: Workload, other: Workload) -> bool:
    """Equal bit by bit."""
    for name in COLUMNS:
        mine, theirs = getattr(one, name), getattr(other, name)
        if (mine is None) != (theirs is None) or (mine is not None and mine.tobytes() != theirs.tobytes()):
            return False
    if one.prefixes is None or other.prefixes is None:
        return one.prefixes is other.prefixes
    return written(one.prefixes) == written(other.prefixes)


def test_azure(tmp_path: Path) -> None:
    """Times to the 100 ns that the file has, from 0 on."""
    path = tmp_path / "conv.csv"
    path.write_text(AZURE)
    later = tmp_path / "conv_2024.csv"
    later.write_text(AZURE.replace("800,374", "800+00:00,374"))
    for workload in (w.azure_2023(path), w.load(path), w.load(later)):
        assert workload.arrival.tolist() == [0.0, 4.314579, 4.541877]
        assert workload.prompt_tokens.tolist() == [374, 396, 879]
        assert workload.output_tokens.tolist() == [44, 109, 55]


def test_mooncake(tmp_path: Path) -> None:
    """Milliseconds, and names of blocks of 512 tokens."""
    path = tmp_path / "mooncake.jsonl"
    path.write_text(lines(MOONCAKE))
    workload = w.load(path)
    assert workload.arrival.tolist() == [0.0, 1.0]
    assert workload.prefixes is not None
    assert workload.prefixes.block_size == 512
    assert row(workload.prefixes, 1).tolist() == [0, 2, 3]
    assert workload.describe()["shared_fraction"] == pytest.approx(512 / 2100)
    assert same(workload, w.mooncake(path))


def test_vllm_bench(tmp_path: Path) -> None:
    """Nanoseconds; equal token ids share names of blocks of 16."""
    path = tmp_path / "bench.jsonl"
    path.write_text(lines(VLLM))
    workload = w.load(path)
    assert workload.arrival.tolist() == pytest.approx([0.0, 0.301012143], abs=1e-15)
    assert workload.prefixes is not None
    assert [row(workload.prefixes, k).tolist() for k in (0, 1)] == [[0, 1], [0]]
    path.write_text(lines([{"input_toks": 3, "output_toks": 5, "arrival_time": 1787267980.0827403}] * 2))
    assert w.vllm_bench(path).arrival.tolist() == [0.0, 0.0]


def test_vidur(tmp_path: Path) -> None:
    """Seconds."""
    path = tmp_path / "vidur.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,3,4\n0.75,5,6\n")
    assert same(
        w.load(path), Workload.from_arrays(arrival=[0.0, 0.25], prompt_tokens=[3, 5], output_tokens=[4, 6])
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", AZURE.replace("396", "0"), r"a.csv, line 3: ContextTokens is '0'; expected a whole number"),
        ("a.csv", AZURE.replace(",55", ",-3"), "a.csv, line 4: GeneratedTokens is '-3'; expected a whole"),
        ("a.csv", AZURE.replace("396", "NaN"), "line 3: ContextTokens is 'NaN'; expected a whole number"),
        ("a.csv", AZURE.replace("396", "3.5"), "line 3: ContextTokens is '3.5'; expected a whole number"),
        ("a.csv", AZURE.replace("51.2224670", "49"), "line 4: TIMESTAMP is .* before the row above it; sort"),
        (
            "a.csv",
            AZURE.replace("2023-11-16 18:15:50.9951690", ""),
            "line 3: TIMESTAMP is ''; expected a date",
        ),
        ("a.csv", AZURE.replace("2023-11-16 18:15:50.9951690", "soon"), "line 3: TIMESTAMP is 'soon'; expec"),
        ("a.csv", AZURE.replace("396,109", "396"), "line 3: GeneratedTokens is missing; the row has"),
        ("a.csv", AZURE.replace("ContextTokens", "Tokens"), "line 1: the columns are TIMESTAMP, Tokens, Gen"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "a.csv: it holds no request"),
        ("a.jsonl", lines(MOONCAKE) + "{", "a.jsonl, line 3: Expecting .*; expected JSON"),
        ("a.jsonl", lines(MOONCAKE) + "[3]", r"line 3: it is '\[3\]'; expected a JSON object"),
        ("a.jsonl", lines([MOONCAKE[0] | {"timestamp": None}]), "line 1: timestamp is missing"),
        ("a.jsonl", lines([MOONCAKE[0] | {"timestamp": float("nan")}]), "line 1: timestamp is nan; expected"),
        ("a.jsonl", lines([MOONCAKE[0] | {"output_length": True}]), "line 1: output_length is True; expect"),
        (
            "a.jsonl",
            lines([MOONCAKE[0] | {"hash_ids": [-1]}]),
            r"line 1: hash_ids is \[-1\]; expected a list",
        ),
        (
            "a.jsonl",
            lines([MOONCAKE[0] | {"hash_ids": [1] * 9}]),
            "a.jsonl: prefixes of row 0 names 9 blocks",
        ),
        ("a.csv", "arrival,prompt_tokens\n0,1\n", "a.csv, line 1: the column 'output_tokens' is missing"),
        (
            "a.csv",
            "arrival,prompt_tokens,output_tokens\n0,1,x\n",
            "line 2: output_tokens is 'x'; expected a nu",
        ),
        ("a.csv", "arrival,prompt_tokens,output_tokens\n0,1\n", "line 2: it has 2 entries; expected 3"),
        (
            "a.csv",
            "arrival,prompt_tokens,output_tokens\n0,1,1\n1,0,1\n",
            "a.csv, line 3: prompt_tokens is 0; expec",
        ),
        (
            "a.csv",
            "arrival,prompt_tokens,output_tokens\n1,1,1\n0,1,1\n",
            "a.csv, line 3: arrival is 0.0; which",
        ),
        ("a.json", "[]", "a JSON file has no arrival times; see sim.workloads.conversations"),
        ("a.parquet", "nothing", "a.parquet: it is no Parquet file"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    """File, line, column, value, and what was expected."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        w.load(path)


@st.composite
def tables(draw: st.DrawFn) -> Workload:
    """Any small workload."""
    count = draw(st.integers(1, 8))

    def column(elements: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(elements, min_size=count, max_size=count))

    prompts = column(st.integers(1, 2**31 - 1))
    names = st.lists(st.integers(0, 2**60), max_size=3)
    return Workload.from_arrays(
        arrival=np.cumsum(column(st.floats(0, 1e6))),
        prompt_tokens=prompts,
        output_tokens=column(st.integers(4, 2**31 - 1)),
        priority=column(st.integers(-(2**62), 2**62)) if draw(st.booleans()) else None,
        session=column(st.integers(-1, 2**62)) if draw(st.booleans()) else None,
        prefixes=Prefixes.from_rows(column(names), 2) if draw(st.booleans()) else None,
    )


@settings(max_examples=60, deadline=None)
@given(workload=tables())
def test_files_lose_nothing(tmp_path_factory: pytest.TempPathFactory, workload: Workload) -> None:
    """CSV, Parquet and the repr give every bit back."""
    folder = tmp_path_factory.mktemp("files")
    workload.to_csv(folder / "w.csv")
    workload.to_parquet(folder / "w.parquet")
    assert same(workload, w.load(folder / "w.csv"))
    assert same(workload, w.load(folder / "w.parquet"))
    pasted = eval(repr(workload), {"Workload": Workload, "Prefixes": Prefixes})
    assert same(workload, pasted)


def talk(*values: str) -> dict[str, Any]:
    """A conversation of human and model in turns."""
    return {"conversations": [{"from": ("human", "gpt")[k % 2], "value": v} for k, v in enumerate(values)]}


def test_sharegpt(tmp_path: Path) -> None:
    """Turns are a message and its reply; lengths by a given count or the estimate of 4 bytes a token."""
    path = tmp_path / "sharegpt.json"
    path.write_text(
        json.dumps([talk("a b c", "d e", "f", "g h i j"), talk("alone"), talk("x" * 40, "y" * 8)])
    )
    counted = w.conversations(path, count_tokens=lambda text: len(text.split()))
    assert counted.turns.tolist() == [2, 1]
    assert counted.prompt_tokens.tolist() == [3, 1, 1]
    assert counted.output_tokens.tolist() == [2, 4, 1]
    assert counted.skipped == 1
    estimated = w.conversations(path)
    assert np.asarray(estimated.first_turns.prompt_tokens).tolist() == [1, 10]
    assert np.asarray(estimated.first_turns.output_tokens).tolist() == [1, 2]
    sessions = w.Sessions(w.Poisson(1.0, 50.0), counted).workload(1)
    assert set(sessions.prompt_tokens.tolist()) == {1, 3, 6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "sharegpt.json, line 1: .*; expected a JSON list of conversations"),
        ("{}", "it holds a dict; expected a list of conversations"),
        ('[{"id": 1}]', "entry 0 is no conversation; expected"),
        (
            json.dumps([{"conversations": [{"from": "human", "value": 3}]}]),
            "entry 0 has the value 3; expected",
        ),
        ("[]", "none of its 0 entries has a message with a reply"),
    ],
)
def test_a_bad_conversation_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File and entry."""
    path = tmp_path / "sharegpt.json"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        w.conversations(path)


@pytest.mark.parametrize("name", ["trace.csv", "trace.jsonl"])
def test_what_is_no_text_is_named(tmp_path: Path, name: str) -> None:
    """With its file, whatever it is."""
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 a picture \x89")
    with pytest.raises(TraceError, match=rf"{name}: it is no text in UTF-8"):
        w.load(tmp_path / name)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("hash_ids_of_x_tokens", "invalid literal for int"),
        ("hash_ids_of_0_tokens", "block_size=0; expected a whole number"),
    ],
)
def test_a_bad_size_of_blocks_is_named(tmp_path: Path, header: str, problem: str) -> None:
    """With the file."""
    path = tmp_path / "w.csv"
    path.write_text(f"arrival,prompt_tokens,output_tokens,{header}\n0,5,5,1\n")
    with pytest.raises(TraceError, match=f"w.csv: {problem}"):
        w.load(path)


def test_hash_ids_that_are_no_lists_are_named(tmp_path: Path) -> None:
    """A Parquet file with numbers where lists are expected."""
    path = tmp_path / "w.parquet"
    one = {"arrival": [0.0], "prompt_tokens": [5], "output_tokens": [5], "hash_ids": [7]}
    pq.write_table(pa.table(one), path)
    with pytest.raises(TraceError, match=r"w\.parquet: hash_ids is no column of lists of whole numbers"):
        w.load(path)


@pytest.mark.skipif(not TRACES.is_dir(), reason=f"the published traces are not at {TRACES}")
def test_published_traces() -> None:
    """Rows, mean lengths and sharing as their publishers tell them."""
    conv = w.load(TRACES / "AzureLLMInferenceTrace_conv.csv").describe()
    assert (conv["requests"], round(conv["mean_prompt_tokens"]), round(conv["mean_output_tokens"])) == (
        19_366,
        1155,
        211,
    )
    mooncake = w.load(TRACES / "mooncake_conversation.jsonl").describe()
    assert mooncake["requests"] == 12_031
    assert mooncake["shared_fraction"] == pytest.approx(0.37, abs=0.01)
