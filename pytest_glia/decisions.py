"""What a candidate decides, taken out of its process: recorded there, replayed where it has never been.

A replication of a candidate whose objects a domain can record gives back nothing but its decisions. The
metrics are those of a second run, in another process, in which those decisions take the candidate's place.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from types import MappingProxyType
from typing import Any

from pytest_glia.domains import is_apart
from pytest_glia.hookspecs import Audit, Recorder
from pytest_glia.replication import Failure, Metrics, Next, Replication, ReplicationError, Rerun

Objects = Mapping[str | None, Any]
"""What stands for each role."""

Run = Callable[[Objects], Metrics | bytes]
"""One replication, given the objects: its metrics, or tables and all."""


PROBED, CHANGES = 3, 3
"""In an audit the future of so many replications is changed, so often each, from another call on."""


def probes_of(simulations: int, replications: int) -> int:
    """How many probes an audit runs, at most, where one look at a candidate takes so many simulations.

    Each replication function that the specs measure with takes its `replications`, and is probed for itself.
    """
    return math.ceil(simulations / replications) * min(PROBED, replications) * CHANGES


# Of a bundle, in bytes: JSON takes many times its length when it is read.
_LONGEST_HEAD = 4096


@dataclass(frozen=True)
class World:
    """Another world than the seed's to run replications in, for an audit.

    Attributes:
        key: Decides it; nobody knew it when the candidate was written.
    """

    key: bytes

    def number(self, *parts: object) -> int:
        """A 64-bit number that the key decides for these parts."""
        text = " ".join(map(str, parts)).encode()
        return int.from_bytes(hmac.new(self.key, text, "sha256").digest()[:8], "big")


_AS_IT_IS: Mapping[str, float] = MappingProxyType({})


@contextmanager
def in_world(
    audits: Sequence[Audit], world: World | None, seed: int, scenario: Mapping[str, float] = _AS_IT_IS
) -> Iterator[None]:
    """The context of a replication with a seed, in that world, and with what the scenario changes."""
    with ExitStack() as stack:
        for audit in audits:
            if world is not None:
                stack.enter_context(audit.varied(world.number("world", seed)))
            changes = {name: factor for name, factor in scenario.items() if name in audit.knobs}
            if changes:
                stack.enter_context(audit.scenario(changes))
        yield


@dataclass(frozen=True)
class _Change:
    """After which call of the role at a place the future is another one, and what was decided before."""

    place: int
    logs: Sequence[bytes]
    call: int
    key: int


@dataclass(frozen=True)
class Recorded:
    """How one replication of a candidate is recorded and replayed.

    Attributes:
        audits: Of the domains at hand.
        roles: Of the candidates, in order.
        objects: Makes their objects; only ever called in a fork.
        run: The replication.
    """

    audits: tuple[Audit, ...]
    roles: tuple[str | None, ...]
    objects: Callable[[], Objects]
    run: Run

    def replication(self, then: Callable[[bytes], Next] | None = None) -> Replication:
        """Run the candidate and take its decisions; the outcome is what `then` makes of their bundle.

        By default that is the metrics of their replay.
        """
        return Replication(
            self._record, confined=True, then=partial(self._after, then or Rerun), again=self._replay
        )

    def probe(self, bundle: bytes, world: World, seed: int) -> Next:
        """Replay what the candidate has decided, then run it again with other futures.

        A `Failure` if it decides otherwise before it could know of the change, else the replay's metrics.
        """
        return Rerun(bundle, lambda metrics: self._probe(bundle, world, seed, 0, metrics))

    def _probe(self, bundle: bytes, world: World, seed: int, ordinal: int, metrics: Metrics | bytes) -> Next:
        """The probes from that one on. The replay has used the bundle up, so its calls are real ones."""
        if not isinstance(metrics, dict):
            return Failure("the replay gave no metrics")
        audit, logs = self._unbundled(bundle)
        deciding = [(place, first) for place, first in enumerate(map(audit.recording, logs)) if first.calls]
        if ordinal == CHANGES or not deciding:
            return metrics
        place, first = deciding[world.number("role", seed, ordinal) % len(deciding)]
        call = world.number("call", seed, ordinal) % first.calls
        change = _Change(place, logs, call, world.number("future", seed, ordinal))

        def compare(answer: Metrics | bytes) -> Next:
            try:
                other = self._unbundled(answer if isinstance(answer, bytes) else b"")[1][place]
                parted = first.differs(other, call + 1)
            except ValueError as error:
                return Failure(f"the candidate's decisions cannot be read: {error}")
            if parted is None:
                return self._probe(bundle, world, seed, ordinal + 1, metrics)
            return Failure(
                f"the candidate sees the future: its decision {parted + 1} is another one where only what "
                f"comes after decision {call + 1} was changed"
            )

        return Replication(partial(self._record, change), confined=True, then=compare)

    def _record(self, change: _Change | None = None) -> bytes:
        objects = self.objects()
        for audit in self.audits:
            made = [audit.record(objects[role]) for role in self.roles]
            known = [each for each in made if each is not None]
            if len(known) < len(made):
                continue
            with ExitStack() as stack:
                if change:
                    pairs = list(zip(known, change.logs, strict=True))
                    pairs.insert(0, pairs.pop(change.place))
                    stack.enter_context(audit.future_changed(pairs, change.call, change.key))
                self.run({role: each.policy for role, each in zip(self.roles, known, strict=True)})
            return _bundled(audit, known)
        raise ReplicationError(
            "the replication asks the candidate for decisions, but it is nothing that could make them: give "
            "its class the methods of its layer"
        )

    def apart(self, domain: str, ask: Callable[[int, bytes], bytes]) -> Metrics | bytes:
        """The metrics of the replication with candidates that are asked, by place, in another process.

        The domain must be `Apart`.
        """
        [audit] = (each for each in self.audits if each.name == domain and is_apart(each))
        try:
            objects = {role: audit.asking(partial(ask, place)) for place, role in enumerate(self.roles)}
        except ValueError as error:
            raise ReplicationError(str(error)) from error
        return self.run(objects)

    def _after(self, then: Callable[[bytes], Next], answer: Metrics | bytes) -> Next:
        # Only decisions count, whatever else the candidate's process says.
        return then(answer) if isinstance(answer, bytes) else Failure("the candidate forged its metrics")

    def asked(self) -> Metrics:
        """By domain, how many decisions the replication asks of objects that have none."""
        asked = {}
        for audit in self.audits:
            stand_ins = {role: audit.recording(b"") for role in self.roles}
            with suppress(Exception):
                self.run({role: each.policy for role, each in stand_ins.items()})
            asked[audit.name] = float(sum(each.asked for each in stand_ins.values()))
        return asked

    def _unbundled(self, bundle: bytes) -> tuple[Audit, list[bytes]]:
        """The domain, and a log for each role; raises ValueError for anything else."""
        head, _, body = bundle.partition(b"\n")
        try:
            name, lengths = json.loads(head if len(head) <= _LONGEST_HEAD else b"")
            [audit] = [each for each in self.audits if each.name == name]
            if len(lengths) != len(self.roles) or sum(lengths) != len(body) or min(lengths) < 0:
                raise ValueError
            ends = list(accumulate(lengths))
            return audit, [body[end - length : end] for end, length in zip(ends, lengths, strict=True)]
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"{bundle[:40]!r} is not what a recorder wrote") from None

    def _replay(self, bundle: bytes) -> Metrics | bytes:
        """The metrics of the replication with these decisions."""
        try:
            audit, logs = self._unbundled(bundle)
            recordings = {role: audit.recording(log) for role, log in zip(self.roles, logs, strict=True)}
        except ValueError as error:
            raise ReplicationError(f"the candidate's decisions cannot be read: {error}") from None
        try:
            metrics = self.run({role: each.policy for role, each in recordings.items()})
        except ReplicationError as error:
            raise ReplicationError(
                f"The candidate's decisions cannot be replayed without it: {error}\n"
                "(A replication may take from the candidate nothing but its decisions.)"
            ) from error
        if any(each.unused for each in recordings.values()):
            raise ReplicationError("the candidate reports more decisions than it was asked for")
        return metrics


def _bundled(audit: Audit, recorders: Sequence[Recorder]) -> bytes:
    logs = [each.log() for each in recorders]
    head = json.dumps([audit.name, [len(log) for log in logs]]).encode()
    return head + b"\n" + b"".join(logs)
