"""What a process may use from now on, what it finds in its memory, and the privileges that it gives up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct

from pytest_glia.sandbox.kernel import Architecture, call, libc, prctl

_FILES = 256
# Of the user, this process's included. It binds no root; the kernel's own limit does.
_THREADS = 16384
# Addresses without memory behind them, which allocators, thread stacks and compilers reserve, in bytes.
_RESERVED = 64 << 30
_CAPABILITIES_VERSION = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38
_M_PERTURB = -6  # of glibc's malloc.h


def take_limits(memory: int, cpu_seconds: int, output: int, *, reserve: bool) -> None:
    """Limit what this process uses; what it has now does not count.

    Args:
        memory: Bytes of private memory, by RLIMIT_DATA: what is only reserved does not count.
        cpu_seconds: Of all its threads together.
        output: Bytes that a file behind standard output or error may grow by.
        reserve: Whether address space is free. CUDA reserves as much of it as there is memory of any kind.
    """
    # Where memory ends, the kernel takes this process and not the one that measures.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
        score.write(b"1000")
    with open("/proc/self/statm", "rb", buffering=0) as statm:
        pages = [int(field) for field in statm.read().split()]
    page = resource.getpagesize()
    lower(resource.RLIMIT_DATA, pages[5] * page + memory)
    lower(resource.RLIMIT_STACK, memory)
    if not reserve:
        lower(resource.RLIMIT_AS, pages[0] * page + memory + _RESERVED)
    used = resource.getrusage(resource.RUSAGE_SELF)
    lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + cpu_seconds)
    lower(resource.RLIMIT_FSIZE, max(_size(1), _size(2)) + output)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, _FILES)
    lower(resource.RLIMIT_NPROC, _THREADS)


def lower(limit: int, value: int) -> None:
    """Set a limit, soft and hard, unless it is lower already."""
    soft, hard = resource.getrlimit(limit)
    values = [value if each == resource.RLIM_INFINITY else min(value, each) for each in (soft, hard)]
    resource.setrlimit(limit, (values[0], values[0]))


def blank_memory() -> None:
    """Have glibc give out memory as zeros, whatever was in it before; other C libraries cannot.

    Else ``numpy.empty`` shows what the host process has freed: the workload as it was made, say. Blocks of
    up to 1,032 bytes stay as they are: glibc and numpy keep them in caches that do not look at this setting.
    """
    with contextlib.suppress(AttributeError):
        libc().mallopt(_M_PERTURB, 0xFF)  # what is given out is the complement of this byte


def gain_nothing() -> None:
    """Set PR_SET_NO_NEW_PRIVS, without which an ordinary user may not confine itself."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities(architecture: Architecture) -> None:
    """Give up all that makes root more than an owner of files; raises `OSError` if that cannot be done.

    Ambient ones go with the permitted ones; the bounding set matters only to a program that is executed.
    """
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0), 8)
    held = ctypes.create_string_buffer(24)
    call(architecture.permitted["capget"], ctypes.addressof(header), ctypes.addressof(held))
    if not any(held.raw):
        return
    none = ctypes.create_string_buffer(24)
    call(architecture.confining["capset"], ctypes.addressof(header), ctypes.addressof(none))


def _size(descriptor: int) -> int:
    """Of the file behind a descriptor; 0 for a terminal, a pipe, or nothing."""
    try:
        return os.fstat(descriptor).st_size
    except OSError:
        return 0
