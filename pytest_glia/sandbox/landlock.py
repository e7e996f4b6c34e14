"""Landlock: which files a process may open from now on; see the kernel's userspace-api/landlock.rst."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from pytest_glia.sandbox.kernel import Architecture, call

_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1 << 1, 1 << 2, 1 << 3, 1 << 15
# How many of the rights to files, in the order of their bits, each version of the interface knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_RIGHTS_NOW = 16
_TCP = 0b11
_SIGNALS_AND_SOCKETS = 0b11


def version(architecture: Architecture) -> int:
    """Of the interface, from 1; raises `OSError` where the kernel has none or has it disabled."""
    return call(architecture.confining["landlock_create_ruleset"], 0, 0, _VERSION)


def restrict(architecture: Architecture, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Let this thread open nothing but what is named, for ever. What is not there is passed over.

    Args:
        architecture: Of this machine.
        readable: Files, or folders with all that is below them, that can be read.
        writable: Files, such as devices, that can be read, written and, if devices, sent commands.

    Raises:
        OSError: the kernel refuses; PR_SET_NO_NEW_PRIVS must have been set.
    """
    known = version(architecture)
    rights = (1 << _RIGHTS.get(known, _RIGHTS_NOW)) - 1
    attributes = struct.pack(
        "=QQQ", rights, _TCP if known >= 4 else 0, _SIGNALS_AND_SOCKETS if known >= 6 else 0
    )[: 8 if known < 4 else 16 if known < 6 else 24]
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    create = architecture.confining["landlock_create_ruleset"]
    ruleset = call(create, ctypes.addressof(buffer), len(attributes), 0)
    try:
        add = architecture.confining["landlock_add_rule"]
        rule = ctypes.create_string_buffer(12)
        for paths, wanted in (
            (readable, _READ_FILE | _READ_DIR),
            (writable, _READ_FILE | _WRITE_FILE | _IOCTL_DEV),
        ):
            for path in paths:
                # A file that is not there, or that this user cannot reach, is not granted.
                with contextlib.suppress(OSError):
                    _allow(add, ruleset, path, wanted & rights, rule)
        call(architecture.confining["landlock_restrict_self"], ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(add: int, ruleset: int, path: str, wanted: int, rule: ctypes.Array[ctypes.c_char]) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            wanted &= ~_READ_DIR
        struct.pack_into("=Qi", rule, 0, wanted, descriptor)
        call(add, ruleset, _PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(descriptor)
