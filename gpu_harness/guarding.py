"""A candidate router where users' requests depend on it: what it breaks, Least-Loaded-Queue mends.

The candidate runs in the event loop's thread, so while it thinks nothing streams: its time is part of what it
costs. An alarm of the operating system (SIGALRM) ends a call that takes too long, by an exception in the
candidate's own code. That reaches Python code in the main thread only; a call that stays inside C, or that is
made in another thread, is not interrupted, but counted as stalled when it returns.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sim.baselines import LeastLoadedQueue
from sim.complaints import Refused, complaint, shown
from sim.policies import ReplicaView, RequestView, Router

__all__ = ["GuardedRouter", "Take"]

Take = Callable[[Any], None]
"""Lets one pair take effect; Refused if it is not one that could."""


class _Stalled(BaseException):
    """Raised in the candidate's code, past its `except Exception`."""


class GuardedRouter:
    """A router that always answers: the candidate's pairs, and where it fails those of LeastLoadedQueue.

    A call that raises, gives what is no pair, or takes longer than `time_limit` seconds is made up for by
    LLQ, on what is left of the queue. After a stall LLQ decides for `rest` seconds, before the candidate is
    asked again. In `shadow` LLQ always decides; the candidate is asked, and what it says is only told.
    `fallbacks` counts by kind ("raised", "stalled", "resting"; "held" is the dispatcher's).
    """

    def __init__(
        self,
        candidate: Router,
        *,
        time_limit: float = 0.1,
        rest: float = 30.0,
        shadow: bool = False,
        tell: Callable[..., None] = lambda event, **fields: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` logs an event with its fields."""
        self._candidate, self._fallback = candidate, LeastLoadedQueue()
        self._time_limit, self._rest, self._shadow = time_limit, rest, shadow
        self._tell, self._clock = tell, clock
        self._awake = float("-inf")
        self._inside = self._alarmed = False
        self.fallbacks: Counter[str] = Counter()
        self.calls = 0
        self.seconds = 0.0
        """That the candidate has taken in all."""

    @contextmanager
    def alarmed(self) -> Iterator[None]:
        """Within it, calls that take too long are interrupted, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._alarm)
        self._alarmed = True
        try:
            yield
        finally:
            self._alarmed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def route(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float, take: Take
    ) -> None:
        """Ask for pairs and take each; `queue` may shrink meanwhile only through `take`."""
        taken: set[int] = set()

        def noted(pair: Any) -> None:
            take(pair)
            taken.add(pair[0].id)

        if self._clock() < self._awake:
            self.fallbacks["resting"] += 1
        elif self._shadow:
            said: list[Any] = []
            self._ask(queue, replicas, now, lambda pair: said.append(_told(pair)))
            self._tell("shadow", now=now, pairs=said)
        elif self._ask(queue, replicas, now, noted):
            return
        self.fall_back([request for request in queue if request.id not in taken], replicas, now, take)

    def fall_back(
        self, queue: Sequence[RequestView], replicas: Sequence[ReplicaView], now: float, take: Take
    ) -> None:
        """LeastLoadedQueue sends all of these, if there is a replica at all."""
        if replicas:
            for pair in self._fallback.route(queue, replicas, now):
                take(pair)

    def completed(self, request: RequestView, now: float) -> None:
        """Tell the candidate, if it wants to know."""
        hear = getattr(self._candidate, "completed", None)
        if hear is not None and self._clock() >= self._awake:
            self._guarded(
                "completed", f"completed(request {request.id}, now={now:.3f})", [hear, request, now]
            )

    def _ask(self, queue: Any, replicas: Any, now: float, take: Take) -> bool:
        self.calls += 1
        call = f"route(queue of {len(queue)}, {len(replicas)} replicas, now={now:.3f})"
        return self._guarded("route", call, [self._candidate.route, queue, replicas, now], take)

    def _guarded(self, method: str, call: str, asked: list[Any], take: Take | None = None) -> bool:
        """Whether the candidate did what it should within its time."""
        began = self._clock()
        try:
            self._timer(self._time_limit)
            try:
                answer = self._within(asked[0], *asked[1:])
                if take is not None:
                    self._take_all(answer, take, began)
            finally:
                self._timer(0)
            late = self._clock() - began > self._time_limit
        except _Stalled:
            late = True
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.fell("raised", str(complaint(self._candidate, method, call, error)))
            return False
        finally:
            self._inside = False
            self.seconds += self._clock() - began
        if late:
            self._awake = self._clock() + self._rest
            limit = f"it took longer than {self._time_limit:g} s; LLQ decides for the next {self._rest:g} s"
            self.fell("stalled", f"{limit}\nin {call}")
        return not late

    def _take_all(self, answer: Any, take: Take, began: float) -> None:
        try:
            pairs = self._within(iter, answer)
        except TypeError:
            raise Refused(
                f"the router returned {shown(answer)} where an iterable of pairs is expected"
            ) from None
        end = object()
        while (pair := self._within(next, pairs, end)) is not end:
            take(pair)  # never interrupted: the proxy's own books are changed here
            if self._clock() - began > self._time_limit:
                raise _Stalled

    def _within(self, function: Any, *arguments: Any) -> Any:
        self._inside = True
        try:
            return function(*arguments)
        finally:
            self._inside = False

    def _timer(self, seconds: float) -> None:
        if self._alarmed:
            # Again and again: a candidate may swallow the first one.
            signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._inside:
            raise _Stalled

    def fell(self, kind: str, why: str) -> None:
        """LLQ decides instead: counted, and told the 1st, 10th, 100th ... time."""
        self.fallbacks[kind] += 1
        times = self.fallbacks[kind]
        if 10 ** (len(str(times)) - 1) == times:
            self._tell("fallback", kind=kind, times=times, why=why)


def _told(pair: Any) -> Any:
    try:
        return [pair[0].id, pair[1].index]
    except Exception:
        return shown(pair)
