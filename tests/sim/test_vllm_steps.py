"""The plain Python vLLM engine: what it conserves, and what its scheduling rules do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Cluster, Workload
from sim.baselines import RoundRobin
from sim.costs import Batch, step_seconds
from sim.vllm_steps import Settings, Timing, serve
from tests.sim.strategies import vllm_scenarios

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=12)


def run(
    lengths: list[tuple[int, int]],
    settings: Settings,
    gap: float = 0.0,
    keys: list[list[int]] | None = None,
) -> tuple[list[Timing], list[Batch]]:
    """Timings and steps; a step takes a second."""
    steps: list[Batch] = []

    def seconds(batch: Batch) -> float:
        steps.append(batch)
        return 1.0

    arrival = [row * gap for row in range(len(lengths))]
    prompts, outputs = [p for p, _ in lengths], [o for _, o in lengths]
    return serve(arrival, prompts, outputs, settings=settings, seconds=seconds, prefix_keys=keys), steps


@given(
    lengths=LENGTHS,
    blocks=st.integers(24, 60),
    seqs=st.integers(1, 6),
    budget=st.integers(6, 40),
    asynchronous=st.booleans(),
    caching=st.booleans(),
    gap=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_every_request_gets_every_token(
    lengths: list[tuple[int, int]],
    blocks: int,
    seqs: int,
    budget: int,
    asynchronous: bool,
    caching: bool,
    gap: float,
) -> None:
    """All finish, in order of their moments; no step exceeds its limits; without preemption each token is
    computed once."""
    settings = Settings(blocks, 4, seqs, budget, asynchronous, caching)
    timings, steps = run(lengths, settings, gap)
    for row, timing in enumerate(timings):
        assert row * gap <= timing.scheduled < timing.first_token <= timing.finish
    for step in steps:
        assert 1 <= step.tokens <= budget
        assert step.decodes <= step.sequences <= seqs
        assert step.tokens - step.decodes >= step.longest
        assert step.context <= (blocks - 1) * 4
        assert step.depth <= (blocks - 1) * 4
    computed = sum(step.tokens for step in steps) + sum(timing.cached_tokens for timing in timings)
    needed = sum(prompt + output - 1 for prompt, output in lengths)
    if any(timing.preemptions for timing in timings):
        assert computed >= needed
    else:
        assert computed == needed


@given(lengths=LENGTHS, asynchronous=st.booleans())
def test_the_same_run_twice(lengths: list[tuple[int, int]], asynchronous: bool) -> None:
    """No chance is involved."""
    settings = Settings(30, 4, 4, 16, asynchronous)
    assert run(lengths, settings, 0.5) == run(lengths, settings, 0.5)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    scenario=vllm_scenarios(
        scheduling_policy="fcfs",
        full_prompt_must_fit=True,
        chunked_prefill=True,
        long_prefill_token_threshold=0,
    ),
    card=st.sampled_from(["a10", "a100-80g", "h100", "rtx-4090", "rtx-pro-6000"]),
)
def test_in_step_the_run_is_that_of_the_compiled_engine(
    scenario: tuple[Cluster, Workload], card: str
) -> None:
    """Without asynchronous scheduling, on any profile: every time, preemption and cache hit, bit by bit."""
    cluster, workload = scenario
    cluster = replace(cluster, replicas=1, gpu=card, watermark=0.0, failures=(), staleness=0.0)
    names = ("kv_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens")
    engine = Settings(
        **{name: getattr(cluster, name) for name in names},
        async_scheduling=False,
        enable_prefix_caching=cluster.caches_prefixes,
    )
    prefixes, keys = workload.prefixes, None
    if prefixes is not None:
        bounds = zip(prefixes.starts, prefixes.starts[1:], strict=False)
        keys = [prefixes.hashes[begin:end].tolist() for begin, end in bounds]
    tables = cluster.tables(0)
    timings = serve(
        workload.arrival.tolist(),
        workload.prompt_tokens.tolist(),
        workload.output_tokens.tolist(),
        settings=engine,
        seconds=lambda batch: step_seconds(tables, *batch),
        prefix_keys=keys,
    )
    columns = cluster.run(workload, RoundRobin()).requests
    seen = ("admitted", "first_token", "finish", "restarts", "cached_tokens")
    assert list(zip(*(columns[name].tolist() for name in seen), strict=True)) == [
        (one.scheduled, one.first_token, one.finish, one.preemptions, one.cached_tokens) for one in timings
    ]


def test_a_request_alone() -> None:
    """Chunks of the budget, then a token a step; asynchronous scheduling changes nothing for it."""
    for asynchronous in (False, True):
        (timing,), steps = run([(20, 3)], Settings(40, 4, 4, 8, asynchronous))
        assert [step.tokens for step in steps] == [8, 8, 4, 1, 1]
        assert (timing.scheduled, timing.first_token, timing.finish) == (0.0, 3.0, 5.0)


def test_asynchronous_scheduling_sees_an_arrival_a_step_later() -> None:
    """While a step runs the next is already scheduled; who comes in between waits for the one after it."""
    lengths = [(4, 9), (4, 2)]
    late, early = (run(lengths, Settings(40, 4, 4, 8, is_async), 0.5)[0][1] for is_async in (True, False))
    assert early.first_token == 2.0
    assert late.first_token == 3.0


def test_the_last_is_preempted_and_finds_its_blocks_again() -> None:
    """Two that outgrow the cache: the later one gives way, and with prefix caching computes less again."""
    lengths = [(16, 20), (16, 20)]
    cached, steps = run(lengths, Settings(14, 4, 4, 32))
    plain, more = run(lengths, Settings(14, 4, 4, 32, enable_prefix_caching=False))
    assert [timing.preemptions > 0 for timing in cached] == [False, True]
    assert cached[1].cached_tokens > 0
    assert sum(step.tokens for step in steps) < sum(step.tokens for step in more)
    assert plain[0].finish <= plain[1].finish


def test_equal_prompts_share_blocks() -> None:
    """Full blocks of equal content are not computed twice; the last token always is."""
    timings, _ = run([(16, 2), (16, 2)], Settings(40, 4, 4, 64), gap=5.0, keys=[[1, 2, 3, 4], [1, 2, 3, 4]])
    assert [timing.cached_tokens for timing in timings] == [0, 12]
    timings, _ = run([(16, 2), (16, 2)], Settings(40, 4, 4, 64), gap=5.0, keys=[[1, 2, 3, 4], [5, 6, 7, 8]])
    assert [timing.cached_tokens for timing in timings] == [0, 0]


def test_a_prompt_waits_until_all_of_it_fits() -> None:
    """vLLM 0.19 reserves the whole prompt, though it takes blocks by chunks."""
    timings, steps = run([(30, 4), (30, 2)], Settings(13, 4, 4, 8))
    assert timings[1].scheduled >= timings[0].finish - 1
    assert all(step.sequences == 1 for step in steps)


def test_what_never_fits_is_refused() -> None:
    """A request beyond the cache is named with its sizes."""
    with pytest.raises(
        ValueError, match="request 0 has 30 prompt and 30 output tokens; 10 KV blocks of 4 hold 36"
    ):
        run([(30, 30)], Settings(10, 4, 4, 8))
