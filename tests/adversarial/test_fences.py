"""The fences behind the static rules: each cheat with the rules out of its way, on the real simulator."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pytest_glia.candidate import Candidate, fault, load, make
from pytest_glia.decisions import Objects, Recorded, World, in_world
from pytest_glia.replication import Failure, Metrics, Outcome, Replication, ReplicationError, Rerun
from pytest_glia.running import run_all
from pytest_glia.sandbox import confining, unavailable
from pytest_glia.seeds import policy_seed
from sim import warm_up
from sim.baselines import RoundRobin
from sim.glia import glia_audits
from sim.recording import record
from tests.adversarial import worlds
from tests.adversarial.cheats import CHEATS, HONEST, ROUND_ROBIN, Cheat

ROUTER = Candidate("candidates/router.py", "Router")
SEEDS = (11, 12, 13, 14)
WORLD = World(b"nobody knows this")


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up(replays=True)


@pytest.fixture
def confine(tmp_path: Path) -> Callable[[Collection[int]], None]:
    if reason := unavailable():
        pytest.skip(f"no sandbox here: {reason}")
    # So many workers have a little memory each, which is soon full: new memory is written to (M_PERTURB).
    return confining(tmp_path, seconds=5, workers=32)


def recorded(source: str, seed: int, root: Path, world: World | None = None) -> Recorded:
    audits: tuple[Any, ...] = (glia_audits(),)

    def objects() -> Objects:
        try:
            return {None: make(load(ROUTER, source.encode(), root), Random(policy_seed(seed)))}
        except ReplicationError:
            raise
        except Exception as error:
            raise ReplicationError(f"{type(error).__name__}: {error}") from error

    def run(given: Objects) -> Metrics:
        try:
            with in_world(audits, world, seed):
                return dict(worlds.serve(given[None], seed).metrics)
        except Exception as error:
            raise ReplicationError(f"{type(error).__name__}: {error}") from error

    return Recorded(audits, (None,), objects, run)


def outcomes(
    source: str, root: Path, confine: Any, world: World | None = None, timeout: float = 20.0
) -> list[Outcome]:
    """What comes of a candidate on each seed; with a world as in an audit."""
    runs: list[Replication] = []
    for seed in SEEDS:
        subject = recorded(source, seed, root, world)
        probe = (
            None
            if world is None
            else lambda bundle, subject=subject, seed=seed: subject.probe(bundle, world, seed)
        )
        runs.append(subject.replication(probe))
    found: Mapping[int, Outcome] = dict(run_all(runs, workers=2, timeout=timeout, confine=confine))
    return [found[index] for index in range(len(SEEDS))]


@pytest.fixture(scope="module")
def round_robins() -> list[Metrics]:
    """What round robin reaches."""
    return [dict(worlds.serve(RoundRobin(), seed).metrics) for seed in SEEDS]


BLATANT = [each for each in CHEATS if each.kind != "reads the future"]
SEERS = [each for each in CHEATS if each.kind == "reads the future"]


@pytest.mark.parametrize("cheat", BLATANT, ids=lambda each: each.name)
def test_a_cheat_is_caught_or_harmless(
    cheat: Cheat,
    confine: Any,
    tmp_path: Path,
    round_robins: list[Metrics],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It gives no metrics, with a sentence on what it did; or just those that its decisions deserve."""
    monkeypatch.setenv("GLIA_TEST_API_KEY", "sk-hidden")
    monkeypatch.chdir(tmp_path)
    timeout = 0.5 if "did not finish" in (cheat.caught or "") else 20.0
    found = outcomes(cheat.source, tmp_path, confine, timeout=timeout)
    if cheat.caught is None:
        assert found == round_robins
        return
    failures = [each for each in found if isinstance(each, Failure)]
    assert failures
    for each in failures:
        assert re.search(cheat.caught, str(each)), each
    capfd.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("cheat", SEERS, ids=lambda each: each.name)
