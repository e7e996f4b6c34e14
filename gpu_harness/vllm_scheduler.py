"""vLLM's own scheduler with its steps planned by a batch scheduler of `sim.scheduling`.

    GLIA_BATCH_SCHEDULER=candidates/scheduler.py python -m vllm.entrypoints.openai.api_server --model MODEL \
        --no-async-scheduling --scheduler-cls gpu_harness.vllm_scheduler.PlannedScheduler

or, in process, `EngineArgs(scheduler_cls=planned_by(ShortestPromptFirst), async_scheduling=False)`. A plan
states differences: its evictions are made first, then vLLM's own `schedule` runs, over the planned admissions
and within the planned token counts. Written for vLLM 0.32, whose scheduler is no public interface.
"""

# mypy: disable-error-code="misc,no-any-return"
from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from typing import Any

from gpu_harness.installed import WRITTEN_FOR, vllm_version

VERSION = vllm_version()  # before vLLM is imported, for it says what to install

from vllm.v1.core.sched.request_queue import FCFSRequestQueue  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.request import Request, RequestStatus  # noqa: E402

from gpu_harness.plans import Checked, checked  # noqa: E402
from gpu_harness.vllm_views import VllmEngine, VllmRequest, note_eviction, request_of  # noqa: E402
from sim.layers import policy  # noqa: E402
from sim.planning import plans_decodes  # noqa: E402
from sim.scheduling import BatchScheduler  # noqa: E402

__all__ = ["PlannedScheduler", "planned_by"]

CANDIDATE = "GLIA_BATCH_SCHEDULER"
log = logging.getLogger("vllm.gpu_harness")  # below vLLM's logger, so that a server shows it


class _Admissions(FCFSRequestQueue):
    """The planned part of a waiting queue, in the plan's order; what vLLM puts back joins the whole."""

    def __init__(self, admit: list[Request], whole: Any) -> None:
        super().__init__(admit)
        self._whole, self._taken = whole, 0

    def pop_request(self) -> Request:
        self._taken += 1
        return super().pop_request()

    def prepend_request(self, request: Request) -> None:
        self._whole.prepend_request(request)

    def prepend_requests(self, requests: Any) -> None:
        self._taken -= len(requests)  # skipped: they have kept their places

    def __len__(self) -> int:
        return len(self._whole) - self._taken

    def __bool__(self) -> bool:
        return deque.__len__(self) > 0


