"""The searching side of an evaluation: starts the child pytest and has it run specs for a candidate.

The child works in a tree composed of the base commit; a candidate reaches it as text. The child is in
`child`.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.budget import Account, BudgetExhausted
from pytest_glia.candidate import Candidate
from pytest_glia.channel import ChannelClosed
from pytest_glia.child import software
from pytest_glia.childprocess import (
    SILENCE,
    ChildProcess,
    EvaluatorFailed,
    EvaluatorKilled,
    Launch,
    without_secrets,
)
from pytest_glia.commandline import deciding, forwarded
from pytest_glia.context import BaseSource
from pytest_glia.decisions import CHANGES
from pytest_glia.domains import Words
from pytest_glia.ends import on_record
from pytest_glia.job import Job
from pytest_glia.ledger import Ledger
from pytest_glia.merit import Evaluation, recorded_by
from pytest_glia.misuse import Misuse
from pytest_glia.payer import Payer
from pytest_glia.ray_executor import RayExecutor
from pytest_glia.replication import Metrics
from pytest_glia.repository import Repository
from pytest_glia.seeds import sealed
from pytest_glia.settings import Settings

SLOWER = 20.0
"""Times as long as the present candidate's a replication may take: enough for an honest one, and one that
hangs does not eat the budget."""

_NOT_CONFIRMABLE = (
    "cannot be evaluated as it would be to confirm a design, with seeds of 63 bits (random.Random and "
    "numpy.random.default_rng take them, numpy.random.seed does not) and the candidate in another process"
)
_OTHERWISE = (
    "the present candidate decides otherwise in another process than it is simulated in, where a design is "
    "confirmed: {metric} is another on the same seeds. What it needs must be in its file and in those that "
    "the marker exposes, as they are written: not set by a fixture, nor drawn from a global generator (take "
    "rng for that)"
)


@dataclass(frozen=True)
class Rehearsal:
    """Whether candidates are `apart` where they are judged (`Job`), and why that cannot be, in a sentence."""

    apart: bool
    problem: str | None


class Evaluator:
    """Runs jobs in the child, one at a time; each of its samples is in the ledger as it arrives.

    ``needed`` and ``needed_simulations`` are the keys of all the replications, and of the candidate's, that
    the last job asked for, run or known. ``timeout`` is how long a replication may take, in seconds.
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
        write: Callable[[str], None],
        silence: float = SILENCE,
    ) -> None:
        """`silence` is for how long, in seconds, a spec may do something else than run replications."""
        self._config = config
        self._silence = silence
        self._settings = settings
        self._repository = repository
        self._ledger = ledger
        self._account = account
        self._candidates = candidates
        self._base = base
        self._nodeids = nodeids
        self._folder = ledger.scratch()
        repository.compose(base, self._folder / "tree")
        self._harness = _harness(repository.tree(base), settings.testbed, deciding(self._forwarded()))
        self._write = write
        self.timeout = settings.timeout
        self._timeout_apart = settings.timeout
        self.pace_apart: float | None = None
        """Seconds a replication, as `pace`, where candidates are apart; None before `rehearse`."""
        self._runs = 0
        self._seconds = 0.0
        # When the last replication ended, or those that are run now were asked for.
        self._since = 0.0
        self.needed: set[str] = set()
        self.needed_simulations: set[str] = set()
        # The keys that the present job has been charged for, and those of them before it was taken up again.
        self._charged: set[str] = set()
        self._prepaid: frozenset[str] = frozenset()
        # Several contexts of a search may ask at once: each job uses all workers.
        self._turn = threading.Lock()
        self._child: ChildProcess | None = None
        self._others: RayExecutor | None = None

    def first_look(self, sources: Mapping[str, bytes], seeds: Sequence[int]) -> list[pytest.TestReport]:
        """The reports of all tests as a plain run of pytest would give them; nothing is charged.

        Raises as `look` does.
        """
        base = {path: self._repository.earlier(path, text) for path, text in sources.items()}
        return self._run(Job(sources, seeds, base, None, payer=None, judging=True))

    def rehearse(self, sources: Mapping[str, bytes], secret: bytes) -> Rehearsal:
        """How `judge` would go for a candidate, on two seeds; nothing is charged. It raises as `look` does.

        From then on it is known how long a replication takes that is apart (`Job`), and how long it may.
        """
        narrow, wide = (sealed(secret, "rehearsal", 2, wide=wide) for wide in (False, True))
        reports = self._for_nothing(sources, narrow)
        before = Evaluation.of(sources, narrow, reports)
        if not self.apart(recorded_by(reports)):
            return Rehearsal(apart=False, problem=None)
        runs, seconds = self._runs, self._seconds
        self._timeout_apart = SLOWER * self._settings.timeout
        there = Evaluation.of(sources, wide, self._for_nothing(sources, wide, apart=True))
        ran = self._runs - runs
        self.take_pace_apart((self._seconds - seconds) / ran if ran else None)
        for nodeid, message in there.errors.items():
            if nodeid not in before.errors:
                return Rehearsal(apart=True, problem=f"{nodeid} {_NOT_CONFIRMABLE}: {message}")
        here = Evaluation.of(sources, wide, self._for_nothing(sources, wide))
        for metric, values in here.metrics.items():
            if repr(values) != repr(there.metrics.get(metric, values)):
                return Rehearsal(apart=True, problem=_OTHERWISE.format(metric=metric))
        return Rehearsal(apart=True, problem=None)

    def _for_nothing(
        self, sources: Mapping[str, bytes], drawn: Sequence[int], *, apart: bool = False
    ) -> list[pytest.TestReport]:
        return self._run(Job(sources, drawn, self._bases, None, payer=None, judging=False, apart=apart))

    def take_pace_apart(self, pace: float | None) -> None:
        """Take this for the pace that `rehearse` has found."""
        self.pace_apart = pace
        if pace is not None:
            longest = SLOWER * pace * self._settings.workers
            self._timeout_apart = max(self._settings.timeout, longest)

    def judge(
        self, sources: Mapping[str, bytes], seeds: Sequence[int], payer: Payer | None, confidence: float
    ) -> list[pytest.TestReport]:
        """The reports of all tests for a candidate that follows the base commit; raises as `look` does.

        Candidates are apart (`Job`), where their domain knows how. Without a `payer` nothing is charged, and
        the time of the budget is the only limit.
        """
        return self._run(Job(sources, seeds, self._bases, confidence, payer=payer, judging=True, apart=True))

    def look(
        self,
        sources: Mapping[str, bytes],
        seeds: Sequence[int],
        payer: Payer,
        confidence: float | None = None,
        *,
        world: bytes | None = None,
        scenario: Mapping[str, float] | None = None,
        inspected: bool = False,
        apart: bool = False,
    ) -> Evaluation:
        """All that the tests ask of a candidate and what they measured: every comparison is assumed to hold.

        Intervals are of the `confidence` given, or else of that of the settings. With the key of another
        `world` it is an audit: there, and with the future of some replications changed. A `scenario` changes
        the domain's runs by factors (`Audit.knobs`). If `inspected`, the tables behind the metrics are kept.
        Where it is `apart` it is run as `judge` does.

        Raises:
            BudgetExhausted: a spend was refused, or the time is over; samples so far are kept.
            EvaluatorFailed: the child ended.
        """
        job = Job(
            sources,
            seeds,
            self._bases,
            confidence,
            payer=payer,
            judging=False,
            apart=apart,
            world=world,
            scenario=scenario or {},
            inspected=self._ledger.tables if inspected else None,
        )
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

    def words(self, domains: Collection[str]) -> list[Words]:
        """What these domains say of their runs; nothing before the first job."""
        known = self._child.domains if self._child else {}
        return [words for name, words in known.items() if name in domains]

    def apart(self, domains: Collection[str]) -> bool:
        """Whether candidates whose decisions these domains record can be apart (`Job`).

        It is known from the first job on.
        """
        return len(domains) == 1 and all(words.apart for words in self.words(domains))

    def _run(self, job: Job) -> list[pytest.TestReport]:
        """The reports of a job, or what has ended it in this run before."""
        payer = job.payer or Payer("", self._account)
        place = f"{payer.context} evaluates {job.digest()}"
        ending = on_record(
            self._ledger,
            payer.run,
            place,
            payer.account,
            taken=lambda: sorted(self._charged),
            again=payer.charge_again,
        )
        with self._turn, ending:
            return self._run_now(job)

    def _run_now(self, job: Job) -> list[pytest.TestReport]:
        self.needed, self.needed_simulations, self._charged = set(), set(), set()
        try:
            return self._attempt(job)
        except EvaluatorKilled:
            # Where memory ends the kernel takes a process, whoever took the memory. What had been run is in
            # the ledger, so that only the replications under way are run again.
            try:
                return self._attempt(job)
            except EvaluatorKilled as again:
                raise EvaluatorFailed(
                    f"the evaluating process was killed by {again.name}, and again when it was run once "
                    "more: the kernel does that where memory ends; free some, or lower "
                    f"glia_workers{again.words}"
                ) from None

    def _attempt(self, job: Job) -> list[pytest.TestReport]:
        """The reports of a job; what an attempt before has been charged for is not charged again."""
        self._prepaid = frozenset(self._charged)
        self._account.refuse_if_closed()
        if self._account.seconds_left() <= 0:
            raise self._account.exhausted("seconds")
        if self._child is None:
            self._child = self._started()
            self._others = self._others or self._elsewhere(self._child)
        channel = self._child.channel
        reports: list[pytest.TestReport] = []
        refused: BudgetExhausted | None = None
        message = self._message(job)
        if self._others is not None and not job.inspected:
            self._others.follow(message)
        try:
            channel.send(**message)
            while True:
                message = channel.receive(self._patience(job))
                if "find" in message:
                    self._since = time.monotonic()
                    try:
                        channel.send(**self._found(message["find"], message["simulations"], job))
                    except BudgetExhausted as error:
                        refused = error
                        channel.send(exhausted=error.args)
                elif "add" in message:
                    self._keep(message["add"], message["metrics"])
                elif "failed" in message:
                    self._count()
                    if job.payer:
                        self._ledger.fail(job.payer.run, message["failed"], message["failure"])
                elif "ran" in message:
                    self._count()
                elif "report" in message:
                    reports.append(self._report(message["report"]))
                elif message["done"] < 0:
                    raise EvaluatorKilled(-message["done"], self._child.last_words())
                elif message["done"] > 0:
                    raise EvaluatorFailed(
                        f"the evaluation ended early ({message['done']}){self._child.last_words()}"
                    )
                else:
                    break
        except TimeoutError:
            words = self.stop()
            if self._account.seconds_left() <= 0:
                raise self._account.exhausted("seconds") from None
            raise EvaluatorFailed(f"the evaluation did not go on and was killed{words}") from None
        except ChannelClosed:
            child, self._child = self._child, None
            raise child.ended("the evaluating pytest ended") from None
        except BaseException:
            # Also after a job that has failed: its last questions and answers would be taken for the next
            # one's.
            self.stop()
            raise
        if refused is not None:
            raise refused
        return reports

    def _found(self, keys: Sequence[str], simulations: Sequence[str], job: Job) -> dict[str, Any]:
        """What is known of samples, once others have run what they could; simulations are reserved first.

        If one has failed in this run, that: it is what the search acts upon, however often it goes on.
        """
        self.needed |= {*keys, *simulations}
        self.needed_simulations |= set(simulations)
        if job.payer:
            failed = self._ledger.failed(job.payer.run, keys)
            # Nothing of what has failed is run once more.
            unpaid = set(simulations) - self._prepaid - (job.payer.charged if failed else set())
            self._charged |= job.payer.charge(unpaid, self._ledger)
            if failed:
                return {"failures": failed}
        # Tables are files of the machine that runs a replication: where they are wanted, it is this one.
        if self._others is not None and not job.inspected:
            for key, metrics in self._others.samples(keys):
                self._keep(key, metrics)
        known = self._ledger.known(keys)
        return {"known": known, "share": [key for key in keys if key not in known]}

    def _keep(self, key: str, metrics: Metrics) -> None:
        self._count()
        self._ledger.keep(key, metrics)

    def _count(self) -> None:
        """Count a replication that has just been run. What is known takes no time, and says nothing of it."""
        now = time.monotonic()
        self._runs += 1
        self._seconds += now - self._since
        self._since = now

    @property
    def pace(self) -> float | None:
        """Seconds a replication, of all arms, as several ran at once; None if all were known."""
        return self._seconds / self._runs if self._runs else None

    def stop(self) -> str:
        """End the child and all that it started; a later job starts a new one. Returns its last words."""
        if self._child is None:
            return ""
        child, self._child = self._child, None
        child.stop()
        return child.last_words()

    def close(self) -> None:
        """`stop`, end what runs elsewhere, and delete the composed tree."""
        self.stop()
        if self._others is not None:
            self._others.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _started(self) -> ChildProcess:
        child = ChildProcess(self._launch, self._folder)
        missing = sorted(set(self._nodeids) - set(child.collected))
        if missing:
            child.stop()
            raise Misuse(
                f"the base commit has no test {missing[0]}: commit the spec before --glia-optimize, which "
                "evaluates what is committed"
            )
        return child

    @cached_property
    def _launch(self) -> Launch:
        config, top = self._config, self._repository.top
        arguments = self._forwarded()
        if config.pluginmanager.hasplugin("xdist"):
            arguments += ["-n", "0"]
        if config.pluginmanager.hasplugin("_cov"):
            arguments += ["--no-cov"]
        # What hardware there is, this machine knows, and not the tree.
        servers = config.rootpath / config.getini("glia_testbed_file")
        arguments += [f"--glia-testbed={self._settings.testbed}", "-o", f"glia_testbed_file={servers}"]
        inifile = (config.inipath or Path(os.devnull)).resolve()
        return Launch(
            options=() if "" in sys.path or os.getcwd() in sys.path else ("-P",),
            arguments=tuple(arguments),
            inifile=inifile.relative_to(top) if inifile.is_relative_to(top) else inifile,
            root=self._repository.prefix,
            files=tuple(sorted({nodeid.partition("::")[0] for nodeid in self._nodeids})),
            candidates=tuple(candidate.path for candidate in self._candidates),
            checkout=top,
            environment=without_secrets(os.environ),
        )

    def _elsewhere(self, child: ChildProcess) -> RayExecutor | None:
        """Who runs replications besides the child, by the settings."""
        if self._settings.executor == "local":
            return None
        return RayExecutor(
            self._launch,
            self._folder / "tree",
            child.software,
            at_most=self._settings.replications,
            known=self._ledger.known,
            seconds_left=self._account.seconds_left,
            write=self._write,
        )

    def _forwarded(self) -> list[str]:
        """Of the user's own arguments, those that are not the search's business."""
        arguments = [str(each) for each in self._config.invocation_params.args]
        return forwarded(arguments, self._config.option.file_or_dir)

    def _message(self, job: Job) -> dict[str, Any]:
        return {
            "sources": {path: source.decode("latin-1") for path, source in job.sources.items()},
            "base": {path: asdict(source) for path, source in job.base.items()},
            "seeds": list(job.seeds),
            "nodeids": self._nodeids,
            "judging": job.judging,
            "world": job.world and job.world.hex(),
            "scenario": dict(job.scenario),
            "inspected": job.inspected and str(job.inspected),
            "harness": self._harness,
            "confidence": job.confidence or self._settings.confidence,
            "timeout": self._timeout(job),
            "apart": job.apart,
            "workers": self._settings.workers,
            "confined": self._settings.confined(),
        }

    def _timeout(self, job: Job) -> float:
        """Seconds for a replication: one whose candidate is apart takes many times as long as another."""
        return self._timeout_apart if job.apart else self.timeout

    def _patience(self, job: Job) -> float:
        """Seconds to wait for the next message: a sign of life comes at least once a replication, which is
        run again to be judged, and in an audit for each change of its future."""
        runs = (2 + CHANGES) * self._timeout(job)
        return min(runs + self._silence, max(0.0, self._account.seconds_left()))

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        assert isinstance(report, pytest.TestReport)
        return report


def _harness(tree: str, testbed: str, arguments: list[str]) -> str:
    """Names everything that decides a replication besides candidate, spec call and seed."""
    return "; ".join([f"tree {tree}", f"testbed {testbed}", *arguments, *software()])
