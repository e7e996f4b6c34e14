"""``glia_executor = "ray"``: workers on a Ray cluster run the replications that the child asks for.

Each worker follows the child: it has the same job run by a child of its own, in a copy of the composed tree,
and at each call of the fixture waits until the local child is there, too. What is missing there is shared out
among the workers, one replication at a time. The local child then finds it known, so that one place alone
decides what is paid for and what the verdict is; what no worker has delivered it runs itself.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import socket
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_glia.channel import ChannelClosed
from pytest_glia.childprocess import SILENCE, ChildProcess, EvaluatorFailed, Launch
from pytest_glia.misuse import Misuse
from pytest_glia.replication import Metrics
from pytest_glia.scratch import scratch

# Seconds after which a worker gives a sign of life, and can be told to end.
_BEAT = 1.0
_CONNECT_TIMEOUT = 10.0
_NO_MORE = {"exhausted": ["simulations", 0]}


class OtherSoftware(Exception):
    """A worker has other software than the machine that searches; the message says which."""


class Worker:
    """A child somewhere on the cluster. Ray makes it in a process of its own, anew where that one is lost.

    Its methods take the tree as Ray's reference to a tar archive, in a list so that it stays a reference.

    Args:
        software: What must be installed; anything else raises `OtherSoftware` when a child is started.
    """

    def __init__(self, launch: Launch, software: Sequence[str]) -> None:
        self._launch = launch
        self._software = software
        self._child: ChildProcess | None = None
        self._folder, self._lock = scratch(Path(tempfile.gettempdir()), "glia-worker")

    def start(self, tree: Sequence[Any]) -> dict[str, Any]:
        """Start a child, unless there is one; the message of a child that is done with its job."""
        if not (self._folder / "tree").exists():
            with tarfile.open(fileobj=io.BytesIO(_ray().get(tree[0]))) as archive:
                archive.extractall(self._folder / "tree", filter="fully_trusted")
        if self._child is None:
            child = ChildProcess(self._launch, self._folder)
            try:
                self._compare(child.software)
            except OtherSoftware:
                child.stop()
                raise
            self._child = child
        return {"done": 0}

    def begin(self, job: Mapping[str, Any], tree: Sequence[Any]) -> dict[str, Any]:
        """Start a child, unless there is one, and `exchange` a job for its first message."""
        self.start(tree)
        return self.exchange(job)

    def exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send the child a message, unless it is empty; its next one, or nothing if none comes for a second.

        Reports are left out. Raises `EvaluatorFailed` if the child has ended, with its process or before it.
        """
        if self._child is None:
            raise EvaluatorFailed("its process was started anew")
        try:
            if message:
                self._child.channel.send(**message)
            while "report" in (answer := self._child.channel.receive(_BEAT)):
                pass
            return answer
        except TimeoutError:
            return {}
        except ChannelClosed:
            child, self._child = self._child, None
            raise child.ended("the evaluating pytest ended") from None

    def close(self) -> None:
        """End the child and delete its tree."""
        if self._child is not None:
            self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _compare(self, found: Sequence[str]) -> None:
        here, there = set(self._software), set(found)
        if here != there:
            parts = [f"{', '.join(sorted(there - here)[:3]) or 'nothing'} there"]
            parts.append(f"{', '.join(sorted(here - there)[:3]) or 'nothing'} here")
            raise OtherSoftware(", ".join(parts))


@dataclass(eq=False)
class _Follower:
    """A worker as it is seen from here.

    ``reply`` is Ray's reference to its next message, None while it waits for one of ours, and ``heard`` when
    the last one came or went. In ``job`` it has ``arrived`` at its first call, stands at the one that asks
    for the keys ``asks`` (none once it is done), and has ``taken`` a share.
    """

    actor: Any
    reply: Any = None
    heard: float = 0.0
    job: int = 0
    arrived: bool = False
    asks: frozenset[str] = frozenset()
    taken: str | None = None


