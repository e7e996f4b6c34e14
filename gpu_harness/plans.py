"""A plan as a real engine can follow it: what `sim.planning` checks there is checked before vLLM acts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from operator import index
from typing import Any, NamedTuple

from sim.complaints import Refused, shown
from sim.scheduling import EngineRequest, EngineView

__all__ = ["Checked", "checked"]


class Checked(NamedTuple):
    """A plan that can be followed; its requests by `id`."""

    admit: tuple[int, ...] | None
    """None: all that wait, in the order of the queue."""
    evict: tuple[int, ...]
    tokens: dict[int, int]


def checked(plan: Any, engine: EngineView) -> Checked:
    """The plan, if the engine can follow it; Refused, with what is wrong, if not."""
    try:
        admit, evict, tokens = plan.admit, plan.evict, plan.tokens
    except AttributeError:
        raise Refused(
            f"the scheduler returned {shown(plan)} where a Plan is expected: an object with admit, evict and "
            "tokens"
        ) from None
    running = {request.id: request for request in engine.running}
    evicted = tuple(_ids("evict", evict))
    for each in evicted:
        if running.pop(each, None) is None:
            raise Refused(f"the plan evicts request {each}, which is not running, or evicts it twice")
    admitted = None
    if admit is not None:
        # No more can be admitted; but what has tokens in the plan must be found in it.
        seats = engine.max_num_seqs - (0 if tokens else len(running))
        admitted = tuple(islice(_ids("admit", admit), seats))
        waiting = {request.id for request in engine.waiting}.union(evicted)
        for each in admitted:
            if each not in waiting:
                raise Refused(f"the plan admits request {each}, which is not waiting, or admits it twice")
            waiting.discard(each)
    return Checked(admitted, evicted, _counts(tokens, running, admitted or (), engine.token_budget))


def _ids(name: str, requests: Any) -> Any:
    """The requests' ids, as they are taken; Refused if one is no view."""
    try:
        taken = iter(requests)
    except TypeError:
        raise Refused(
            f"the plan's {name} is {shown(requests)} where an iterable of requests is expected"
        ) from None
    for request in taken:
        if not isinstance(request, EngineRequest):
            raise Refused(
                f"the plan's {name} holds {shown(request)} where a request of engine.running or "
                "engine.waiting is expected"
            )
        yield request.id


def _counts(
    tokens: Any, running: Mapping[int, EngineRequest], admitted: tuple[int, ...], budget: int
) -> dict[int, int]:
    """Token counts by request, within what each has left and all together within the budget."""
    if not isinstance(tokens, Mapping):
        raise Refused(
            f"the plan's tokens is {shown(tokens)} where a mapping of requests to whole numbers is expected"
        )
    counts: dict[int, int] = {}
    for request, number in tokens.items():
        (each,) = _ids("tokens", (request,))
        if each not in running and each not in admitted:
            raise Refused(f"the plan gives tokens to {request!r}, which is neither running nor admitted here")
        whole = request.computed_tokens + request.tokens_to_compute  # what an admission starts with
        least, most = (0, request.tokens_to_compute) if each in running else (1, whole)
        try:
            counts[each] = index(number)
        except TypeError:
            counts[each] = -1
        if not least <= counts[each] <= most:
            raise Refused(
                f"the plan gives {request!r} {shown(number)} tokens; expected a whole number from {least} to "
                f"{most}"
            )
    if sum(counts.values()) > budget:
        raise Refused(f"the plan has {sum(counts.values())} tokens where the budget of a step is {budget}")
    return counts
