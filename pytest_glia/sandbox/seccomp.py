"""The filter of a confined process's system calls: what is not permitted fails with EPERM.

It is a list of what is allowed, so that calls which kernels to come add are refused, too. A call of another
ABI (32 bits, x32) kills the process: its numbers mean other things. Program and data are as in the kernel's
Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable

from pytest_glia.sandbox.kernel import Architecture, call

Block = list[tuple[int, int, int, int]]
"""Instructions (code, jump if true, jump if false, operand); the last one returns."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW: Block = [(_RETURN, 0, 0, 0x7FFF0000)]
_DENY: Block = [(_RETURN, 0, 0, 0x00050000 | errno.EPERM)]
_ABSENT: Block = [(_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)]
_KILL: Block = [(_RETURN, 0, 0, 0x80000000)]
_NUMBER, _AUDIT, _ARGUMENTS = 0, 4, 16

_SET_MODE_FILTER = 1
_ALL_THREADS = 1
# Else old kernels slow the process down, and a candidate would be timed unlike its baseline.
_SPECULATION_AS_BEFORE = 4

# To numbers above, libc must hear that the kernel lacks them, and take another way.
NEWEST = 469
_X32 = 0x40000000

_CLONE_THREAD = 0x10000
# Of namespaces, vfork, ptrace and pidfd.
_CLONE_MORE = 0x7E020000 | 0x4000 | 0x2000 | 0x1000
_SHARED, _ANONYMOUS = 0x1, 0x20
_GROWS_DOWN, _HUGE = 0x100, 0x40000
_WRITES, _TRUNCATES = 0o3, 0o1000
_PR_SET_NAME, _PR_GET_NAME, _PR_GET_DUMPABLE = 15, 16, 3
# F_DUPFD to F_GETFL, F_GETLK to F_SETLKW, F_DUPFD_CLOEXEC. Not F_SETFL: the parent may share an output.
# Not F_SETOWN and F_SETSIG: they send signals to others.
_FCNTL = (0, 1, 2, 3, 5, 6, 7, 1030)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX. Not TIOCSTI, which types into the user's terminal.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)
# Second byte of the commands of NVIDIA's driver; and what its unified memory has instead.
_NVIDIA = ord("F")
_UVM_BELOW, _UVM = 0x100, (0x30000001, 0x30000002)


def program(architecture: Architecture, *, gpu: bool) -> bytes:
    """The filter of every process; with `gpu`, the commands of NVIDIA's driver may pass."""
    checks: dict[str, Block] = {
        "clone3": _ABSENT,  # its flags are in memory, where a filter cannot see them; libc falls back
        "openat2": _ABSENT,
        "clone": _threads_only(),
        "open": _no_truncating_read(1),
        "openat": _no_truncating_read(2),
        "mmap": _counted_memory(),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _commands(gpu=gpu),
        "prctl": _one_of(0, (_PR_SET_NAME, _PR_GET_NAME, _PR_GET_DUMPABLE)),
        "prlimit64": _zero(2),
    }
    blocks = {number: checks.get(name, _ALLOW) for name, number in architecture.permitted.items()}
    starts: list[tuple[int, Block]] = [(0, _DENY)]
    for number in range(NEWEST + 1):
        block = blocks.get(number, _DENY)
        if block is not starts[-1][1]:
            starts.append((number, block))
    starts += [(NEWEST + 1, _ABSENT), (_X32, _KILL)]
    same_abi: Block = [(_LOAD, 0, 0, _AUDIT), (_EQUAL, 1, 0, architecture.audit), *_KILL]
    return packed([*same_abi, (_LOAD, 0, 0, _NUMBER), *_tree(starts)])


