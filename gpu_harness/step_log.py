"""A vLLM scheduler that logs what each engine step computed and how long it took, for `python -m sim fit`.

    GLIA_STEP_LOG=steps.csv vllm serve MODEL --scheduler-cls gpu_harness.step_log.LoggingScheduler

It is vLLM's own scheduler (v1), which decides as ever; as any subclass of it, it runs without asynchronous
scheduling. The columns are those that `sim.costs.sources.steps` reads. Written for vLLM 0.32, whose scheduler
is no public interface.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-return"
from __future__ import annotations

import csv
import os
import time
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from sim.costs import Batch
from sim.costs.sources.steps import COLUMNS

__all__ = ["LoggingScheduler"]

PATH = "GLIA_STEP_LOG"


class LoggingScheduler(Scheduler):
    """vLLM's scheduler, with a row in the file named by GLIA_STEP_LOG for each step that computes anything.

    A step's seconds are the wall clock to the end of `update_from_output`: from the end of the step before
    it, if that left requests, for what passes in between (taking requests in, handing tokens out) holds the
    engine up as well; else from the call of `schedule`. ValueError if GLIA_STEP_LOG is not set.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        path = os.environ.get(PATH)
        if not path:
            raise ValueError(f"{PATH}={path!r}; expected the path of a CSV file to write engine steps to")
        self._log = open(path, "w", newline="", buffering=1, encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._log)
        self._rows.writerow(COLUMNS)
        self._began = self._ended = 0.0
        self._went_on = False
        """Whether the last step left requests."""
        self._step: Batch | None = None

    def schedule(self, *arguments: Any, **settings: Any) -> Any:
        """As vLLM's; the clock starts before."""
        self._began = self._ended if self._went_on else time.perf_counter()
        output = super().schedule(*arguments, **settings)
        # vLLM has already counted the step's tokens among the computed ones.
        chunks = [
            (self.requests[name], tokens) for name, tokens in output.num_scheduled_tokens.items() if tokens
        ]
        self._step = Batch.of(
            (tokens, before, tokens == 1 and before >= request.num_prompt_tokens)
            for request, tokens in chunks
            for before in [request.num_computed_tokens - tokens]
        )
        return output

    def update_from_output(self, *arguments: Any, **settings: Any) -> Any:
        """As vLLM's; the clock stops after."""
        outputs = super().update_from_output(*arguments, **settings)
        self._ended = time.perf_counter()
        self._went_on = self.has_requests()
        seconds = self._ended - self._began
        if self._step is not None and self._step.tokens > 0:
            self._rows.writerow([*self._step, f"{seconds:.9f}"])
        self._step = None
        return outputs

    def shutdown(self) -> None:
        """As vLLM's; the file is closed."""
        self._log.close()
        super().shutdown()
