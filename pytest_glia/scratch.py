"""Folders and locks that are one process's own, and free again when it ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


def locked(file: Path, *, wait: bool = False) -> int:
    """The descriptor of a file that no other process has locked; raises `BlockingIOError` if one has, or
    waits until none has.

    The lock ends when it is closed, and with this process.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def scratch(folder: Path, prefix: str) -> tuple[Path, int]:
    """A new folder below `folder`, and its lock; those that killed processes have left are deleted.

    It is this process's own until the lock is closed. Its name has the process's number for people only:
    that may be another one's by now, so whose a folder is, the lock tells.
    """
    for left in folder.glob(f"{prefix}-*"):
        with contextlib.suppress(OSError):
            held = locked(left / "lock")
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    while True:
        own = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=folder))
        # Before it was locked, another process may have taken it for one that is left.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            lock = locked(own / "lock")
            if (own / "lock").exists():
                return own, lock
            os.close(lock)
