"""What a batch scheduler sees of a real vLLM engine: the views of `sim.scheduling`, over vLLM's own objects.

Live and read-only, as the simulator's. Nothing of vLLM is imported: the objects are handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sim.scheduling import EngineRequest, EngineView, WaitingQueue

__all__ = ["VllmEngine", "VllmRequest", "note_eviction", "request_of"]

_set = object.__setattr__  # past the views' read-only `__setattr__`, for constructors alone


class VllmRequest(EngineRequest):
    """A request of a vLLM scheduler.

    `id` counts the requests of this engine, `arrival` is on the clock of the scheduler's `now`; vLLM knows no
    `session`, `ttft_slo` and `tpot_slo` (None). `prefix` are the first 8 bytes of vLLM's hashes of the full
    blocks of the prompt.
    """

    __slots__ = ("_blocks", "_prefill", "_request")
    _request: Any
    _blocks: Any
    _prefill: int

    def __init__(self, id: int, arrival: float, request: Any, blocks: Any) -> None:
        """`request` is vLLM's; `blocks` is called with its name and returns its blocks by KV cache group."""
        none: Any = None  # in place of the simulator's memory, which nothing here reads
        super().__init__(
            0,
            none,
            id,
            arrival,
            request.num_prompt_tokens,
            request.priority,
            None,
            none,
            none,
            _prefix(request),
        )
        _set(self, "_request", request)
        _set(self, "_blocks", blocks)
        _set(self, "_prefill", request.num_prompt_tokens)

    @property
    def state(self) -> str:
        status = self._request.status
        if status.is_finished(status):
            return "finished"
        return "running" if status.name == "RUNNING" else "waiting"

    @property
    def tokens_done(self) -> int:
        return self._request.num_tokens if self._request.num_output_tokens else 0

    @property
    def computed_tokens(self) -> int:
        return self._request.num_computed_tokens  # type: ignore[no-any-return]

    @property
    def tokens_to_compute(self) -> int:
        return self._request.num_tokens - self._request.num_computed_tokens  # type: ignore[no-any-return]

    @property
    def prefilling(self) -> bool:
        return self._request.num_computed_tokens < self._prefill  # type: ignore[no-any-return]

    @property
    def blocks(self) -> int:
        return sum(len(group) for group in self._blocks(self._request.request_id).blocks)

    @property
    def preemptions(self) -> int:
        return self._request.num_preemptions  # type: ignore[no-any-return]


# No methods: what a candidate can name of a view is what the simulator's views have.
def request_of(view: VllmRequest) -> Any:
    """vLLM's own object, which knows how many tokens its client has asked for."""
    return view._request


def note_eviction(view: VllmRequest) -> None:
    """The request's output so far is to be computed again, too."""
    _set(view, "_prefill", view._request.num_tokens)


def _prefix(request: Any) -> tuple[int, ...]:
    """Of the hashes that there are when the request comes: those of its prompt."""
    return tuple(int.from_bytes(each[:8], "big", signed=True) for each in request.block_hashes)


class _Waiting(WaitingQueue):
    """A scheduler's waiting queue."""

    __slots__ = ("_scheduler", "_views")
    _scheduler: Any
    _views: dict[str, VllmRequest]

    def __init__(self, scheduler: Any, views: dict[str, VllmRequest]) -> None:
        _set(self, "_scheduler", scheduler)
        _set(self, "_views", views)

    def __len__(self) -> int:
        return len(self._scheduler.waiting)

    def __iter__(self) -> Iterator[EngineRequest]:
        return (self._views[request.request_id] for request in self._scheduler.waiting)


class VllmEngine(EngineView):
    """A vLLM scheduler as a batch scheduler sees it; `index` is its rank among data-parallel ones."""

    __slots__ = ("_scheduler",)
    _scheduler: Any
    _views: dict[str, VllmRequest]

    def __init__(self, scheduler: Any, views: dict[str, VllmRequest]) -> None:
        """`views` of the scheduler's requests by vLLM's names."""
        for name, value in {
            "index": scheduler.vllm_config.parallel_config.data_parallel_index,
            "blocks_total": scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,  # one is the null block
            "block_size": scheduler.block_size,
            "token_budget": scheduler.max_num_scheduled_tokens,
            "max_num_seqs": scheduler.max_num_active_reqs,
            "waiting": _Waiting(scheduler, views),
            "_views": views,
        }.items():
            _set(self, name, value)
        _set(self, "_scheduler", scheduler)

    @property
    def running(self) -> tuple[EngineRequest, ...]:
        return tuple(self._views[request.request_id] for request in self._scheduler.running)

    @property
    def blocks_free(self) -> int:
        return self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks()  # type: ignore[no-any-return]

    @property
    def blocks_used(self) -> int:
        return self.blocks_total - self.blocks_free

    def __repr__(self) -> str:
        return (
            f"<engine {self.index}: {len(self._scheduler.running)} running, {len(self.waiting)} waiting, "
            f"{self.blocks_used} of {self.blocks_total} blocks used>"
        )
