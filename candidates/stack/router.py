"""The request router under design: which request goes to which replica, and when."""


class Router:
    """Sends each request at once to the replica with the fewest requests."""

    def route(self, queue, replicas, now):
        """Pairs of a request and its replica; what is left out stays in the queue."""
        for request in queue:
            yield request, min(replicas, key=lambda replica: replica.waiting + replica.running)
