"""The sandbox, tried in real forks: what an attacker's calls do there, and that honest code still runs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_glia import sandbox
from pytest_glia.sandbox import Confinement, NotConfined, kernel, seccomp

ROOT = Path(__file__).resolve().parents[2]
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


def confinement(root: Path = ROOT, **changes: Any) -> Confinement:
    return replace(Confinement.of_project(root, seconds=60, workers=2), **changes)


def error_of_call(number: int) -> int:
    """The errno with which a system call without arguments fails; 0 if it does not."""
    return error_of(lambda: kernel.call(number))


def error_of_reading(place: str | Path) -> int:
    """The errno with which a file cannot be opened; 0 if it can."""
    return error_of(lambda: open(place, "rb").close())


def in_fork(action: Callable[[], Any], become: int | None, confined: Confinement | None) -> tuple[Any, int]:
    """What `action` returns in a fork, as JSON tells it (None if it dies), and the wait status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if become is not None:
                os.setgroups([])
                os.setgid(become)
                os.setuid(become)
            if confined is not None:
                sandbox.confine(confined, [writer])
            os.write(writer, json.dumps(action()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(f"raised {error!r}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    status = os.waitpid(pid, 0)[1]
    return (json.loads(said) if said else None), status


def error_of(action: Callable[[], Any]) -> int:
    """The errno with which an action fails; 0 if it does not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


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


def test_project_and_python_are_readable(project: Path, user: int | None) -> None:
    """Data below the root, time zones, processors and random numbers are there."""

    def run() -> list[int]:
        places: list[str | Path] = [
            *(project / "data/table.csv", "/dev/urandom", "/dev/null", "/proc/cpuinfo", "/proc/self/maps"),
            *("/usr/lib/os-release", "/sys/devices/system/cpu/online"),
        ]
        return [error_of_reading(each) for each in places]

    assert in_fork(run, user, confinement(project))[0] == [0] * 7


def test_output_that_keeps_nothing_is_allowed() -> None:
    """Redirecting into /dev/null, as libraries do, works."""

    def run() -> int:
        with open(os.devnull, "w") as nothing:
            return nothing.write("away")

    assert in_fork(run, None, confinement())[0] == 4


def test_numeric_code_runs() -> None:
    """Linear algebra on threads, compiled functions, time zones and threads of Python's own."""
    numba = pytest.importorskip("numba")
    pandas = pytest.importorskip("pandas")

    def run() -> list[Any]:
        matrix = numpy.arange(90_000.0).reshape(300, 300) / 90_000
        total = numba.njit(lambda values: values.sum())(matrix[0])
        times = pandas.date_range("2026-03-28", periods=2, freq="D", tz="Europe/Berlin")
        done: list[int] = []
        threads = [threading.Thread(target=done.append, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [(matrix @ matrix).shape, round(total, 9), str(times[1].utcoffset()), sorted(done)]

    found, _ = in_fork(run, None, confinement())
    assert found == [[300, 300], round(sum(range(300)) / 90_000, 9), "1:00:00", list(range(8))]


def test_memory_is_limited() -> None:
    """More than the limit is a MemoryError; what is below it can be had."""

    def run() -> list[str]:
        said = [str(len(bytearray(64 << 20)))]
        try:
            said.append(str(len(bytearray(512 << 20))))
        except MemoryError:
            said.append("MemoryError")
        return said

    found, _ = in_fork(run, None, confinement(memory=256 << 20))
    assert found == [str(64 << 20), "MemoryError"]


def test_processor_time_is_limited() -> None:
    """An endless loop ends, even if nobody waits for it."""

    def loop() -> None:
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            pass

    _, status = in_fork(loop, None, confinement(cpu_seconds=1))
    assert os.WIFSIGNALED(status)


def test_output_file_is_limited(tmp_path: Path) -> None:
    """A file behind standard output grows by no more than it may, whatever its size was."""
    file = tmp_path / "out"
    file.write_bytes(bytes(5000))

    def run() -> int:
        os.lseek(1, 0, os.SEEK_END)
        while True:
            try:
                os.write(1, bytes(1000))
            except OSError as error:
                return error.errno or -1

    saved = os.dup(1)
    with file.open("r+b") as stream:
        os.dup2(stream.fileno(), 1)
        try:
            found, _ = in_fork(run, None, confinement(output=10_000))
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert found == errno.EFBIG
    assert file.stat().st_size == 15_000


def test_own_process_may_signal_itself() -> None:
    """A crash is told by its own signal."""
    _, status = in_fork(lambda: os.kill(os.getpid(), signal.SIGSEGV), None, confinement())
    assert os.WTERMSIG(status) == signal.SIGSEGV


def test_process_with_threads_is_not_confined() -> None:
    """One that could have a thread outside the sandbox is refused."""

    def run() -> str:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            sandbox.confine(confinement())
        except NotConfined as error:
            return str(error)
        finally:
            stop.set()
            thread.join()
        return ""

    found, _ = in_fork(run, None, None)
    assert "a process with 2 threads cannot be confined" in found


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("landlock_create_ruleset", "the kernel has no Landlock"),
        ("landlock_restrict_self", "cannot restrict its files (Landlock) here"),
        ("seccomp", "cannot filter its system calls (seccomp) here"),
    ],
)
def test_where_it_is_refused_it_is_unavailable(call: str, reason: str) -> None:
    """A container whose own filter forbids one of the calls gets a sentence that says which."""

    def run() -> str | None:
        here = kernel.architecture()
        assert here is not None
        kernel.prctl(38, 1)
        refusing = [(0x20, 0, 0, 0), (0x15, 0, 1, here.confining[call]), (0x06, 0, 0, 0x50000 | errno.EPERM)]
        seccomp.install(here, seccomp.packed([*refusing, (0x06, 0, 0, 0x7FFF0000)]))
        return sandbox.unavailable.__wrapped__()

    assert reason in in_fork(run, None, None)[0]


def test_other_processors_are_not_known() -> None:
    """There, the numbers of the calls would be others."""
    assert kernel.architecture("riscv64") is None


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    """Every call has the number that the kernel's header gives it."""
    if not HEADERS[machine].exists():
        pytest.skip(f"the kernel's headers are not installed: no {HEADERS[machine]}")
    defined = dict(re.findall(r"#define __(NR\w+) (\w+)", HEADERS[machine].read_text()))
    here = kernel.architecture(machine)
    assert here is not None
    for name, number in {**here.permitted, **here.confining}.items():
        value = defined[f"NR_{name}"]
        while not value.isdigit():
            value = defined[value.removeprefix("__")]
        assert (name, int(value)) == (name, number)


SECRETS = {
    **{"OPENAI_API_KEY": "hide-1", "PGPASSWORD": "hide-2", "MYSQL_PWD": "hide-3", "GITHUB_PAT": "hide-4"},
    **{"SSH_AUTH_SOCK": "/hide-5", "SENTRY_DSN": "hide-6", "aws_secret_access_key": "hide-7"},
    "DATABASE": "postgres://ada:hide-8@db/x",
    "EXTRA": "ghp_hide9hide9hide9hide9hide9hide9hide9",
    "ARGS": "--with sk-proj-hide10hide10hide10",
    "STATE": "eyJhide11hide11.eyJhide11hide11.hide11",
    "CLOUD": "AKIAHIDE12HIDE12HIDE",
}
KEPT = {
    **{"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "PWD": "/show", "KEYBOARD": "de"},
    **{
        "MIRROR": "https://example.org:443/simple",
        "MONKEY": "show",
        "TASK": "risk-aversion-parameter-is-shown",
    },
}


@pytest.mark.parametrize(("name", "value"), SECRETS.items())
def test_secret_is_known_by_name_or_value(name: str, value: str) -> None:
    """Words for keys in the name, or a value that has the shape of a token or a URL with a password."""
    assert sandbox.is_secret(name, value)


@pytest.mark.parametrize(("name", "value"), KEPT.items())
def test_other_variables_stay(name: str, value: str) -> None:
    """A spec may need them."""
    assert not sandbox.is_secret(name, value)


ENVIRONMENT = """\
import ctypes, os, sys
from pathlib import Path
from pytest_glia import sandbox

os.environ["LATE_TOKEN"] = "hide-late"
os.environ["OPENAI_API_KEY"] = "hide-changed"
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
libc.setenv(b"C_TOKEN", b"hide-c", 1)
fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])
names = [*os.environ, "C_TOKEN"]
confinement = sandbox.Confinement.of_project(Path.cwd(), seconds=60, workers=1)
if sys.argv[1:]:
    sandbox.confine(confinement)
print(dict(os.environ))
print([libc.getenv(name.encode()) for name in names])
print(ctypes.string_at(start, end - start))
"""


def test_secrets_are_gone_from_the_process() -> None:
    """From os.environ, from C's getenv, and from the memory that the kernel has put them into."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", ENVIRONMENT, *arguments],
            cwd=ROOT,
            env={**SECRETS, **KEPT, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run().lower().count("hide") > 3 * len(SECRETS)
    confined = run("confined")
    assert "hide" not in confined.lower()
    assert confined.count("risk-aversion-parameter-is-shown") == 3


def test_confining_costs_little() -> None:
    """Milliseconds would be felt: most replications of a small domain take no longer. (CPU time, median.)"""
    confined = confinement()

    costs = []
    for _ in range(15):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_fork(lambda: None, None, None)
        between = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_fork(lambda: None, None, confined)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        bare, whole = (
            later.ru_utime + later.ru_stime - earlier.ru_utime - earlier.ru_stime
            for earlier, later in ((before, between), (between, after))
        )
        costs.append(whole - bare)
    assert sorted(costs)[7] < 0.01
