"""Fitting profiles: coefficients are found again, formats are read, the shipped files are what it gives."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Cluster, Replica, baselines, costs
from sim.__main__ import main
from sim.costs import toml
from sim.costs.fitting import fit, nonnegative_least_squares
from sim.costs.measured import Measurements, Series, errors, knots
from sim.costs.recipes import SHIPPED, Recipe, make
from sim.costs.shapes import GPUS, MODELS
from sim.costs.sources import llmservingsim, roofline, vidur
from sim.workloads import Workload

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "profiles").is_dir(), reason=f"the measured operator times are not at {DATA / 'profiles'}"
)
LLAMA = MODELS["llama-3-8b"]


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(6, 20))
def test_least_squares_are_least_and_not_negative(seed: int, size: int, rows: int) -> None:
    """No coefficient is negative, and none can be changed for the better (the conditions of Karush, Kuhn and
    Tucker)."""
    generator = np.random.default_rng(seed)
    columns, target = generator.random((rows, size)), generator.normal(size=rows)
    found = nonnegative_least_squares(columns, target)
    gradient = columns.T @ (target - columns @ found)
    assert (found >= 0).all()
    assert (gradient <= 1e-7).all()
    assert np.abs(gradient[found > 0]).max(initial=0.0) <= 1e-7


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=40), st.sampled_from([0.01, 0.1]))
def test_few_knots_miss_no_point_by_more(seconds: list[float], tolerance: float) -> None:
    """Straight lines between the points kept stay within the tolerance of all."""
    series = Series(np.arange(1.0, len(seconds) + 1), np.array(seconds))
    kept = knots(series, tolerance)
    line = np.interp(series.at, *np.array(kept).T)
    assert np.abs(line / series.seconds - 1).max() <= tolerance
    assert kept[0][0] == 1
    assert kept[-1][0] == len(seconds)


def test_errors_are_counted() -> None:
    """Mean and largest absolute error, and the sign of the bias."""
    found = errors(np.array([1.1, 0.8]), np.array([1.0, 1.0]))
    assert (found.rows, round(found.mean, 6), round(found.worst, 6)) == (2, 0.15, 0.2)
    assert found.bias == pytest.approx(-0.05)
    assert errors(np.array([2.0]), np.array([1.0]), 9.0).worst == pytest.approx(0.1)


def test_a_roofline_is_found_again() -> None:
    """Times linear in the coefficients are fitted without error; nothing of it counts as measured."""
    made = make(Recipe("l4", "llama-3-8b", "roofline", ""), DATA)
    assert made.errors["decode"].worst < 1e-4
    assert made.errors["prefill"].worst < 1e-4
    assert "measured" not in made.profile.basis.values()
    rate = LLAMA.kv_bytes() / (300e9 * roofline.BANDWIDTH)
    assert made.profile.decode == pytest.approx(rate, rel=1e-4)


def test_a_roofline_is_not_far_from_what_was_measured() -> None:
    """Where both exist a decode step agrees within 15 %, a prefill step within 45 %."""
    for gpu in ("h100", "h200", "rtx-4090", "rtx-pro-6000"):
        model = make(Recipe(gpu, "llama-3-8b", "roofline", ""), DATA).profile
        tables, known = (profile.tables(2048, 64) for profile in (model, costs.profile(gpu, "llama-3-8b")))
        decode, prefill = (32, 32, 32, 32_768, 1024, 0, 0, 0), (2048, 1, 0, 0, 0, 2048 * 2049, 2048, 2048)
        for batch, within in ((decode, 0.15), (prefill, 0.45)):
            ratio = costs.step_seconds(tables, *batch) / costs.step_seconds(known, *batch)
            assert abs(ratio - 1) < within, (gpu, batch, ratio)


def llmservingsim_folder(folder: Path) -> Path:
    """A small profile: layers of 10 us + 1 us a token, decodes 5 us + 2 ns a KV token, twice that beside a
    prefill, a straggler of 1 ns a token."""
    folder.mkdir(parents=True)
    tokens = [1, 16, 256, 2048]
    layers = [*llmservingsim.PER_LAYER, *llmservingsim.ONCE]
    pd.DataFrame(
        [(layer, n, 10.0 + n) for layer in layers for n in tokens], columns=["layer", "tokens", "time_us"]
    ).to_csv(folder / "dense.csv", index=False)
    pd.DataFrame(
        [(layer, n, 100.0 + n) for layer in ("lm_head", "sampler") for n in (1, 64)],
        columns=["layer", "sequences", "time_us"],
    ).to_csv(folder / "per_sequence.csv", index=False)
    rows = []
    for chunk in (0, 16, 256, 2048):
        for prefix in (0, 1024, 8192) if chunk else (0,):
            for decodes in (0, 4, 64):
                for context in (64, 512, 4096) if decodes else (0,):
                    if chunk or decodes:
                        read = decodes * context * (4e-3 if chunk else 2e-3)
                        pairs = chunk * (prefix + (chunk + 1) / 2)
                        time = read + 5.0 * (decodes > 0) + 1e-4 * pairs + 0.02 * chunk
                        rows.append((chunk, prefix, decodes, context, time))
    names = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    pd.DataFrame(rows, columns=names).to_csv(folder / "attention.csv", index=False)
    skew = []
    for small in (512, 1024):
        mean = (63 * small + 4 * small) / 64
        equal = 5.0 + 64 * mean * 2e-3
        skew.append((64, 1, 0, 0, small, 4 * small, mean, equal, equal + 1e-3 * (4 * small - mean)))
    pd.DataFrame(
        skew, columns=["n", "nb", "pc", "kp", "kvs", "kv_big", "kv_mean", "t_mean_us", "t_skew_us"]
    ).to_csv(folder / "skew.csv", index=False)
    return folder


def test_llmservingsim_is_read(tmp_path: Path) -> None:
    """Known coefficients come back from its CSV files: layers counted right, decodes alone and beside a
    prefill apart, stragglers from skew.csv."""
    llmservingsim_folder(tmp_path / "data" / "tp1")
    made = make(Recipe("rtx-4090", "llama-3-8b", "llmservingsim", "tp1"), tmp_path / "data")
    profile = made.profile
    kernels = 32 * sum(llmservingsim.PER_LAYER.values()) + len(llmservingsim.ONCE)
    assert profile.linear_table(16)[16] == pytest.approx(kernels * 26e-6)
    assert profile.head == pytest.approx(2 * 101e-6)
    assert profile.decode_rows[-1].per_kv_token[2] == pytest.approx(32 * 2e-9, rel=0.01)
    assert profile.mixed_rows[-1].per_kv_token[2] == pytest.approx(32 * 4e-9, rel=0.02)
    assert profile.decode_rows[-1].straggler == pytest.approx(32e-9, rel=0.02)
    assert profile.prefill == pytest.approx(32e-10, rel=0.02)
    assert made.errors["step of mixed"].worst < 0.01
    assert profile.marks() == "assumed: cpu"


def test_vidur_is_read(tmp_path: Path) -> None:
    """Layers from mlp.csv in milliseconds without the fused add; a roofline without an attention.csv."""
    names = [*vidur.PER_LAYER, "emb", "add"]
    frame = pd.DataFrame({f"time_stats.{name}.median": [1.0, 2.0] for name in names})
    frame = frame.assign(num_tokens=[1, 8], num_tensor_parallel_workers=1, n_embd=4096, n_expanded_embd=14336)
    frame.to_csv(tmp_path / "mlp.csv", index=False)
    profile = make(Recipe("a10", "llama-3-8b", "vidur", "."), tmp_path).profile
    assert profile.linear_table(8)[8] == pytest.approx((32 * 8 + 1) * 2e-3)
    assert profile.marks() == "roofline: head, sampler, decode, prefill; assumed: mixed, straggler, cpu"
    with pytest.raises(ValueError, match=r"sizes \[\(4096, 14336\)\] for 1 GPUs; expected \(4096, 11008\)"):
        make(Recipe("a10", "llama-2-7b", "vidur", "."), tmp_path)


def aiconfigurator_folder(folder: Path) -> Path:
    """Products that take n x k x (m + 100) / 10^9 ms, attention and all-reduces in proportion to size."""
    sizes = (512, 2048, 4096, 8192, 16384, 65536)
    tables: dict[str, list[dict[str, object]]] = {
        "gemm/vllm/0.9.0/gemm_perf.parquet": [
            {"gemm_dtype": "bfloat16", "m": m, "n": n, "k": k, "latency": n * k * (m + 100) / 1e9}
            for m in (1, 64, 2048)
            for n in sizes
            for k in sizes
        ],
        "attention/vllm/0.9.0/context_attention_perf.parquet": [
            {"batch_size": b, "isl": s, "step": 0, "latency": 0.01 + b * s * (s + 1) / 2e8}
            for b in (1, 4)
            for s in (16, 256, 1024)
        ],
        "attention/vllm/0.9.0/generation_attention_perf.parquet": [
            {"batch_size": b, "isl": 1, "step": s, "latency": 0.01 + b * (s + 1) / 1e6}
            for b in (1, 64)
            for s in (63, 1023, 4095)
        ],
        "comm/nccl/2.9.1/nccl_perf.parquet": [
            {
                "op_name": "all_reduce",
                "nccl_dtype": "half",
                "num_gpus": 4,
                "message_size": m,
                "latency": m / 1e8,
            }
            for m in (4096, 40960, 409600)
        ],
        "comm/nccl/2.30.0/nccl_perf.parquet": [
            {"op_name": "all_gather", "nccl_dtype": "half", "num_gpus": 4, "message_size": 64, "latency": 9.0}
        ],
    }
    shape = {"num_heads": 8, "num_key_value_heads": 2, "head_dim": 128}
    types = {"attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
    for name, rows in tables.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        extra: dict[str, object] = {**shape, **types} if "attention" in name else {}
        pd.DataFrame([{**row, **extra} for row in rows]).to_parquet(path)
    return folder


def test_aiconfigurator_is_read(tmp_path: Path) -> None:
    """Products between the sizes measured are interpolated, heads divided among GPUs, the newest NCCL table
    with all-reduces is used; steps that do both are taken for the sum."""
    aiconfigurator_folder(tmp_path / "system")
    made = make(Recipe("h100", "llama-3-8b", "aiconfigurator", "system", tensor_parallel=4), tmp_path)
    profile = made.profile
    elementwise = roofline.elementwise(LLAMA, GPUS["h100"], 4)(np.array([64.0]))[0]
    products = 32 * LLAMA.layer_weights(4) * 164 / 1e12
    reduces = 2 * 32 * 64 * 4096 / 1e11
    assert profile.linear_table(64)[64] == pytest.approx(products + elementwise + reduces, rel=0.01)
    assert profile.decode == pytest.approx(32e-9, rel=0.01)
    assert profile.marks() == "roofline: elementwise, sampler; assumed: mixed, straggler, cpu"
    assert profile.basis["communication"] == "measured"
    assert profile.mixed_rows == ()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("b200", "llama-3-8b", "roofline", ""), "gpu='b200' has no data sheet here; there is a10"),
        (Recipe("h100", "gpt-2", "roofline", ""), "model='gpt-2' has no sizes here; there is llama-3-8b"),
        (Recipe("h100", "llama-3-70b", "roofline", "", 4), "no roofline for tensor_parallel=4"),
        (Recipe("h100", "llama-3-70b", "llmservingsim", "", 4), "hold no all-reduce"),
    ],
)
def test_what_cannot_be_fitted_is_refused(recipe: Recipe, message: str, tmp_path: Path) -> None:
    """One sentence that says what there is."""
    with pytest.raises(ValueError, match=message):
        make(recipe, tmp_path)


def test_missing_measurements_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command names the file that is not there."""
    assert main(["fit", "--data", str(tmp_path)]) == 1
    assert f"mlp.csv is not at '{tmp_path}" in " ".join(capsys.readouterr().err.split())
    assert main(["fit", "--source", "vidur", "--gpu", "a10"]) == 1
    assert "--source vidur needs --gpu, --model" in " ".join(capsys.readouterr().err.split())


