"""The routing mechanisms: what each claims, which evidence calls for it, and its edit of a router.

Ordering, admission, reserves for growth, late binding, prediction, back-filling, placement and ageing are
textbook means of scheduling under a memory limit (shortest job first; admission control with head-room;
back-filling as in parallel job scheduling; ageing as in operating systems). Each is general: its edit is a
few lines of any router that loops over its queue and chooses with `min(replicas, key=...)`.
"""

from __future__ import annotations

from functools import partial

from sim.mechanisms import routing_edits as edits
from sim.mechanisms import routing_evidence as gates
from sim.mechanisms.mechanism import Mechanism
from sim.mechanisms.mechanism import idea as mechanism
from sim.mechanisms.source import RouterSource

__all__ = ["routing_mechanisms"]


def routing_mechanisms(entry: str) -> list[Mechanism]:
    """All routing mechanisms for the router `entry`, in the order in which they build on one another."""
    idea = partial(mechanism, RouterSource, entry)
    return [
        idea(
            "hold requests without room",
            "A request waits at the router until its prompt fits, so replicas need not evict others for it.",
            predicts={"restarted_fraction": -1, "replica_wait_share": -1, "mean_response_time": -1},
            gate=gates.cache_runs_out,
            edit=edits.hold_without_room,
            HEADROOM=(0.01, 0.06, 0.3),
        ),
        idea(
            "shortest prompt first",
            "Of the requests held the one with the shortest prompt goes first: it delays the others least.",
            predicts={"mean_response_time": -1, "p50_response_time": -1, "p99_response_time": +1},
            gate=gates.queue_at_router,
            edit=edits.shortest_first,
        ),
        idea(
            "reserve for new requests",
            "Tokens are reserved for the answer of each request about to start: they all grow at once.",
            predicts={"restarted_fraction": -1, "mean_response_time": -1},
            gate=gates.new_requests_evicted,
            edit=edits.reserve_tokens,
            RESERVE_TOKENS=(100, 700, 3000),
            HEADROOM=(0.01, 0.03, 0.3),
        ),
        idea(
            "reserve for growth",
            "Blocks are kept for each running request to grow, so that long answers do not run out of cache.",
            predicts={"restarted_fraction": -1, "recompute_share": -1, "mean_response_time": -1},
            gate=gates.work_is_recomputed,
            edit=edits.growth,
            GROWTH_BLOCKS=(0.5, 2.0, 8.0),
            HEADROOM=(0.01, 0.03, 0.3),
        ),
        idea(
            "bind late",
            "A request waits at the router, not in a replica's queue, so that shorter prompts may pass it.",
            predicts={"replica_wait_share": -1, "mean_response_time": -1, "p99_response_time": +1},
            gate=gates.queue_at_replicas,
            edit=edits.bind_late,
            MAX_WAITING=(1, 2, 32),
        ),
        idea(
            "spread prefills",
            "A prompt is held while others wait at the replica and many decode there: it would hold them up.",
            predicts={"p99_tpot": -1, "mean_response_time": -1},
            gate=gates.sent_prompts_delay_decodes,
            edit=edits.spread_prefills,
            STALLED_TOKENS=(5e3, 5e4, 5e5),
        ),
        idea(
            "reserve what was learnt",
            "The mean answer of completed requests tells how much a new request is going to grow.",
            predicts={"restarted_fraction": -1, "mean_response_time": -1},
            gate=gates.new_requests_evicted,
            edit=edits.learnt_reserve,
            RESERVE_SHARE=(0.1, 0.8, 3.0),
        ),
        idea(
            "reserve in proportion to the prompt",
            "A request with a long prompt is likely to get a long answer, so it needs more room to grow.",
            predicts={"restarted_fraction": -1, "mean_response_time": -1},
            gate=gates.new_requests_evicted,
            edit=edits.proportional_reserve,
            RESERVE_RATIO=(0.1, 0.6, 2.0),
        ),
        idea(
            "place by blocks",
            "The replica with the fewest committed blocks is chosen, for counts hide how big requests are.",
            predicts={"replica_imbalance": -1, "mean_response_time": -1},
            gate=gates.replicas_uneven,
            edit=edits.place_by_blocks,
        ),
        idea(
            "back-fill",
            "A request that fits may pass an earlier one that does not: free blocks are not left idle.",
            predicts={"kv_use_mean": +1, "router_wait_share": -1, "mean_response_time": -1},
            gate=gates.idle_while_waiting,
            edit=edits.back_fill,
        ),
        idea(
            "ageing",
            "A waiting request moves ahead with time, so that long prompts are not overtaken for ever.",
            predicts={"p99_response_time": -1},
            gate=gates.some_wait_for_ever,
            edit=edits.ageing,
            AGEING_RATE=(0.1, 3.0, 100.0),
        ),
    ]
