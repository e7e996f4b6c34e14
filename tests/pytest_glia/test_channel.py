"""Messages between the search and the process that evaluates."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from pytest_glia.channel import Channel, ChannelClosed


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Both ends of a channel."""
    left, right = socket.socketpair()
    channels = Channel(left), Channel(right)
    yield channels
    for each in channels:
        each.close()


def test_messages_arrive_in_order_and_whole(ends: tuple[Channel, Channel]) -> None:
    """Several at once are told apart; line breaks inside a message do not end it."""
    left, right = ends
    left.send(text="a\nb", number=1.5)
    left.send(nothing=None, many=[1, {"x": "ü"}])
    assert right.receive() == {"text": "a\nb", "number": 1.5}
    assert right.receive() == {"nothing": None, "many": [1, {"x": "ü"}]}


def test_message_larger_than_any_buffer(ends: tuple[Channel, Channel]) -> None:
    """Megabytes of source pass while the other side reads."""
    left, right = ends
    text = "x" * 3_000_000
    sender = threading.Thread(target=left.send, kwargs={"text": text})
    sender.start()
    assert right.receive() == {"text": text}
    sender.join()


def test_silence_is_a_timeout_and_loses_nothing(ends: tuple[Channel, Channel]) -> None:
    """After a timeout, with half a message there, the whole message can still be had."""
    left, right = ends
    right._socket.sendall(b'{"a": ')
    with pytest.raises(TimeoutError):
        left.receive(timeout=0.01)
    right._socket.sendall(b"1}\n")
    assert left.receive(timeout=1.0) == {"a": 1}


def test_no_patience_left_is_a_timeout_too(ends: tuple[Channel, Channel]) -> None:
    """When no time is left to wait, that is not taken for the other side's end."""
    left, _ = ends
    with pytest.raises(TimeoutError):
        left.receive(timeout=0.0)


def test_end_of_the_other_side_is_told(ends: tuple[Channel, Channel]) -> None:
    """Receiving and sending both say so; what was sent before arrives first."""
    left, right = ends
    right.send(last=True)
    right.close()
    assert left.receive() == {"last": True}
    with pytest.raises(ChannelClosed):
        left.receive()
    with pytest.raises(ChannelClosed):
        left.send(a=1)


def test_what_is_no_message_closes(ends: tuple[Channel, Channel]) -> None:
    """A line that is no JSON object, such as a stray print, is not taken for one."""
    left, right = ends
    for line in (b"[1, 2]\n", b"hello\n"):
        right._socket.sendall(line)
        with pytest.raises(ChannelClosed, match="not a message"):
            left.receive()
