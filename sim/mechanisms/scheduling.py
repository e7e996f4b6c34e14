"""The mechanisms of batch scheduling: what each claims, which evidence calls for it, and what it writes.

Order, ageing, chunks and head-room are textbook means (shortest job first; ageing as in operating systems;
stall-free batching of Agrawal et al., OSDI 2024; admission control). Each is general: its edit is a few lines
of any scheduler whose `plan` makes its plan in one place, with `admit`.
"""

from __future__ import annotations

import ast
from functools import partial

from sim.mechanisms.mechanism import FEW, SOME, Evidence, Mechanism, Numbers
from sim.mechanisms.mechanism import idea as mechanism
from sim.mechanisms.source import SchedulerSource

__all__ = ["scheduling_mechanisms"]

_DUE = '''
def due(self, request):
    """Waiting requests go in order of this."""
    return request.tokens_to_compute
'''
_AGED = '''
def due(self, request):
    """Waiting requests go in order of this; what is later by a second counts as that much longer."""
    return request.tokens_to_compute + AGEING_RATE * request.arrival
'''
_DEALT = """    for request in prefills:
        tokens[request] = min(request.tokens_to_compute, left)
        left -= tokens[request]
    admitted = []
    for request in admit:
        if left > 0:
            admitted.append(request)
            tokens[request] = min(request.tokens_to_compute, left)
            left -= tokens[request]
    return admitted, tokens
"""
"""The end of what deals `left` tokens out: to prefills under way first, then to those that are admitted."""
_CHUNKED = (
    '''
def chunked(self, engine, admit):
    """What to admit, and token counts that give prefills CHUNK_TOKENS a step while others decode."""
    prefills = [request for request in engine.running if request.prefilling]
    if len(prefills) == len(engine.running):
        return admit, {}
    left, tokens = min(CHUNK_TOKENS, engine.token_budget - len(engine.running)), {}
'''
    + _DEALT
)
_FILLED = (
    '''
def filled(self, engine, admit):
    """What to admit, and token counts that fill steps up to STEP_TOKENS; decodes come first."""
    prefills = [request for request in engine.running if request.prefilling]
    decodes = len(engine.running) - len(prefills)
    left, tokens = max(min(STEP_TOKENS, engine.token_budget) - decodes, 0), {}
'''
    + _DEALT
)
_WITH_ROOM = '''
def with_room(self, engine, admit):
    """The first of them whose blocks are free, with head-room left for running requests to grow."""
    free, admitted = engine.blocks_free - HEADROOM * engine.blocks_total, []
    for request in admit:
        free -= request.tokens_to_compute / engine.block_size
        if free < 0 and (admitted or engine.running):
            break
        admitted.append(request)
    return admitted
'''


def scheduling_mechanisms(entry: str) -> list[Mechanism]:
    """All of them for the scheduler `entry`, in the order in which they build on one another."""
    idea = partial(mechanism, SchedulerSource, entry)
    return [
        idea(
            "shortest prefill first",
            "Of the waiting requests the one with the fewest tokens to compute goes first.",
            predicts={"p90_ttft": -1, "mean_response_time": -1, "p99_ttft": +1},
            gate=_queue_at_replicas,
            edit=_shortest_first,
        ),
        idea(
            "small chunks beside decodes",
            "While others decode prefills get few tokens a step, for each token delays them all.",
            predicts={"mean_tpot": -1, "p90_tpot": -1},
            gate=_prefills_delay_decodes,
            edit=_small_chunks,
            CHUNK_TOKENS=(128, 1024, 4096),
        ),
        idea(
            "fill steps, no more",
            "A few tokens beside the decodes cost a GPU next to nothing: prefills get those of each step.",
            predicts={"mean_response_time": -1, "p99_tpot": -1, "mean_ttft": -1},
            gate=decodes_wait_for_prefills,
            edit=_fill_steps,
            STEP_TOKENS=(64, 256, 4096),
        ),
        idea(
            "admit with head-room",
            "A request is admitted only if blocks stay free for running ones to grow, so none is evicted.",
            predicts={"restarted_fraction": -1, "recompute_share": -1, "mean_response_time": -1},
            gate=_running_evicted,
            edit=_head_room,
            HEADROOM=(0.01, 0.06, 0.3),
        ),
        idea(
            "ageing",
            "A waiting request moves ahead with time, so that long prompts are not overtaken for ever.",
            predicts={"p99_ttft": -1},
            gate=_some_wait_for_ever,
            edit=_ageing,
            AGEING_RATE=(5.0, 200.0, 5000.0),
        ),
    ]


def _queue_at_replicas(evidence: Evidence) -> str | None:
    """A good part of the time is waiting for the first step."""
    waits = evidence["replica_wait_share"]
    if waits < FEW:
        return None
    return (
        f"{waits:.0%} of the response time is waiting at replicas, behind prompts of "
        f"{evidence['mean_prompt_tokens']:.0f} tokens on average"
    )


