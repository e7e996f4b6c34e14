"""The sandbox, tried in real forks: what an attacker's calls do there."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_glia import sandbox
from pytest_glia.sandbox import kernel, reach, seccomp
from tests.confined import confinement, error_of, error_of_call, error_of_reading, in_fork

NOBODY = 65534
REFUSED = (errno.EPERM, errno.EACCES)

pytestmark = pytest.mark.skipif(
    sandbox.unavailable() is not None, reason=f"no sandbox here: {sandbox.unavailable()}"
)


@pytest.fixture(params=["as it is", "nobody"])
def user(request: pytest.FixtureRequest) -> int | None:
    """Who is confined: the user of the tests, and, if that is root, an ordinary one."""
    if request.param == "nobody" and os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user anyway")
    return NOBODY if request.param == "nobody" else None


@pytest.fixture
def project() -> Iterator[Path]:
    """A project beside a victim's folder, where everybody could write."""
    with tempfile.TemporaryDirectory(prefix="glia-sandbox-") as folder:
        top = Path(folder)
        for path in ("project/data/table.csv", "project/.env", "project/.git/config", "victim/file"):
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text("precious")
        for place in [top, *top.rglob("*")]:
            place.chmod(0o777)
            if os.geteuid() == 0:
                os.chown(place, NOBODY, NOBODY)
        yield top / "project"


def raw(x86_64: int, aarch64: int, *arguments: int) -> int:
    """A system call that Python has no function for."""
    return kernel.call(x86_64 if platform.machine() == "x86_64" else aarch64, *arguments)


VICTIM = "../victim/file"
NONE = (ctypes.c_ulong * 2)(0, 0)

ATTEMPTS: dict[str, Callable[[int], Any]] = {
    "read a file": lambda parent: open(VICTIM).close(),
    "list a folder": lambda parent: os.listdir("../victim"),
    "read /etc/passwd": lambda parent: open("/etc/passwd").close(),
    "read the project's secrets": lambda parent: open(".env").close(),
    "read the project's history": lambda parent: open(".git/config").close(),
    "read its own memory as a file": lambda parent: open("/proc/self/mem").close(),
    "read its own environment": lambda parent: open("/proc/self/environ").close(),
    "read the parent's status": lambda parent: open(f"/proc/{parent}/status").close(),
    "write a file": lambda parent: open(VICTIM, "w").close(),
    "append to a file": lambda parent: open(VICTIM, "a").close(),
    "write the project's data": lambda parent: open("data/table.csv", "r+").close(),
    "create a file": lambda parent: open("../victim/new", "w").close(),
    "create a file in the project": lambda parent: open("data/new", "w").close(),
    "truncate without a right to write": lambda parent: os.close(
        os.open("data/table.csv", os.O_RDONLY | os.O_TRUNC)
    ),
    "make an unnamed file": lambda parent: os.close(os.open("data", os.O_RDWR | os.O_TMPFILE)),
    "truncate": lambda parent: os.truncate(VICTIM, 0),
    "change a mode": lambda parent: os.chmod(VICTIM, 0o600),
    "change times": lambda parent: os.utime(VICTIM, (1, 1)),
    "change the owner": lambda parent: os.chown(VICTIM, -1, -1),
    "set an attribute": lambda parent: os.setxattr("data/table.csv", "user.glia", b"x"),
    "make a folder": lambda parent: os.mkdir("../victim/folder"),
    "make a link": lambda parent: os.link(VICTIM, "data/link"),
    "make a symbolic link": lambda parent: os.symlink("/", "../victim/link"),
    "make a fifo": lambda parent: os.mkfifo("../victim/fifo"),
    "rename": lambda parent: os.rename(VICTIM, "../victim/renamed"),
    "make memory a file": lambda parent: os.close(os.memfd_create("x")),
    "use TCP": lambda parent: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
    "use UDP": lambda parent: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "use TCP over IPv6": lambda parent: socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close(),
    "use a Unix socket": lambda parent: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
    "use netlink": lambda parent: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "make a pair of sockets": lambda parent: socket.socketpair()[0].close(),
    "fork": lambda parent: os.fork() or os._exit(0),
    "execute": lambda parent: os.execv("/bin/true", ["true"]),
    "spawn": lambda parent: os.posix_spawn("/bin/true", ["true"], {}),
    "see the parent's signals": lambda parent: os.kill(parent, 0),
    "hold the parent by a descriptor": lambda parent: os.close(os.pidfd_open(parent)),
    "lead a group": lambda parent: os.setpgid(0, 0),
    "move the parent to a core": lambda parent: os.sched_setaffinity(parent, os.sched_getaffinity(parent)),
    "change the parent's priority": lambda parent: os.setpriority(os.PRIO_PROCESS, parent, 0),
    "change its own limits": lambda parent: raw(302, 261, 0, resource.RLIMIT_CORE, ctypes.addressof(NONE), 0),
    "outlive its parent": lambda parent: kernel.prctl(1, 0),
    "have signals sent to the parent": lambda parent: fcntl.fcntl(1, fcntl.F_SETOWN, parent),
    "make the parent's output fail": lambda parent: os.set_blocking(1, True),
    "take memory that no limit counts": lambda parent: mmap.mmap(-1, 4096).close(),
    "trace itself": lambda parent: raw(101, 117, 0),
    "start a new namespace": lambda parent: raw(272, 97, 0),
    "make shared memory": lambda parent: raw(29, 194, 0, 4096, 0o600),
    "open the keyring": lambda parent: raw(250, 219, 0, (1 << 64) - 3, 0),
    "ask for io_uring": lambda parent: raw(425, 425, 1, 0),
    "load a program into the kernel": lambda parent: raw(321, 280, 0, 0, 0),
}
"""What is refused in a confined process. They leave no trace where they are not, but for the files."""

