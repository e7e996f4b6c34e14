"""A candidate's decisions are all that is taken from its process; what sees the future gives itself away."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import pytest

from pytest_glia.decisions import Objects, Recorded, World, in_world
from pytest_glia.replication import Failure, Metrics, Outcome, Replication
from pytest_glia.running import run_all


class Guesses:
    """A toy domain: a candidate guesses numbers one by one and hears each after its guess."""

    name = "coins"
    world = 0
    changed: tuple[int, int] | None = None
    knobs: Mapping[str, str] = MappingProxyType({"coins": "how many are tossed"})
    factor = 1.0

    @dataclass
    class _Recorder:
        candidate: Any
        guesses: list[int] = field(default_factory=list)

        @property
        def policy(self) -> Any:
            return self

        def guess(self, seen: Sequence[int]) -> int:
            self.guesses.append(self.candidate.guess(seen))
            return self.guesses[-1]

        def log(self) -> bytes:
            return json.dumps(self.guesses).encode()

    @dataclass
    class _Recording:
        guesses: list[int]
        asked: int = 0

        @property
        def policy(self) -> Any:
            return self

        @property
        def calls(self) -> int:
            return len(self.guesses)

        @property
        def unused(self) -> bool:
            return self.asked < len(self.guesses)

        def guess(self, seen: Sequence[int]) -> int:
            self.asked += 1
            return self.guesses[self.asked - 1]

        def differs(self, other: bytes, until: int) -> int | None:
            pairs = zip(self.guesses[:until], json.loads(other), strict=False)
            return next((call for call, (one, two) in enumerate(pairs) if one != two), None)

    def record(self, candidate: Any) -> Any:
        return self._Recorder(candidate) if hasattr(candidate, "guess") else None

    def recording(self, log: bytes) -> Any:
        return self._Recording(json.loads(log or b"[]"))

    @contextmanager
    def varied(self, key: int) -> Iterator[None]:
        self.world = key
        yield

    @contextmanager
    def scenario(self, changes: Mapping[str, float]) -> Iterator[None]:
        self.factor = changes["coins"]
        yield

    @contextmanager
    def future_changed(self, logs: Any, call: int, key: int) -> Iterator[None]:
        self.changed = call, key
        yield

    def coin(self, seed: int, toss: int) -> int:
        """The outcome of a toss in the world that holds."""
        later = self.changed is not None and toss >= self.changed[0]
        return hash((seed, toss, self.world, self.changed if later else (0, 0))) % 97


COINS = Guesses()
TOSSES = 40


def tossing(candidate: Any, seed: int) -> Metrics:
    """One replication: how many were guessed."""
    coins = [COINS.coin(seed, toss) for toss in range(TOSSES)]
    seen: list[int] = []
    right = 0
    for coin in coins:
        right += candidate.guess(tuple(seen)) == coin
        seen.append(coin)
    return {"right": float(right)}


class Repeats:
    """Honest: guesses what came last."""

    def guess(self, seen: Sequence[int]) -> int:
        return seen[-1] if seen else 0


class Peeks:
    """Looks into the frame of its caller."""

    def guess(self, seen: Sequence[int]) -> int:
        import sys

        frame = sys._getframe()
        while "coins" not in frame.f_locals:
            frame = frame.f_back  # type: ignore[assignment]
        return int(frame.f_locals["coins"][len(seen)])


def recorded(make: Callable[[], Any], seed: int = 1, world: World | None = None) -> Recorded:
    def run(objects: Objects) -> Metrics:
        with in_world([COINS], world, seed):
            return tossing(objects[None], seed)

    return Recorded((COINS,), (None,), lambda: {None: make()}, run)


def outcome(replication: Replication) -> Outcome:
    [(_, found)] = run_all([replication], workers=1, timeout=30)
    return found


def replayed(bundle: bytes) -> Outcome:
    """The outcome of a replication in which the candidate's process answers this."""
    return outcome(replace(recorded(Repeats).replication(), run=lambda: bundle))


