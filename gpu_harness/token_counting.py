"""How many tokens have streamed: counted from the bytes of server-sent events as they pass."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["TokenCounter", "usage_of"]

_IDS = re.compile(rb'"token_ids":\s?\[([0-9, ]+)\]')


class TokenCounter:
    """Counts the tokens of one streamed answer.

    Exact where events carry `token_ids`; else one event is one token, but for the one that names the role and
    the one that has the usage. (A busy server may put several tokens into one event: `usage` tells then.)
    """

    __slots__ = ("_rest", "tokens", "usage")

    def __init__(self) -> None:
        self._rest = b""
        self.tokens = 0
        self.usage: dict[str, Any] | None = None
        """The last that the server told."""

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the answer; cut anywhere."""
        lines = self._rest + chunk if self._rest else chunk
        if not lines.endswith(b"\n"):
            cut = lines.rfind(b"\n") + 1
            self._rest, lines = lines[cut:], lines[:cut]
        else:
            self._rest = b""
        # Inside JSON a newline is escaped: these are starts of events, whatever the model says.
        events = lines.count(b"\ndata: {") + lines.startswith(b"data: {")
        if b'"usage":{' in lines:
            self._read_usage(lines)
            events -= lines.count(b'"choices":[]')
        if b'"token_ids":' in lines:
            self.tokens += sum(each.count(b",") + 1 for each in _IDS.findall(lines))
        else:
            self.tokens += max(0, events - lines.count(b'"role":"assistant"'))

    def _read_usage(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            if line.startswith(b"data: ") and b'"usage":{' in line:
                self.usage = usage_of(line[6:]) or self.usage


def usage_of(body: bytes) -> dict[str, Any] | None:
    """The `usage` of an answer in JSON, or None."""
    try:
        usage = json.loads(body)["usage"]
    except (ValueError, KeyError, TypeError):
        return None
    return usage if isinstance(usage, dict) else None
