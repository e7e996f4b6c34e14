"""The conversation with a batch scheduler: its views, its calls, and how a plan reaches the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from sim.complaints import Refused, cause, complaint, defined_at, named, shown
from sim.policies import Place, PolicyError, RequestView
from sim.routing import memory
from sim.scheduling import BatchScheduler, EngineRequest, EngineView, WaitingQueue
from sim.state import (
    ADMISSIONS,
    BEHIND,
    BLOCK_SIZE,
    COUNTS,
    ENTRIES,
    EVICTIONS,
    KV_BLOCKS,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    NOT_PLANNED,
    NOT_RUNNING,
    NOT_WAITING,
    OVER_BUDGET,
    PLANNED,
    RUNNING_COUNT,
    STATE,
    TOKENS_DONE,
    TOO_MANY_TOKENS,
    TWICE,
    UNLESS_ONLY_DECODES,
    WORK,
    State,
)


def plans_decodes(scheduler: object) -> bool:
    """Whether it is asked for steps of decodes alone too (`sim.scheduling.BatchScheduler.plans_decodes`).

    PolicyError if what it says of it is neither True nor False.
    """
    said = getattr(scheduler, "plans_decodes", True)
    if not isinstance(said, bool):
        raise PolicyError(
            f"{named(scheduler)}.plans_decodes is {shown(said)}; expected True, or False where steps in "
            "which nothing waits and all decode are left to vLLM's own rule",
            place=defined_at(scheduler, "plan"),
        )
    return said


class _Requests(dict[int, EngineRequest]):
    """Views of requests by id, each made when it is first asked for."""

    def __init__(self, state: State, views: Mapping[int, RequestView]) -> None:
        super().__init__()
        self._views = views
        self._seen = (
            memory(state.known[:, TOKENS_DONE]).toreadonly(),
            memory(state.known[:, STATE]).toreadonly(),
        )
        self._work = memory(state.work.reshape(-1)).toreadonly()

    def __missing__(self, request: int) -> EngineRequest:
        view = self._views[request]
        made = self[request] = EngineRequest(
            request * WORK,
            self._work,
            request,
            view.arrival,
            view.prompt_tokens,
            view.priority,
            view.session,
            *self._seen,
            view.prefix,
            view.ttft_slo,
            view.tpot_slo,
        )
        return made


class Planner:
    """One run's batch scheduler, its views, and its errors."""

    def __init__(self, state: State, views: Mapping[int, RequestView], scheduler: BatchScheduler) -> None:
        """`views` of the requests that have arrived and not finished."""
        plan = getattr(scheduler, "plan", None)
        if not callable(plan) or isinstance(scheduler, type):
            raise PolicyError(
                f"a batch scheduler is an object with a method plan(engine, now): got {scheduler!r}"
            )
        if not plans_decodes(scheduler):
            state.limits[:, PLANNED] = UNLESS_ONLY_DECODES
        self._scheduler, self._plan, self._views = scheduler, plan, views
        self.calls = 0
        self.requests = _Requests(state, views)
        """Views of the requests that a scheduler has seen; whoever removes finished ones saves memory."""
        self._entries = memory(state.plan)
        self._gauges = [memory(row) for row in state.gauges]
        self._seats = [int(limits[MAX_NUM_SEQS]) for limits in state.limits]
        self._budgets = [int(limits[MAX_NUM_BATCHED_TOKENS]) for limits in state.limits]
        behind = memory(state.place[:, BEHIND]).toreadonly()
        self._engines = [
            EngineView(
                index=index,
                blocks_total=int(limits[KV_BLOCKS]),
                block_size=int(limits[BLOCK_SIZE]),
                token_budget=self._budgets[index],
                max_num_seqs=self._seats[index],
                waiting=WaitingQueue(
                    self._gauges[index].toreadonly(),
                    memory(state.ends[index]).toreadonly(),
                    behind,
                    self.requests,
                ),
                _gauges=self._gauges[index].toreadonly(),
                _seats=memory(state.seats[index]).toreadonly(),
                _views=self.requests,
            )
            for index, limits in enumerate(state.limits)
        ]

    def plan(self, replica: int, now: float) -> None:
        """Ask for the plan of the replica's next step and hand it to the kernel."""
        self.calls += 1
        try:
            plan = self._plan(self._engines[replica], now)
            try:
                admit, evict, tokens = plan.admit, plan.evict, plan.tokens
            except AttributeError:
                raise Refused(
                    f"the scheduler returned {shown(plan)} where a Plan is expected: an object with admit, "
                    "evict and tokens"
                ) from None
            entries, seats = self._entries, self._seats[replica]
            evictions = admissions = counts = 0
            if evict:
                evictions = self._write("evict", _iterated("evict", evict), ENTRIES, seats)
            if admit is not None:
                # No more can be admitted; but what has tokens in the plan must be found in it.
                most = seats if tokens else seats - self._gauges[replica][RUNNING_COUNT] + evictions
                first = islice(_iterated("admit", admit), most)
                admissions = self._write("admit", first, ENTRIES + evictions, most)
            else:
                admissions = -1
            if tokens:
                counts = self._write_counts(tokens, ENTRIES + evictions + max(admissions, 0), seats)
            entries[EVICTIONS], entries[ADMISSIONS], entries[COUNTS] = evictions, admissions, counts
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise complaint(self._scheduler, "plan", self._call(replica, now), error) from cause(error)

    def _write(self, name: str, requests: Iterable[Any], at: int, most: int) -> int:
        """Write the ids of at most so many requests; return how many there were."""
        entries, count = self._entries, 0
        for request in requests:
            if count == most:
                raise Refused(f"the plan's {name} has more than {most} requests, of which no more can run")
            try:
                entries[at + count] = request.id
            except (AttributeError, TypeError, ValueError):
                raise Refused(
                    f"the plan's {name} holds {shown(request)} where a request of engine.running or "
                    "engine.waiting is expected"
                ) from None
            count += 1
        return count

    def _write_counts(self, tokens: Any, at: int, most: int) -> int:
        """Write pairs of request and tokens; return how many there were."""
        entries, count = self._entries, 0
        if not isinstance(tokens, Mapping):
            raise Refused(
                f"the plan's tokens is {shown(tokens)} where a mapping of requests to whole numbers is "
                "expected"
            )
        for request, number in tokens.items():
            if count == 2 * most:
                raise Refused(f"the plan's tokens has more than {2 * most} requests")
            try:
                entries[at + 2 * count] = request.id
                entries[at + 2 * count + 1] = number
            except (AttributeError, TypeError, ValueError):
                raise Refused(
                    f"the plan's tokens holds {shown(request)}: {shown(number)} where a request and a whole "
                    "number of tokens is expected"
                ) from None
            count += 1
        return count

    def refused(self, replica: int, now: float) -> PolicyError:
        """The error for a plan that the kernel could not follow."""
        why, request, number = self._entries[:3].tolist()
        view = self.requests[request] if request in self._views else f"request {request}"
        reason = {
            NOT_RUNNING: f"the plan evicts {view}, which is not running on this replica",
            NOT_WAITING: f"the plan admits {view}, which is not waiting on this replica",
            NOT_PLANNED: f"the plan gives tokens to {view}, which is neither running nor admitted here",
            TWICE: f"the plan names {view} twice",
            TOO_MANY_TOKENS: f"the plan gives {view} {number} tokens, which are not between 0 (1 for "
            "an admission) and its tokens_to_compute",
            OVER_BUDGET: f"the plan has {number} tokens where the budget of a step "
            f"is {self._budgets[replica]}",
        }[why]
        return PolicyError(reason, self._call(replica, now), self.where)

    @property
    def where(self) -> Place | None:
        """Where the scheduler's `plan` is written."""
        return defined_at(self._scheduler, "plan")

    def left(self, requests: int, now: float) -> PolicyError:
        """The error for requests that no step will ever serve."""
        return PolicyError(
            f"{named(self._scheduler)} left {requests} requests at their replicas for ever: after "
            f"call {self.calls} at {now:.3f} s its plans are empty and nothing is left to happen",
            place=self.where,
        )

    def _call(self, replica: int, now: float) -> str:
        return (
            f"{named(self._scheduler)}.plan, call {self.calls} at {now:.3f} s with {self._engines[replica]!r}"
        )


def _iterated(name: str, requests: Iterable[Any]) -> Iterable[Any]:
    try:
        return iter(requests)
    except TypeError:
        raise Refused(
            f"the plan's {name} is {shown(requests)} where an iterable of requests is expected"
        ) from None
