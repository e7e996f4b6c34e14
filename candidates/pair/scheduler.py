"""The batch scheduler under design: which requests run in a replica's next step."""

STEP_TOKENS = 128  # tokens of a step that has prefills


class Plan:
    """What a step does otherwise than vLLM's own: whom it admits, and how many tokens some requests get."""

    evict = ()

    def __init__(self, admit, tokens=None):
        self.admit = admit
        self.tokens = tokens or {}


class Scheduler:
    """A few tokens beside the decodes cost a GPU next to nothing: prefills get those of each step."""

    def plan(self, engine, now):
        """The plan of the replica's next step."""
        admit, tokens = self.filled(engine, list(engine.waiting))
        return Plan(admit=admit, tokens=tokens)

    def filled(self, engine, admit):
        """What to admit, and token counts that fill steps up to STEP_TOKENS; decodes come first."""
        prefills = [request for request in engine.running if request.prefilling]
        decodes = len(engine.running) - len(prefills)
        left, tokens = max(min(STEP_TOKENS, engine.token_budget) - decodes, 0), {}
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
