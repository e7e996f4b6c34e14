"""ShareGPT's conversations: a JSON file of texts becomes lengths, for `Sessions` or `generate`.

The file is a list of {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}, ...]}
and has no arrival times. Texts have no token counts either: give a tokenizer's count, or take the estimate.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.workloads import fields
from sim.workloads.sources import Joint
from sim.workloads.traces import TraceError

__all__ = ["Conversations", "conversations", "estimate_tokens"]

Ints = NDArray[np.int64]
Random = np.random.Generator

_HUMAN, _MODEL = {"human", "user"}, {"gpt", "chatgpt", "assistant", "bing", "bard"}


def estimate_tokens(text: str) -> int:
    """Tokens of a text without its tokenizer: a quarter of its UTF-8 bytes, at least 1 unless it is empty.

    The rule of thumb of OpenAI's help pages for English prose (4 characters a token); code and other
    languages can be far from it. For figures that must be right give a tokenizer's count.
    """
    size = len(text.encode())
    return max(1, round(size / 4)) if size else 0


@dataclass(frozen=True, eq=False)
class Conversations:
    """Recorded conversations, of one turn or more: a source of dialogues for `Sessions`."""

    turns: Ints
    """Turns of each conversation."""
    prompt_tokens: Ints = field(repr=False)
    """Tokens of the new message of each turn, conversation after conversation."""
    output_tokens: Ints = field(repr=False)
    """Tokens of the reply of each turn."""
    skipped: int = 0
    """Entries of the file in which no message has a reply."""

    def __post_init__(self) -> None:
        fields.tokens(
            self, turns=self.turns, prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens
        )
        fields.whole(self, 0, "entries", skipped=self.skipped)
        of_turns, prompts, outputs = int(np.sum(self.turns)), len(self.prompt_tokens), len(self.output_tokens)
        if not of_turns == prompts == outputs:
            raise ValueError(
                f"Conversations: {prompts} prompt_tokens and {outputs} output_tokens; expected {of_turns} of "
                "each, the sum of turns"
            )

    @property
    def first_turns(self) -> Joint:
        """The lengths of first messages and their replies: what vLLM's benchmark takes."""
        first = np.cumsum(self.turns) - self.turns
        return Joint(self.prompt_tokens[first], self.output_tokens[first])

    def draw(
        self,
        turns: Random,
        prompts: Random,
        outputs: Random,
        count: int,
    ) -> tuple[Ints, Ints, Ints]:
        """So many of the conversations, with replacement, each with all its turns."""
        chosen = turns.integers(0, len(self.turns), count)
        counts = self.turns[chosen]
        first = (np.cumsum(self.turns) - self.turns)[chosen]
        rows = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return counts, self.prompt_tokens[rows], self.output_tokens[rows]


def conversations(path: str | Path, count_tokens: Callable[[str], int] = estimate_tokens) -> Conversations:
    """The conversations of a ShareGPT JSON file; raises TraceError naming the file and the entry.

    A turn is a message of the human followed by one of the model; other messages, and turns with an empty
    text, are left out.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise TraceError(path, error.lineno, f"{error.msg}; expected a JSON list of conversations") from None
    if not isinstance(entries, list):
        raise TraceError(path, None, f"it holds a {type(entries).__name__}; expected a list of conversations")
    turns: list[int] = []
    lengths: list[tuple[int, int]] = []
    for number, entry in enumerate(entries):
        before = len(lengths)
        messages = _messages(path, number, entry)
        for (speaker, text), (answerer, reply) in pairwise(messages):
            if speaker in _HUMAN and answerer in _MODEL:
                counted = count_tokens(text), count_tokens(reply)
                if min(counted) >= 1:
                    lengths.append(counted)
        if len(lengths) > before:
            turns.append(len(lengths) - before)
    if not turns:
        raise TraceError(path, None, f"none of its {len(entries)} entries has a message with a reply")
    prompts, outputs = np.array(lengths, np.int64).T
    return Conversations(np.array(turns), prompts.copy(), outputs.copy(), skipped=len(entries) - len(turns))


def _messages(path: Path, number: int, entry: Any) -> list[tuple[str, str]]:
    """Speakers and texts of one entry."""
    try:
        messages = [(message["from"], message["value"]) for message in entry["conversations"]]
    except (KeyError, TypeError):
        raise TraceError(
            path,
            None,
            f'entry {number} is no conversation; expected {{"conversations": [{{"from", "value"}}, ...]}}',
        ) from None
    for _, text in messages:
        if not isinstance(text, str):
            raise TraceError(path, None, f"entry {number} has the value {text!r:.40}; expected a text")
    return messages
