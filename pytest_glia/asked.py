"""The other end of a process that answers: questions go there one at a time, and each has its deadline."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_glia.replication import Failure, Fork, ReplicationError, late

_LARGEST = 1 << 22
"""Bytes of an answer: whoever reads it takes many times that memory."""


@contextmanager
def asked(fork: Fork, timeout: float) -> Iterator[Callable[[int, bytes], bytes]]:
    """What asks a fork for the answer of its functions (`pytest_glia.replication.serve`); then it is ended.

    Each answer has `timeout` seconds, from when its question is begun to be said. ReplicationError, with why
    there is none, whatever comes of that here.
    """
    its = _Asked(fork, timeout)
    try:
        yield its.ask
    except Exception as error:
        reasons = [*(str(each) for each in _chain(error) if isinstance(each, _NoAnswer)), its.out]
        if reason := next(filter(None, reasons), None):
            raise ReplicationError(reason) from error
        raise
    finally:
        its.end()


class _NoAnswer(ReplicationError):
    """A question that has no answer; the reason may be the candidate's words."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class _Asked:
    """A fork that answers, and why it does not."""

    def __init__(self, fork: Fork, timeout: float) -> None:
        self._fork, self._timeout = fork, timeout
        fork.largest = _LARGEST
        # Who does not read must not keep whoever asks.
        os.set_blocking(fork.descriptor, False)
        self._reading, self._writing = select.poll(), select.poll()
        self._reading.register(fork.descriptor, select.POLLIN)
        self._writing.register(fork.descriptor, select.POLLOUT)
        self.out = ""
        """Why there is no answer any more; empty if there is."""

    def ask(self, number: int, question: bytes) -> bytes:
        """The answer of a function of the fork.

        One that has gone, or was too late, answers nothing from then on.
        """
        if self.out:
            raise _NoAnswer(self.out)
        # Whoever limits the time of a decision does it by an exception, here or anywhere below.
        self.out = "the candidate did not answer in time"
        end = time.monotonic() + self._timeout
        self._fork.give(number, question, lambda: _ready(self._writing, end))
        whole = False
        while not whole:
            if not _ready(self._reading, end):
                self.out = str(late(self._timeout))
                raise _NoAnswer(self.out)
            whole = self._fork.receive()
        outcome = self._fork.take()
        if isinstance(outcome, bytes):
            self.out = ""
            return outcome
        reason = str(outcome) if isinstance(outcome, Failure) else "the candidate's process gave no answer"
        self.out = reason if self._fork.gone else ""
        raise _NoAnswer(reason)

    def end(self) -> None:
        """Kill the fork."""
        if not self._fork.gone:
            self._fork.stop()


def _ready(poll: select.poll, end: float) -> bool:
    """Whether there is something until that moment."""
    return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))