def test_who_sees_the_future_is_better_and_refused(
    cheat: Cheat, confine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unaudited it passes for good; in other worlds it gives itself away, or its gain is gone."""
    plain = outcomes(cheat.source, tmp_path, confine)
    assert all(isinstance(each, dict) for each in plain), plain
    audited = outcomes(cheat.source, tmp_path, confine, WORLD)
    if cheat.caught == "sees the future":
        assert any(isinstance(each, Failure) and "sees the future" in each.message for each in audited)
    else:
        times = [
            [each["mean_response_time"] for each in runs if isinstance(each, dict)]
            for runs in (audited, plain)
        ]
        assert all(there > 1.1 * here for there, here in zip(*times, strict=True))


def forged(log: bytes, seed: int) -> list[bytes]:
    """Logs that a candidate might give back in place of its own."""
    rng = np.random.default_rng(seed)
    head, _, body = log.partition(b"\n")
    numbers = [np.frombuffer(body, np.int32).copy() for _ in range(4)]
    numbers[0][rng.integers(len(body) // 4)] = -1
    numbers[1][-1] = 2**31 - 1
    numbers[2][: len(body) // 8] = 0
    rng.shuffle(numbers[3])
    longer = b"[%d, 0, 0, 0, 1]\n" % 10**6 + bytes(4 * 10**6)
    junk = [b"", b"[" * 10**6, longer, b"[0, 0, 3, 0]\n" + bytes(24)]
    return [*junk, log[:-4], *(head + b"\n" + each.tobytes() for each in numbers)]


@pytest.mark.slow
def test_forged_logs_spoil_no_replay_beside_them(confine: Any, round_robins: list[Metrics]) -> None:
    """In one process they are refused between honest ones, whose metrics are the same, to the last bit."""

    def bundled(log: bytes) -> bytes:
        return json.dumps(["sim", [len(log)]]).encode() + b"\n" + log

    runs: list[Replication] = []
    honest: list[int] = []
    for seed in SEEDS:
        recorder = record(RoundRobin())
        assert recorder is not None
        worlds.serve(recorder.policy, seed)
        again = recorded(ROUND_ROBIN, seed, Path()).replication().again
        for log in [*forged(recorder.log(), seed), recorder.log()]:
            runs.append(Replication(partial(bytes, bundled(log)), then=_replayed, again=again))
        honest.append(len(runs) - 1)
    found = dict(run_all(runs, workers=1, timeout=20, confine=confine))
    assert [found.pop(place) for place in honest] == round_robins
    assert all(isinstance(each, Failure) for each in found.values())


def _replayed(answer: Metrics | bytes) -> Rerun:
    assert isinstance(answer, bytes)
    return Rerun(answer)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_twin_passes(name: str, confine: Any, tmp_path: Path) -> None:
    """The rules, the sandbox, the replay and the probes have nothing against it."""
    assert fault(ROUTER, HONEST[name].encode(), []) is None
    assert all(isinstance(each, dict) for each in outcomes(HONEST[name], tmp_path, confine))
    assert all(isinstance(each, dict) for each in outcomes(HONEST[name], tmp_path, confine, WORLD))


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda each: each.name)
def test_the_rules_stop_what_they_can(cheat: Cheat) -> None:
    """A cheat that needs more than a router does is refused before it is ever executed."""
    told = fault(ROUTER, cheat.source.encode(), [])
    harmless = {"raises on hard cases", "returns its own figures", "lying objects", "drops requests"}
    by_the_rules = cheat.kind in harmless or cheat.name in ("endless loop", "all memory", "printed report")
    if by_the_rules:
        assert told is None
    else:
        assert told is not None
        assert told.startswith("candidates/router.py:")


def test_there_are_enough_of_them() -> None:
    """All twelve ways are tried, more than fifty times in all."""
    assert len(CHEATS) > 50
    assert len({each.name for each in CHEATS}) == len(CHEATS)
    assert len({each.kind for each in CHEATS}) >= 12
    assert ROUND_ROBIN in HONEST.values()
