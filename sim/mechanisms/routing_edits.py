"""What each routing mechanism writes into a router: a few lines that a person would have written.

Every function takes a router's source and the values of its constants, and gives the edited source, or None
if it finds no place or has been there before.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from sim.mechanisms.source import RouterSource

Numbers = Mapping[str, float]

_LINE_LENGTH = 110
"""Longest line that an edit writes on its own account."""
_FITS = '''
def fits(self, request, replica):
    """Whether the request's blocks are free there, with head-room left; an idle replica takes any."""
    tokens = replica.waiting_prompt_tokens + request.prompt_tokens
    blocks = replica.blocks_used + tokens / replica.block_size
    idle = replica.waiting + replica.running == 0
    return idle or blocks <= (1 - HEADROOM) * replica.blocks_total
'''
_HEADROOM = "fraction of a replica's KV blocks kept free"


def hold_without_room(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Send only to replicas with free blocks for the request; keep the queue if there is none."""
    if router.method("fits"):
        return None
    held = _held_unless(router, lambda request: f"self.fits({request}, replica)")
    if held is None:
        return None
    return held.with_method(_FITS).with_constant("HEADROOM", numbers["HEADROOM"], _HEADROOM)


def _held_unless(router: RouterSource, condition: Callable[[str], str]) -> RouterSource | None:
    """With the choice among those replicas that meet a condition; if none does the queue is kept."""
    loop, choice = router.loop(), router.choice()
    if loop is None or choice is None or not router.sends_at_once():
        return None
    assert isinstance(loop.target, ast.Name)
    assert isinstance(choice.args[0], ast.Name)
    own, pool = router.parameter(0), choice.args[0].id
    test = condition(loop.target.id).replace("self.", f"{own}.")
    admitting = _admitting(loop)
    if admitting is not None:
        return router.replaced(admitting, _narrowed(router, admitting, test))
    statement = router.innermost_statement(choice)
    if statement is None or "admitting" in router.text:
        return None
    guard = f"admitting = [replica for replica in {pool} if {test}]\nif not admitting:\n    break\n"
    return router.replaced(choice.args[0], "admitting").before(statement, guard)


def _admitting(loop: ast.For) -> ast.ListComp | None:
    """The list in `admitting = [replica for replica in NAME if CONDITION]`, if a loop has such a line."""
    for node in ast.walk(loop):
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "admitting"
            and isinstance(node.value, ast.ListComp)
            and ast.unparse(node.value.elt) == "replica"
            and len(node.value.generators[0].ifs) == 1
        ):
            return node.value
    return None


def _narrowed(router: RouterSource, admitting: ast.ListComp, test: str) -> str:
    """That list with one more condition, on several lines if it gets long."""
    [generator] = admitting.generators
    parts = [
        "replica",
        f"for replica in {router.source_of(generator.iter)}",
        f"if {router.source_of(generator.ifs[0])} and {test}",
    ]
    if admitting.col_offset + len(" ".join(parts)) + 2 <= _LINE_LENGTH:
        return f"[{' '.join(parts)}]"
    indent = " " * (admitting.col_offset - len("admitting = "))
    return "\n".join(["[", *(f"{indent}    {part}" for part in parts), f"{indent}]"])


def shortest_first(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Go through the queue by prompt length."""
    loop = router.loop()
    if loop is None or not isinstance(loop.iter, ast.Name):
        return None
    order = "key=lambda request: request.prompt_tokens"
    return router.replaced(loop.iter, f"sorted({loop.iter.id}, {order})")


def ageing(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Add the arrival to the order by prompt, so that who came earlier needs a less short prompt."""
    loop = router.loop()
    if loop is None or router.has_constant("AGEING_RATE"):
        return None
    keys = [node.body for node in ast.walk(loop.iter) if isinstance(node, ast.Lambda)]
    if len(keys) != 1 or ast.unparse(keys[0]) != "request.prompt_tokens":
        return None
    aged = "request.prompt_tokens + AGEING_RATE * request.arrival"
    return router.replaced(keys[0], aged).with_constant(
        "AGEING_RATE", numbers["AGEING_RATE"], "prompt tokens that a second of waiting makes up for"
    )


def bind_late(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Send only to replicas with next to nobody waiting; go through the queue by prompt length."""
    if router.has_constant("MAX_WAITING"):
        return None
    held = _held_unless(router, lambda request: "replica.waiting < MAX_WAITING")
    if held is None:
        return None
    held = shortest_first(held, {}) or held
    return held.with_constant(
        "MAX_WAITING", numbers["MAX_WAITING"], "requests that may wait at a replica for its next steps"
    )


_SPREADS = '''
def spreads(self, request, replica):
    """Whether no other prompt waits there, or it would not pay to wait until the next request ends there.

    Prefill holds up all that run; but the fewer they are the longer it takes until one of them ends.
    """
    prompts = replica.waiting_prompt_tokens + request.prompt_tokens
    return replica.waiting == 0 or replica.running**2 * prompts <= STALLED_TOKENS
