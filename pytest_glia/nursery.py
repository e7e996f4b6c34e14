"""A nursery: forks, for candidates, processes that have never known a seed.

A fork has the memory of what it is forked from. In a fork of a replication a candidate that reaches all of
its process finds the seed, and can draw the workload to come. So the nursery is forked before any seed is
told to this process, and a candidate that must not know its replication is loaded in a fork of the nursery's,
which is told what it may know of it, question by question.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_glia.arms import loaded
from pytest_glia.asked import Asked
from pytest_glia.calling import make_objects, seed_generators, told
from pytest_glia.candidate import Candidate
from pytest_glia.decisions import recorders
from pytest_glia.hookspecs import ApartAudit
from pytest_glia.processes import die_with
from pytest_glia.replication import (
    Again,
    Confine,
    Failure,
    Fork,
    Outcome,
    ReplicationError,
    fork_off,
    kill,
    outputs,
    served,
)


@dataclass(frozen=True)
class Setup:
    """All that a candidate's process is told before it is asked.

    Attributes:
        sources: Of the candidates' files, by path below `root`.
        files: Where their lines are.
        policy, everything: What their own random streams and the global ones start from; they do not tell the
            seed.
        timeout: Seconds for an answer.
    """

    candidates: Sequence[Candidate]
    sources: Mapping[str, bytes]
    root: Path
    files: frozenset[str]
    policy: int
    everything: int
    confine: Confine | None
    timeout: float


class _Lent(Fork):
    """A process of the nursery's: it ends when `line` is closed, or with the process that has it."""

    def __init__(self, descriptor: int, line: int) -> None:
        super().__init__(pid=0, descriptor=descriptor)
        self._line = line

    def end(self, leaving: list[int] | None = None) -> Outcome:
        self.stop()
        return Failure("the candidate's process ended without an answer")

    def stop(self) -> None:
        os.close(self.descriptor)
        os.close(self._line)


class Nursery:
    """The nursery, as a process sees it that may ask for others.

    Attributes:
        pid: Its process.
        descriptor: Of the socket that leads there. Candidates must not have it.
        domains: Those whose candidates it can serve, by name.
    """

    def __init__(self, audits: Sequence[ApartAudit], private: Collection[int]) -> None:
        """Fork it: without the descriptors `private`, and without what this process learns from now on."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            try:
                for descriptor in (*private, here.detach()):
                    os.close(descriptor)
                with contextlib.suppress(OSError):
                    os.setpgid(0, 0)
                die_with(parent)
                gc.freeze()
                _nurse(there, audits)
            finally:
                os._exit(1)
        there.close()
        self.descriptor = here.detach()
        self.domains = frozenset(each.name for each in audits)

    def lives(self) -> bool:
        """Whether it can fork still."""
        poll = select.poll()
        poll.register(self.descriptor, 0)
        return not poll.poll(0)

    @contextmanager
    def asked(self, setup: Setup) -> Iterator[tuple[str, Callable[[int, bytes], bytes]]]:
        """The domain of candidates that are loaded in a process of the nursery's, and what asks the one at a
        place for a decision.

        ReplicationError, with what the candidate did, if there is no answer, whatever comes of that here.
        """
        asked = Asked(self._lend(), setup.timeout)
        try:
            domain = asked.ask(0, pickle.dumps(setup)).decode("utf-8", "replace")
            yield domain, lambda place, question: asked.ask(1, bytes([place]) + question)
        except ReplicationError as error:
            raise ReplicationError(asked.out or str(error)) from error
        finally:
            asked.end()

    def _lend(self) -> Fork:
        mine, its = socket.socketpair()
        ending, line = os.pipe()
        try:
            with its, socket.socket(fileno=os.dup(self.descriptor)) as nursery:
                socket.send_fds(nursery, [b"+"], [its.fileno(), ending])
        except OSError as error:
            mine.close()
            os.close(line)
            raise ReplicationError(
                f"the process from which candidates' are forked has ended ({error.strerror}): run this again"
            ) from None
        finally:
            os.close(ending)
        return _Lent(mine.detach(), line)


def _nurse(asked: socket.socket, audits: Sequence[ApartAudit]) -> None:
    """Fork whenever that is asked for, and kill those whose line nobody holds any more."""
    lines: dict[int, int] = {}
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in lines:
                poll.unregister(descriptor)
                os.close(descriptor)
                pid = lines.pop(descriptor)
                kill(pid)
                os.waitpid(pid, 0)
                continue
            message, descriptors, *_ = socket.recv_fds(asked, 1, 2)
            if not message:
                return
            end, line = descriptors
            with contextlib.suppress(OSError):  # who has asked sees that nobody answers
                pid = fork_off(
                    lambda end=end: served(_functions(audits, end), end),  # type: ignore[misc]
                    end,
                    [asked.fileno(), line, *lines],
                    quiet=True,
                )
                lines[line] = pid
                poll.register(line, 0)
                continue
            os.close(end)
            os.close(line)


def _functions(audits: Sequence[ApartAudit], descriptor: int) -> tuple[Again, Again]:
    """What a candidate's process does: it loads candidates, and it answers."""
    answers: list[Callable[[bytes], bytes]] = []
    files: frozenset[str] = frozenset()

    def begin(given: bytes) -> bytes:
        nonlocal files
        setup: Setup = pickle.loads(given)
        files = setup.files
        if setup.confine:
            setup.confine([descriptor, *outputs()])
        seed_generators(setup.everything)
        with told(files):
            entries = loaded(setup.candidates, setup.sources, setup.root)
            objects = make_objects(entries, setup.policy)
            audit, _ = recorders(audits, objects.values())
            answers.extend(map(audit.answering, objects.values()))
        return audit.name.encode()

    def answer(given: bytes) -> bytes:
        with told(files):
            return answers[given[0]](given[1:])

    return begin, answer
