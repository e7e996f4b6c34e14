"""Cost profiles: what they say of a step and of themselves, and that the A10's are what they were."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Cluster, costs, workloads
from sim.baselines import RoundRobin
from sim.compiled import njit
from sim.costs import PARTS, Batch, Profile, step_seconds, toml
from sim.costs.shapes import GPUS, MODELS, kv_blocks

ALL = [costs.profile(*key) for key in costs.available()]
SHIPPED = {
    ("a10", "llama-3-8b", 1),
    ("a100-80g", "llama-3-8b", 1),
    ("h100", "llama-3-8b", 1),
    ("h200", "llama-3-8b", 1),
    ("rtx-4090", "llama-3-8b", 1),
    ("rtx-pro-6000", "llama-3-8b", 1),
    ("h100", "llama-3-70b", 4),
}
each_profile = pytest.mark.parametrize("profile", ALL, ids=lambda p: f"{p.gpu}-{p.model}")


def batch(*contexts: int, chunks: tuple[tuple[int, int], ...] = ()) -> Batch:
    """Decodes of these contexts beside prefill chunks of (tokens, KV tokens before)."""
    return Batch(
        tokens=len(contexts) + sum(tokens for tokens, _ in chunks),
        sequences=len(contexts) + len(chunks),
        decodes=len(contexts),
        context=sum(contexts),
        deepest=max(contexts, default=0),
        pairs=sum(tokens * (2 * before + tokens + 1) for tokens, before in chunks),
        depth=max((tokens + before for tokens, before in chunks), default=0),
        longest=max((tokens for tokens, _ in chunks), default=0),
    )


def test_what_is_shipped() -> None:
    """One profile for each GPU and model that we promise."""
    assert set(costs.available()) >= SHIPPED


def test_an_unknown_profile_says_what_there_is() -> None:
    """The error names what was asked for, everything that exists, and how to make one."""
    with pytest.raises(
        ValueError, match=r"gpu='b200' with model='llama-3-8b' and tensor_parallel=2; there is"
    ) as error:
        costs.profile("b200", "llama-3-8b", 2)
    for gpu, model, _ in SHIPPED:
        assert f"gpu={gpu!r} with model={model!r}" in str(error.value)
    assert "python -m sim fit" in str(error.value)


def test_models_of_one_shape_share_a_profile() -> None:
    """Llama-3.1-8B has the layers of Llama-3-8B."""
    assert costs.profile("h100", "llama-3.1-8b") == costs.profile("h100", "llama-3-8b")


@each_profile
def test_a_profile_knows_its_basis(profile: Profile) -> None:
    """Each part has a basis, communication on several GPUs only; what is not measured is marked."""
    assert set(profile.basis) == set(PARTS) - ({"communication"} if profile.tensor_parallel == 1 else set())
    for part, basis in profile.basis.items():
        assert (part in profile.marks()) == (basis != "measured")
    assert profile.source


@each_profile
def test_a_profile_survives_its_file_and_pickling(profile: Profile, tmp_path: Path) -> None:
    """What is written is read, to five digits; and once more exactly."""
    path = tmp_path / "profile.toml"
    path.write_text(toml.text(replace(profile, time_scale=1.0)), encoding="utf-8")
    read = toml.read(path)
    again = tmp_path / "again.toml"
    again.write_text(toml.text(read), encoding="utf-8")
    assert toml.read(again) == read
    assert read.linear_table(500) == pytest.approx(profile.linear_table(500) / profile.time_scale, rel=1e-4)
    assert read.basis == profile.basis
    assert pickle.loads(pickle.dumps(profile)) == profile


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """A file that is no profile is refused with its name and what to do."""
    path = tmp_path / "broken.toml"
    path.write_text('gpu = "a100"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken.toml' is no cost profile: KeyError .*python -m sim fit"):
        toml.read(path)


@each_profile
@given(
    contexts=st.lists(st.integers(1, 8000), min_size=1, max_size=40),
    more=st.integers(1, 4000),
    chunk=st.sampled_from([0, 2, 100, 2000]),
    before=st.integers(0, 8000),
)
def test_more_work_of_a_kind_never_takes_less(
    profile: Profile, contexts: list[int], more: int, chunk: int, before: int
) -> None:
    """Longer contexts of all decodes, and a deeper chunk, cost no less; every step takes some time."""
    tables = profile.tables(4096, 64)
    chunks = ((chunk, before),) if chunk else ()
    seconds = step_seconds(tables, *batch(*contexts, chunks=chunks))
    assert 0 < seconds < 10
    longer = batch(*(context + more for context in contexts), chunks=chunks)
    assert step_seconds(tables, *longer) >= seconds
    deeper = batch(*contexts, chunks=((chunk, before + more),) if chunk else ())
    assert step_seconds(tables, *deeper) >= seconds


@each_profile
def test_unequal_contexts_never_help(profile: Profile) -> None:
    """At the same mean, one long context costs no less."""
    tables = profile.tables(4096, 64)
    for chunks in ((), ((500, 0),)):
        equal = step_seconds(tables, *batch(*[1000] * 40, chunks=chunks))
        assert step_seconds(tables, *batch(*[900] * 39, 4900, chunks=chunks)) >= equal


@each_profile
def test_weights_are_read_once_a_step(profile: Profile) -> None:
    """No step beats the time that its weights take at the data sheet's bandwidth; prefill stays below its
    FLOP/s."""
    model, sheet = MODELS[profile.model], GPUS[profile.gpu]
    layers = model.layers * model.layer_weights(profile.tensor_parallel)
    tables = profile.tables(4096, 64)
    assert step_seconds(tables, *batch(1)) > 0.97 * 2 * layers / sheet.bandwidth
    assert step_seconds(tables, *batch(chunks=((2048, 0),))) > 0.97 * 2 * 2048 * layers / sheet.flops


@each_profile
def test_the_formula_compiles(profile: Profile) -> None:
    """Numba runs `step_seconds` as it is and gets the same bits."""
    tables = profile.tables(4096, 64, 1.1, async_scheduling=True)
    for one in (
        batch(7),
        batch(10, 2000, 600),
        batch(chunks=((64, 10),)),
        batch(5, 900, chunks=((300, 70),)),
    ):
        assert COMPILED(tables, *one) == step_seconds(tables, *one)


COMPILED = njit(step_seconds)


def test_the_a10_is_what_it_was() -> None:
    """The calibrated figures of the published problem, and the formula that the kernel uses, bit for bit."""
    a10 = costs.profile("a10", "llama-3-8b")
    linear, (decode, half_pair, head) = a10.linear_table(8192, 1.05), a10.rates(1.05)
    scale = 1.025 * 1.05
    assert decode == 131_072 / (600e9 * 0.8) * scale
    assert half_pair == 524_288 / (125e12 * 0.5) / 2 * scale
    assert head == 128_256 * 4_096 * 2 / (600e9 * 0.8) * scale
    assert linear[128] == 0.0361 * scale
    tables = a10.tables(8192, 128, 1.05)
    generator = np.random.default_rng(0)
    for _ in range(500):
        contexts = generator.integers(1, 8000, generator.integers(0, 128)).tolist()
        chunks = ((int(generator.integers(2, 4000)), int(generator.integers(0, 4000))),)
        one = batch(*contexts, chunks=chunks if not contexts or generator.random() < 0.5 else ())
        kernel = linear[one.tokens] + head + one.context * decode + one.pairs * half_pair
        assert step_seconds(tables, *one) == kernel


def test_cuda_graphs_pad_as_vllm_does() -> None:
    """The sizes of vLLM's resolved configuration with 256 requests; padded steps cost as the next size."""
    sizes = costs.capture_sizes(256)
    assert sizes[:5] == (1, 2, 4, 8, 16)
    assert sizes[-3:] == (480, 496, 512)
    assert len(sizes) == 51
    assert costs.capture_sizes(128)[-1] == 256
    profile = costs.profile("rtx-4090", "llama-3-8b")
    padded = profile.tables(2048, 256).linear
    exact = profile.tables(2048, 256, cuda_graphs=False).linear
    assert (padded[9:17] == exact[16]).all()
    assert (padded[497:513] == exact[512]).all()
    assert (padded[513:] == exact[513:]).all()
    assert padded[0] == 0


