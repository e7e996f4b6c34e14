"""A user's project in a folder of its own: its files, its git repository, and what pytest does there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MARK = "PYTEST_GLIA_TEST_PROJECT"
_IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))
}
# Variables by which a spec's replications are told to write down that they ran: no sandbox lets them.
_LOGS = {"RUNS", "SEEN"}
# The plugin's own, and what pytest leaves behind in any project.
_NOT_THE_USERS = (".glia", ".pytest_cache", "__pycache__")


@dataclass(frozen=True)
class Result:
    """What a pytest run said (standard output and error together) and its exit code."""

    code: int
    out: str

    @property
    def text(self) -> str:
        """All that it said, with every run of white space as one blank."""
        return " ".join(self.out.split())

    def lines(self, containing: str) -> list[str]:
        """The lines in which a text occurs."""
        return [line for line in self.out.splitlines() if containing in line]


@dataclass(frozen=True)
class Project:
    """A folder with files; `pytest` runs in it as a user would, in a process and environment of its own."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self, files: Mapping[str, str]) -> Project:
        """Write files, given by their paths below the folder."""
        for path, text in files.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        return self

    def commit(self, message: str = "work") -> str:
        """Commit everything (in a new repository with branch main, if there is none); gives its hash."""
        if not (self.folder / ".git").exists():
            self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """What a git command prints."""
        ran = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**self._environ(), **_IDENTITY},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, f"git {' '.join(arguments)}: {ran.stderr}"
        return ran.stdout.strip()

    def branches(self, containing: str = "") -> list[str]:
        """All branches whose name contains a text."""
        names = self.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        return [name for name in names if containing in name]

    def best(self) -> str:
        """The one branch that a search has delivered."""
        [branch] = self.branches("/best")
        return branch

    def show(self, commit: str, path: str) -> str:
        """A file's text at a commit."""
        return self.git("show", f"{commit}:{path}")

    def pytest(self, *arguments: str, **environment: str) -> Result:
        """Run pytest to its end."""
        process = self.start(*arguments, **environment)
        try:
            out, _ = process.communicate(timeout=240)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Result(process.returncode, out)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start pytest, without the plugins that take long to load and are not asked for."""
        plugins = ["-p", "no:hypothesispytest", "-p", "no:anyio"]
        if not {"-n", "-n2", "--tx"} & set(arguments):
            plugins += ["-p", "no:xdist"]
        if _LOGS & set(environment):
            plugins += ["-o", "glia_sandbox=off"]
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *plugins, *arguments],
            cwd=self.folder,
            env={**self._environ(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, *arguments: str) -> Result:
        """Run ``python -m pytest_glia`` to its end."""
        ran = subprocess.run(
            [sys.executable, "-m", "pytest_glia", *arguments],
            cwd=self.folder,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        return Result(ran.returncode, ran.stdout)

    def fingerprint(self) -> dict[str, str]:
        """A hash of everything of the user's: files, index, HEAD, and refs other than ``glia/*``."""
        found = {}
        if (self.folder / ".git").exists():
            refs = self.git("for-each-ref").splitlines()
            found["refs"] = "\n".join(ref for ref in refs if "\trefs/heads/glia/" not in ref)
        for file in sorted(self.folder.rglob("*")):
            parts = file.relative_to(self.folder).parts
            if not file.is_file() or set(parts) & set(_NOT_THE_USERS):
                continue
            if parts[0] == ".git" and parts[1:] not in (("index",), ("HEAD",), ("config",)):
                continue
            found["/".join(parts)] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def processes(self) -> list[int]:
        """Processes that a run in this project has left alive (those of Linux's /proc)."""
        mark = f"{_MARK}={self.folder}".encode()
        return [pid for pid in _pids() if mark in _environ_of(pid)]

    @property
    def bytecode(self) -> dict[str, str]:
        """The variable by which Python compiles what it imports once for all projects of a session."""
        return {"PYTHONPYCACHEPREFIX": str(self.folder.parent.parent / "bytecode")}

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder.parent / "home"),
            "LANG": "C.UTF-8",
            "COLUMNS": "80",
            **self.bytecode,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
            _MARK: str(self.folder),
            **self.environment,
        }


MakeProject = Callable[..., Project]
"""``make_project(files, commit=True)``: the fixture's type."""


def _pids() -> Sequence[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _environ_of(pid: int) -> Sequence[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ()


INI = """\
[pytest]
glia_replications = 6
glia_workers = 2
addopts = -p no:cacheprovider
"""

PACKER = '''\
"""Packs items into bins of size 1."""

SPLIT = 0.9  # share of a bin above which an item gets one of its own


def pack(items):
    bins = []
    for item in items:
        if bins and item < SPLIT and bins[-1] + item <= 1:
            bins[-1] += item
        else:
            bins.append(item)
    return len(bins)
'''

PACKER_SPEC = '''\
"""Items fit into few bins."""

import os
import random

import pytest

pytestmark = pytest.mark.glia(candidate="candidates/packer.py", entry="pack")


def one_bin_each(items):
    return len(items)


def waste(pack, seed):
    if "RUNS" in os.environ:
        with open(os.environ["RUNS"], "a") as runs:
            runs.write(f"{pack.__module__} {seed}\\n")
    rng = random.Random(seed)
    items = [rng.uniform(0.05, 0.5) for _ in range(200)]
    return {"bins": pack(items), "share": pack(items) / sum(items)}


def test_little_waste(glia):
    assert glia.measure(waste, metric="share") < 1.1


def test_fewer_than_one_bin_each(glia):
    assert glia.compare(waste, against=one_bin_each, metric="bins").reduction > 0.5
'''

PACKER_IDEAS = '''\
import pluggy


class LargestFirst:
    name = "largest first"
    claim = "Take the items by decreasing size, so that small ones fill the gaps."
    predicts = {"share": -1}
    numbers = {}
    defaults = {}

    def called_for(self, evidence):
        share = evidence.get("share", 0)
        return f"bins are {share:.2f} times the volume" if share > 1.05 else None

    def apply(self, source, numbers):
        if "sorted(" not in source:
            return source.replace("for item in items:", "for item in sorted(items, reverse=True):")


class FirstFit(LargestFirst):
    name = "first fit"
    claim = "Look for room in every open bin, not only in the last one."

    def apply(self, source, numbers):
        return source.replace(
            """\\
        if bins and item < SPLIT and bins[-1] + item <= 1:
            bins[-1] += item
        else:
""",
            """\\
        for i, level in enumerate(bins):
            if level + item <= 1:
                bins[i] += item
                break
        else:
""",
        )


@pluggy.HookimplMarker("glia")
def glia_mechanisms(path, entry, source):
    return [LargestFirst(), FirstFit()] if "bins" in source else []
'''

PACKING = {
    "pytest.ini": INI.replace("glia_replications = 6", "glia_replications = 5"),
    "candidates/packer.py": PACKER,
    "specs/test_packer.py": PACKER_SPEC,
    "conftest.py": PACKER_IDEAS,
}
"""Bin packing, where two ideas help; the spec fails for the packer as it is."""


def spec(candidate: str, body: str, ini: str = INI, entry: str = "answer") -> dict[str, str]:
    """A project of one candidate file and one spec file, whose marker names them."""
    head = (
        "import math, os, signal, time\nimport pytest\n\n"
        f'pytestmark = pytest.mark.glia(candidate="candidate.py", entry={entry!r})\n\n'
    )
    return {"pytest.ini": ini, "candidate.py": candidate, "test_spec.py": head + body}