# These need rights, or a kernel, that the tests may not have.
UNCERTAIN = {
    *("set an attribute", "ask for io_uring", "load a program into the kernel", "open the keyring"),
    *("make shared memory", "have signals sent to the parent", "trace itself"),
}


def attempt(name: str, project: Path, parent: int) -> int:
    os.chdir(project)
    return error_of(lambda: ATTEMPTS[name](parent))


def state(top: Path) -> dict[str, tuple[str, int, float]]:
    """All files below a folder, with their text, mode and time of change."""
    return {
        str(each.relative_to(top)): (
            each.read_text() if each.is_file() else "",
            each.lstat().st_mode,
            each.lstat().st_mtime,
        )
        for each in sorted(top.rglob("*"))
    }


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt_is_refused(name: str, project: Path, user: int | None) -> None:
    """Each fails with EPERM or EACCES, and no file has changed."""
    before = state(project.parent)
    parent = os.getpid()
    found, _ = in_fork(lambda: attempt(name, project, parent), user, confinement(project))
    assert found in REFUSED, (name, found)
    assert state(project.parent) == before


@pytest.mark.parametrize("name", sorted(set(ATTEMPTS) - UNCERTAIN))
def test_attempt_would_succeed_elsewhere(name: str, project: Path) -> None:
    """It is the sandbox that refuses it: the same call works in a fork that is not confined."""
    parent = os.getpid()
    found, status = in_fork(lambda: attempt(name, project, parent), None, None)
    # What executes another program does not come back.
    assert found == 0 or (name == "execute" and found is None and status == 0), (name, found)


def test_every_call_that_is_not_permitted_is_refused(user: int | None) -> None:
    """All numbers up to the newest call give EPERM; above, the kernel seems to have none."""
    here = kernel.architecture()
    assert here is not None
    unknown = set(range(seccomp.NEWEST + 1)) - set(here.permitted.values())
    if platform.machine() == "x86_64":
        # uretprobe and uprobe: the kernel itself kills who calls them without being probed.
        unknown -= {335, 336}
    numbers = [*sorted(unknown), 5000]
    found, _ = in_fork(lambda: {number: error_of_call(number) for number in numbers}, user, confinement())
    assert found.pop("5000") == errno.ENOSYS
    assert {int(number): error for number, error in found.items()} == dict.fromkeys(unknown, errno.EPERM)
    assert len(unknown) > 250


def test_libc_is_told_that_calls_with_hidden_flags_do_not_exist() -> None:
    """clone3 and openat2 are absent, so that libc takes those whose flags can be seen."""
    found, _ = in_fork(lambda: [error_of_call(435), error_of_call(437)], None, confinement())
    assert found == [errno.ENOSYS] * 2


def test_process_is_killed_for_a_call_of_another_abi() -> None:
    """A 32-bit call, or one of x32, would mean another one than its number says."""
    if platform.machine() != "x86_64":
        pytest.skip("only x86_64 has such calls")

    def interrupt() -> None:
        # mov eax, 20 (getpid); int 0x80; ret
        code = mmap.mmap(
            -1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | 4
        )
        code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()

    x32_getpid = 0x40000000 | 39
    for action in (interrupt, lambda: kernel.call(x32_getpid)):
        _, status = in_fork(action, None, confinement())
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGSYS


def test_nothing_is_typed_into_the_terminal() -> None:
    """TIOCSTI, which would put words into the user's shell, is refused for a terminal that was inherited."""
    controller, terminal = os.openpty()

    def run() -> list[int]:
        byte = ctypes.create_string_buffer(b"x")
        tiocsti, tcgets = 0x5412, 0x5401
        call = kernel.architecture().permitted["ioctl"]  # type: ignore[union-attr]
        room = ctypes.create_string_buffer(256)
        return [
            error_of(lambda: kernel.call(call, 1, tiocsti, ctypes.addressof(byte))),
            error_of(lambda: kernel.call(call, 1, tcgets, ctypes.addressof(room))),
        ]

    saved = os.dup(1)
    os.dup2(terminal, 1)
    try:
        found, _ = in_fork(run, None, confinement())
    finally:
        os.dup2(saved, 1)
        for each in (saved, terminal, controller):
            os.close(each)
    assert found == [errno.EPERM, 0]