def test_cpu_work_adds_or_hides() -> None:
    """Without asynchronous scheduling the GPU waits for the CPU; with it the longer of the two counts."""
    profile = replace(costs.profile("h100", "llama-3-8b"), cpu=0.5)
    gpu = step_seconds(replace(profile, cpu=0.0).tables(64, 8), *batch(100))
    assert step_seconds(profile.tables(64, 8), *batch(100)) == gpu + 0.5
    assert step_seconds(profile.tables(64, 8, async_scheduling=True), *batch(100)) == 0.5


def test_four_gpus_pay_for_communication() -> None:
    """The all-reduces are in the linear part."""
    profile = costs.profile("h100", "llama-3-70b", 4)
    without = replace(profile, communication_points=())
    for tokens in (1, 2048):
        share = without.linear_table(2048)[tokens] / profile.linear_table(2048)[tokens]
        assert 0.6 < share < 0.95


def test_kv_blocks_come_from_memory() -> None:
    """The RTX 4090's are those that vLLM reported; a model that does not fit is refused."""
    assert kv_blocks("rtx-4090", "llama-3-8b") == 2588
    with pytest.raises(ValueError, match=r"'llama-3-70b' on 1 x 'h100' leaves -.* use more GPUs"):
        kv_blocks("h100", "llama-3-70b")


@pytest.mark.parametrize("gpu", ["a100-80g", "h100", "h200", "rtx-4090", "rtx-pro-6000"])
def test_a_cluster_runs_on_each(gpu: str) -> None:
    """Every single-GPU profile works in a cluster; faster memory answers sooner than the A10."""
    workload = workloads.sharegpt_bursty(rate=2.0, duration=20, seed=1)
    seconds, a10 = (
        Cluster(gpu=name, model="llama-3-8b").run(workload, RoundRobin()).metrics["mean_response_time"]
        for name in (gpu, "a10")
    )
    assert 0 < seconds < a10


def test_the_pages_step_times() -> None:
    """The figures in the table of docs/cost-models.md."""
    page = (Path(__file__).parents[2] / "docs" / "cost-models.md").read_text("utf-8")
    shown = re.findall(r"^\| .* \| ([\d.]+)(?: ms)? \| ([\d.]+)(?: ms)? \|$", page, re.MULTILINE)
    names = ["a10", "a100-80g", "h100", "h100 x 4", "h200", "rtx-4090", "rtx-pro-6000"]
    assert len(shown) == len(names)
    for name, figures in zip(names, shown, strict=True):
        four = name.endswith("x 4")
        profile = costs.profile(name.split()[0], "llama-3-70b" if four else "llama-3-8b", 4 if four else 1)
        tables = profile.tables(2048, 256, async_scheduling=True)
        for one, figure in zip((batch(*[1000] * 32), batch(chunks=((2048, 0),))), figures, strict=True):
            assert 1e3 * step_seconds(tables, *one) == pytest.approx(float(figure), abs=0.06), name
