"""The batch scheduler under design: which requests run in a replica's next step."""

CHUNK_TOKENS = 1448  # tokens of prefill in a step with decodes


class Plan:
    """What a step does otherwise than vLLM's own: whom it admits, and how many tokens some requests get."""

    evict = ()

    def __init__(self, admit, tokens=None):
        self.admit = admit
        self.tokens = tokens or {}


class Scheduler:
    """In this design:

    - Of the waiting requests the one with the fewest tokens to compute goes first.
    - While others decode prefills get few tokens a step, for each token delays them all.
    """

    plans_decodes = False  # steps in which nothing waits and all decode are left to vLLM

    def plan(self, engine, now):
        """The plan of the replica's next step."""
        admit, tokens = self.chunked(engine, sorted(engine.waiting, key=self.due))
        return Plan(admit=admit, tokens=tokens)

    def due(self, request):
        """Waiting requests go in order of this."""
        return request.tokens_to_compute

    def chunked(self, engine, admit):
        """What to admit, and token counts that give prefills CHUNK_TOKENS a step while others decode."""
        prefills = [request for request in engine.running if request.prefilling]
        if len(prefills) == len(engine.running):
            return admit, {}
        left, tokens = min(CHUNK_TOKENS, engine.token_budget - len(engine.running)), {}
        for request in prefills:
            tokens[request] = min(request.tokens_to_compute, left)
            left -= tokens[request]
        admitted = []
        for request in admit:
            if left > 0:
                admitted.append(request)
                tokens[request] = min(request.tokens_to_compute, left)
                left -= tokens[request]
        return admitted, tokens
