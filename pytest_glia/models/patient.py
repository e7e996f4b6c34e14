"""Asking a model again where that may help: after waits that grow, within the time of the search."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from pytest_glia.budget import Account
from pytest_glia.models import Model, ModelFailed, Reply, Request

_TRIES = 6
_FIRST = 1.0  # seconds
_LONGEST = 60.0  # seconds


class PatientModel:
    """Asks a model up to six times.

    Args:
        model: That is asked.
        account: Beyond whose time no wait goes.
        sleep: Waits so many seconds.
    """

    def __init__(self, model: Model, account: Account, sleep: Callable[[float], None] = time.sleep) -> None:
        self._model = model
        self._account = account
        self._sleep = sleep

    @property
    def name(self) -> str:
        """Of the model that is asked."""
        return self._model.name

    def complete(self, request: Request) -> Reply:
        """The reply; raises what the model raised last, once to ask again helps no more.

        If a call has failed because the time of the search is over, it raises `BudgetExhausted`.
        """
        for attempt in range(1, _TRIES):
            try:
                return self._model.complete(request)
            except ModelFailed as failed:
                # Jitter, so that contexts which failed together do not come back together.
                wait = failed.after or min(_LONGEST, _FIRST * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
                left = self._account.seconds_left()
                if failed.again and left <= 0:
                    raise self._account.exhausted("seconds") from None
                if not failed.again or wait >= left:
                    raise
            self._sleep(wait)
        return self._model.complete(request)
