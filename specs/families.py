"""What the robustness specs ask of each layer, and of a pair of them: the family of worlds, the baseline,
the margins, and how far beyond them a policy is in a world."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim import Autoscaling, workloads
from sim.autoscalers import ThroughputThreshold
from sim.baselines import LeastLoadedQueue
from sim.workloads import Workload
from specs.worlds import KINDS, Day, Episode, Phase, Pick, draw_day, draw_episode

SAVED = Path(__file__).parent / "counterexamples"
"""A file a family: worlds that `specs/hunt.py` found and shrunk."""

KEPT = 0.01
"""Share of the requests that may miss their SLO."""

World = Episode | Day


@dataclass(frozen=True)
class Found:
    """A counterexample: its world, in which policy it was found, and how far beyond the margin that was.

    One that the present candidate does not withstand is `open`: designers are shown it, the specs do not ask
    for it.
    """

    world: World
    found_in: str
    measured: str
    open: bool = False


@dataclass(frozen=True)
class Family:
    """The worlds of one layer or pair, and what is asked there.

    `candidates` has the file of each policy that is judged, by its layer; `baseline` makes the policies that
    it is compared with, those of layers without a candidate included. `clusters` has the settings of each,
    by name; `elsewhere` those of clusters that no spec asks about, where weaknesses are known. `compared`
    has the margins by metric: a ratio to the baseline's may be larger than 1 by so much, `slo_violations` by
    so many shares than the baseline's or than 1 %. `silence` is for how many seconds nothing comes between
    two worlds of one run.
    """

    name: str
    candidates: Mapping[str, str]
    baseline: Callable[[], Mapping[str, Any]]
    clusters: Mapping[str, Mapping[str, Any]]
    elsewhere: Mapping[str, Mapping[str, Any]]
    compared: Mapping[str, float]
    draw: Callable[[Pick, str], World]
    silence: float

    def settings(self, cluster: str) -> Mapping[str, Any]:
        """Of a cluster of either kind; ValueError if there is none of this name."""
        known = {**self.clusters, **self.elsewhere}
        if cluster not in known:
            raise ValueError(
                f"no cluster of the family {self.name} is called {cluster!r}; expected one of "
                f"{', '.join(known)}"
            )
        return known[cluster]

    def worlds(self, cluster: str, seed: int, count: int) -> list[World]:
        """What a replication serves at this cluster: all that was saved and is not open, then so many that
        the seed draws."""
        saved = [each.world for each in self.saved() if each.world.cluster == cluster and not each.open]
        pick = by_seed(seed)
        return [*saved, *(self.draw(pick, cluster) for _ in range(count))]

    def judge(self, cluster: Any, worlds: Sequence[World], policies: Mapping[str, Any]) -> dict[str, float]:
        """How far beyond its margins these policies, by layer, are in these worlds of one cluster, which they
        serve in one run: see `asked`."""
        workload, starts = one_run(worlds, self.silence)
        base = cluster.run(workload, **self.baseline())
        run = cluster.run(workload, **{**self.baseline(), **policies})
        return asked(self.compared, run, base, starts)

    def saved(self) -> list[Found]:
        """The counterexamples of this family, in the order of their file."""
        file = SAVED / f"{self.name}.json"
        return [_read(row) for row in json.loads(file.read_text("utf-8"))] if file.is_file() else []

    def keep(self, found: Found) -> None:
        """Add a counterexample to the file, one a line."""
        rows = [_row(each) for each in [*self.saved(), found]]
        SAVED.mkdir(exist_ok=True)
        text = ",\n".join(json.dumps(row) for row in rows)
        (SAVED / f"{self.name}.json").write_text(f"[\n{text}\n]\n", "utf-8")


def one_run(worlds: Sequence[World], silence: float) -> tuple[Workload, np.ndarray]:
    """The worlds one after another, so many seconds between them, and the number of each one's first request.

    So a policy that remembers keeps what it has learnt, as it would at work, and its clock never goes back.
    """
    parts = [world.workload() for world in worlds]
    lasting = [float(part.arrival[-1]) + silence for part in parts]
    begins = np.cumsum([0.0, *lasting[:-1]])
    shifted = [
        workloads.select(part, np.arange(len(part)), part.arrival + begin)
        for part, begin in zip(parts, begins, strict=True)
    ]
    return workloads.merge(*shifted), np.cumsum([0, *(len(part) for part in parts[:-1])])


def asked(compared: Mapping[str, float], run: Any, base: Any, starts: np.ndarray) -> dict[str, float]:
    """What a replication of a robustness spec reports, over the worlds whose first requests these are.

    `beyond_margin`: of the worst world and metric, the logarithm of its ratio over that of the margin, or the
    share of violations above it; 0 where all are within. `worlds_beyond`: the share of worlds in which
    something is. `worst_METRIC`: the largest ratio, or difference of shares.
    """
    found: dict[str, float] = {}
    beyond = np.zeros(len(starts))
    for metric, margin in compared.items():
        if metric == "slo_violations":
            above = _mean(_violates(run), starts) - np.maximum(_mean(_violates(base), starts), KEPT)
            over = above - margin
        else:
            above = _ratios(metric, run, base, starts)
            over = np.log(np.maximum(above, 1e-9) / (1 + margin))
        found[f"worst_{metric}"] = float(above.max())
        beyond = np.maximum(beyond, over)
    return {"beyond_margin": float(beyond.max()), "worlds_beyond": float((beyond > 0).mean()), **found}


def _ratios(metric: str, run: Any, base: Any, starts: np.ndarray) -> np.ndarray:
    """To the baseline's, one a world; GPU-hours are those of the whole run, and count half where the baseline
    does not keep the SLO: to keep it may cost more than that pays, but not anything."""
    if metric == "gpu_hours":
        kept = _violates(base).mean() < KEPT
        return np.full(len(starts), run.metrics[metric] / base.metrics[metric] * (1.0 if kept else 0.5))
    end = {"response_time": "finish", "ttft": "first_token"}[metric]
    ours, theirs = (_mean(each.requests[end] - each.requests["arrival"], starts) for each in (run, base))
    return np.asarray(np.where(np.isfinite(ours), ours, np.inf) / theirs)


def _violates(run: Any) -> Any:
    """Of each request, whether it missed its SLO, or never finished."""
    requests = run.requests
    late = requests["first_token"] - requests["arrival"] > requests["ttft_slo"]
    decoding = requests["finish"] - requests["first_token"]
    slow = decoding > requests["tpot_slo"] * (requests["output_tokens"] - 1)
    return late | slow | ~np.isfinite(requests["finish"])


def _mean(values: np.ndarray, starts: np.ndarray) -> Any:
    return np.add.reduceat(values.astype(float), starts) / np.diff(starts, append=len(values))


def by_seed(seed: int) -> Pick:
    """Picks that only the seed decides."""
    rng = np.random.default_rng(seed)
    return lambda low, high: int(rng.integers(low, high + 1))


def _row(found: Found) -> dict[str, Any]:
    kind = type(found.world).__name__
    return {**asdict(found), "world": {"kind": kind, **asdict(found.world)}}


def _read(row: Mapping[str, Any]) -> Found:
    world: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in row["world"].items()
    }
    if world.pop("kind") == "Episode":
        return Found(**{**row, "world": Episode(**world)})
    phases = tuple(Phase(**phase) for phase in world.pop("phases"))
    return Found(**{**row, "world": Day(phases=phases, **world)})


class Tuned(ThroughputThreshold):
    """The autoscaler that `specs/test_autoscaler.py` compares with."""

    def __init__(self) -> None:
        super().__init__(per_replica=0.525, window=60.0)


def _one_replica(**settings: int) -> dict[str, Any]:
    return {"replicas": 1, "engine": "vllm", **settings}


_SCALED: Mapping[str, Any] = {
    "replicas": 4,
    "kv_blocks": 2240,
    "engine": "vllm",
    "max_num_batched_tokens": 2048,
    "autoscaling": Autoscaling(max_replicas=32, interval=5, provisioning_time=10, load_time=20),
}

_LONG = 7200.0
"""Seconds after which what was left of an episode has long been served."""

_LISTED = (
    Family(
        name="router",
        candidates={"router": "candidates/router.py"},
        baseline=lambda: {"router": LeastLoadedQueue()},
        clusters={
            "four": {"replicas": 4, "kv_blocks": 2240},
            "one": {"replicas": 1, "kv_blocks": 1120},
            "tight": {"replicas": 2, "kv_blocks": 640},
            "vllm": {"replicas": 3, "kv_blocks": 900, "engine": "vllm", "max_num_batched_tokens": 2048},
        },
        elsewhere={},
        compared={"response_time": 0.25},
        draw=draw_episode,
        silence=_LONG,
    ),
    Family(
        name="scheduler",
        candidates={"scheduler": "candidates/scheduler.py"},
        baseline=lambda: {"router": LeastLoadedQueue()},
        clusters={
            "a100": {
                "gpu": "a100-80g",
                "kv_blocks": 28_615,
                "max_num_seqs": 256,
                **_one_replica(max_num_batched_tokens=2048),
            },
            "small-steps": {"kv_blocks": 2240, **_one_replica(max_num_batched_tokens=512)},
        },
        elsewhere={"tight": {"kv_blocks": 640, **_one_replica(max_num_batched_tokens=2048)}},
        compared={"ttft": 0.15, "response_time": 0.10},
        draw=draw_episode,
        silence=_LONG,
    ),
    Family(
        name="pair",
        candidates={"router": "candidates/pair/router.py", "scheduler": "candidates/pair/scheduler.py"},
        baseline=lambda: {"router": LeastLoadedQueue()},
        clusters={
            "four-vllm": {"replicas": 4, "kv_blocks": 2240, "engine": "vllm", "prefix_caching": False},
        },
        elsewhere={
            "tight-vllm": {"replicas": 2, "kv_blocks": 640, "engine": "vllm", "prefix_caching": False},
        },
        compared={"response_time": 0.25},
        draw=draw_episode,
        silence=_LONG,
    ),
    Family(
        name="autoscaler",
        candidates={"autoscaler": "candidates/autoscaler.py"},
        baseline=lambda: {"router": LeastLoadedQueue(), "autoscaler": Tuned()},
        clusters={"soon": _SCALED},
        elsewhere={"code": _SCALED},
        compared={"slo_violations": 0.15, "gpu_hours": 0.10},
        draw=lambda pick, cluster: draw_day(pick, cluster, KINDS if cluster == "code" else ("chat", "jobs")),
        silence=600.0,  # of every day the same, and paid for
    ),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in _LISTED}
"""By name."""
