"""The request router under design: which request goes to which replica, and when."""

HEADROOM = 0.0442  # fraction of a replica's KV blocks kept free
RESERVE_TOKENS = 421  # tokens kept free for the answer of a starting request
STALLED_TOKENS = 158000.0  # prompt tokens waiting, times the square of the requests that run


class Router:
    """In this design:

    - A request waits at the router until its prompt fits, so replicas need not evict others for it.
    - Of the requests held the one with the shortest prompt goes first: it delays the others least.
    - Tokens are reserved for the answer of each request about to start: they all grow at once.
    - A prompt is held while others wait at the replica and many decode there: it would hold them up.
    """

    def route(self, queue, replicas, now):
        """Pairs of a request and its replica; what is left out stays in the queue."""
        for request in sorted(queue, key=lambda request: request.prompt_tokens):
            admitting = [
                replica
                for replica in replicas
                if self.fits(request, replica) and self.spreads(request, replica)
            ]
            if not admitting:
                break
            yield request, min(admitting, key=lambda replica: replica.waiting + replica.running)

    def fits(self, request, replica):
        """Whether the request's blocks are free there, with head-room left; an idle replica takes any."""
        tokens = replica.waiting_prompt_tokens + request.prompt_tokens
        tokens += RESERVE_TOKENS * (replica.waiting + 1)
        blocks = replica.blocks_used + tokens / replica.block_size
        idle = replica.waiting + replica.running == 0
        return idle or blocks <= (1 - HEADROOM) * replica.blocks_total

    def spreads(self, request, replica):
        """Whether no other prompt waits there, or it would not pay to wait until the next request ends there.

        Prefill holds up all that run; but the fewer they are the longer it takes until one of them ends.
        """
        prompts = replica.waiting_prompt_tokens + request.prompt_tokens
        return replica.waiting == 0 or replica.running**2 * prompts <= STALLED_TOKENS
