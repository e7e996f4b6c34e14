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
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import distributions
from typing import Any

import pytest

from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.candidate import Candidate
from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.child import ENVIRONMENT
from pytest_glia.commandline import forwarded
from pytest_glia.context import BaseSource
from pytest_glia.ledger import Ledger
from pytest_glia.merit import Evaluation
from pytest_glia.misuse import Misuse
from pytest_glia.processes import end_session
from pytest_glia.repository import Repository
from pytest_glia.sandbox import is_secret
from pytest_glia.settings import Settings

_START_TIMEOUT = 300.0
# A spec's own set-up may be silent for this long, besides what a replication may take, in seconds.
_SILENCE = 300.0


class EvaluatorFailed(Exception):
    """The child pytest could not be started, or ended; the message shows its last words."""


class _Killed(EvaluatorFailed):
    """It was ended by a signal, which says nothing of the candidate the first time."""


class Evaluator:
    """Runs jobs in the child, one at a time; each of its samples is in the ledger as it arrives.

    ``runs`` counts the replications that were run, of candidates and baselines, and ``seconds`` the time
    that the jobs have taken: what a run to come will cost. ``needed`` and ``needed_simulations`` are the keys
    of all the replications, and of the candidate's, that the last job asked for, run or known. ``timeout``
    is how long a replication may take, in seconds.
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
        self._base = base
        self._nodeids = nodeids
        self._folder = ledger.scratch()
        self._composed = self._folder / "tree"
        self._root = repository.compose(base, self._composed)
        self._log = self._folder / "child.log"
        self._harness = _harness(repository.tree(base), settings.testbed, self._forwarded())
        self.timeout = settings.timeout
        self.runs = 0
        self.seconds = 0.0
        self.needed: set[str] = set()
        self.needed_simulations: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def first_look(self, sources: Mapping[str, bytes], seeds: Sequence[int]) -> list[pytest.TestReport]:
        """The reports of all tests as a plain run of pytest would give them; nothing is charged.

        Raises as `look` does.
        """
        base = {path: self._repository.earlier(path, text) for path, text in sources.items()}
        return self._run(_Job(sources, seeds, base, None, charged=False, judging=True))

    def judge(
        self, sources: Mapping[str, bytes], seeds: Sequence[int], confidence: float
    ) -> list[pytest.TestReport]:
        """The reports of all tests for a candidate that follows the base commit; raises as `look` does."""
        return self._run(_Job(sources, seeds, self._bases, confidence, charged=True, judging=True))

    def look(
        self,
        sources: Mapping[str, bytes],
        seeds: Sequence[int],
        confidence: float | None = None,
        world: bytes | None = None,
    ) -> Evaluation:
        """All that the tests ask of a candidate and what they measured: every comparison is assumed to hold.

        Intervals are of the `confidence` given, or else of that of the settings. With the key of another
        `world` it is an audit: there, and with the future of some replications changed.

        Raises:
            BudgetExhausted: a spend was refused, or the time is over; samples so far are kept.
            EvaluatorFailed: the child ended.
        """
        job = _Job(sources, seeds, self._bases, confidence, charged=True, judging=False, world=world)
        reports = self._run(job)
        return Evaluation.of(sources, tuple(seeds), reports)

    @cached_property
    def _bases(self) -> dict[str, BaseSource]:
        """What ``against="base"`` means for a candidate of the search, by path."""
        try:
            commit = self._repository.merge_base(self._base)
        except Misuse as error:
            return {each.path: BaseSource(None, str(error), skip=False) for each in self._candidates}
        found = {each.path: self._repository.read(commit, each.path) for each in self._candidates}
        reason = f"it does not exist at the base commit {commit[:9]}"
        return {
            path: BaseSource(None if text is None else text.decode("latin-1"), reason)
            for path, text in found.items()
        }

    def _run(self, job: _Job) -> list[pytest.TestReport]:
        began = time.monotonic()
        self.needed, self.needed_simulations = set(), set()
        charged: set[str] = set()
        try:
            try:
                return self._attempt(job, charged)
            except _Killed:
                # Where memory ends the kernel takes a process, whoever took the memory. What had been paid
                # for is in the ledger, so that only the replications under way are run again.
                return self._attempt(job, charged)
        finally:
            self.seconds += time.monotonic() - began

    def _attempt(self, job: _Job, charged: set[str]) -> list[pytest.TestReport]:
        """The reports of a job; the keys `charged` are paid for already, and those that it pays for join."""
        self._account.reserve(0)
        prepaid = frozenset(charged)
        reports: list[pytest.TestReport] = []
        refused: BudgetExhausted | None = None
        try:
            if self._channel is None:
                self._start()
            assert self._channel is not None
            self._channel.send(**self._message(job))
            while True:
                message = self._channel.receive(self._patience())
                if "find" in message:
                    known = self._ledger.known(message["find"])
                    self.needed |= set(message["find"])
                    if message["simulations"]:
                        self.needed_simulations |= set(message["find"])
                    try:
                        if job.charged and message["simulations"]:
                            unpaid = [key for key in message["find"] if key not in known]
                            self._account.reserve(sum(key not in prepaid for key in unpaid))
                            charged.update(unpaid)
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
                elif message["done"] < 0:
                    raise self._killed(-message["done"])
                elif message["done"] > 0:
                    raise EvaluatorFailed(
                        f"the evaluation ended early ({message['done']}){self._last_words()}"
                    )
                else:
                    break
        except TimeoutError:
            self.stop()
            if self._account.seconds_left() <= 0:
                raise BudgetExhausted("seconds", self._account.budget.seconds) from None
            raise EvaluatorFailed(
                f"the evaluation did not go on and was killed{self._last_words()}"
            ) from None
        except ChannelClosed:
            raise self._ended("the evaluating pytest ended") from None
        except BaseException:
            # Also after a job that has failed: its last questions and answers would be taken for the next
            # one's.
            self.stop()
            raise
        if refused is not None:
            raise refused
        return reports

    def _ended(self, sentence: str) -> EvaluatorFailed:
        """Why the child does not answer any more; it is stopped."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.returncode
        self.stop()
        if status is None:
            # Half a message, for a job was killed as it sent it.
            return self._killed(signal.SIGKILL)
        if status < 0:
            return self._killed(-status)
        return EvaluatorFailed(f"{sentence}{self._last_words()}")

    def _killed(self, number: int) -> EvaluatorFailed:
        return _Killed(
            f"the evaluating process was killed by {signal.Signals(number).name}, and again when it was run "
            "once more: the kernel does that where memory ends; free some, or lower glia_workers"
            f"{self._last_words()}"
        )

    def stop(self) -> None:
        """End the child and all that it started; a later job starts a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            # Its replications have process groups of their own, and may have started more.
            end_session(self._process.pid)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """`stop`, and delete the composed tree."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if not is_secret(name, value)}
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
        except ChannelClosed:
            raise self._ended("the specs cannot be collected at the base commit") from None
        except TimeoutError:
            self.stop()
            raise EvaluatorFailed(
                f"collecting the specs took more than {_START_TIMEOUT:g} s{self._last_words()}"
            ) from None
        missing = sorted(set(self._nodeids) - set(ready))
        if missing:
            self.stop()
            raise Misuse(
                f"the base commit has no test {missing[0]}: commit the spec before --glia-optimize, which "
                "evaluates what is committed"
            )

    def _command(self) -> list[str]:
        config = self._config
        command = [sys.executable]
        if "" not in sys.path and os.getcwd() not in sys.path:
            command.append("-P")
        command += ["-m", "pytest", "-p", "pytest_glia.child"]
        command += self._forwarded()
        inifile = config.inipath
        if inifile is not None and inifile.is_relative_to(self._repository.top):
            inifile = self._composed / inifile.relative_to(self._repository.top)
        command += ["-c", str(inifile or os.devnull), f"--rootdir={self._root}"]
        # Conftests above the root belong to the project only where its settings say so.
        top = inifile.parent if inifile is not None and inifile.is_relative_to(self._composed) else self._root
        command += [f"--confcutdir={top}", "-k", "", "-m", "", "-o", f"cache_dir={self._folder / 'cache'}"]
        if config.pluginmanager.hasplugin("xdist"):
            command += ["-n", "0"]
        if config.pluginmanager.hasplugin("_cov"):
            command += ["--no-cov"]
        return [*command, *sorted({str(self._root / nodeid.partition("::")[0]) for nodeid in self._nodeids})]

    def _forwarded(self) -> list[str]:
        """Of the user's own arguments, those on which a replication may depend."""
        arguments = [str(each) for each in self._config.invocation_params.args]
        return forwarded(arguments, self._config.option.file_or_dir)

    def _message(self, job: _Job) -> dict[str, Any]:
        return {
            "sources": {path: source.decode("latin-1") for path, source in job.sources.items()},
            "base": {path: asdict(source) for path, source in job.base.items()},
            "seeds": list(job.seeds),
            "nodeids": self._nodeids,
            "judging": job.judging,
            "world": job.world and job.world.hex(),
            "harness": self._harness,
            "confidence": job.confidence or self._settings.confidence,
            "timeout": self.timeout,
            "workers": self._settings.workers,
            "confined": self._settings.confined(),
        }

    def _patience(self) -> float:
        """Seconds to wait for the next message: a sign of life comes at least once a replication."""
        return min(self.timeout + _SILENCE, max(0.0, self._account.seconds_left()))

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


@dataclass(frozen=True)
class _Job:
    """One evaluation of a candidate on some seeds.

    ``base`` is what ``against="base"`` means, by path. ``confidence``, if any, is in place of that of the
    settings. ``charged`` counts the candidate's replications
    against the budget. ``judging`` runs the tests as they are; otherwise comparisons are assumed to hold.
    ``world`` is the key of another world than the seeds' own, for an audit.
    """

    sources: Mapping[str, bytes]
    seeds: Sequence[int]
    base: Mapping[str, BaseSource]
    confidence: float | None
    charged: bool
    judging: bool
    world: bytes | None = None


def _harness(tree: str, testbed: str, arguments: list[str]) -> str:
    """Names everything that decides a replication besides candidate, spec call and seed.

    Any installed distribution may take part in a replication, so all their versions do.
    """
    installed = sorted({f"{each.name} {each.version}" for each in distributions()})
    python = f"Python {platform.python_version()} {platform.machine()}"
    return "; ".join([f"tree {tree}", f"testbed {testbed}", *arguments, python, *installed])