def probed(make: Callable[[], Any], world: World | None = None) -> Outcome:
    """The outcome of an audit's replication."""
    world = world or World(b"key")
    subject = recorded(make, world=world)
    return outcome(subject.replication(lambda bundle: subject.probe(bundle, world, 1)))


def test_a_replay_gives_the_candidates_metrics() -> None:
    """For a candidate that only decides, recording and replaying changes nothing."""
    assert outcome(recorded(Repeats).replication()) == tossing(Repeats(), 1)


def test_the_candidates_process_cannot_touch_the_metrics() -> None:
    """What it does to the evaluator's own functions is gone with its process: its decisions alone count."""

    class Rigs(Repeats):
        def __init__(self) -> None:
            Guesses.coin = lambda self, seed, toss: 0  # type: ignore[method-assign]

    # There it sees zeros only, and repeats them.
    zeros = tossing(type("Zeros", (), {"guess": lambda self, seen: 0})(), 1)
    assert outcome(recorded(Rigs).replication()) == zeros != {"right": float(TOSSES)}


def test_forged_metrics_do_not_count() -> None:
    """An answer that the candidate's process writes into the channel itself is refused."""

    class Forges:
        def __init__(self) -> None:
            answer = json.dumps({"metrics": {"right": 1e9}}).encode()
            for descriptor in range(200, 2, -1):  # the channel was opened last
                try:
                    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                        os.write(descriptor, len(answer).to_bytes(8, "big") + answer)
                        break
                except OSError:
                    continue
            os._exit(0)

    assert outcome(recorded(Forges).replication()) == Failure("the candidate forged its metrics")


@pytest.mark.parametrize(
    "bundle",
    [b"", b"[]", b'["coins", [5]]\nabc', b'["other", [0]]\n', b'["coins", [-1, 1]]\n', b"[" * 100_000],
)
def test_forged_decisions_are_refused(bundle: bytes) -> None:
    """Bytes that no recorder wrote are a failure, whatever they are."""
    found = replayed(bundle)
    assert isinstance(found, Failure)
    assert "decisions cannot be read" in found.message


def test_too_few_decisions_are_a_failure() -> None:
    """A replay that runs out of decisions gives no metrics, and says why."""
    found = replayed(b'["coins", [6]]\n[0, 1]')
    assert isinstance(found, Failure)
    assert found.message == "the replication raised IndexError: list index out of range"


def test_too_many_decisions_are_a_failure() -> None:
    """A log with more calls than the replication asks for was not recorded: its calls could not be probed."""
    many = json.dumps([0] * (TOSSES + 1)).encode()
    found = replayed(b'["coins", [%d]]\n' % len(many) + many)
    assert found == Failure("the candidate reports more decisions than it was asked for")


def test_what_cannot_be_recorded_is_refused() -> None:
    """Where decisions are asked for, an object that hides how it makes them has no metrics."""

    class Hides:
        def __getattr__(self, name: str) -> Any:
            if name == "guess" and self.__dict__.setdefault("asked", 0):
                return lambda seen: 0
            self.__dict__["asked"] = 1
            raise AttributeError(name)

    found = outcome(recorded(Hides).replication())
    assert isinstance(found, Failure)
    assert "nothing that could make them" in found.message


def test_asking_shows_what_a_replication_needs() -> None:
    """A trusted run with an object that can decide nothing tells whether decisions are asked for."""
    assert outcome(Replication(recorded(Repeats).asked)) == {"coins": 1.0}
    generic = Recorded((COINS,), (None,), lambda: {None: sorted}, lambda objects: {"n": objects[None]([1])})
    assert outcome(Replication(generic.asked)) == {"coins": 0.0}


def test_an_honest_candidate_passes_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It decides the same until the changed future is its present; its metrics are those of a replay."""
    world = World(b"key")
    found = probed(Repeats, world)
    monkeypatch.setattr(COINS, "world", COINS.world)
    with in_world([COINS], world, 1):
        assert found == tossing(Repeats(), 1)


def test_a_candidate_that_sees_the_future_is_told_so() -> None:
    """A change of nothing but what comes later shows in what it decides before."""
    found = probed(Peeks)
    assert isinstance(found, Failure)
    assert "the candidate sees the future: its decision" in found.message