'''


def spread_prefills(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Send only to replicas where few prompts wait for the requests that run there."""
    if router.method("spreads"):
        return None
    held = _held_unless(router, lambda request: f"self.spreads({request}, replica)")
    comment = "prompt tokens waiting, times the square of the requests that run"
    return held and held.with_method(_SPREADS).with_constant(
        "STALLED_TOKENS", numbers["STALLED_TOKENS"], comment
    )


def _in_fits(router: RouterSource, target: str, line: str) -> RouterSource | None:
    """With a line after the assignment of `tokens` or `blocks` in `fits` and what was added to it since."""
    fits = router.method("fits")
    if fits is None:
        return None
    names = [ast.unparse(each.targets[0]) if isinstance(each, ast.Assign) else "" for each in fits.body]
    if target not in names or "tokens" not in names or not isinstance(fits.body[-1], ast.Return):
        return None
    at = names.index(target) + 1
    while isinstance(fits.body[at], ast.AugAssign):
        at += 1
    return router.before(fits.body[at], line)


def reserve_tokens(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Count so many tokens more for each request that has not started."""
    if router.has_constant("RESERVE_TOKENS") or router.has_constant("RESERVE_SHARE"):
        return None
    edited = _in_fits(router, "tokens", "tokens += RESERVE_TOKENS * (replica.waiting + 1)")
    if edited is None:
        return None
    edited = edited.with_constant("HEADROOM", numbers["HEADROOM"], _HEADROOM)
    return edited.with_constant(
        "RESERVE_TOKENS", numbers["RESERVE_TOKENS"], "tokens kept free for the answer of a starting request"
    )


def growth(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Count so many blocks more for each running request."""
    if router.has_constant("GROWTH_BLOCKS"):
        return None
    edited = _in_fits(router, "blocks", "blocks += GROWTH_BLOCKS * replica.running")
    if edited is None:
        return None
    edited = edited.with_constant("HEADROOM", numbers["HEADROOM"], _HEADROOM)
    return edited.with_constant(
        "GROWTH_BLOCKS", numbers["GROWTH_BLOCKS"], "KV blocks that a running request is still going to take"
    )


def proportional_reserve(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Count a share of its prompt more for each request that has not started."""
    if router.has_constant("RESERVE_RATIO"):
        return None
    line = "tokens += RESERVE_RATIO * (replica.waiting_prompt_tokens + request.prompt_tokens)"
    edited = _in_fits(router, "tokens", line)
    return edited and edited.with_constant(
        "RESERVE_RATIO", numbers["RESERVE_RATIO"], "tokens of an answer per token of its prompt"
    )


def learnt_reserve(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Count a share of the mean output so far more for each request that has not started."""
    taken = router.method("completed") or router.method("__init__") or router.has_constant("RESERVE_TOKENS")
    if taken:
        return None
    line = "tokens += RESERVE_SHARE * self.mean_output * (replica.waiting + 1)"
    edited = _in_fits(router, "tokens", line)
    if edited is None:
        return None
    edited = edited.with_method(_INIT, first=True).with_method(_COMPLETED)
    return edited.with_constant(
        "RESERVE_SHARE", numbers["RESERVE_SHARE"], "part of the mean answer kept free for a starting request"
    )


_INIT = """
def __init__(self):
    self.outputs = 0
    self.mean_output = 0.0
"""
_COMPLETED = '''
def completed(self, request, now):
    """Learn the mean output length, in tokens."""
    self.outputs += 1
    self.mean_output += (request.tokens_done - request.prompt_tokens - self.mean_output) / self.outputs
'''


def place_by_blocks(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Choose the replica by its blocks in use and promised."""
    choice = router.choice()
    if choice is None or router.method("committed"):
        return None
    return router.replaced(choice.keywords[0].value, f"{router.parameter(0)}.committed").with_method(
        _COMMITTED
    )


_COMMITTED = '''
def committed(self, replica):
    """Blocks in use, and those that the prompts of the waiting requests will take."""
    return replica.blocks_used + replica.waiting_prompt_tokens / replica.block_size
'''


def back_fill(router: RouterSource, numbers: Numbers) -> RouterSource | None:
    """Go on to later requests where one fits nowhere."""
    loop = router.loop()
    for node in ast.walk(loop) if loop else ():
        if isinstance(node, ast.If) and ast.unparse(node) == "if not admitting:\n    break":
            return router.replaced(node.body[0], "continue")
    return None
