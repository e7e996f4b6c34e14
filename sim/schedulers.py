"""Batch schedulers to compare with, in plain Python over the views of `sim.scheduling`."""

from __future__ import annotations

from sim.scheduling import EngineRequest, EngineView, Plan
from sim.settings import check
from sim.workloads import ClosedWorkload, Workload

__all__ = [
    "FirstComeFirstServed",
    "OracleShortestRemaining",
    "Sarathi",
    "ShortestPromptFirst",
    "StallFree",
]


class FirstComeFirstServed:
    """vLLM's own rule: waiting requests in the order of the queue."""

    plans_decodes = False

    def plan(self, engine: EngineView, now: float) -> Plan:
        return Plan(admit=engine.waiting)


class ShortestPromptFirst:
    """Shortest job first by what is known of a job, its prompt; ties in the order of the queue."""

    plans_decodes = False

    def plan(self, engine: EngineView, now: float) -> Plan:
        return Plan(admit=sorted(engine.waiting, key=lambda request: request.prompt_tokens))


class StallFree:
    """Stall-free batching (Agrawal et al., OSDI 2024) as one tunes it for chat: prefills get few tokens a
    step in all, in order of arrival, so that each step, and with it each output token, is short."""

    plans_decodes = False

    def __init__(self, chunk_tokens: int = 512) -> None:
        check("chunk_tokens", chunk_tokens, 1, 10**6, "tokens of prefill a step", whole=True)
        self._chunk_tokens = chunk_tokens

    def plan(self, engine: EngineView, now: float) -> Plan:
        left = min(self._chunk_tokens, max(engine.token_budget - len(engine.running), 0))
        tokens: dict[EngineRequest, int] = {}
        for request in engine.running:
            if request.prefilling:
                tokens[request] = min(request.tokens_to_compute, left)
                left -= tokens[request]
        admit = []
        for request in engine.waiting:
            if left == 0:
                break
            admit.append(request)
            tokens[request] = min(request.tokens_to_compute, left)
            left -= tokens[request]
        return Plan(admit=admit, tokens=tokens)


class OracleShortestRemaining:
    """An oracle, for bounds only: the request with the fewest tokens left to compute, output included, first.

    It knows every output length from the workload, which no real scheduler can. A waiting request that has
    fewer tokens left than a running one takes its place if no seat or no room for its prompt is free:
    shortest remaining processing time with preemption, where what is evicted must be computed again.
    """

    plans_decodes = False

    def __init__(self, workload: Workload | ClosedWorkload) -> None:
        self._tokens = (workload.prompt_tokens + workload.output_tokens).tolist()

    def _left(self, request: EngineRequest) -> int:
        return int(self._tokens[request.id]) - request.computed_tokens

    def plan(self, engine: EngineView, now: float) -> Plan:
        if not engine.waiting:
            return Plan(admit=())
        admit = sorted(engine.waiting, key=self._left)
        running = sorted(engine.running, key=self._left)
        first = admit[0]
        need = -(-first.tokens_to_compute // engine.block_size)
        free, seats = engine.blocks_free, engine.max_num_seqs - len(running)
        evict: list[EngineRequest] = []
        # What an evicted request computed is lost: it must have more left even without that.
        while running and (free < need or seats < 1) and self._left(running[-1]) > self._left(first):
            victim = running.pop()
            free, seats = free + victim.blocks, seats + 1
            evict.append(victim)
        if free < need or seats < 1:
            return Plan(admit=admit)
        return Plan(admit=admit, evict=evict)


class Sarathi:
    """The rule of the Sarathi engine (`sim.sarathi`): decodes first, then unfinished prefills, then
    admissions for which all blocks of the prompt are set aside; `watermark` is the fraction of the blocks
    that an admission leaves free."""

    def __init__(self, watermark: float = 0.01) -> None:
        check("watermark", watermark, 0, 0.5, "as a fraction of the blocks", whole=False)
        self._watermark = watermark

    def plan(self, engine: EngineView, now: float) -> Plan:
        size, total = engine.block_size, engine.blocks_total
        budget = engine.token_budget
        running, evict = list(engine.running), []
        tokens: dict[EngineRequest, int] = {}
        held = {request: max(request.blocks, _blocks(request, size)) for request in running}
        used = sum(held.values())
        seat = 0
        while seat < len(running):
            request = running[seat]
            seat += 1
            if request.prefilling:
                continue
            tokens[request] = 0
            if budget == 0:
                continue
            if request.computed_tokens == held[request] * size:
                while used == total and len(running) >= seat:
                    victim = running.pop()
                    evict.append(victim)
                    tokens.pop(victim, None)
                    used -= held[victim]
                if len(running) < seat:
                    break
                used += 1
            tokens[request] = 1
            budget -= 1
        for request in running:
            if request.prefilling:
                tokens[request] = min(request.tokens_to_compute, budget)
                budget -= tokens[request]
        admit: list[EngineRequest] = []
        spare = int(self._watermark * total)
        for request in (*reversed(evict), *engine.waiting):
            whole = request.computed_tokens + request.tokens_to_compute
            blocks = -(-whole // size)
            full = len(running) + len(admit) == engine.max_num_seqs
            if budget == 0 or full or total - used - blocks < spare:
                break
            admit.append(request)
            tokens[request] = min(whole, budget)
            budget -= tokens[request]
            used += blocks
        return Plan(admit=admit, evict=evict, tokens=tokens)


def _blocks(request: EngineRequest, size: int) -> int:
    """Blocks of all that a request has to compute before its next token; of what it holds if it decodes."""
    return -(-(request.computed_tokens + request.tokens_to_compute) // size) if request.prefilling else 0
