"""Secrets in the environment: which variables are taken for such, and their removal from this process."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator

from pytest_glia.sandbox.kernel import libc

_WORDS = r"KEY|TOKEN|SECRET|PASS|PASSPHRASE|PWD|AUTH|PAT|COOKIE|CREDENTIAL|DSN|SIGNATURE|PRIVATE|WEBHOOK"
# These are secrets wherever they stand in a name; the words above, where they are a word of their own.
_NAME = re.compile(
    rf"PASSWORD|PASSWD|APIKEY|ACCESSKEY|CONNECTION_?STRING|(^|_)({_WORDS})S?($|_)",
    re.IGNORECASE,
)
_NO_SECRET = frozenset({"PWD", "OLDPWD"})
_VALUE = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@"  # a URL with a password
    r"|\b(sk|pk|rk)[-_](live[-_]|test[-_]|proj-|ant-|or-)?[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe
    r"|\b(gh[opsur]_|github_pat_|glpat-|hf_|xox[abeoprs]-|npm_|pypi-|dckr_pat_|nvapi-|gsk_)[A-Za-z0-9_-]{16,}"
    r"|\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}"  # AWS, Google
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\."  # a JSON web token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like a key, a token or a password, by its name or by its value."""
    if _NAME.search(name) and name not in _NO_SECRET:
        return True
    # No token is shorter; most variables are.
    return (len(value) >= 16 or "@" in value) and bool(_VALUE.search(value))


def forget_secrets() -> None:
    """Remove them from this process: from `os.environ`, from C's, and from the block it was started with.

    Their bytes are overwritten. Copies that the process has made of them elsewhere are not found.
    """
    decided: dict[bytes, bool] = {}

    def secret(entry: bytes) -> bool:
        if entry not in decided:
            name, _, value = entry.partition(b"=")
            decided[entry] = bool(value) and is_secret(os.fsdecode(name), os.fsdecode(value))
        return decided[entry]

    block = _first_block()
    for place, entry in [*_entries(block), *_c_environment(block)]:
        if secret(entry):
            start = entry.index(b"=") + 1
            ctypes.memset(place + start, 0, len(entry) - start)
    for name, value in list(os.environb.items()):
        if secret(name + b"=" + value):
            # The object that os.environ holds, which a search of the memory would find. (Bytes are followed
            # by a zero; single ones are shared by the whole interpreter.)
            if len(value) > 1:
                ctypes.memset(id(value) + bytes.__basicsize__ - 1, 0, len(value))
            del os.environb[name]
    # What only C has set.
    for entry in decided:
        if decided[entry] and (name := entry.partition(b"=")[0]):
            os.unsetenv(name)


def _first_block() -> range:
    """The addresses of what the kernel gave to this process (proc(5), stat: fields 50 and 51)."""
    with open("/proc/self/stat", "rb", buffering=0) as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return range(int(fields[47]), int(fields[48]))


def _entries(block: range) -> Iterator[tuple[int, bytes]]:
    """Address and text of each variable in a block."""
    place = block.start
    for entry in ctypes.string_at(place, len(block)).split(b"\0"):
        yield place, entry
        place += len(entry) + 1


def _c_environment(block: range) -> Iterator[tuple[int, bytes]]:
    """Address and text of each variable that C's getenv finds elsewhere than in a block."""
    environ = ctypes.POINTER(ctypes.c_void_p).in_dll(libc(), "environ")
    index = 0
    while environ and (place := environ[index]) is not None:
        if place not in block:
            yield place, ctypes.string_at(place)
        index += 1
