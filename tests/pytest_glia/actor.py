"""A model in the test's own process, that says what a test has written."""

from __future__ import annotations

import json
from typing import Any

from pytest_glia.models import Call, Reply, Request


class Actor:
    """Gives its replies in order, the last one to whoever asks more.

    Attributes:
        requests: All that it was asked.
    """

    name = "actor"

    def __init__(self, *replies: str | Reply) -> None:
        self._replies = [Reply(each) if isinstance(each, str) else each for each in replies]
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        return self._replies[min(len(self.requests), len(self._replies)) - 1]

    @property
    def heard(self) -> list[str]:
        """The texts of the last request's messages."""
        return [each.text for each in self.requests[-1].messages]


def call(name: str, /, **arguments: Any) -> Reply:
    """A reply that asks for a tool."""
    return Reply("", (Call(f"call of {name}", name, json.dumps(arguments)),))
