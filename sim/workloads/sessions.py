"""Sessions of several turns: each prompt is the conversation so far and a new message.

So a session's prompts grow, and each shares all but its last message with the context that the turn before
left: what prefix caching and session affinity live on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sim.prefixes import Prefixes
from sim.streams import ARRIVALS, OUTPUTS, PROMPTS, THINKING, TURNS, stream
from sim.workloads import fields
from sim.workloads.arrivals import Arrivals
from sim.workloads.sources import Lengths
from sim.workloads.table import Workload

__all__ = ["Chat", "Dialogues", "Sessions"]

Ints = NDArray[np.int64]
Random = np.random.Generator
_Number = TypeVar("_Number", np.int64, np.float64)


class Dialogues(Protocol):
    """A distribution of conversations."""

    def draw(
        self,
        turns: Random,
        prompts: Random,
        outputs: Random,
        count: int,
    ) -> tuple[Ints, Ints, Ints]:
        """Of so many conversations the number of turns; of all their turns, in order, the tokens of the new
        message and of the output."""
        ...


@dataclass(frozen=True)
class Chat:
    """Conversations that go on after each turn with the same probability: geometric numbers of turns."""

    messages: Lengths
    """Tokens of a turn's new message (as its prompt) and of its output."""
    turns: float = 4.0
    """Mean turns of a session, at least 1."""

    def __post_init__(self) -> None:
        fields.drawn(self, "draw", "lengths, as sim.workloads.SHAREGPT", messages=self.messages)
        fields.number(self, 1.0, np.inf, "turns", turns=self.turns)

    def draw(
        self,
        turns: Random,
        prompts: Random,
        outputs: Random,
        count: int,
    ) -> tuple[Ints, Ints, Ints]:
        of_session = turns.geometric(1 / self.turns, count)
        return of_session, *self.messages.draw(prompts, outputs, int(of_session.sum()))


@dataclass(frozen=True)
class Sessions:
    """Sessions that start as `starts` says; the next turn comes some time after the reply to the last.

    When a reply ends is known only in a run; here a reply is taken to last `seconds_per_token` for each of
    its output tokens, so that the arrivals are known before it. Turns may arrive after the duration of
    `starts`.
    """

    starts: Arrivals
    dialogues: Dialogues
    think: float = 20.0
    """Mean seconds between a reply and the next message; exponential."""
    seconds_per_token: float = 0.03
    """Seconds that an output token is taken to need."""
    system_tokens: int = 0
    """Tokens of a system prompt in front of every session, the same for all."""
    max_context: int = 8192
    """Tokens of the longest prompt with its output: a session ends before the turn that would exceed it."""
    block_size: int = 16
    """Tokens per name in `Workload.prefixes`: a multiple of the engine's block size."""

    def __post_init__(self) -> None:
        fields.drawn(self, "times", "arrivals, as sim.workloads.Poisson(1.0, 600)", starts=self.starts)
        fields.drawn(self, "draw", "dialogues, as sim.workloads.Chat", dialogues=self.dialogues)
        fields.number(self, 0.0, np.inf, "seconds", think=self.think)
        fields.number(self, 0.0, np.inf, "seconds per token", seconds_per_token=self.seconds_per_token)
        fields.whole(self, 0, "tokens", system_tokens=self.system_tokens)
        fields.whole(self, self.system_tokens + 2, "tokens (system_tokens + 2)", max_context=self.max_context)
        fields.whole(self, 1, "token per block", block_size=self.block_size)

    def workload(self, seed: int) -> Workload:
        """The sessions' requests in order of arrival, with `session` and `prefixes`."""
        starts = self.starts.times(stream(seed, ARRIVALS))
        turns, messages, outputs = self.dialogues.draw(
            stream(seed, TURNS), stream(seed, PROMPTS), stream(seed, OUTPUTS), len(starts)
        )
        session = np.repeat(np.arange(len(starts)), turns)
        first = np.cumsum(turns) - turns
        pause = stream(seed, THINKING).exponential(1.0, len(session)) * self.think
        time = starts[session] + _before(outputs * self.seconds_per_token + pause, session, first)
        prompts = self.system_tokens + _before(messages + outputs, session, first) + messages

        opening = np.zeros(len(session), bool)
        opening[first] = True
        prompts = np.where(opening, np.minimum(prompts, self.max_context - 1), prompts)
        outputs = np.where(opening, np.minimum(outputs, self.max_context - prompts), outputs)
        kept = prompts + outputs <= self.max_context  # from a turn that does not fit on, none does
        order = np.argsort(time[kept], kind="stable")
        rows = np.flatnonzero(kept)[order]
        return Workload.from_arrays(
            arrival=time[rows],
            prompt_tokens=prompts[rows],
            output_tokens=outputs[rows],
            session=session[rows],
            prefixes=self._prefixes(session[rows], (prompts + outputs)[rows]),
        )

    def _prefixes(self, session: Ints, context: Ints) -> Prefixes:
        """Names of all full blocks of each context: a later turn's context begins with an earlier one's."""
        counts = context // self.block_size
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        common = self.system_tokens // self.block_size
        most = self.max_context // self.block_size
        own = common + np.repeat(session, counts) * most + within
        return Prefixes(starts, np.where(within < common, within, own), self.block_size)


def _before(values: NDArray[_Number], session: Ints, first: Ints) -> NDArray[_Number]:
    """Of each turn the sum of the values of its session's earlier turns."""
    total = np.cumsum(values) - values
    return total - total[first][session]