def test_fit_writes_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command shows errors and marks, and its file is the profile."""
    llmservingsim_folder(tmp_path / "mine")
    arguments = ["fit", "--source", "llmservingsim", "--gpu", "rtx-4090", "--model", "llama-3-8b"]
    assert (
        main([*arguments, "--folder", "mine", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    )
    shown = capsys.readouterr().out
    assert "assumed: cpu" in shown
    assert "step of mixed" in shown
    made = make(Recipe("rtx-4090", "llama-3-8b", "llmservingsim", "mine"), tmp_path).profile
    assert (tmp_path / "out" / "rtx-4090__llama-3-8b__tp1.toml").read_text() == toml.text(made)


def test_profiles_are_listed_with_their_marks(capsys: pytest.CaptureFixture[str]) -> None:
    """Every profile, and what of it is not measured."""
    assert main(["profiles"]) == 0
    shown = capsys.readouterr().out
    for gpu, model, gpus in costs.available():
        assert costs.profile(gpu, model, gpus).marks() in shown


def test_a_fit_needs_two_rows_for_a_line() -> None:
    """A number of decodes measured at one context only is left to its neighbours."""
    rows = roofline.attention(LLAMA, GPUS["h100"])
    rows = rows.where((rows.decodes != 8) | (rows.context == 64))
    measured = Measurements(
        "x", roofline.products(LLAMA, GPUS["h100"]), roofline.head(LLAMA, GPUS["h100"]), rows
    )
    made = fit(measured, gpu="h100", model="x", precision="bf16", tensor_parallel=1, kv_tokens=4e5)
    assert 8 not in [row.decodes for row in made.profile.decode_rows]


def coefficients(profile: costs.Profile) -> list[float]:
    """All numbers of a profile."""
    points = (*profile.linear_points, *profile.head_points, *profile.communication_points)
    rows = (*profile.decode_rows, *profile.mixed_rows)
    terms = profile.prefill_terms
    return [
        *(float(number) for point in points for number in point),
        *(number for row in rows for number in (row.decodes, row.fixed, row.straggler, *row.per_kv_token)),
        *(terms.per_pair, terms.per_key, terms.fixed, terms.per_token, terms.per_grid, profile.cpu),
    ]


@needs_data
@pytest.mark.parametrize("recipe", SHIPPED, ids=lambda recipe: recipe.file)
def test_the_shipped_profile_is_what_the_measurements_give(recipe: Recipe) -> None:
    """The file is the fit's; layers within 1 %, steps of decodes within 1 % (95th percentile 3 %), of
    prefills within 2 % (6 %), of both within 3 % (11 %) on the mean."""
    made = make(recipe, DATA)
    shipped = toml.read(costs.FITTED / recipe.file)
    assert (shipped.basis, shipped.source) == (made.profile.basis, made.profile.source)
    assert coefficients(shipped) == pytest.approx(coefficients(made.profile), rel=1e-3, abs=1e-10)
    assert made.errors["linear"].worst < 0.011
    bounds = {"step of decode": (0.01, 0.03), "step of prefill": (0.02, 0.06), "step of mixed": (0.03, 0.11)}
    for part, (mean, p95) in bounds.items():
        if part in made.errors:
            assert made.errors[part].mean < mean, part
            assert made.errors[part].p95 < p95, part


@needs_data
def test_the_a10_points_are_those_of_its_table() -> None:
    """The published points, which include the add, agree with the raw table within 2.5 %."""
    table = vidur.read_linear(DATA / "profiles" / "vidur_a10_llama3_8b" / "mlp.csv", LLAMA)
    a10 = costs.profile("a10", "llama-3-8b")
    for tokens, seconds in a10.linear_points:
        assert table(np.array([float(tokens)]))[0] == pytest.approx(seconds, rel=0.025), tokens


@needs_data
def test_frontier_is_read() -> None:
    """Frontier's A800 with Llama-2-7B, attention included, gives a profile."""
    made = make(Recipe("a800", "llama-2-7b", "vidur", "profiles/frontier_a800_llama2_7b"), DATA)
    assert made.profile.marks() == "roofline: head, sampler; assumed: mixed, straggler, cpu"
    assert made.errors["step of decode"].mean < 0.02


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    """The file of a profile of four GPUs that nobody ships."""
    profile = replace(
        costs.profile("h100", "llama-3-70b", 4), gpu="mine", model="my-model", tensor_parallel=4
    )
    path = tmp_path / "mine.toml"
    path.write_text(toml.text(profile), "utf-8")
    return path


