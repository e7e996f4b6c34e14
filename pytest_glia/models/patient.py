"""Asking a model again where that may help: after waits that grow, within the time of the search."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from pytest_glia.models import Model, ModelFailed, Reply, Request

_TRIES = 6
_FIRST = 1.0  # seconds
_LONGEST = 60.0  # seconds


class PatientModel:
    """Asks a model up to six times.

    Args:
        model: That is asked.
        seconds_left: Until the search ends; no wait goes beyond that.
        sleep: Waits so many seconds.
    """

    def __init__(
        self, model: Model, seconds_left: Callable[[], float], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._model = model
        self._seconds_left = seconds_left
        self._sleep = sleep

    @property
    def name(self) -> str:
        """Of the model that is asked."""
        return self._model.name

    def complete(self, request: Request) -> Reply:
        """The reply; raises what the model raised last, once to ask again helps no more."""
        for attempt in range(1, _TRIES):
            try:
                return self._model.complete(request)
            except ModelFailed as failed:
                # Jitter, so that contexts which failed together do not come back together.
                wait = failed.after or min(_LONGEST, _FIRST * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
                if not failed.again or wait >= self._seconds_left():
                    raise
            self._sleep(wait)
        return self._model.complete(request)
