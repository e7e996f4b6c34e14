"""The request router under design: which request goes to which replica, and when."""


class Router:
    """In this design:

    - The replica with the fewest committed blocks is chosen, for counts hide how big requests are.
    """

    def route(self, queue, replicas, now):
        """Pairs of a request and its replica; what is left out stays in the queue."""
        for request in queue:
            yield request, min(replicas, key=self.committed)

    def committed(self, replica):
        """Blocks in use, and those that the prompts of the waiting requests will take."""
        return replica.blocks_used + replica.waiting_prompt_tokens / replica.block_size
