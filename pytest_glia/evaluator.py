"""The searching side of an evaluation: starts the child pytest and has it run specs for a candidate.

The child works in a tree composed of the base commit; a candidate reaches it as text. The child is in
`child`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy
import pytest

from pytest_glia import __version__
from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.candidate import Candidate
from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.child import ENVIRONMENT
from pytest_glia.ledger import Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.repository import Repository
from pytest_glia.settings import Settings

_START_TIMEOUT = 300.0
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


@dataclass(frozen=True)
class Job:
    """One evaluation: these tests, for this candidate, on these seeds.

    `charged` counts the candidate's replications against the budget. `lenient` lets every comparison
    hold, so that the reports carry all that the specs ask.
    """

    sources: Mapping[str, bytes]
    seeds: tuple[int, ...]
    nodeids: tuple[str, ...]
    charged: bool
    lenient: bool


class EvaluatorFailed(Exception):
    """The child pytest could not be started, or ended; the message shows its last words."""


class Evaluator:
    """Runs jobs in the child, one at a time; each of its samples is in the ledger as it arrives.

    ``runs`` counts the replications that were run, of candidates and baselines, and ``seconds`` the time
    that the jobs have taken: what a run to come will cost. ``needed`` and ``needed_simulations`` are the keys
    of all the replications, and of the candidate's, that the last job asked for, run or known.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        repository: Repository,
        ledger: Ledger,
        account: Account,
        candidates: Sequence[Candidate],
        base: str,
        nodeids: Sequence[str],
    ) -> None:
        self._config = config
        self._settings = settings
        self._repository = repository
        self._ledger = ledger
        self._account = account
        self._candidates = candidates
        self._nodeids = nodeids
        self._folder = ledger.scratch()
        self._composed = self._folder / "tree"
        self._root = repository.compose(base, self._composed)
        self._log = self._folder / "child.log"
        self._harness = _harness(repository.tree(base), settings.testbed)
        earlier = repository.merge_base_of(base)
        self._base_sources = {each.path: _text(repository.read(earlier, each.path)) for each in candidates}
        self.runs = 0
        self.seconds = 0.0
        self.needed: set[str] = set()
        self.needed_simulations: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def run(self, job: Job) -> list[pytest.TestReport]:
        """The reports of the job's tests.

        Raises:
            BudgetExhausted: a spend was refused, or the time is over; samples so far are kept.
            EvaluatorFailed: the child ended.
        """
        if job.charged:
            self._account.reserve(0)
        if self._channel is None:
            self._start()
        assert self._channel is not None
        began = time.monotonic()
        self.needed, self.needed_simulations = set(), set()
        reports: list[pytest.TestReport] = []
        refused: BudgetExhausted | None = None
        try:
            self._channel.send(**self._message(job))
            while True:
                message = self._channel.receive(self._patience(job))
                if "find" in message:
                    known = self._ledger.known(message["find"])
                    self.needed |= set(message["find"])
                    if message["simulations"]:
                        self.needed_simulations |= set(message["find"])
                    try:
                        if job.charged and message["simulations"]:
                            self._account.reserve(len(message["find"]) - len(known))
                    except BudgetExhausted as error:
                        refused = error
                        self._channel.send(exhausted=[error.kind, error.limit])
                    else:
                        self._channel.send(known=known)
                elif "add" in message:
                    self.runs += 1
                    self._ledger.keep(message["add"], message["metrics"])
                elif "report" in message:
                    reports.append(self._report(message["report"]))
                elif message["done"] != 0:
                    raise EvaluatorFailed(
                        f"the evaluation ended early ({message['done']}){self._last_words()}"
                    )
                else:
                    break
        except TimeoutError:
            self.stop()
            if job.charged and self._account.seconds_left() <= 0:
                raise BudgetExhausted("seconds", self._account.budget.seconds) from None
            raise EvaluatorFailed(
                f"the evaluation did not go on and was killed{self._last_words()}"
            ) from None
        except ChannelClosed:
            self.stop()
            raise EvaluatorFailed(f"the evaluating pytest ended{self._last_words()}") from None
        except BaseException:
            self.stop()
            raise
        finally:
            self.seconds += time.monotonic() - began
        if refused is not None:
            raise refused
        return reports

    def stop(self) -> None:
        """End the child and all that it started; a later job starts a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            # Its forks die with it: each asked the kernel for that.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """`stop`, and delete the composed tree."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {
            name: value
            for name, value in os.environ.items()
            if not any(word in name.upper() for word in _SECRET_NAMES)
        }
        environment[ENVIRONMENT] = os.pathsep.join(
            [
                str(theirs.fileno()),
                str(os.getpid()),
                str(self._repository.top),
                str(self._composed),
                *(candidate.path for candidate in self._candidates),
            ]
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        self._channel = Channel(ours)
        try:
            ready = self._channel.receive(_START_TIMEOUT)["ready"]
        except (ChannelClosed, TimeoutError):
            self.stop()
            raise EvaluatorFailed(
                f"the specs cannot be collected at the base commit{self._last_words()}"
            ) from None
        missing = sorted(set(self._nodeids) - set(ready))
        if missing:
            self.stop()
            raise Misuse(
                f"the base commit has no test {missing[0]}: commit the spec before --glia-optimize, which "
                "evaluates what is committed"
            )

    def _command(self) -> list[str]:
        options = self._config.option
        files = sorted({nodeid.partition("::")[0] for nodeid in self._nodeids})
        command = [sys.executable]
        if "" not in sys.path and os.getcwd() not in sys.path:
            command.append("-P")
        command += ["-m", "pytest", "-p", "pytest_glia.child", "-p", "no:cacheprovider", "-q"]
        command += [f"--rootdir={self._root}", f"--glia-testbed={self._settings.testbed}"]
        inifile = self._config.inipath
        if inifile is not None and inifile.is_relative_to(self._repository.top):
            inifile = self._composed / inifile.relative_to(self._repository.top)
        command += ["-c", str(inifile or os.devnull)]
        for setting in options.override_ini or ():
            command += ["-o", setting]
        for plugin in options.plugins or ():
            command += ["-p", plugin]
        for warning in options.pythonwarnings or ():
            command += ["-W", warning]
        if self._config.pluginmanager.hasplugin("xdist"):
            command += ["-n", "0"]
        if self._config.pluginmanager.hasplugin("_cov"):
            command += ["--no-cov"]
        return [*command, *(str(self._root / file) for file in files)]

    def _message(self, job: Job) -> dict[str, Any]:
        return {
            "sources": {path: _text(source) for path, source in job.sources.items()},
            "base": self._base_sources,
            "seeds": job.seeds,
            "nodeids": job.nodeids,
            "lenient": job.lenient,
            "harness": self._harness,
            "confidence": self._settings.confidence,
            "timeout": self._settings.timeout,
            "workers": self._settings.workers,
        }

    def _patience(self, job: Job) -> float:
        """Seconds to wait for the next message: a sign of life comes at least once a replication."""
        patience = self._settings.timeout + 30.0
        if job.charged:
            patience = min(patience, max(0.0, self._account.seconds_left()))
        return patience

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        assert isinstance(report, pytest.TestReport)
        return report

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text("utf-8", "replace").strip().splitlines()[-30:]
        except OSError:
            return ""
        return ":\n" + "\n".join(lines) if lines else ""


def _text(source: bytes | None) -> str | None:
    return None if source is None else source.decode("latin-1")


def _harness(tree: str, testbed: str) -> str:
    """Names everything that decides a replication besides candidate, spec call and seed."""
    domains = sorted({f"{e.dist.name} {e.dist.version}" for e in entry_points(group="glia") if e.dist})
    versions = [
        f"pytest-glia {__version__}",
        f"Python {platform.python_version()}",
        f"numpy {numpy.__version__}",
    ]
    return "; ".join([f"tree {tree}", f"testbed {testbed}", platform.machine(), *versions, *domains])
