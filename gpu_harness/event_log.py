"""Structured logs: one JSON object a line, an event each."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol, TextIO

__all__ = ["EventLog", "Tell"]


class Tell(Protocol):
    """Takes events."""

    def __call__(self, event: str, **fields: Any) -> None:
        """One event and what there is to say of it."""


class EventLog:
    """Writes events with the wall-clock time; `requests=False` leaves out the line that each request gets.

    What cannot be written, as where a disk is full, ends nothing: the next line that can be has in `lost` how
    many could not.
    """

    def __init__(self, file: TextIO | None = sys.stderr, *, requests: bool = True) -> None:
        """To no file nothing is written."""
        self._file, self._requests = file, requests
        self.lost = 0

    def __call__(self, event: str, **fields: Any) -> None:
        """One event; numbers that never came to be (NaN) are null."""
        if self._file is None or (event == "request" and not self._requests):
            return
        known = {name: None if value != value else value for name, value in fields.items()}
        told = {"time": round(time.time(), 6), "event": event, **known}
        line = json.dumps({**told, "lost": self.lost} if self.lost else told, default=str)
        try:
            self._file.write(line + "\n")
            self._file.flush()
            self.lost = 0
        except OSError:
            self.lost += 1
