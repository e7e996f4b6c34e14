"""vLLM schedulers that log, for each request, what only the engine knows: a testbed joins it to its table.

    GLIA_REQUEST_LOG=requests.jsonl vllm serve MODEL \
        --scheduler-cls gpu_harness.request_log.LoggedScheduler --no-async-scheduling

When a request ends one line of JSON is written: `request` (vLLM's name of it, which holds its X-Request-Id),
`admitted` (first scheduled), `cached` (tokens found in the prefix cache then), and `evictions`, pairs of the
time of each and that at which the lost tokens were computed again (null if never). Times are seconds of
`time.monotonic()`, which is one for all processes of a machine and does not step. What cannot be written, as
where a disk is full, is left out. Written for vLLM 0.32, whose scheduler is no public interface.
"""

# mypy: disable-error-code="misc,no-any-return"
from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from gpu_harness.step_log import LoggingScheduler
from gpu_harness.vllm_scheduler import PlannedScheduler

__all__ = ["LoggedPlannedScheduler", "LoggedScheduler", "LoggedStepsScheduler"]

PATH = "GLIA_REQUEST_LOG"


class _Logged(Scheduler):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        path = os.environ.get(PATH)
        if not path:
            raise ValueError(f"{PATH}={path!r}; expected the path of a file to write the requests' lines to")
        self._lines = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        self._stories: dict[str, dict[str, Any]] = {}
        self._lost: dict[str, int] = {}
        """Tokens that an evicted request had computed."""
        super().__init__(*arguments, **settings)

    def schedule(self, *arguments: Any, **settings: Any) -> Any:
        """As vLLM's; who is scheduled for the first time is admitted."""
        output = super().schedule(*arguments, **settings)
        for new in output.scheduled_new_reqs:
            self._stories[new.req_id] = {
                "request": new.req_id,
                "admitted": time.monotonic(),
                "cached": new.num_computed_tokens,
                "evictions": [],
            }
        return output

    def _preempt_request(self, request: Any, *arguments: Any, **settings: Any) -> None:
        computed = request.num_computed_tokens
        super()._preempt_request(request, *arguments, **settings)
        story = self._stories.get(request.request_id)
        if story is not None:
            story["evictions"].append([time.monotonic(), None])
            self._lost[request.request_id] = max(computed, self._lost.get(request.request_id, 0))

    def update_from_output(self, *arguments: Any, **settings: Any) -> Any:
        """As vLLM's; who has computed again what an eviction lost is noted."""
        outputs = super().update_from_output(*arguments, **settings)
        for name, lost in list(self._lost.items()):
            request = self.requests.get(name)
            if request is not None and request.num_computed_tokens >= lost:
                self._regained(name)
        return outputs

    def _free_request(self, request: Any, *arguments: Any, **settings: Any) -> Any:
        self._lost.pop(request.request_id, None)
        story = self._stories.pop(request.request_id, None)
        if story is not None:
            with contextlib.suppress(OSError):  # the engine must not end with the disk
                self._lines.write(json.dumps(story) + "\n")
        return super()._free_request(request, *arguments, **settings)

    def _regained(self, name: str) -> None:
        del self._lost[name]
        for eviction in self._stories[name]["evictions"]:
            eviction[1] = eviction[1] or time.monotonic()


class LoggedScheduler(_Logged):
    """vLLM's own scheduler, which decides as ever."""


class LoggedPlannedScheduler(_Logged, PlannedScheduler):
    """vLLM's scheduler under a batch scheduler (`gpu_harness.vllm_scheduler`)."""


class LoggedStepsScheduler(_Logged, LoggingScheduler):
    """vLLM's own scheduler, whose steps are logged, too (`gpu_harness.step_log`)."""
