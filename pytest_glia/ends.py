"""What has ended a search's work at some place, on record: whoever goes on or replays it ends there, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.ledger import Ledger
from pytest_glia.models import ModelFailed

_KINDS: dict[str, type[BudgetExhausted | EvaluatorFailed | ModelFailed]] = {
    kind.__name__: kind for kind in (BudgetExhausted, EvaluatorFailed, ModelFailed)
}


@contextmanager
def on_record(
    ledger: Ledger,
    run: str,
    place: str,
    account: Account,
    *,
    taken: Callable[[], Any] = lambda: None,
    again: Callable[[Any], object] = lambda _: None,
) -> Iterator[None]:
    """Around what may end with one of these errors: the one with which it has ended in this run before.

    None of it would come out the same again: time goes on, a server answers by now, memory is free. A
    budget that is another one by now does not end it. What belongs to no run is not on record.

    Args:
        place: What is done, where in the run; the same in each process of it.
        account: That pays for it.
        taken: Gives, as JSON, what had been taken from the account by then.
        again: Takes it once more, where it ends as on record.
    """
    key = f"ended: {place}"
    if run and (known := ledger.recall(run, key)):
        kind, values, before = json.loads(known)
        error = _KINDS[kind](*values)
        if not isinstance(error, BudgetExhausted) or account.has_limit(error.kind, error.limit):
            again(before)
            raise error
    try:
        yield
    except tuple(_KINDS.values()) as error:
        if run:
            ledger.remember(run, key, json.dumps([type(error).__name__, error.args, taken()]))
        raise
