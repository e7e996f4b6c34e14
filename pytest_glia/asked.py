"""The other end of a process that answers: questions go there one at a time, and each has its deadline."""

from __future__ import annotations

import time

from pytest_glia.replication import Failure, Fork, ReplicationError, late
from pytest_glia.timing import readable


class Asked:
    """A fork that answers (see `pytest_glia.replication.serve`), and why it does not any more."""

    def __init__(self, fork: Fork, timeout: float) -> None:
        """Each answer has `timeout` seconds."""
        self._fork, self._timeout = fork, timeout
        self.out = ""
        """Why there is no answer any more; empty if there is."""
        self._stopped = False

    def ask(self, number: int, question: bytes) -> bytes:
        """The answer of a function of the fork; ReplicationError if there is none, then and from then on."""
        if self.out:
            raise ReplicationError(self.out)
        # Whoever limits the time of a decision does it by an exception, here or anywhere below.
        self.out = "the candidate did not answer in time"
        self._fork.give(number, question)
        end = time.monotonic() + self._timeout
        whole = False
        while not whole:
            if not readable(self._fork.descriptor, end - time.monotonic()):
                self.out = str(late(self._timeout))
                raise ReplicationError(self.out)
            whole = self._fork.receive()
        outcome = self._fork.take()
        if isinstance(outcome, bytes):
            self.out = ""
            return outcome
        self._stopped = isinstance(outcome, Failure)
        self.out = str(outcome) if isinstance(outcome, Failure) else "the candidate's process gave no answer"
        raise ReplicationError(self.out)

    def end(self) -> None:
        """Kill the fork."""
        if not self._stopped:
            self._fork.stop()
