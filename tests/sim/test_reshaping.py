"""Workloads from a workload: parts, other rates, and resamples that keep bursts and pairs of lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Workload
from sim import workloads as w


@pytest.fixture(scope="module")
def sessions() -> Workload:
    """Two hundred sessions or so, with prefixes."""
    chat = w.Chat(w.Independent(w.Uniform(10, 60), w.Uniform(10, 60)), turns=4)
    return w.Sessions(w.Gamma(0.5, 3.0, 400.0), chat, think=5.0, system_tokens=64).workload(1)


def test_a_window_is_a_part(sessions: Workload) -> None:
    """The requests of that time, from 0 on."""
    part = w.window(sessions, 100.0, 50.0)
    inside = (sessions.arrival >= 100) & (sessions.arrival < 150)
    assert len(part) == inside.sum() > 0
    assert part.arrival == pytest.approx(sessions.arrival[inside] - 100)
    assert (part.prompt_tokens == sessions.prompt_tokens[inside]).all()


def test_another_rate_is_the_same_pattern(sessions: Workload) -> None:
    """All gaps by one factor; nothing else changes."""
    faster = w.at_rate(sessions, 7.0)
    assert faster.describe()["rate"] == pytest.approx(7.0)
    assert faster.describe()["gap_cv"] == pytest.approx(sessions.describe()["gap_cv"])
    assert (faster.output_tokens == sessions.output_tokens).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.floats(5.0, 500.0), duration=st.floats(10.0, 900.0))
def test_a_resample_is_made_of_the_trace(
    sessions: Workload, seed: int, block: float, duration: float
) -> None:
    """Within the duration, in order, of pairs of lengths that occur; no session is split or mixed."""
    drawn = w.resample(sessions, seed, block=block, duration=duration)
    if not len(drawn):
        return
    assert drawn.arrival[-1] < duration
    pairs = set(zip(sessions.prompt_tokens.tolist(), sessions.output_tokens.tolist(), strict=True))
    assert set(zip(drawn.prompt_tokens.tolist(), drawn.output_tokens.tolist(), strict=True)) <= pairs
    assert drawn.session is not None
    for session in np.unique(drawn.session):
        prompts = drawn.prompt_tokens[drawn.session == session]
        at = drawn.arrival[drawn.session == session]
        assert len(set(prompts.tolist())) == len(prompts)  # never two copies of one turn
        assert at[-1] - at[0] <= block + 1e-9


def test_replications_differ_and_keep_rate_bursts_and_sharing() -> None:
    """Seeds differ; on average rate, burstiness and prefix sharing are those of the trace."""
    chat = w.Chat(w.Independent(w.Uniform(10, 60), w.Uniform(10, 60)), turns=3)
    bursts = w.MMPP((0.5, 6.0), (20.0, 5.0), 1000.0)
    trace = w.Sessions(bursts, chat, think=2.0, system_tokens=64).workload(1)
    drawn = [w.resample(trace, seed, block=120.0) for seed in range(12)]
    assert len({workload.arrival.tobytes() for workload in drawn}) == 12
    assert w.resample(trace, 3, block=120.0).arrival.tobytes() == drawn[3].arrival.tobytes()
    original = trace.describe()
    for name, tolerance in (
        ("rate", 0.1),
        ("gap_cv", 0.1),
        ("dispersion_10s", 0.3),
        ("shared_fraction", 0.05),
    ):
        mean = np.mean([workload.describe()[name] for workload in drawn])
        assert mean == pytest.approx(original[name], rel=tolerance), name
    assert np.mean([x.describe()["shared_fraction"] for x in drawn]) <= original["shared_fraction"]


def test_what_cannot_be_resampled_is_said() -> None:
    """One instant has no pattern in time."""
    at_once = Workload.from_arrays(arrival=[0.0, 0.0], prompt_tokens=[1, 1], output_tokens=[1, 1])
    with pytest.raises(ValueError, match="2 requests at one time cannot be resampled"):
        w.resample(at_once, 1)
    with pytest.raises(ValueError, match="has no rate to change: its 2 requests arrive in 0 s"):
        w.at_rate(at_once, 1.0)


def test_prefixes_need_a_row_each() -> None:
    """As many rows as requests, and no more names than tokens fill."""
    columns: dict[str, Any] = {"arrival": [0.0], "prompt_tokens": [9], "output_tokens": [9]}
    with pytest.raises(ValueError, match="prefixes has 2 rows; expected 1"):
        Workload.from_arrays(**columns, prefixes=w.Prefixes.from_rows([[1], [1]], 16))
    with pytest.raises(ValueError, match="prefixes of row 0 names 3 blocks of 16 tokens; expected at most 2"):
        Workload.from_arrays(**columns, prefixes=w.Prefixes.from_rows([[1, 2, 3]], 16))


def test_a_picture_is_drawn(sessions: Workload, tmp_path: Path) -> None:
    """One well-formed SVG that needs nothing from anywhere; none for no requests."""
    sessions.plot(tmp_path / "w.svg")
    text = (tmp_path / "w.svg").read_text("utf-8")
    ElementTree.fromstring(text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    one = Workload.from_arrays(arrival=[3.0], prompt_tokens=[1], output_tokens=[1])
    one.plot(tmp_path / "one.svg")
    ElementTree.fromstring((tmp_path / "one.svg").read_text("utf-8"))
    with pytest.raises(ValueError, match="a workload of 0 requests has no picture"):
        w.select(one, []).plot(tmp_path / "none.svg")


def test_a_description_prints_and_has_every_figure(sessions: Workload) -> None:
    """The same names for any workload, all finite; a table of less than 100 columns."""
    names = set(sessions.describe())
    for workload in (sessions, w.select(sessions, []), w.select(sessions, [0]), w.select(sessions, [0, 1])):
        figures = workload.describe()
        assert set(figures) == names
        assert all(np.isfinite(value) for value in figures.values())
        assert max(map(len, str(figures).splitlines())) < 100
    assert "sessions of" in str(sessions.describe())
    assert sessions.describe()["shared_fraction"] > 0.3
