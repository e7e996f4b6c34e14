"""A nursery: forks, for candidates, processes that have never known a seed.

A fork has the memory of what it is forked from. In a fork of a replication a candidate that reaches all of
its process finds the seed, and can draw the workload to come. So the nursery is forked before any seed is
told to this process, and a candidate that must not know its replication is loaded in a fork of the nursery's,
which is told what it may know of it, question by question.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_glia.arms import Arm, loaded
from pytest_glia.asked import asked
from pytest_glia.calling import make_objects, seed_generators, told
from pytest_glia.candidate import Candidate
from pytest_glia.context import Context
from pytest_glia.hookspecs import Apart
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
from pytest_glia.seeds import apart_seed, policy_seed

REAL = "--glia-testbed"
"""The domain of what a real testbed asks."""


@dataclass(frozen=True)
class _Setup:
    """All that a candidate's process is told before it is asked.

    Attributes:
        domain: That asks.
        sources: Of the candidates' files, by path below `root`.
        files: Where their lines are.
        policy, everything: What their own random streams and the global ones start from; they do not tell the
            seed.
    """

    domain: str
    candidates: Sequence[Candidate]
    sources: Mapping[str, bytes]
    root: Path
    files: frozenset[str]
    policy: int
    everything: int
    confine: Confine | None


class _Lent(Fork):
    """A process of the nursery's: it ends when `line` is closed, or with the process that has it.

    What its candidate raises does not end it.
    """

    def __init__(self, descriptor: int, line: int) -> None:
        super().__init__(pid=0, descriptor=descriptor)
        self._line = line

    def take(self) -> Outcome:
        return self.taken() if self.whole() else self.end()

    def end(self, leaving: list[int] | None = None) -> Outcome:
        self.stop()
        return Failure("the candidate's process ended without an answer")

    def stop(self) -> None:
        self.gone = True
        os.close(self.descriptor)
        os.close(self._line)


class Nursery:
    """The nursery, as a process sees it that may ask for others.

    Attributes:
        pid: Its process.
        descriptor: Of the socket that leads there. Candidates must not have it.
        domains: Those whose candidates it can serve, by name.
    """

    def __init__(self, answerers: Mapping[str, Apart], private: Sequence[int]) -> None:
        """Fork it: without the descriptors `private`, and without what this process learns from now on.

        `answerers` by domain.
        """
        here, there = (end.detach() for end in socket.socketpair())
        self.pid = fork_off(lambda: _nursed(there, answerers), there, [here, *private], quiet=True)
        self.descriptor = here
        self.domains = frozenset(answerers)

    def lives(self) -> bool:
        """Whether it can fork still."""
        poll = select.poll()
        poll.register(self.descriptor, 0)
        return not poll.poll(0)

    def insist(self) -> None:
        """If it was killed, no candidate is to blame: end this process, too, which is taken up again."""
        if not self.lives():
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def candidates(
        self, domain: str, arm: Arm, seed: int, context: Context
    ) -> Iterator[Callable[[int, bytes], bytes]]:
        """What asks an arm's candidate at a place for a decision: they are in a process of the nursery's.

        Raises as `pytest_glia.asked.asked` does.
        """
        setup = _Setup(
            domain,
            *(arm.candidates, arm.sources, context.root, arm.files),
            *(policy_seed(seed), apart_seed(seed)),
            context.confine,
        )
        with asked(self._lend(), context.timeout) as ask:
            ask(_BEGIN, pickle.dumps(setup))
            yield lambda place, question: ask(_ANSWER, bytes([place]) + question)

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


def _nursed(requests: int, answerers: Mapping[str, Apart]) -> Iterator[bytes]:
    """Fork whenever that is asked for, and kill those whose line nobody holds any more."""
    lines: dict[int, int] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    with socket.socket(fileno=requests) as listening:
        while True:
            for descriptor, _ in poll.poll():
                if descriptor in lines:
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    pid = lines.pop(descriptor)
                    kill(pid)
                    os.waitpid(pid, 0)
                    continue
                message, sent, *_ = socket.recv_fds(listening, 1, 2)
                if not message:
                    return
                if len(sent) < 2:  # this process had no descriptors left for them
                    continue
                end, line = sent
                if forked := _forked(end, line, answerers, [requests, *lines]):
                    lines[line] = forked
                    poll.register(line, 0)
    yield b""  # a generator, as what a fork answers is


def _forked(end: int, line: int, answerers: Mapping[str, Apart], private: Sequence[int]) -> int | None:
    """A process that answers at `end`; None if there can be none: who has asked sees that nobody answers."""
    try:
        return fork_off(lambda: served(_functions(answerers, end), end), end, [line, *private], quiet=True)
    except OSError:
        os.close(end)
        os.close(line)
        return None


_BEGIN, _ANSWER = 0, 1


def _functions(answerers: Mapping[str, Apart], descriptor: int) -> tuple[Again, Again]:
    """What a candidate's process does: it loads candidates, and it answers."""
    answers: list[Callable[[bytes], bytes]] = []
    files: frozenset[str] = frozenset()

    def begin(given: bytes) -> bytes:
        nonlocal files
        setup: _Setup = pickle.loads(given)
        files = setup.files
        if setup.confine:
            setup.confine([descriptor, *outputs()])
        with told(files):
            seed_generators(setup.everything)
            objects = make_objects(loaded(setup.candidates, setup.sources, setup.root), setup.policy)
            seed_generators(setup.everything)
            answers.extend(map(answerers[setup.domain].answering, objects.values()))
        return b""

    def answer(given: bytes) -> bytes:
        with told(files):
            return answers[given[0]](given[1:])

    return begin, answer
