"""The child pytest as its parent sees it: started in a composed tree, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.child import ENVIRONMENT
from pytest_glia.domains import Words
from pytest_glia.processes import end_session
from pytest_glia.sandbox import is_secret

# A spec's own set-up may be silent for this long, besides what a replication may take, in seconds.
SILENCE = 300.0
_START_TIMEOUT = 300.0


class EvaluatorFailed(Exception):
    """The child pytest could not be started, or ended; the message shows its last words."""


class EvaluatorKilled(EvaluatorFailed):
    """It was ended by a signal, which says nothing of the candidate the first time.

    Attributes:
        name: The signal's.
        words: The child's last ones.
    """

    def __init__(self, number: int, words: str) -> None:
        super().__init__(number, words)
        self.name = signal.Signals(number).name
        self.words = words

    def __str__(self) -> str:
        return f"the evaluating process was killed by {self.name}{self.words}"


@dataclass(frozen=True)
class Launch:
    """What it takes to start a child in a tree, on this machine or another.

    Attributes:
        options: Of Python, before ``-m pytest``.
        arguments: Of pytest, besides those that say where things are.
        inifile: pytest's configuration: relative to the tree, or absolute if it is outside.
        root: pytest's root directory, relative to the tree.
        files: The specs', relative to the root.
        candidates: The candidates' paths, relative to the root.
        checkout: The repository whose modules are taken from the tree instead.
        environment: Of the process, without secrets.
    """

    options: tuple[str, ...]
    arguments: tuple[str, ...]
    inifile: Path
    root: Path
    files: tuple[str, ...]
    candidates: tuple[str, ...]
    checkout: Path
    environment: Mapping[str, str]

    def command(self, folder: Path) -> list[str]:
        """How the child is started in `folder`, which holds the tree as ``tree``."""
        root, inifile = folder / "tree" / self.root, folder / "tree" / self.inifile
        # Conftests above the root belong to the project only where its settings say so.
        top = root if self.inifile.is_absolute() else inifile.parent
        return [
            *(sys.executable, *self.options, "-m", "pytest", "-p", "pytest_glia.child", *self.arguments),
            *("-c", str(inifile), f"--rootdir={root}", f"--confcutdir={top}", "-k", "", "-m", ""),
            *("-o", f"cache_dir={folder / 'cache'}", *(str(root / file) for file in self.files)),
        ]


class ChildProcess:
    """A child pytest that has collected the specs and waits for jobs.

    Attributes:
        channel: To the child.
        collected: The tests that it has found.
        software: What is installed where it runs: see `pytest_glia.child.software`.
        domains: What they say of their runs, by name.

    Raises:
        EvaluatorFailed: the specs cannot be collected, or not within 5 minutes.
    """

    def __init__(self, launch: Launch, folder: Path) -> None:
        self._log = folder / "child.log"
        ours, theirs = socket.socketpair()
        places = [theirs.fileno(), os.getpid(), launch.checkout, folder / "tree", *launch.candidates]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                launch.command(folder),
                cwd=folder / "tree" / launch.root,
                env={**launch.environment, ENVIRONMENT: os.pathsep.join(map(str, places))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        self.channel = Channel(ours)
        try:
            ready = self.channel.receive(_START_TIMEOUT)
        except ChannelClosed:
            raise self.ended("the specs cannot be collected at the base commit") from None
        except TimeoutError:
            self.stop()
            raise EvaluatorFailed(
                f"collecting the specs took more than {_START_TIMEOUT:g} s{self.last_words()}"
            ) from None
        except BaseException:
            self.stop()
            raise
        self.collected: list[str] = ready["ready"]
        self.software: list[str] = ready["software"]
        self.domains = {name: Words(**words) for name, words in ready["domains"].items()}

    def stop(self) -> None:
        """End the child and all that it started."""
        self.channel.close()
        self._process.kill()
        # Its replications have process groups of their own, and may have started more.
        end_session(self._process.pid)
        self._process.wait()

    def ended(self, sentence: str) -> EvaluatorFailed:
        """Why it does not answer any more: the sentence, unless it was killed. It is stopped."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.returncode
        self.stop()
        if status is None:
            # Half a message, for a job was killed as it sent it.
            return EvaluatorKilled(signal.SIGKILL, self.last_words())
        if status < 0:
            return EvaluatorKilled(-status, self.last_words())
        return EvaluatorFailed(f"{sentence}{self.last_words()}")

    def last_words(self) -> str:
        """The end of what the child has printed, as the continuation of a sentence."""
        try:
            lines = self._log.read_text("utf-8", "replace").strip().splitlines()[-30:]
        except OSError:
            return ""
        return ":\n" + "\n".join(lines) if lines else ""


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a child may have: no keys, no tokens, no passwords."""
    return {name: value for name, value in environment.items() if not is_secret(name, value)}