def own_process_only(architecture: Architecture, pid: int) -> bytes:
    """A filter besides: signals and scheduling reach no other process than `pid`."""
    instructions: Block = [(_LOAD, 0, 0, _NUMBER)]
    for name, allowed in (
        ("kill", [pid]),
        ("tkill", [pid]),
        ("tgkill", [pid]),
        ("sched_setaffinity", [0, pid]),
    ):
        block = _one_of(0, allowed)
        instructions += [(_EQUAL, 0, len(block), architecture.permitted[name]), *block]
    return packed(instructions + _ALLOW)


def packed(instructions: Block) -> bytes:
    """Instructions as the kernel takes them (``struct sock_filter``)."""
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def install(architecture: Architecture, filter_program: bytes) -> None:
    """Filter the calls of all threads of this process, for ever, besides the filters that it has.

    Raises:
        OSError: the kernel, or the container's own filter, refuses.
    """
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    described = ctypes.create_string_buffer(
        struct.pack("=HxxxxxxQ", len(filter_program) // 8, ctypes.addressof(buffer))
    )
    flags = _ALL_THREADS | _SPECULATION_AS_BEFORE
    number = architecture.confining["seccomp"]
    thread = call(number, _SET_MODE_FILTER, flags, ctypes.addressof(described))
    if thread:
        raise OSError(errno.EBUSY, f"thread {thread} cannot be filtered")


def _tree(starts: list[tuple[int, Block]]) -> Block:
    """A binary search for the block of the call's number; each holds from its number to the next one's."""
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    below, above = _tree(starts[:middle]), _tree(starts[middle:])
    if len(below) < 256:
        return [(_AT_LEAST, len(below), 0, starts[middle][0]), *below, *above]
    # A conditional jump reaches 255 instructions; one without condition goes anywhere.
    return [(_AT_LEAST, 0, 1, starts[middle][0]), (0x05, 0, 0, len(below)), *below, *above]


def _low(argument: int) -> tuple[int, int, int, int]:
    """Load an argument's lower half, which is all that the kernel looks at where this is used."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _one_of(argument: int, values: Iterable[int]) -> Block:
    allowed = tuple(values)
    tests = [(_EQUAL, len(allowed) - place, 0, value) for place, value in enumerate(allowed)]
    return [_low(argument), *tests, *_DENY, *_ALLOW]


def _zero(argument: int) -> Block:
    high = (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4)
    return [_low(argument), (_EQUAL, 1, 0, 0), *_DENY, high, (_EQUAL, 1, 0, 0), *_DENY, *_ALLOW]


def _threads_only() -> Block:
    return [_low(0), (_ANY_BIT, 1, 0, _CLONE_MORE), (_ANY_BIT, 1, 0, _CLONE_THREAD), *_DENY, *_ALLOW]


def _no_truncating_read(flags: int) -> Block:
    """O_TRUNC without a right to write, which truncates, is nothing that an old Landlock knows."""
    return [_low(flags), (_ANY_BIT, 0, 2, _TRUNCATES), (_ANY_BIT, 1, 0, _WRITES), *_DENY, *_ALLOW]


def _counted_memory() -> Block:
    """Only memory that RLIMIT_DATA counts: not shared and anonymous, not a stack, not of huge pages."""
    return [
        _low(3),
        (_ANY_BIT, 3, 0, _GROWS_DOWN | _HUGE),
        (_ANY_BIT, 0, 1, _SHARED),
        (_ANY_BIT, 1, 0, _ANONYMOUS),
        *_ALLOW,
        *_DENY,
    ]


def _commands(*, gpu: bool) -> Block:
    if not gpu:
        return _one_of(1, _IOCTL)
    allowed = [*_IOCTL, *_UVM]
    tests: Block = [(_EQUAL, len(allowed) - place, 0, value) for place, value in enumerate(allowed)]
    return [
        _low(1),
        *tests,
        (_AT_LEAST, 1, 0, _UVM_BELOW),
        *_ALLOW,
        (_AND, 0, 0, 0xFF00),
        (_EQUAL, 1, 0, _NVIDIA << 8),
        *_DENY,
        *_ALLOW,
    ]
