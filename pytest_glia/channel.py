"""Messages between the search and the process that evaluates: JSON, one a line, over a socket."""

from __future__ import annotations

import json
import socket
from typing import Any


class ChannelClosed(Exception):
    """The other side has gone."""


class Channel:
    """One end of a socket pair. Messages are dictionaries of JSON types."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Channel:
        """The end that a parent process has passed down."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Send one message; raises `ChannelClosed` if the other side has gone."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; raises `ChannelClosed`, or `TimeoutError` after `timeout` seconds."""
        while b"\n" not in self._buffer:
            if timeout is not None and timeout <= 0:
                raise TimeoutError("no time left to wait for a message")
            self._socket.settimeout(timeout)
            try:
                part = self._socket.recv(1 << 16)
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            finally:
                self._socket.settimeout(None)
            if not part:
                raise ChannelClosed("end of messages")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise ChannelClosed(f"not a message: {line[:80]!r}")
        return message

    def close(self) -> None:
        """Tell the other side that no more will come."""
        self._socket.close()
