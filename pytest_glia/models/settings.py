"""Which language model is asked, where, how and at what price: the settings, validated at the start."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from pytest_glia.budget import Budget
from pytest_glia.ini import number
from pytest_glia.misuse import Misuse
from pytest_glia.sandbox import is_secret

CHARACTERS = 3
"""That make a token, about; fewer than are usual, so that limits hold."""

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, read and written."""

    prompt: float
    completion: float

    def dollars(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(frozen=True)
class ModelSettings:
    """All that a user can set of the language model.

    Attributes:
        name: As its server knows it (``--glia-model`` or ``glia_model``); empty if none is configured.
        base_url: Of an OpenAI-compatible server (``glia_base_url``).
        key_env: The environment variable that holds its key (``glia_api_key_env``).
        price: What it costs, if that is known (``glia_price``).
        reasoning_effort: Passed on, if it is not empty (``glia_reasoning_effort``).
        tools: Whether tools are called by the server's API, or in the text (``glia_model_tools``).
        timeout: Seconds that one call may take altogether (``glia_model_timeout``).
        context: Tokens that the model takes, the reply included (``glia_model_context``).
        max_tokens: That one reply may have (``glia_max_output_tokens``).
    """

    name: str = ""
    base_url: str = OPENAI
    key_env: str = "OPENAI_API_KEY"
    price: Price | None = None
    reasoning_effort: str = ""
    tools: Literal["native", "text"] = "native"
    timeout: float = 300.0
    context: int = 128_000
    max_tokens: int = 8192

    @property
    def room(self) -> int:
        """Characters that a request may have, about, so that its reply fits beside it."""
        return (self.context - self.max_tokens) * CHARACTERS

    def refuse_statement(self, statement: str) -> None:
        """A problem must leave half of the room for the work on it; else raises `Misuse`."""
        most = self.room // 2
        if len(statement) > most:
            raise Misuse(
                f"the problem statement takes about {len(statement) // CHARACTERS} tokens, and the model "
                f"{self.name!r} has room for {most // CHARACTERS}: half of what glia_model_context = "
                f"{self.context} leaves beside glia_max_output_tokens = {self.max_tokens}; take a model with "
                "more, or have the specs expose less"
            )

    @property
    def host(self) -> str:
        """Of the server, with its port."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    def refuse(self, designer: str, budget: Budget, key: str) -> None:
        """A designer that asks a model must have one, and a limit to what it costs; else raises `Misuse`."""
        if not self.name:
            raise Misuse(
                f"the designer {designer!r} asks a language model, and none is configured: give --glia-model "
                "NAME or set glia_model, or take --glia-designer offline"
            )
        if self.base_url == OPENAI and not key:
            raise Misuse(
                f"the model {self.name!r} is asked at {self.host}, and the environment has no key "
                f"{self.key_env}: set it, or set glia_base_url or glia_api_key_env"
            )
        free = self.price == Price(0, 0)
        if not free and math.isinf(budget.tokens) and math.isinf(budget.dollars):
            raise Misuse(
                f"the model {self.name!r} may cost money, and the budget {str(budget)!r} does not limit it: "
                'give --glia-budget with tokens or usd, such as "200k tokens", or set glia_price = 0 0'
            )
        if self.price is None and math.isfinite(budget.dollars):
            raise Misuse(
                f"the budget {str(budget)!r} is in dollars, and what the model {self.name!r} costs is not "
                "known: set glia_price, such as 2.5 10, to dollars per million prompt and completion tokens"
            )


def model_settings(config: pytest.Config) -> ModelSettings:
    """Read and validate; raises `pytest.UsageError` naming the setting, its value and what is expected."""
    url = config.getini("glia_base_url") or OPENAI
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise pytest.UsageError(f"glia_base_url is {url!r}: give a URL such as http://127.0.0.1:8000/v1")
    key_env = config.getini("glia_api_key_env")
    if not re.fullmatch(r"\w+", key_env) or not is_secret(key_env, ""):
        raise pytest.UsageError(
            f"glia_api_key_env is {key_env!r}: give the name of an environment variable, with KEY or TOKEN "
            "as a word of it (by that it is kept from candidates)"
        )
    effort = config.getini("glia_reasoning_effort")
    if not re.fullmatch(r"[a-z]*", effort):
        raise pytest.UsageError(f"glia_reasoning_effort is {effort!r}: give a word such as low or high")
    tools = config.getini("glia_model_tools")
    if tools not in ("native", "text"):
        raise pytest.UsageError(f"glia_model_tools is {tools!r}: give native or text")
    timeout = number(config, "glia_model_timeout", "a number of seconds")
    if not 0 < timeout < math.inf:
        raise pytest.UsageError(f"glia_model_timeout is {timeout!r}: give a positive number of seconds")
    context = number(config, "glia_model_context", "a whole number of tokens")
    if context < 1:
        raise pytest.UsageError(f"glia_model_context is {context!r}: give a positive number of tokens")
    max_tokens = number(config, "glia_max_output_tokens", "a whole number of tokens")
    if not 1 <= max_tokens < context:
        raise pytest.UsageError(
            f"glia_max_output_tokens is {max_tokens!r}: give a positive number of tokens below "
            f"glia_model_context, which is {context}"
        )
    return ModelSettings(
        name=config.getoption("glia_model") or config.getini("glia_model"),
        base_url=url,
        key_env=key_env,
        price=_price(config.getini("glia_price")),
        reasoning_effort=effort,
        tools=tools,
        timeout=timeout,
        context=context,
        max_tokens=max_tokens,
    )


def _price(given: Sequence[Any]) -> Price | None:
    try:
        price = Price(*map(float, given)) if given else None
    except (TypeError, ValueError):
        price = Price(math.nan, math.nan)
    if price is not None and not (0 <= price.prompt < math.inf and 0 <= price.completion < math.inf):
        raise pytest.UsageError(
            f"glia_price is {' '.join(map(str, given))!r}: give dollars per million prompt tokens and per "
            "million completion tokens, such as 2.5 10, or 0 0"
        )
    return price
