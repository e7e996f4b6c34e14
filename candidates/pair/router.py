"""The request router under design: which request goes to which replica, and when."""

HEADROOM = 0.0442  # fraction of a replica's KV blocks kept free
RESERVE_TOKENS = 421  # tokens kept free for the answer of a starting request
RESERVE_RATIO = 1.48  # tokens of an answer per token of its prompt


class Router:
    """A request with a long prompt is likely to get a long answer, so it needs more room to grow."""

    def route(self, queue, replicas, now):
        """Pairs of a request and its replica; what is left out stays in the queue."""
        for request in sorted(queue, key=lambda request: request.prompt_tokens):
            admitting = [replica for replica in replicas if self.fits(request, replica)]
            if not admitting:
                break
            yield request, min(admitting, key=lambda replica: replica.waiting + replica.running)

    def fits(self, request, replica):
        """Whether the request's blocks are free there, with head-room left; an idle replica takes any."""
        tokens = replica.waiting_prompt_tokens + request.prompt_tokens
        tokens += RESERVE_TOKENS * (replica.waiting + 1)
        tokens += RESERVE_RATIO * (replica.waiting_prompt_tokens + request.prompt_tokens)
        blocks = replica.blocks_used + tokens / replica.block_size
        idle = replica.waiting + replica.running == 0
        return idle or blocks <= (1 - HEADROOM) * replica.blocks_total