def test_a_cluster_takes_a_profile_of_ones_own(fitted: Path) -> None:
    """Its file is the gpu; model and GPUs are the file's, also of a single replica; the marks name it; the
    cluster can be hashed and pickled; the run is that of the shipped profile with the same figures."""
    own, shipped = (
        Cluster(replicas=2, gpu=str(fitted)),
        Cluster(replicas=2, gpu="h100", model="llama-3-70b", tensor_parallel=4),
    )
    assert (own.model, own.tensor_parallel) == ("my-model", 4)
    assert pickle.loads(pickle.dumps(own)) == own
    assert hash(own) == hash(Cluster(replicas=2, gpu=str(fitted)))
    workload = Workload.from_arrays(arrival=[0.0, 0.1], prompt_tokens=[100, 3000], output_tokens=[20, 30])
    run, same = (cluster.run(workload, baselines.RoundRobin()) for cluster in (own, shipped))
    assert run.requests["finish"].tolist() == same.requests["finish"].tolist()
    assert run.metrics["gpu_hours"] == 4 * run.metrics["replica_hours"]
    assert list(run.marks) == ["mine x 4 with my-model of mine.toml"]
    mixed = Cluster(replicas=2, each=(Replica(gpu=str(fitted)), Replica()))
    assert list(mixed.marks) == ["mine x 4 with my-model of mine.toml", "a10 with llama-3-8b"]


