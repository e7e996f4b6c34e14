"""The sandbox of candidate code: a fork of this process confines itself, for ever, before it loads any.

Landlock decides which files can be opened, seccomp which system calls can be made, and resource limits how
much can be used. That takes no privileges, no other program and no process of its own. See docs/sandbox.md.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from pytest_glia.sandbox import landlock, limits, reach, seccomp
from pytest_glia.sandbox.environment import forget_secrets, is_secret
from pytest_glia.sandbox.kernel import Architecture, architecture

__all__ = ["Confinement", "NotConfined", "confine", "confining", "describe", "is_secret", "unavailable"]

_OUTPUT = 64 << 20
_LEAST_MEMORY = 1 << 30


class NotConfined(Exception):
    """A process could not be confined, or not wholly; it must end without loading a candidate."""


@dataclass(frozen=True)
class Confinement:
    """What a confined process may still do.

    Attributes:
        readable: Files, and folders with all below them, that it can read.
        writable: Files that it can read and write: devices that keep nothing, and GPUs.
        memory: Bytes that it may take beyond what it has.
        cpu_seconds: Of processor time, all threads together.
        output: Bytes that a file behind standard output or error may grow by.
        calls: The filter of its system calls.
        gpu: Whether it may reserve address space as CUDA does.
    """

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    memory: int
    cpu_seconds: int
    output: int
    calls: bytes
    gpu: bool

    @classmethod
    def of_project(cls, root: Path, *, seconds: float, workers: int) -> Confinement:
        """For replications of a project that is loaded in this process.

        Args:
            root: The project's folder, or its counterpart in a composed tree.
            seconds: After which a replication is killed anyway.
            workers: Replications that run at once; they and this process share the machine's memory.

        Raises:
            NotConfined: nothing can be confined on this architecture.
        """
        gpus = reach.gpu_devices()
        cores = os.cpu_count() or 1
        return cls(
            readable=reach.readable(root, gpus),
            writable=reach.writable(gpus),
            memory=max(_LEAST_MEMORY, _machine_memory() // (workers + 1)),
            cpu_seconds=int(seconds * cores) + 1,
            output=_OUTPUT,
            calls=seccomp.program(_here(), gpu=bool(gpus)),
            gpu=bool(gpus),
        )


def confine(confinement: Confinement, keep: Collection[int] = ()) -> None:
    """Confine this process, for ever. Of its descriptors it keeps standard output, error, and `keep`.

    Call it in a fork that has one thread and ends with the replication.

    Raises:
        NotConfined: something was refused. The process may be half confined.
    """
    here = _here()
    step = "count its threads"
    try:
        if (threads := len(os.listdir("/proc/self/task"))) != 1:
            raise NotConfined(
                f"a process with {threads} threads cannot be confined: start no thread when a process forks"
            )
        step = "close what it has inherited"
        _close_inherited(frozenset(keep))
        step = "remove secrets from its environment"
        forget_secrets()
        step = "limit its resources"
        limits.take_limits(
            confinement.memory, confinement.cpu_seconds, confinement.output, reserve=confinement.gpu
        )
        limits.blank_memory()
        step = "give up privileges (PR_SET_NO_NEW_PRIVS)"
        limits.gain_nothing()
        step = "restrict its files (Landlock)"
        landlock.restrict(here, confinement.readable, confinement.writable)
        step = "give up capabilities (capset)"
        limits.drop_capabilities(here)
        step = "filter its system calls (seccomp)"
        seccomp.install(here, seccomp.own_process_only(here, os.getpid()))
        seccomp.install(here, confinement.calls)
    except OSError as error:
        raise NotConfined(f"a process cannot {step} here: {error}") from error


def confining(root: Path, *, seconds: float, workers: int) -> Callable[[Collection[int]], None]:
    """`confine` for the replications of a project; the arguments are those of `Confinement.of_project`."""
    return partial(confine, Confinement.of_project(root, seconds=seconds, workers=workers))


@cache
def unavailable() -> str | None:
    """Why candidates cannot be confined here, in one sentence; None if they can.

    It is tried in a process that ends at once: a container's own filter may refuse what the kernel has.
    """
    try:
        here = _here()
    except NotConfined as error:
        return str(error)
    try:
        landlock.version(here)
    except OSError as error:
        return (
            "the kernel has no Landlock (Linux 5.13 or later, with landlock in its parameter lsm=), or the "
            f"container forbids it: {error}"
        )
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Threads of this process are not needed in the fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        said = b"it ended early"
        try:
            calls = seccomp.program(here, gpu=False)
            confine(Confinement((), (), _LEAST_MEMORY, 60, _OUTPUT, calls, gpu=False), [writer])
            said = b"" if _is_confined() else b"a confined process could still open a file"
        except NotConfined as error:
            said = str(error).encode()
        finally:
            os.write(writer, b"!" + said)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return said[1:].decode() or None if said else "a process that confines itself is killed here"


def describe() -> str:
    """What confines candidates here, for one line of output; call it where `unavailable` gives None."""
    return f"Landlock (ABI {landlock.version(_here())}) and seccomp"


def _here() -> Architecture:
    found = architecture()
    if found is None:
        raise NotConfined(
            "it needs Linux on x86_64 or aarch64, with 64-bit Python, and this is "
            f"{sys.platform} on {platform.machine()}"
        )
    return found


def _is_confined() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return True
    return False


def _close_inherited(keep: frozenset[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError as error:
                # That of the listing itself is gone already.
                if error.errno != errno.EBADF:
                    raise


def _machine_memory() -> int:
    """Bytes of memory of this machine, or of the container, if that has fewer."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return machine
