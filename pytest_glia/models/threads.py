"""The models of a run: one for each conversation, made from the settings."""

from __future__ import annotations

import os
from functools import partial

from pytest_glia.budget import Account, Amounts
from pytest_glia.designers import Designer
from pytest_glia.ends import on_record
from pytest_glia.ledger import Ledger
from pytest_glia.models import Model, Reply, Request
from pytest_glia.models.openai_client import OpenAIModel
from pytest_glia.models.patient import PatientModel
from pytest_glia.models.plain_text import PlainText
from pytest_glia.models.recorded import RecordedModel
from pytest_glia.models.settings import ModelSettings
from pytest_glia.settings import Settings


class Threads:
    """Gives a designer the model of each of its conversations (threads).

    Args:
        settings: Which model, where, how, and at what price.
        model: That answers; None to replay the record of `run`.

    Attributes:
        settings: As given: a designer keeps to its `context` and `max_tokens`.
    """

    def __init__(
        self, settings: ModelSettings, model: Model | None, ledger: Ledger, account: Account, run: str
    ) -> None:
        self.settings = settings
        self._model = model
        self._ledger = ledger
        self._account = account
        self._run = run

    def paid_from(self, account: Account) -> Threads:
        """The same for a context with an account of its own."""
        return Threads(self.settings, self._model, self._ledger, account, self._run)

    def thread(self, name: str) -> Model:
        """The model for a conversation of that name, from its first request on.

        The roles that take part in it ask the same object, one at a time, each with its `Request.role`; a
        conversation that goes on beside another one has a name of its own.
        """
        recorded = RecordedModel(
            self._model, self._ledger, self._account, self._run, name, self.settings.price
        )
        return _EndingModel(
            PatientModel(recorded, self._account), self._ledger, self._account, self._run, name
        )


class _EndingModel:
    """A model that ends a conversation where it has ended in the run before, for the reason of then."""

    def __init__(self, model: Model, ledger: Ledger, account: Account, run: str, thread: str) -> None:
        self._model = model
        self._ledger = ledger
        self._account = account
        self._run = run
        self._thread = thread
        self._asked = 0

    @property
    def name(self) -> str:
        """Of the model that is asked, or was."""
        return self._model.name

    def complete(self, request: Request) -> Reply:
        """The reply; raises what asking for it has raised before, or raises now."""
        # Also one that ends so: whoever asks next may ask for less.
        self._asked += 1
        place = f"request {self._asked} of thread {self._thread}"
        before = dict(self._account.spent)

        def taken() -> Amounts:
            """What tries that failed have taken."""
            return {kind: amount - before.get(kind, 0.0) for kind, amount in self._account.spent.items()}

        again = partial(self._account.settle, {})
        with on_record(self._ledger, self._run, place, self._account, taken=taken, again=again):
            return self._model.complete(request)


def asked_by(designer: Designer, settings: Settings, account: Account) -> Model | None:
    """The model that the settings name, its key from the environment; None if the designer asks none.

    A designer that does so has an attribute ``uses_model`` that is true. Raises `Misuse` if there is no model
    for it, or no limit to what that may cost.
    """
    if not getattr(designer, "uses_model", False):
        return None
    key = os.environ.get(settings.model.key_env, "")
    settings.model.refuse(settings.designer, settings.budget, key)
    model = OpenAIModel(settings.model, key, account.seconds_left)
    return PlainText(model) if settings.model.tools == "text" else model