def test_the_command_line_takes_a_profile_of_ones_own(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--gpu FILE.toml`, and the report names its file."""
    assert main(["run", "--router", "llq", "--gpu", str(fitted), "--rate", "2", "--duration", "10"]) == 0
    assert "mine x 4 with my-model of mine.toml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("tensor_parallel = 4", "tensor_parallel = 0", "tensor_parallel=0; expected a whole number from 1"),
        ('gpu = "mine"', "gpu = 7", "gpu=7; expected text"),
        ("per_pair_us = ", "per_pair_us = -", "per_pair_us=-.*; expected a number from 0"),
        (
            "communication = [",
            "communication = [[1, 2.0], [1, 3.0],",
            "communication's first column=1; expec",
        ),
        ("linear = [", "linear = [[0],", r"linear has the row \[0\]; expected 2 numbers"),
        ('"roofline"', '"guessed"', r"basis \['guessed'\]; expected measured, roofline, assumed"),
        ("[prefill]", "[prefilling]", "KeyError 'prefill'"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(wrong: str, right: str, message: str, fitted: Path) -> None:
    """The error names the file and what is wrong in it."""
    fitted.write_text(fitted.read_text("utf-8").replace(wrong, right), "utf-8")
    with pytest.raises(ValueError, match=rf"mine.toml' is no cost profile: .*{message}"):
        Cluster(gpu=str(fitted))


def test_what_contradicts_a_profiles_file_is_refused(fitted: Path) -> None:
    """Another number of GPUs, another model; a file that is not there; an unknown name says how."""
    with pytest.raises(ValueError, match=r"tensor_parallel=2 with gpu='.*', whose tensor_parallel is 4"):
        Cluster(gpu=str(fitted), tensor_parallel=2)
    with pytest.raises(ValueError, match=r"model='gpt-2' with gpu='.*', whose model is 'my-model'"):
        Replica(gpu=str(fitted), model="gpt-2")
    with pytest.raises(FileNotFoundError, match=r"file is not there: 'none.toml'; `python -m sim fit`"):
        Cluster(gpu="none.toml")
    with pytest.raises(ValueError, match=r"there is gpu='a10'.*give its file as the gpu \('DIR/NAME.toml'\)"):
        Cluster(gpu="b200")