class PlannedScheduler(Scheduler):
    """vLLM's scheduler (v1) under a batch scheduler, that of GLIA_BATCH_SCHEDULER unless a subclass makes it.

    Where the batch scheduler raises, gives a plan that cannot be followed, or stalls, vLLM's own rule
    decides: for that step, and after a stall until a request has got a token. A stall is `patience` seconds
    of empty batches while there are requests, or `barren` steps with evictions in which no request got a
    token.
    `fallbacks` counts these by kind ("raised", "stalled"), and they are logged.

    ValueError if asynchronous scheduling is on, or no candidate is named.
    """

    waiting: Any  # vLLM's queue
    patience = 5.0
    barren = 1000
    clock: Callable[[], float] = staticmethod(time.time)  # vLLM's arrival times are on it

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if self.scheduler_config.async_scheduling:
            raise ValueError(
                "async_scheduling=True, which forms a batch before the last one's tokens are known; expected "
                "--no-async-scheduling (EngineArgs(async_scheduling=False)) under a batch scheduler"
            )
        if not hasattr(Scheduler, "_reserve_prefill_lookahead"):
            raise ImportError(
                f"vLLM {VERSION} has another scheduler than {WRITTEN_FOR}, for which this is written"
            )
        self.candidate = self.make_candidate()
        self._plans_decodes = plans_decodes(self.candidate)
        self.fallbacks: Counter[str] = Counter()
        self.steps_planned = 0
        self._began = self.clock()
        self._views: dict[str, VllmRequest] = {}
        self._engine = VllmEngine(self, self._views)
        self._ids = count()
        self._counts: dict[str, int] = {}
        self._given: dict[str, int] = {}
        self._rest = self._most = 0
        self._chunked = True
        self._empty_since: float | None = None
        self._evicting = 0
        self._own_rule = False

    def make_candidate(self) -> BatchScheduler:
        """The batch scheduler that plans; ValueError if GLIA_BATCH_SCHEDULER names none."""
        named = os.environ.get(CANDIDATE)
        if not named:
            raise ValueError(f"{CANDIDATE}={named!r}; expected FILE.py[:CLASS] or a name of sim.schedulers")
        found = policy("scheduler", named)
        if found.is_oracle:
            raise ValueError(
                f"{CANDIDATE}={named!r} is an oracle, which no real engine can tell output lengths"
            )
        made: BatchScheduler = found.new(None, seed=0)  # type: ignore[arg-type]
        return made

    def add_request(self, request: Request) -> None:
        """As vLLM's."""
        if request.request_id not in self.requests:
            self._views[request.request_id] = VllmRequest(
                next(self._ids),
                request.arrival_time - self._began,
                request,
                self.kv_cache_manager.get_blocks,
            )
        super().add_request(request)

    def schedule(self, *arguments: Any, **settings: Any) -> Any:
        """The next step, by the plan where there is one."""
        for name in self.finished_req_ids:
            self._views.pop(name, None)
        now = self.clock() - self._began
        plan = self._ask(now) if self._views and not self._own_rule and self._asks_for_plan() else None
        if plan is None:
            return super().schedule(*arguments, **settings)
        self.steps_planned += 1
        output = self._follow(plan, *arguments, **settings)
        self._watch(plan, output.total_num_scheduled_tokens == 0, now)
        return output

    def update_from_output(self, *arguments: Any, **settings: Any) -> Any:
        """As vLLM's; a token ends a stall."""
        outputs = super().update_from_output(*arguments, **settings)
        if any(each.outputs for each in outputs.values()):
            self._evicting, self._own_rule = 0, False
        return outputs

    def _asks_for_plan(self) -> bool:
        engine = self._engine
        return (
            self._plans_decodes
            or len(engine.waiting) > 0
            or any(request.prefilling for request in engine.running)
        )

    def _ask(self, now: float) -> Checked | None:
        try:
            return checked(self.candidate.plan(self._engine, now), self._engine)
        except Exception as error:
            self._fell_back("raised", f"{type(error).__name__}: {error}")
            return None

    def _fell_back(self, kind: str, why: str) -> None:
        """Count it, and log the first, the tenth, the hundredth ... of its kind."""
        self.fallbacks[kind] += 1
        number = self.fallbacks[kind]
        if number == 10 ** (len(str(number)) - 1):
            log.warning(
                "%s %s (time %d); vLLM's own rule decides: %s",
                type(self.candidate).__name__,
                kind,
                number,
                why,
            )

    def _watch(self, plan: Checked, empty: bool, now: float) -> None:
        """Notice a stall."""
        self._evicting += bool(plan.evict)
        if not empty:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        idle = 0.0 if self._empty_since is None else now - self._empty_since
        if idle >= self.patience or self._evicting >= self.barren:
            self._fell_back(
                "stalled", f"{idle:.1f} s of empty batches, {self._evicting} steps with evictions"
            )
            self._own_rule, self._empty_since, self._evicting = True, None, 0

    def _follow(self, plan: Checked, *arguments: Any, **settings: Any) -> Any:
        by_id = {view.id: request_of(view) for view in self._views.values()}
        for each in plan.evict:
            request = by_id[each]
            self.running.remove(request)
            self._preempt_request(request, time.monotonic())
        whole, config = self.waiting, self.scheduler_config
        chunked, threshold = config.enable_chunked_prefill, config.long_prefill_token_threshold
        admit = None if plan.admit is None else [by_id[each] for each in plan.admit]
        if admit is not None:
            self.waiting = _Admissions(admit, whole)
        if plan.tokens:
            self._counts = {by_id[each].request_id: tokens for each, tokens in plan.tokens.items()}
            self._rest = self.max_num_scheduled_tokens - sum(plan.tokens.values())
            beside = threshold > 0 and sum(self.get_request_counts()) > 1
            self._most = threshold if beside else self.max_num_scheduled_tokens
            self._chunked = chunked
            # Both are for requests whose tokens the plan leaves to vLLM: see `_reserve_prefill_lookahead`.
            config.enable_chunked_prefill, config.long_prefill_token_threshold = True, 0
        try:
            return super().schedule(*arguments, **settings)
        finally:
            self.waiting = whole
            config.enable_chunked_prefill, config.long_prefill_token_threshold = chunked, threshold
            self._counts, self._given = {}, {}
            if admit is not None:
                whole.remove_requests({each for each in admit if each.status == RequestStatus.RUNNING})

    def _reserve_prefill_lookahead(self, request: Request, computed: int, tokens: int) -> int:
        """Where vLLM's `schedule` has the last word on a request's tokens: the plan's, if it says any."""
        tokens = super()._reserve_prefill_lookahead(request, computed, tokens)
        if not self._counts:
            return tokens
        name = request.request_id
        if name in self._counts:
            return min(tokens, self._counts[name])
        rest = self._rest - sum(self._given.values())
        wanted = min(request.num_tokens - computed, self._most)
        if wanted > rest and not self._chunked and request.status != RequestStatus.RUNNING:
            return 0
        self._given[name] = min(tokens, wanted, rest)
        return self._given[name]

    def _preempt_request(self, request: Request, *arguments: Any, **settings: Any) -> None:
        super()._preempt_request(request, *arguments, **settings)
        self._given.pop(request.request_id, None)
        note_eviction(self._views[request.request_id])


def planned_by(make: Callable[[], BatchScheduler]) -> type[PlannedScheduler]:
    """The class for `EngineArgs(scheduler_cls=...)` whose steps are planned by what `make` makes."""
    return type("PlannedScheduler", (PlannedScheduler,), {"make_candidate": lambda self: make()})