def test_commands_of_the_gpu_driver_pass_only_where_there_is_one() -> None:
    """NVIDIA's reach the device, those of terminals and file systems never do."""
    here = kernel.architecture()
    assert here is not None
    ioctl = here.permitted["ioctl"]
    driver, memory, typed, attributes = 0xC020462A, 0x30000001, 0x5412, 0x40086602

    def run() -> list[int]:
        commands = (driver, memory, typed, attributes)
        return [error_of(partial(kernel.call, ioctl, 99, each)) for each in commands]

    found = [
        in_fork(run, None, confinement(gpu=gpu, calls=seccomp.program(here, gpu=gpu)))[0]
        for gpu in (False, True)
    ]
    assert found == [[errno.EPERM] * 4, [errno.EBADF, errno.EBADF, errno.EPERM, errno.EPERM]]


def test_inherited_descriptors_are_closed() -> None:
    """A socket, a file or a pipe of the parent is gone; standard input is empty; the kept one works."""
    left, right = socket.socketpair()
    with left, right, open(__file__) as file:
        wanted = [left.fileno(), file.fileno()]

        def error_of_fstat(descriptor: int) -> int:
            return error_of(lambda: os.fstat(descriptor))

        def run() -> list[int]:
            return [*map(error_of_fstat, wanted), len(os.read(0, 100))]

        assert in_fork(run, None, confinement())[0] == [errno.EBADF, errno.EBADF, 0]


def leftovers(size: int) -> int:
    """How many numbers of an array that is gone stand in a new one of its size that nobody has filled."""
    np.full(size, 123_456_789)
    return int((np.empty(size, np.int64) == 123_456_789).sum())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can blank memory")
@pytest.mark.parametrize("size", [200, 1000, 15_000])
def test_what_others_have_freed_is_not_found_in_new_memory(size: int) -> None:
    """The host process may have made the workload there; elsewhere it would be found."""
    inside, _ = in_fork(lambda: leftovers(size), None, confinement())
    outside, _ = in_fork(lambda: leftovers(size), None, None)
    assert inside == 0 < outside


def test_root_is_no_longer_root(user: int | None) -> None:
    """No capability is left, and none can be gained."""

    def run() -> list[int]:
        here = kernel.architecture()
        assert here is not None
        header = ctypes.create_string_buffer((0x20080522).to_bytes(4, "little") + bytes(4), 8)
        held = ctypes.create_string_buffer(24)
        kernel.call(here.permitted["capget"], ctypes.addressof(header), ctypes.addressof(held))
        return list(held.raw)

    assert in_fork(run, user, confinement())[0] == [0] * 24


@pytest.mark.parametrize("around", ["on the path", "the system's", "by a link", "by a link in the project"])
def test_hidden_folders_of_a_project_within_what_is_readable_are_not(
    project: Path, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    """A folder around the project is readable: what the project hides stays hidden, also where pytest's root
    is a composed tree in it."""
    (project / ".glia/tree-1").mkdir(parents=True)
    (project / ".glia/ledger.db").write_text("precious")
    if around == "on the path":
        monkeypatch.syspath_prepend(str(project.parent))
    elif around == "by a link":
        (project.parent / ".hidden").touch()
        (project.parent / "current").symlink_to(project)
        monkeypatch.syspath_prepend(str(project.parent))
    elif around == "by a link in the project":
        (project / "me").symlink_to(".")
        (project / ".glia/tree-1/up").symlink_to("../..")
        (project / "ledger").symlink_to(".glia/ledger.db")
    else:
        monkeypatch.setattr(reach, "_SYSTEM", (*reach._SYSTEM, os.path.realpath(project.parent)))
    for root in (project, project / ".glia/tree-1"):

        def run() -> list[int]:
            names = ("data/table.csv", ".env", ".glia/ledger.db")
            return [error_of_reading(project / name) for name in names]

        assert in_fork(run, None, confinement(root))[0][1:] == [errno.EACCES, errno.EACCES]


def test_project_and_python_are_readable(project: Path, user: int | None) -> None:
    """Data below the root, time zones, processors and random numbers are there."""

    def run() -> list[int]:
        places: list[str | Path] = [
            *(project / "data/table.csv", "/dev/urandom", "/dev/null", "/proc/cpuinfo", "/proc/self/maps"),
            *("/usr/lib/os-release", "/sys/devices/system/cpu/online"),
        ]
        return [error_of_reading(each) for each in places]

    assert in_fork(run, user, confinement(project))[0] == [0] * 7
