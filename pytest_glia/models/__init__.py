"""What a designer asks of a language model, and what comes back: one protocol, whoever answers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Tool:
    """Something that a model may ask for by name.

    Attributes:
        parameters: The JSON schema of its arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """A model's wish to use a tool; its arguments as it wrote them, which may not be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        calls: What an assistant asks for besides, or instead of, what it says.
        call_id: Which call a tool's message answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    calls: tuple[Call, ...] = ()
    call_id: str = ""


@dataclass(frozen=True)
class Request:
    """What a model is asked: a conversation so far, the tools that it may use, and tokens for its answer.

    Attributes:
        role: Which of the team asks, for the record; the model does not see it.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    max_tokens: int = 8192
    role: str = ""


@dataclass(frozen=True)
class Reply:
    """What a model answered, and the tokens that this took.

    Attributes:
        cut: Whether it ended because `max_tokens` were spent.
    """

    text: str
    calls: tuple[Call, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False


class ModelFailed(Exception):
    """A model gave no reply: one sentence says what was asked of whom, what came, and what to do.

    Attributes:
        again: Whether to ask again may help.
        after: Seconds that the server asks to wait before that.
        prompt_tokens, completion_tokens: What it is known to have taken all the same.
    """

    def __init__(
        self,
        message: str,
        *,
        again: bool = False,
        after: float = 0.0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> None:
        super().__init__(message)
        self.again = again
        self.after = after
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class Model(Protocol):
    """Answers requests; several contexts may ask at once, each from a thread of its own."""

    @property
    def name(self) -> str: ...

    def complete(self, request: Request) -> Reply:
        """The reply. Raises `ModelFailed`, or `BudgetExhausted` before it spends what there is not."""
        ...