def _prefills_delay_decodes(evidence: Evidence) -> str | None:
    """Most tokens computed are prefill, and there are decodes that they delay."""
    share, slowest, median = (evidence[name] for name in ("prefill_share", "p90_tpot", "p50_tpot"))
    if share < 0.5 or slowest < 1.2 * median:
        return None
    return (
        f"{share:.0%} of the tokens computed are prefill, and one request in ten takes {slowest:.3f} s "
        f"a token where half take {median:.3f} s or less"
    )


def decodes_wait_for_prefills(evidence: Evidence) -> str | None:
    """Replicas are busy, a good part of what they compute is prefill, and some decodes wait for it."""
    busy, share, slowest, median = (
        evidence[name] for name in ("busy_share", "prefill_share", "p99_tpot", "p50_tpot")
    )
    if busy < 0.5 or share < 2 * SOME or slowest < 1.2 * median:
        return None
    return (
        f"replicas compute {busy:.0%} of the time, {share:.0%} of the tokens are prefill, and one request in "
        f"a hundred takes {slowest:.3f} s a token where half take {median:.3f} s or less"
    )


def _running_evicted(evidence: Evidence) -> str | None:
    """Requests are evicted for want of blocks."""
    restarted = evidence["restarted_fraction"]
    if restarted < FEW:
        return None
    return f"{restarted:.0%} of the requests are evicted, and computed again"


def _some_wait_for_ever(evidence: Evidence) -> str | None:
    """The slowest first tokens come out of proportion late."""
    slowest, most = evidence["p99_ttft"], evidence["p90_ttft"]
    if evidence["replica_wait_share"] < SOME or slowest < 5 * most:
        return None
    return f"one request in a hundred waits over {slowest:.1f} s for its first token, one in ten {most:.1f} s"


def _admitted(scheduler: SchedulerSource) -> ast.expr | None:
    """What the plan admits before it is cut into chunks: `admit`, or what `chunked` or `filled` is given."""
    made = scheduler.made()
    if made is None:
        return None
    for node in ast.walk(scheduler.rule):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".chunked", ".filled")):
            return node.args[1]
    return next(keyword.value for keyword in made.keywords if keyword.arg == "admit")


def _shortest_first(scheduler: SchedulerSource, numbers: Numbers) -> SchedulerSource | None:
    admitted = _admitted(scheduler)
    if admitted is None or "sorted(" in scheduler.text or scheduler.method("due"):
        return None
    listed = scheduler.source_of(admitted)
    if isinstance(admitted, ast.Call) and ast.unparse(admitted.func) == "list" and len(admitted.args) == 1:
        listed = scheduler.source_of(admitted.args[0])
    order = f"sorted({listed}, key={scheduler.parameter(0)}.due)"
    return scheduler.replaced(admitted, order).with_method(_DUE)


def _ageing(scheduler: SchedulerSource, numbers: Numbers) -> SchedulerSource | None:
    if scheduler.method("due") is None or scheduler.has_constant("AGEING_RATE"):
        return None
    return scheduler.with_body("due", _AGED).with_constant(
        "AGEING_RATE", numbers["AGEING_RATE"], "tokens by which a request moves ahead in a second"
    )


def _small_chunks(scheduler: SchedulerSource, numbers: Numbers) -> SchedulerSource | None:
    chunks = int(numbers["CHUNK_TOKENS"])
    edited = _with_tokens(scheduler, "chunked", _CHUNKED)
    return edited and edited.with_constant("CHUNK_TOKENS", chunks, "tokens of prefill in a step with decodes")


def _fill_steps(scheduler: SchedulerSource, numbers: Numbers) -> SchedulerSource | None:
    tokens = int(numbers["STEP_TOKENS"])
    edited = _with_tokens(scheduler, "filled", _FILLED)
    return edited and edited.with_constant("STEP_TOKENS", tokens, "tokens of a step that has prefills")


def _with_tokens(scheduler: SchedulerSource, name: str, method: str) -> SchedulerSource | None:
    """With that method, which says what to admit and the tokens of prefills, before the plan is made."""
    made, admitted = scheduler.made(), _admitted(scheduler)
    if made is None or admitted is None or len(made.keywords) != 1 or made.args:
        return None
    returned = [node for node in ast.walk(scheduler.rule) if isinstance(node, ast.Return)]
    if len(returned) != 1 or scheduler.method(name):
        return None
    [statement] = returned
    own, engine = scheduler.parameter(0), scheduler.parameter(1)
    line = f"admit, tokens = {own}.{name}({engine}, {scheduler.source_of(admitted)})"
    called = f"return {ast.unparse(made.func)}(admit=admit, tokens=tokens)"
    return scheduler.replaced(statement, f"{line}\n{scheduler.indentation(statement)}{called}").with_method(
        method
    )


def _head_room(scheduler: SchedulerSource, numbers: Numbers) -> SchedulerSource | None:
    admitted = _admitted(scheduler)
    if admitted is None or scheduler.method("with_room"):
        return None
    own, engine = scheduler.parameter(0), scheduler.parameter(1)
    return (
        scheduler.replaced(admitted, f"{own}.with_room({engine}, {scheduler.source_of(admitted)})")
        .with_method(_WITH_ROOM)
        .with_constant("HEADROOM", numbers["HEADROOM"], "fraction of a replica's KV blocks kept free")
    )
