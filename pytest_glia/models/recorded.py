"""A model whose every answer is in the ledger the moment it is known, and is never paid for twice."""

from __future__ import annotations

import hashlib
import time

from pytest_glia.budget import Account, Amounts
from pytest_glia.ledger import Exchange, Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.models import Model, ModelFailed, Reply, Request
from pytest_glia.models.settings import Price
from pytest_glia.models.wire import reply_json, reply_of, request_json, request_of


class RecordEnded(Misuse):
    """A replay asked for something that its record has no answer to."""


class RecordedModel:
    """One conversation of a run: what it was told before is told again, and then a model is asked.

    What is told again is booked as spent, so that an account that begins at zero comes to the same figures. A
    request that is another one than at its place on record is a new turn of the conversation: the record from
    there on is discarded.

    Args:
        model: That is asked; None to replay a record, in which case nothing else may be asked.
        ledger: That keeps the record.
        account: From which the most that a call may cost is taken before it.
        run: To which the conversation belongs.
        thread: Its name. Only one of its requests may be under way at a time.
        price: If it is known, else dollars are not counted.
    """

    def __init__(
        self,
        model: Model | None,
        ledger: Ledger,
        account: Account,
        run: str,
        thread: str,
        price: Price | None,
    ) -> None:
        self._model = model
        self._ledger = ledger
        self._account = account
        self._run = run
        self._thread = thread
        self._price = price
        self._ordinal = 0
        self._wasted = (0, 0)  # prompt and completion tokens of tries that have failed

    @property
    def name(self) -> str:
        """Of the model that is asked, or was."""
        if self._model is not None:
            return self._model.name
        first = self._ledger.exchange(self._run, self._thread, 0)
        return first.model if first else ""

    def complete(self, request: Request) -> Reply:
        """The reply.

        Raises:
            BudgetExhausted: what the call may cost is not there.
            ModelFailed: the model gave none; what is known to be spent is booked.
            RecordEnded: in a replay, a request that is not on record, or not the same as there.
        """
        text = request_json(request)
        digest = hashlib.sha256(text.encode()).hexdigest()
        known = self._ledger.exchange(self._run, self._thread, self._ordinal)
        if known is not None and known.hash == digest:
            self._account.settle({}, self._amounts(known))
            reply = reply_of(known.reply)
        elif self._model is None:
            raise RecordEnded(self._difference(request, known))
        else:
            if known is not None:
                self._ledger.forget(self._run, self._thread, self._ordinal)
            reply = self._ask(self._model, request, text, digest)
        self._ordinal += 1
        return reply

    def _ask(self, model: Model, request: Request, text: str, digest: str) -> Reply:
        """The model's answer, reserved, asked for, written down and settled."""
        # Tokenizers make a token of some four characters of English, of three of code, and of one of other
        # scripts, which take six each in this JSON: two are a bound for all.
        most = self._cost(len(text) // 2, request.max_tokens)
        self._account.reserve(most)
        spent: Amounts = {}
        started = time.monotonic()
        try:
            reply = model.complete(request)
            prompt, completion = reply.prompt_tokens, reply.completion_tokens
            spent = self._cost(prompt, completion)
            prompt, completion = prompt + self._wasted[0], completion + self._wasted[1]
            exchange = Exchange(
                thread=self._thread,
                ordinal=self._ordinal,
                role=request.role,
                model=model.name,
                hash=digest,
                request=text,
                reply=reply_json(reply),
                prompt_tokens=prompt,
                completion_tokens=completion,
                dollars=self._cost(prompt, completion).get("dollars", 0.0),
                seconds=time.monotonic() - started,
            )
            self._ledger.exchanged(self._run, exchange)
            self._wasted = (0, 0)
        except ModelFailed as failed:
            prompt, completion = failed.prompt_tokens, failed.completion_tokens
            spent = self._cost(prompt, completion)
            self._wasted = (self._wasted[0] + prompt, self._wasted[1] + completion)
            raise
        finally:
            self._account.settle(most, spent)
        return reply

    def _cost(self, prompt: int, completion: int) -> Amounts:
        tokens: Amounts = {"tokens": prompt + completion}
        if self._price is None:
            return tokens
        return {**tokens, "dollars": self._price.dollars(prompt, completion)}

    def _amounts(self, known: Exchange) -> Amounts:
        """What it took then, at the price of then."""
        tokens: Amounts = {"tokens": known.prompt_tokens + known.completion_tokens}
        return {**tokens, "dollars": known.dollars} if known.dollars else tokens

    def _difference(self, request: Request, known: Exchange | None) -> str:
        where = f"request {self._ordinal + 1} of {request.role or 'the designer'} in thread {self._thread!r}"
        if known is None:
            return (
                f"the record of the run {self._run} ends before {where}: it can be replayed only as far as "
                "it went, with the code and the settings that it was made with"
            )
        before, now = request_of(known.request).messages, request.messages
        pairs = enumerate(zip(before, now, strict=False))
        place = next((i for i, (old, new) in pairs if old != new), min(len(before), len(now)))
        return (
            f"the run {self._run} was recorded otherwise: {where} differs from message {place + 1} on, or in "
            "its tools; replay it with the code and the settings that it was made with"
        )
