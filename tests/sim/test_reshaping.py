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


def test_merged_workloads_keep_every_request() -> None:
    """All requests of all, each with its lengths and SLO, in order of arrival; ties in order of arguments."""
    one = w.with_slo(w.code_completion(4.0, 50, seed=1), ttft=1.0, tpot=0.1)
    two = w.with_slo(w.sharegpt_bursty(4.0, 50, seed=2), ttft=2.0, tpot=0.2)
    both = w.merge(one, two)
    assert len(both) == len(one) + len(two)
    assert (np.diff(both.arrival) >= 0).all()
    columns = ("arrival", "prompt_tokens", "output_tokens", "ttft_slo")
    rows = {name: [getattr(each, name).tolist() for each in (one, two, both)] for name in columns}
    first, second, merged = (
        sorted(zip(*(rows[n][place] for n in columns), strict=True)) for place in range(3)
    )
    assert merged == sorted(first + second)
    at_once = w.select(one, [0, 0], [1.0, 1.0]), w.select(two, [0], [1.0])
    assert w.merge(*at_once).ttft_slo.tolist() == [1.0, 1.0, 2.0]  # type: ignore[union-attr]


def test_what_cannot_be_merged_is_said(sessions: Workload) -> None:
    """Sessions are numbered in their own workload only, and a column is there for all or none."""
    plain = w.sharegpt_bursty(4.0, 20, seed=2)
    with pytest.raises(ValueError, match="workload 1 has session, whose numbers are its own"):
        w.merge(plain, sessions)
    with pytest.raises(ValueError, match="workload 0 has no ttft_slo, but another has; expected all or none"):
        w.merge(plain, w.with_slo(plain, ttft=1.0))
    with pytest.raises(ValueError, match="no workload was given"):
        w.merge()
    with pytest.raises(ValueError, match=r"tpot=0.0; expected .* seconds"):
        w.with_slo(plain, tpot=0.0)


def test_objectives_replace_and_keep() -> None:
    """`with_slo` sets what is given and leaves what is not."""
    given = w.with_slo(w.with_slo(w.sharegpt_bursty(4.0, 20, seed=2), ttft=1.0), tpot=0.5)
    assert set(given.ttft_slo.tolist()) == {1.0}  # type: ignore[union-attr]
    assert set(given.tpot_slo.tolist()) == {0.5}  # type: ignore[union-attr]


def test_the_changing_mix_changes() -> None:
    """Nights are calm, days busy, and the share of long jobs differs by the hour."""
    day = w.merge(*(w.changing_mix(5.0, 3600, seed) for seed in range(4)))
    hours = np.histogram(day.arrival, 6, (0, 3600))[0]
    assert hours[2:4].min() > 2 * hours[[0, 5]].max()
    one = w.changing_mix(5.0, 3600, 3)
    tokens = [one.output_tokens[(one.arrival // 200) == part].mean() for part in range(18)]
    assert max(tokens) > 1.5 * min(tokens)
    assert set(one.ttft_slo.tolist()) == {5.0}  # type: ignore[union-attr]


def test_code_completion_is_prefill() -> None:
    """Prompts of 2,000 tokens on average, outputs of 33, not correlated."""
    code = w.code_completion(20.0, 1000, seed=1)
    assert code.prompt_tokens.mean() == pytest.approx(2048, rel=0.05)
    assert code.output_tokens.mean() == pytest.approx(33, rel=0.05)
    assert abs(np.corrcoef(code.prompt_tokens, code.output_tokens)[0, 1]) < 0.03


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
