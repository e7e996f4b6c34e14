"""The cluster: its settings, checked, and how a workload is run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim import costs
from sim.costs.step import SERIAL_CPU
from sim.policies import Router
from sim.results import Run, collect
from sim.scaling import Autoscaler, Autoscaling, Failure
from sim.scenarios import scenario, scenario_here
from sim.scheduling import BatchScheduler
from sim.settings import check
from sim.workloads import ClosedWorkload, Workload
from sim.worlds import workload_here

if TYPE_CHECKING:
    from sim.state import State

_Table = NDArray[np.float64]
_Costs = tuple[_Table, _Table, _Table, _Table]

__all__ = ["Cluster", "Replica", "warm_up"]

_RANGES: dict[str, tuple[float, float, str]] = {
    "replicas": (1, 10_000, "replicas"),
    "tensor_parallel": (1, 1024, "GPUs per replica"),
    "kv_blocks": (2, 10**9, "blocks per replica"),
    "block_size": (1, 65_536, "tokens per block"),
    "max_num_seqs": (1, 65_536, "requests per batch"),
    "max_num_batched_tokens": (1, 10**6, "tokens per step"),
    "long_prefill_token_threshold": (0, 10**6, "tokens per request and step"),
    "watermark": (0.0, 0.5, "as a fraction of the blocks"),
    "time_scale": (1e-6, 1e6, "times the profile's GPU time"),
    "step_overhead": (0.0, 10.0, "seconds per step"),
    "staleness": (0.0, 3600.0, "seconds between two publications"),
}
_KIND = ("gpu", "model", "tensor_parallel", "time_scale", "max_num_seqs", "max_num_batched_tokens")
"""What the costs of a step hang on, sizes of CUDA graphs included."""
_LEAST_STALENESS = 1e-3
_CHOICES = {"engine": ("sarathi", "vllm"), "scheduling_policy": ("fcfs", "priority")}


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica has other than the cluster's settings say; None for what it has alike."""

    gpu: str | None = None
    model: str | None = None
    tensor_parallel: int | None = None
    kv_blocks: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    time_scale: float | None = None

    def __post_init__(self) -> None:
        _check_fields(self)
        _take_from_file(self)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Replicas of one LLM behind a router; ValueError if a setting is out of its range."""

    replicas: int = 4
    gpu: str = "a10"
    """With `model` and `tensor_parallel`, names a cost profile of `sim.costs`; or a profile's file,
    `mine.toml`, relative to the current folder, and `model` and `tensor_parallel` are those of the file."""
    model: str = "llama-3-8b"
    tensor_parallel: int = 1
    """GPUs of each replica, over which the model's layers are split; a replica costs so many."""
    kv_blocks: int = 2240
    """KV blocks of each replica; vLLM keeps one of them for itself."""
    block_size: int = 16
    """Tokens per KV block."""
    max_num_seqs: int = 128
    """Requests in a running batch at most."""
    max_num_batched_tokens: int = 8192
    """Token budget of a step."""
    watermark: float | None = None
    """Fraction of the blocks that an admission to the batch must leave free; None for what the engine has:
    0.01 in Sarathi and 0 in vLLM."""
    time_scale: float = 1.0
    """Factor on all GPU time, on top of the profile's own: 1.05 is a GPU that takes 5 % longer."""
    engine: str = "sarathi"
    """"sarathi" (`sim.sarathi`) or "vllm" (vLLM v1, `sim.vllm`)."""
    scheduling_policy: str = "fcfs"
    """vLLM's: "fcfs", or "priority" (lower values of a request's priority first)."""
    prefix_caching: bool | None = None
    """vLLM's prefix caching; None for what the engine has: on in vLLM, and Sarathi has none."""
    full_prompt_must_fit: bool = True
    """vLLM's `scheduler_reserve_full_isl`: admit a request only if its whole prompt fits, not just its first
    chunk."""
    chunked_prefill: bool = True
    """vLLM's: admit a request with as many of its tokens as the budget has left; else only with all, and
    those of more tokens than a step's budget, outputs included, are rejected (vLLM's `max_model_len`)."""
    long_prefill_token_threshold: int = 0
    """vLLM's: tokens of one request in a step at most, while there are others; 0 for no such cap."""
    step_overhead: float = 0.0
    """CPU time of each step in seconds, on top of the GPU's: scheduling, launching, sampling."""
    each: tuple[Replica, ...] = ()
    """Settings of single replicas, one entry a replica (`autoscaling.max_replicas` in all); () if all are
    alike."""
    autoscaling: Autoscaling | None = None
    """How the cluster scales under an autoscaler, from `replicas` at the start."""
    failures: tuple[Failure, ...] = ()
    """Replicas that fail and come back."""
    staleness: float = 0.0
    """Seconds between two publications of what a router sees, as scraped metrics are, at least 0.001; 0 for
    live views. In between a router knows only which requests have arrived, which it has sent and which have
    completed."""

    engine_waits: bool = True
    """Whether a replica whose step has completed requests starts its next step after the router was asked;
    False: at once, as a real engine does, so that what the router sends then joins the step after that."""

    def __post_init__(self) -> None:
        _check_fields(self)
        if 0 < self.staleness < _LEAST_STALENESS:
            raise ValueError(
                f"staleness={self.staleness!r}; expected 0 for live views, or at least {_LEAST_STALENESS} "
                "seconds between two publications"
            )
        _take_from_file(self)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; expected one of {', '.join(map(repr, choices))}"
                )
        for name in ("prefix_caching", "full_prompt_must_fit", "chunked_prefill", "engine_waits"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (value is None and name == "prefix_caching"):
                raise ValueError(f"{name}={value!r}; expected True or False")
        if self.engine == "sarathi" and (self.prefix_caching or self.scheduling_policy == "priority"):
            raise ValueError(
                f"prefix_caching={self.prefix_caching!r} and scheduling_policy={self.scheduling_policy!r} "
                "with engine='sarathi', which has neither prefix caching nor priorities; choose engine='vllm'"
            )
        if self.engine == "sarathi" and (not self.chunked_prefill or self.long_prefill_token_threshold):
            raise ValueError(
                f"chunked_prefill={self.chunked_prefill!r} and long_prefill_token_threshold="
                f"{self.long_prefill_token_threshold!r} with engine='sarathi', which has no such settings; "
                "choose engine='vllm'"
            )
        if not isinstance(self.each, tuple) or not all(isinstance(one, Replica) for one in self.each):
            raise ValueError(f"each={self.each!r}; expected a tuple of sim.Replica, one per replica")
        if self.autoscaling is not None and not isinstance(self.autoscaling, Autoscaling):
            raise ValueError(f"autoscaling={self.autoscaling!r}; expected sim.Autoscaling(...) or None")
        if self.replicas > self.size:
            raise ValueError(
                f"replicas={self.replicas!r} with autoscaling of max_replicas={self.size}; expected at most "
                "so many at the start"
            )
        if self.each and len(self.each) != self.size:
            raise ValueError(
                f"each has {len(self.each)} entries; expected one per replica, {self.size} in all"
            )
        if not isinstance(self.failures, tuple):
            raise ValueError(f"failures={self.failures!r}; expected a tuple of sim.Failure")
        for failure in self.failures:
            if not isinstance(failure, Failure) or failure.replica >= self.size:
                raise ValueError(
                    f"failures holds {failure!r}; expected sim.Failure(replica=..., at=...) of a replica "
                    f"from 0 to {self.size - 1}"
                )
        costs.profile(self.gpu, self.model, self.tensor_parallel)
        for index in range(len(self.each)):
            self._profile(index)

    @property
    def caches_prefixes(self) -> bool:
        """Whether prefixes are cached."""
        return self.engine == "vllm" if self.prefix_caching is None else self.prefix_caching

    def setting(self, replica: int, name: str) -> Any:
        """A setting as one replica has it."""
        own = getattr(self.each[replica], name) if self.each else None
        return getattr(self, name) if own is None else own

    def run(
        self,
        workload: Workload | ClosedWorkload,
        router: Router,
        scheduler: BatchScheduler | None = None,
        autoscaler: Autoscaler | None = None,
        *,
        horizon: float | None = None,
    ) -> Run:
        """Run the workload to its end, or to the horizon (seconds), under a router (see `sim.policies`), a
        batch scheduler (`sim.scheduling`) in place of the engine's own rule, and an autoscaler
        (`sim.scaling`).

        The requests of a closed loop arrive as others finish; one that was rejected has finished, too. Those
        that did not arrive before the horizon are not in the run.

        Requests too long for a replica's KV cache are rejected and counted: at once if they fit nowhere, else
        by the replica that they are sent to. Raises PolicyError, showing the call, if a policy breaks its
        protocol, raises, or leaves requests waiting for ever; ValueError if there is a batch scheduler and
        the engine is not vLLM's.
        """
        from sim.apart import observed
        from sim.conversation import converse  # imports Numba, which a client of the types need not have
        from sim.fleet import Fleet
        from sim.planning import Planner
        from sim.routing import Dispatch, most_blocks
        from sim.state import MAX_NUM_BATCHED_TOKENS, NOW

        if scheduler is not None and self.engine != "vllm":
            raise ValueError(
                f"a batch scheduler with engine={self.engine!r}; expected engine='vllm', whose blocks are "
                "taken as tokens are scheduled (sim.schedulers.Sarathi is Sarathi's rule there)"
            )
        clients = None
        if not isinstance(workload, Workload | ClosedWorkload):
            raise ValueError(
                f"workload={workload!r:.40}; expected sim.Workload, or what ClosedLoop.workload(seed) gives"
            )
        policies = {"router": router, "scheduler": scheduler, "autoscaler": autoscaler}
        changed = scenario_here(self, workload)
        if changed != (self, workload):
            with scenario({}):
                return changed[0].run(changed[1], router, scheduler, autoscaler, horizon=horizon)
        workload = workload_here(self, workload, policies, horizon)
        if isinstance(workload, ClosedWorkload):
            clients, workload = workload.clients(), workload.requests
        if horizon is not None:
            check("horizon", horizon, 1e-9, 1e12, "seconds", whole=False)
        if autoscaler is not None and self.autoscaling is None:
            raise ValueError(
                "an autoscaler and autoscaling=None; expected sim.Autoscaling(...) in the cluster"
            )
        state = self.state(workload, planned=scheduler is not None)
        # The last token is never cached, also when a request restarts just before it.
        tokens = workload.prompt_tokens + workload.output_tokens
        needed = -(-(tokens - 1) // self.block_size)
        if not self.chunked_prefill:
            needed[tokens > state.limits[:, MAX_NUM_BATCHED_TOKENS].min()] = 2**62  # it fits no cache
        room = min(map(most_blocks, state.limits))
        dispatch = Dispatch(state, workload, needed.tolist() if needed.max(initial=0) > room else None)
        planner = None if scheduler is None else Planner(state, dispatch.views, scheduler)
        fleet = None
        if self.failures or autoscaler is not None or horizon is not None:
            fleet = Fleet(
                state,
                dispatch,
                replicas=self.replicas,
                failures=self.failures,
                autoscaling=self.autoscaling,
                autoscaler=autoscaler,
                horizon=horizon,
            )
        elif self.size > self.replicas:
            dispatch.accept(range(self.replicas))
        with observed(state, dispatch, router):
            calls, longest = converse(state, router, dispatch, planner, fleet, clients)
        begin, end = float(state.arrival[0]) if len(workload) else 0.0, float(state.clock[NOW])
        paid = (
            [end - begin] * self.replicas + [0.0] * (self.size - self.replicas)
            if fleet is None
            else fleet.paid(begin, end)
        )
        return collect(
            state,
            alone=self._alone(state.limits, (state.linear, state.head, state.decode, state.rates), workload),
            slo=(workload.ttft_slo, workload.tpot_slo),
            gpus=[self.setting(index, "tensor_parallel") for index in range(self.size)],
            paid=paid,
            marks=self.marks,
            counts={
                "replicas": self.replicas,
                "router_calls": calls,
                "scheduler_calls": 0 if planner is None else planner.calls,
                "autoscaler_calls": 0 if fleet is None else fleet.calls,
                "requeued": 0 if fleet is None else fleet.requeued,
                "queue_max": longest,
            },
            statuses=[(0.0, (self.replicas, 0, 0, 0))] if fleet is None else fleet.statuses,
        )

    def state(self, workload: Workload, *, planned: bool) -> State:
        """The arrays of a run before its first event; `planned` if a batch scheduler makes its plans."""
        from sim.prefixes import contents
        from sim.state import GOES_ON, PERIOD, PLANNED, new_state

        limits, tables = self._limits()
        limits[:, PLANNED] = planned
        tokens = workload.prompt_tokens + workload.output_tokens
        state = new_state(
            workload.arrival,
            workload.prompt_tokens,
            workload.output_tokens,
            workload.priority,
            limits=limits,
            costs=tables,
            contents=contents(workload.prefixes, tokens, self.block_size) if self.caches_prefixes else None,
            stale=self.staleness > 0,
        )
        state.clock[PERIOD] = self.staleness
        state.turn[GOES_ON] = not self.engine_waits
        return state

    @property
    def size(self) -> int:
        """Replicas at most."""
        return self.replicas if self.autoscaling is None else self.autoscaling.max_replicas

    @property
    def marks(self) -> Mapping[str, str]:
        """By name of each cost profile in use, what of it is not measured (`sim.costs.Profile.marks`)."""
        marks = {}
        for index in range(len(self.each) or 1):
            profile, gpu = self._profile(index), self.setting(index, "gpu")
            name = profile.name + (f" of {Path(gpu).name}" if costs.is_file(gpu) else "")
            marks[name] = profile.marks()
        return marks

    def _profile(self, replica: int) -> costs.Profile:
        return costs.profile(*(self.setting(replica, name) for name in ("gpu", "model", "tensor_parallel")))

    def watermark_of(self, kv_blocks: int) -> int:
        """Of so many blocks those that an admission must leave free."""
        fraction = self.watermark
        if fraction is None:
            fraction = 0.01 if self.engine == "sarathi" else 0.0
        return int(fraction * kv_blocks)

    def tables(self, replica: int) -> costs.Tables:
        """What a step costs on that replica; vLLM's CPU work runs beside the GPU's."""
        tokens, requests, scale = (
            self.setting(replica, name) for name in ("max_num_batched_tokens", "max_num_seqs", "time_scale")
        )
        found = self._profile(replica).tables(tokens, requests, scale, async_scheduling=self.engine == "vllm")
        found.rates[SERIAL_CPU] += self.step_overhead
        return found

    def _alone(self, limits: NDArray[np.int64], tables: _Costs, workload: Workload) -> _Table:
        """Response time of each request alone on an idle replica, of those that differ on the fastest; in
        seconds."""
        from sim import state as layout
        from sim.alone import response_times

        kinds, first = np.unique(limits[:, layout.PROFILE], return_index=True)
        seconds: _Table = np.min(
            [
                response_times(
                    costs.Tables(*(table[kind] for table in tables)),
                    int(budget),
                    workload.prompt_tokens,
                    workload.output_tokens,
                )
                for kind, budget in zip(kinds, limits[first, layout.MAX_NUM_BATCHED_TOKENS], strict=True)
            ],
            axis=0,
        )
        return seconds

    def _limits(self) -> tuple[NDArray[np.int64], _Costs]:
        """`limits` of a run's state (see `sim.state`), and its tables of costs by profile."""
        from sim import state as layout

        vllm = self.engine == "vllm"
        limits = np.zeros((self.size, layout.LIMITS), np.int64)
        profiles: dict[tuple[Any, ...], int] = {}
        tables: list[costs.Tables] = []
        for index, row in enumerate(limits):
            kv_blocks = self.setting(index, "kv_blocks")
            kind = tuple(self.setting(index, name) for name in _KIND)
            row[layout.KV_BLOCKS] = kv_blocks - 1 if vllm else kv_blocks
            row[layout.BLOCK_SIZE] = self.block_size
            row[layout.MAX_NUM_SEQS] = self.setting(index, "max_num_seqs")
            row[layout.MAX_NUM_BATCHED_TOKENS] = self.setting(index, "max_num_batched_tokens")
            row[layout.WATERMARK_BLOCKS] = self.watermark_of(kv_blocks)
            row[layout.ENGINE] = layout.VLLM if vllm else layout.SARATHI
            if kind not in profiles:
                profiles[kind] = len(profiles)
                tables.append(self.tables(index))
            row[layout.PROFILE] = profiles[kind]
            row[layout.FULL_FIT] = self.full_prompt_must_fit
            row[layout.BY_PRIORITY] = self.scheduling_policy == "priority"
            row[layout.CACHING] = self.caches_prefixes
            row[layout.CHUNKED] = self.chunked_prefill
            row[layout.LONG_PREFILL] = (
                self.long_prefill_token_threshold or _RANGES["max_num_batched_tokens"][1]
            )
        linear, head, decode, rates = map(_stacked, zip(*tables, strict=True))
        return limits, (linear, head, decode, rates)


def _stacked(tables: Sequence[_Table]) -> _Table:
    """One table after another, the shorter ones filled up with zeros, which nobody looks up."""
    stacked = np.zeros((len(tables), max(map(len, tables)), *tables[0].shape[1:]))
    for row, table in zip(stacked, tables, strict=True):
        row[: len(table)] = table
    return stacked


def _check_fields(settings: Cluster | Replica) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("gpu", "model") and not isinstance(value, str | NoneType):
            raise ValueError(
                f"{field.name}={value!r}; expected a name (`python -m sim profiles` lists them)"
                + (" or a profile's file, 'NAME.toml'" if field.name == "gpu" else "")
            )
        if field.name in _RANGES and not (value is None and "None" in str(field.type)):
            low, high, unit = _RANGES[field.name]
            check(field.name, value, low, high, unit, whole=str(field.type).startswith("int"))


def _take_from_file(settings: Cluster | Replica) -> None:
    """Where the GPU is a profile's file: its model and number of GPUs; ValueError if others were given."""
    if settings.gpu is None or not costs.is_file(settings.gpu):
        return
    profile = costs.profile(settings.gpu, "")
    for field in fields(settings):
        if field.name in ("model", "tensor_parallel"):
            given, has = getattr(settings, field.name), getattr(profile, field.name)
            if given not in (field.default, has):
                raise ValueError(
                    f"{field.name}={given!r} with gpu={settings.gpu!r}, whose {field.name} is {has!r}; "
                    "leave it out"
                )
            object.__setattr__(settings, field.name, has)


def warm_up(*, replays: bool = False) -> None:
    """Compile the simulator's core, or load it from the disk cache, so that no later run has to; if
    `replays`, also what replays recorded routing (`sim.recording`) and asks elsewhere (`sim.apart`)."""
    from sim.baselines import RoundRobin
    from sim.recording import Recorder, recording

    cluster, recorder = Cluster(replicas=1), Recorder(RoundRobin())
    workload = Workload.from_arrays(arrival=[0.0], prompt_tokens=[1], output_tokens=[2])
    cluster.run(workload, recorder.policy)
    if replays:
        from sim.apart import answering, asking

        cluster.run(workload, recording(recorder.log()).policy)
        cluster.run(workload, asking(answering(RoundRobin())))