class RayExecutor:
    """Workers on the Ray cluster at hand, or else on one that is started here and ended by `close`.

    Args:
        tree: The composed tree of the local child.
        software: Of the local child.
        at_most: Workers; each has one core.
        known: Gives those of some samples that are kept.
        seconds_left: Of the search.
        write: Shows a sentence.

    Raises:
        Misuse: Ray is not installed, or its cluster cannot be reached.
    """

    def __init__(
        self,
        launch: Launch,
        tree: Path,
        software: Sequence[str],
        *,
        at_most: int,
        known: Callable[[Sequence[str]], Mapping[str, Metrics]],
        seconds_left: Callable[[], float],
        write: Callable[[str], None],
    ) -> None:
        self._known = known
        self._seconds_left = seconds_left
        self._write = write
        self._said: set[str] = set()
        self._job: Mapping[str, Any] = {}
        self._number = 0
        self._asked: set[str] = set()
        self._ray, self._is_ours = _connected()
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        # Ray starts a worker anew whose process or node is lost.
        remote = self._ray.remote(num_cpus=1, max_restarts=-1, scheduling_strategy="SPREAD")(Worker)
        self._tree = [self._ray.put(_packed(tree))]
        workers = [remote.remote(launch, software) for _ in range(max(1, min(cores, at_most)))]
        now = time.monotonic()
        self._followers = [_Follower(each, each.start.remote(self._tree), now) for each in workers]
        # What the first replications take is not to be judged by how long their workers take to start.
        patience = max(0.0, min(SILENCE, seconds_left()))
        self._ray.wait([each.reply for each in self._followers], timeout=patience)

    def follow(self, job: Mapping[str, Any]) -> None:
        """From now on it is this message's job that the local child does."""
        self._job = {**job, "workers": 1}
        self._number += 1
        self._asked = set()

    def samples(self, keys: Sequence[str]) -> Iterator[tuple[str, Metrics]]:
        """The samples for which the local child has asked, as the workers deliver them; keep each at once.

        Ends when all are known, or when those that are not are better run here: their worker was lost or has
        failed with them. Raises `TimeoutError` when no second is left.
        """
        self._asked |= set(keys)
        found = self._known(keys)
        waiting = [key for key in keys if key not in found]
        while waiting or any(each.taken for each in self._followers):
            for follower in self._followers:
                if follower.reply is None:
                    self._answer(follower, frozenset(keys), waiting)
            replies = {each.reply: each for each in self._followers if each.reply is not None}
            if not replies:
                break
            ready, _ = self._ray.wait(list(replies), timeout=_BEAT)
            if self._seconds_left() <= 0:
                raise TimeoutError("no time left to wait for workers")
            for reply in ready:
                message = self._received(replies[reply])
                if "add" in message:
                    yield message["add"], message["metrics"]
                elif "failed" in message:
                    # It is run here: what it says on this machine counts.
                    continue
                elif message and not self._has_delivered(replies[reply], message):
                    # As a failure here does, it ends the call: no more of it is begun.
                    waiting.clear()
            silence = self._job["timeout"] + SILENCE
            for follower in replies.values():
                if follower.reply is not None and time.monotonic() - follower.heard > silence:
                    self._drop(follower, f"a Ray worker has not been heard of for {silence:g} s")

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        closing = [each.actor.close.remote() for each in self._followers]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=3 * _BEAT)
        for follower in self._followers:
            self._ray.kill(follower.actor)
        self._followers = []
        if self._is_ours:
            self._ray.shutdown()

    def _answer(self, follower: _Follower, keys: frozenset[str], waiting: list[str]) -> None:
        """Send a follower that waits for a message the next one, if it is time for that."""
        if follower.job != self._number and not follower.asks:
            follower.job, follower.arrived = self._number, False
            follower.heard = time.monotonic()
            follower.reply = follower.actor.begin.remote(self._job, self._tree)
        elif follower.job != self._number:
            self._send(follower, _NO_MORE)
        elif not follower.asks or not follower.asks <= self._asked:
            # It has come to the end, or is ahead: a test has failed for it that has not failed here yet.
            return
        elif follower.asks != keys:
            found = self._known(sorted(follower.asks))
            missed = len(found) < len(follower.asks)
            self._send(follower, _NO_MORE if missed else {"known": found, "share": []})
        elif waiting:
            follower.taken = waiting.pop(0)
            self._send(follower, {"known": self._known(sorted(keys)), "share": [follower.taken]})

    def _send(self, follower: _Follower, message: Mapping[str, Any]) -> None:
        follower.heard = time.monotonic()
        follower.asks = frozenset()
        follower.reply = follower.actor.exchange.remote(message)

    def _received(self, follower: _Follower) -> dict[str, Any]:
        """A follower's message, empty if it has sent none; one that is lost is done with its job."""
        reply, follower.reply = follower.reply, None
        try:
            message: dict[str, Any] = self._ray.get(reply)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, OtherSoftware):
                self._drop(follower, f"a Ray worker has other software than this machine: {cause}")
            else:
                why = str(cause or type(error).__name__).partition("\n")[0]
                self._say(f"a Ray worker was lost ({why}); what it was at is run here")
                follower.taken = None
            return {}
        if message:
            follower.heard = time.monotonic()
        if not message or "add" in message or "failed" in message:
            follower.reply = follower.actor.exchange.remote({})
        return message

    def _has_delivered(self, follower: _Follower, message: Mapping[str, Any]) -> bool:
        """Note that a follower has come to a call or to the end; whether what it had taken is known now."""
        taken, follower.taken = follower.taken, None
        follower.asks = frozenset(message.get("find", ()))
        if follower.job == self._number and not follower.arrived and not follower.asks <= self._asked:
            self._drop(
                follower,
                "a Ray worker asks for other replications than this machine does, perhaps because a spec "
                "depends on the folder that it is in",
            )
        follower.arrived = True
        return taken is None or bool(self._known([taken]))

    def _drop(self, follower: _Follower, why: str) -> None:
        """Do without a worker from now on."""
        self._say(f"{why}; it is not used")
        self._ray.kill(follower.actor)
        self._followers.remove(follower)

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._write(f"glia: {sentence}")


def _connected() -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether that was done here.

    It is the cluster that ``RAY_ADDRESS`` names, or one that runs on this machine, or a new one.
    """
    try:
        ray = _ray()
    except ImportError:
        raise Misuse(
            'glia_executor is "ray", but Ray is not installed: pip install "pytest-glia[ray]", or leave the '
            "setting out"
        ) from None
    if ray.is_initialized():
        return ray, False
    try:
        address = os.environ.get("RAY_ADDRESS", "")
        host, _, port = address.partition(":")
        if port.isdigit():
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise Misuse(
            f'glia_executor is "ray", but no Ray cluster can be reached ({address}: {error}): correct '
            "RAY_ADDRESS, or unset it to use this machine"
        ) from None
    return ray, True


def _ray() -> Any:
    """The package, which is large and optional; what it warns of while it is loaded is none of the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("ray")


def _packed(tree: Path) -> bytes:
    """The files of a tree as a tar archive, without what Python has compiled."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(tree, ".", filter=lambda each: None if each.name.endswith("__pycache__") else each)
    return archive.getvalue()
