"""Locks of devices: no two measurements of this machine use one at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["DeviceLock", "DevicesInUse"]


class DevicesInUse(Exception):
    """Another process of this machine has them."""


class DeviceLock:
    """Held from when it is made; `DevicesInUse` if somebody else holds one of the same devices.

    It does not wait: whoever has them may be waiting for what the caller holds. Each device is a file in the
    temporary folder, which stays; its lock ends with the process that has it.
    """

    def __init__(self, devices: Iterable[str]) -> None:
        """`devices` are names: of GPUs, `cpu`, or a URL."""
        self._held: list[int] = []
        try:
            for name in set(devices):
                self._held.append(_opened(name))
                try:
                    fcntl.flock(self._held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise DevicesInUse(f"{name} is in use by another run of this machine") from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others go on."""
        while self._held:
            os.close(self._held.pop())


def _opened(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir(), f"gpu-harness-{digest}.lock")
    for flags in (0, os.O_CREAT, 0):  # somebody else's file can be opened, but not with O_CREAT
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o644)
        except (FileNotFoundError, PermissionError) as error:
            wrong = error
    raise wrong
