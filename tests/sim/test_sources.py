"""Sources of lengths and sessions: what is drawn has the distribution and the sharing that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import workloads as w
from sim.workloads import Sessions
from sim.workloads.sharing import row


def draw(lengths: Any, count: int = 20_000) -> tuple[Any, Any]:
    """Prompts and outputs of this source."""
    rng = np.random.default_rng
    prompts, outputs = lengths.draw(rng(1), rng(2), count)
    return prompts, outputs


def test_columns_draw_their_distribution() -> None:
    """Mean, range and quantiles of each."""
    fixed, uniform = draw(w.Independent(w.Fixed(7), w.Uniform(10, 20)))
    assert set(fixed) == {7}
    assert (uniform.min(), uniform.max()) == (10, 20)
    normal, table = draw(
        w.Independent(w.LogNormal(300, 0.5), w.Quantiles((1, 100, 1000), (0.0, 0.5, 1.0))), 100_000
    )
    assert normal.mean() == pytest.approx(300, rel=0.01)
    assert np.log(normal).std() == pytest.approx(0.5, rel=0.01)
    assert np.median(table) == pytest.approx(100, rel=0.02)
    assert table.max() == pytest.approx(1000, rel=0.01)


def test_joint_lengths_stay_together() -> None:
    """Only pairs that the trace has."""
    pairs = set(zip(*draw(w.Joint([1, 2, 3], [10, 20, 30]), 100), strict=True))
    assert pairs == {(1, 10), (2, 20), (3, 30)}


def test_clipped_lengths_fit() -> None:
    """Longer ones are cut, the others as they were."""
    plain, clipped = draw(w.SHAREGPT), draw(w.Clipped(w.SHAREGPT, prompt=500, output=300))
    for before, after, most in zip(plain, clipped, (500, 300), strict=True):
        assert (after == np.minimum(before, most)).all()


@pytest.mark.parametrize(
    "lengths",
    [
        w.SHAREGPT,
        w.Joint([1, 2, 3], [4, 5, 6]),
        w.Independent(w.LogNormal(50, 1.0), w.Uniform(1, 9)),
    ],
)
def test_the_kth_request_does_not_depend_on_the_count(lengths: Any) -> None:
    """A longer workload starts with the lengths of a shorter one."""
    for short, long in zip(draw(lengths, 100), draw(lengths, 1000), strict=True):
        assert (long[:100] == short).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: w.Fixed(0), "Fixed: tokens=0; expected a whole number of at least 1 token"),
        (lambda: w.Uniform(5, 4), "Uniform: high=4; expected a whole number of at least 5 tokens"),
        (lambda: w.LogNormal(-5, 1), "LogNormal: mean=-5; expected a positive, finite number of tokens"),
        (lambda: w.LogNormal(5, 11), r"LogNormal: sigma=11; expected a number from 0 to 10"),
        (lambda: w.Quantiles((5, 4), (0.0, 1.0)), "quantiles in tokens that do not fall"),
        (lambda: w.Quantiles((4, 5), (0.1, 1.0)), "increasing levels from 0 to 1"),
        (lambda: w.Joint([1, 0], [1, 1]), r"Joint: prompt_tokens\[1\]=0; expected a whole number"),
        (lambda: w.Joint([1], [1, 1]), "Joint: 1 prompt_tokens with 2 output_tokens"),
        (lambda: w.Clipped(w.SHAREGPT, prompt=0), "Clipped: prompt=0; expected a whole number of at least 1"),
        (lambda: w.Chat(w.SHAREGPT, turns=0.5), "Chat: turns=0.5; expected a number of at least 1 turns"),
        (lambda: w.Independent(5, w.Fixed(5)), "Independent: prompt=5; expected a column, .* method draw"),  # type: ignore[arg-type]
        (lambda: w.Clipped(w.Fixed), "Clipped: lengths=.*; expected lengths, .* with a method draw"),  # type: ignore[arg-type]
        (lambda: w.Chat(4.0), "Chat: messages=4.0; expected lengths"),  # type: ignore[arg-type]
        (lambda: w.Quantiles((4, 5), ("a", "b")), r"Quantiles: levels\[0\]='a'; expected a number"),  # type: ignore[arg-type]
        (lambda: Sessions(3, w.Chat(w.SHAREGPT)), "Sessions: starts=3; expected arrivals, .* method times"),  # type: ignore[arg-type]
        (lambda: Sessions(w.Poisson(1, 10), 3), "Sessions: dialogues=3; expected dialogues, .* method draw"),  # type: ignore[arg-type]
        (lambda: w.ClosedLoop(4, 8, 3), "ClosedLoop: lengths=3; expected lengths, .* method draw"),  # type: ignore[arg-type]
        (lambda: w.ClosedLoop(4, 8, w.SHAREGPT, think=-1), "ClosedLoop: think=-1; expected .* seconds"),
        (
            lambda: w.Conversations(np.array([2]), np.array([5]), np.array([5])),
            "Conversations: 1 prompt_tokens and 1 output_tokens; expected 2 of each",
        ),
        (lambda: w.ClosedLoop(4, 3, w.SHAREGPT), "requests=3; expected a whole number of at least 4"),
        (
            lambda: Sessions(w.Poisson(1, 10), w.Chat(w.SHAREGPT), system_tokens=100, max_context=101),
            "Sessions: max_context=101; expected a whole number of at least 102 tokens",
        ),
    ],
)
def test_a_bad_field_is_named(make: Any, message: str) -> None:
    """Class, field, value, range and unit."""
    with pytest.raises(ValueError, match=message):
        make()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    turns=st.floats(1, 8),
    system=st.sampled_from([0, 5, 64, 130]),
    most=st.sampled_from([150, 400, 8192]),
    block=st.sampled_from([1, 16, 64]),
)
def test_a_session_grows_and_shares(seed: int, turns: float, system: int, most: int, block: int) -> None:
    """Each prompt is longer than the context before it, names begin with the earlier turn's, and fit."""
    messages = w.Independent(w.Uniform(1, 60), w.Uniform(1, 90))
    sessions = Sessions(
        w.Poisson(2.0, 10.0),
        w.Chat(messages, turns),
        think=1.0,
        system_tokens=system,
        max_context=most,
        block_size=block,
    )
    workload = sessions.workload(seed)
    assert workload.session is not None
    assert workload.prefixes is not None
    context = workload.prompt_tokens + workload.output_tokens
    assert (context <= most).all()
    last: dict[int, int] = {}
    for k, session in enumerate(workload.session.tolist()):
        names = row(workload.prefixes, k).tolist()
        assert len(names) == context[k] // block
        assert names[: system // block] == list(range(system // block))
        if session in last:
            before = last[session]
            assert workload.prompt_tokens[k] > context[before]
            assert workload.arrival[k] >= workload.arrival[before]
            assert names[: len(row(workload.prefixes, before))] == row(workload.prefixes, before).tolist()
        else:
            assert not set(names[system // block :]) & {
                name for other in last.values() for name in row(workload.prefixes, other).tolist()
            }
        last[session] = k


def test_sessions_have_their_mean_turns() -> None:
    """Geometric with the mean asked for."""
    chat = w.Chat(w.Independent(w.Fixed(1), w.Fixed(1)), turns=3.5)
    figures = Sessions(w.Poisson(10.0, 1000.0), chat).workload(1).describe()
    assert figures["turns"] == pytest.approx(3.5, rel=0.03)
    assert figures["sessions"] == pytest.approx(10_000, rel=0.03)


def test_a_closed_loop_is_of_the_seed() -> None:
    """Users start in order within the spread, think times have their mean, lengths those of `generate`."""
    loop = w.ClosedLoop(users=20, requests=5000, lengths=w.SHAREGPT, think=3.0, spread=10.0)
    columns, again = loop.workload(1), loop.workload(1)
    assert len(columns) == 5000
    assert (np.diff(columns.starts) >= 0).all()
    assert columns.starts[-1] <= 10.0
    assert columns.think.mean() == pytest.approx(3.0, rel=0.05)
    assert columns.think.tobytes() == again.think.tobytes()
    open_loop = w.generate(w.Poisson(1.0, 100.0), w.SHAREGPT, seed=1)
    assert (columns.prompt_tokens[: len(open_loop)] == open_loop.prompt_tokens).all()
    with pytest.raises(ValueError, match="read-only"):
        columns.think[0] = 1.0


@settings(max_examples=40, deadline=None)
@given(users=st.integers(1, 12), think=st.floats(0, 5), spread=st.floats(0, 20), seed=st.integers(0, 1000))
def test_clients_keep_the_concurrency(users: int, think: float, spread: float, seed: int) -> None:
    """With one server, first come first served: never more than the users are in the system, every request
    is served once, and each arrival is a user's first or comes the think time after a reply."""
    loop = w.ClosedLoop(users, 400, w.Independent(w.Fixed(1), w.Uniform(1, 9)), think, spread)
    workload = loop.workload(seed)
    clients = workload.clients()
    queue: list[int] = []
    came: dict[int, float] = {}
    left: dict[int, float] = {}
    free = np.inf  # when the server ends what it does
    now = 0.0
    while min(clients.due, free) < np.inf:
        now, before = min(clients.due, free), now
        assert now >= before
        if clients.due <= free:
            came[clients.arrive()] = now
            queue.append(clients.arrived - 1)
        else:
            left[queue.pop(0)] = now
            clients.finish(now)
            free = np.inf
        assert len(queue) <= users
        if queue and free == np.inf:
            free = now + 0.1 * int(workload.output_tokens[queue[0]])
    assert list(came) == list(left) == list(range(400))
    known = [*workload.starts.tolist(), *(left[k] + float(workload.think[k]) for k in left)]
    assert list(came.values()) == sorted(known)[:400]
