"""The batch scheduler under design: which requests run in a replica's next step."""


class Plan:
    """What a step does otherwise than vLLM's own: whom it admits, and how many tokens some requests get."""

    evict = ()

    def __init__(self, admit, tokens=None):
        self.admit = admit
        self.tokens = tokens or {}


class Scheduler:
    """Admits waiting requests in order of arrival."""

    plans_decodes = False  # steps in which nothing waits and all decode are left to vLLM

    def plan(self, engine, now):
        """The plan of the replica's next step."""
        return Plan(admit=list(engine.waiting))
