"""The kernel's calls by number: those that a confined process may make, and those that confine it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

# Each with its number on x86_64 and on aarch64 (-: it has no such call), from the kernel's asm/unistd.h.
_PERMITTED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69,
pwritev 296 70, lseek 8 62, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24,
fcntl 72 25, ioctl 16 29, open 2 -, openat 257 56, openat2 437 437, access 21 -, faccessat 269 48,
faccessat2 439 439, stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, statfs 137 43,
fstatfs 138 44, readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17,
chdir 80 49, fadvise64 221 223, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
eventfd2 290 19, pipe 22 -, pipe2 293 59,

mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, mincore 27 232,
mlock 149 228, munlock 150 229, membarrier 324 283, mbind 237 235, get_mempolicy 239 236,
set_mempolicy 238 237,

futex 202 98, futex_waitv 449 449, set_robust_list 273 99, set_tid_address 218 96, rseq 334 293,
clone 56 220, clone3 435 435, exit 60 93, exit_group 231 94, sched_yield 24 124, sched_getaffinity 204 123,
sched_setaffinity 203 122, sched_getparam 143 121, sched_getscheduler 145 120, sched_getattr 315 275,
sched_get_priority_max 146 125, sched_get_priority_min 147 126, sched_rr_get_interval 148 127,
getcpu 309 168, getpriority 140 141,

rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigsuspend 130 133,
rt_sigpending 127 136, rt_sigtimedwait 128 137, sigaltstack 131 132, pause 34 -, restart_syscall 219 128,
kill 62 129, tkill 200 130, tgkill 234 131,

alarm 37 -, setitimer 38 103, getitimer 36 102, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -, times 100 153,

getpid 39 172, getppid 110 173, gettid 186 178, getpgrp 111 -, getpgid 121 155, getsid 124 156,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150,
getgroups 115 158, capget 125 90, getrlimit 97 163, prlimit64 302 261, getrusage 98 165, prctl 157 167,
uname 63 160, sysinfo 99 179, getrandom 318 278
"""
_CONFINING = """
landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446,
seccomp 317 277, capset 126 91
"""
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@dataclass(frozen=True)
class Architecture:
    """A processor as the kernel's filters see it.

    Attributes:
        audit: Its AUDIT_ARCH_* value.
        permitted: Numbers of the calls that a confined process may make, some of them with checks.
        confining: Numbers of the calls by which a process confines itself.
    """

    audit: int
    permitted: Mapping[str, int]
    confining: Mapping[str, int]


def architecture(machine: str | None = None) -> Architecture | None:
    """This interpreter's (or that of `machine`, as `platform.machine` says); None if it is not known."""
    name = machine or platform.machine()
    if sys.platform != "linux" or sys.maxsize < 2**32 or name not in _AUDIT:
        return None
    column = 1 + list(_AUDIT).index(name)
    return Architecture(_AUDIT[name], _numbers(_PERMITTED, column), _numbers(_CONFINING, column))


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [row.split() for row in table.split(",")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def call(number: int, *arguments: int) -> int:
    """Make a system call; raises `OSError` with what the kernel says."""
    return checked(libc().syscall(number, *(arguments + (0,) * 6)[:6]))


def prctl(option: int, argument: int) -> int:
    """Change or ask what `option` is about; raises `OSError` with what the kernel says."""
    return checked(libc().prctl(option, argument, 0, 0, 0))


def checked(result: int) -> int:
    """What a function of C has returned; raises `OSError` if that is an error."""
    if result < 0:
        raise OSError(error := ctypes.get_errno(), os.strerror(error))
    return result


@cache
def libc() -> ctypes.CDLL:
    """The C library, with the types of the functions that are called here."""
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * 6
    library.syscall.restype = ctypes.c_long
    library.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return library
