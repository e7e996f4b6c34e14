"""The evaluating side of a search: a pytest in the composed tree that runs specs for any candidate text.

It collects the specs once and loads no candidate itself. For each job it forks; the fork runs the
tests, and each replication in a fork of its own. The parent is in `evaluator`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import platform
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_glia.budget import BudgetExhausted
from pytest_glia.candidate import package_root
from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.context import CONTEXT, BaseSource, Context, Found
from pytest_glia.decisions import World
from pytest_glia.domains import Words, audits, is_apart, is_real, manager, testbed_of
from pytest_glia.hookspecs import Apart, Audit
from pytest_glia.misuse import Misuse
from pytest_glia.nursery import REAL, Nursery
from pytest_glia.processes import die_with, end_session_with
from pytest_glia.replication import Confine, Failure, Metrics
from pytest_glia.sandbox import confining

ENVIRONMENT = "PYTEST_GLIA_CHILD"


class ComposedTree:
    """An import finder that takes modules of the user's checkout from the composed tree instead.

    An editable install makes imports point into the checkout; what is measured must be the base commit.
    """

    def __init__(self, checkout: Path, composed: Path) -> None:
        self._checkout = checkout
        self._composed = composed

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return self._moved(name, spec)
        return None

    def _moved(self, name: str, spec: ModuleSpec) -> ModuleSpec | None:
        counterpart = self._counterpart(spec.origin)
        if counterpart is None:
            return spec
        places = spec.submodule_search_locations
        return importlib.util.spec_from_file_location(
            name,
            counterpart,
            submodule_search_locations=None
            if places is None
            else [str(self._counterpart(place) or place) for place in places],
        )

    def _counterpart(self, place: str | None) -> Path | None:
        if place is None or not os.path.isabs(place):
            return None
        file = Path(os.path.realpath(place))  # it may have been found through a link
        if file.is_relative_to(self._composed) or not file.is_relative_to(self._checkout):
            return None
        moved = self._composed / file.relative_to(self._checkout)
        return moved if moved.exists() else None


class RemoteStore:
    """The samples that the parent keeps, and what has failed in this job: another run may have more time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._failed: dict[str, Failure] = {}

    def find(self, keys: Sequence[str], simulations: Sequence[str]) -> Found:
        failed = {key: self._failed[key] for key in keys if key in self._failed}
        if failed:
            # The test ends with it: nothing is to be reserved or run for the others.
            return Found(failed, ())
        self._channel.send(find=list(keys), simulations=list(simulations))
        answer = self._channel.receive()
        if "exhausted" in answer:
            raise BudgetExhausted(*answer["exhausted"])
        if "failures" in answer:
            self._failed |= {key: Failure(*words) for key, words in answer["failures"].items()}
            return Found({key: self._failed[key] for key in answer["failures"]}, ())
        return Found(answer["known"], tuple(answer["share"]))

    def add(self, key: str, outcome: Metrics | Failure) -> None:
        if isinstance(outcome, Failure):
            self._failed[key] = outcome
            self._channel.send(failed=key, failure=[outcome.message, outcome.details])
        else:
            self._channel.send(add=key, metrics=outcome)

    def ran(self) -> None:
        self._channel.send(ran=True)


class Evaluations:
    """Answers the parent's jobs instead of running the session's tests."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._audits: tuple[Audit, ...] = ()
        self._nursery: Nursery | None = None
        self._confining: dict[tuple[float, int], Confine] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None
        items = {item.nodeid: item for item in session.items}
        hooks, _ = manager(session.config)
        self._audits = audits(hooks.hook)
        testbed = None
        if any("testbed" in item.fixturenames for item in session.items):  # type: ignore[attr-defined]
            # Once here, so that no fork has to load or compile the domain again.
            with contextlib.suppress(Misuse):  # the fixture tells it
                testbed = testbed_of(session.config)
        importlib.import_module("pytest_glia.glia")  # likewise
        gc.freeze()
        apart: dict[str, Apart] = {each.name: each for each in self._audits if is_apart(each)}
        if is_real(testbed):
            apart[REAL] = testbed
        if apart:
            # Before the first job, which tells seeds.
            self._nursery = Nursery(apart, [self._channel.fileno()])
        domains = {audit.name: asdict(Words.of(audit)) for audit in self._audits}
        self._channel.send(ready=sorted(items), software=software(), domains=domains)
        try:
            while True:
                self._fork_job(session.config, items, self._channel.receive())
        except ChannelClosed:
            return True

    def _fork_job(self, config: pytest.Config, items: dict[str, pytest.Item], job: dict[str, Any]) -> None:
        if job["apart"] and self._nursery and not self._nursery.lives():
            # Another one would know seeds. A new process in place of this one has a nursery of its own.
            self._channel.send(done=-signal.SIGKILL)
            return
        parent, confine = os.getpid(), self._confine_of(config.rootpath, job)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                end_session_with(parent)
                self._run_job(config, items, job, confine)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        self._channel.send(done=os.waitstatus_to_exitcode(status))

    def _confine_of(self, root: Path, job: dict[str, Any]) -> Confine | None:
        """What confines a job's replications, found once for all that are alike: it looks through folders."""
        if not job["confined"]:
            return None
        limits = (job["timeout"], job["workers"])
        if limits not in self._confining:
            self._confining[limits] = confining(root, seconds=job["timeout"], workers=job["workers"])
        return self._confining[limits]

    def _run_job(
        self,
        config: pytest.Config,
        items: dict[str, pytest.Item],
        job: dict[str, Any],
        confine: Confine | None,
    ) -> None:
        config.stash[CONTEXT] = Context(
            root=config.rootpath,
            source=lambda path: bytes(job["sources"][path], "latin-1"),
            base_source=lambda path: BaseSource(**job["base"][path]).text(),
            seeds=tuple(job["seeds"]),
            confidence=job["confidence"],
            timeout=job["timeout"],
            workers=job["workers"],
            samples=RemoteStore(self._channel),
            harness=job["harness"],
            audits=self._audits,
            world=job["world"] and World(bytes.fromhex(job["world"])),
            scenario=job["scenario"],
            inspected=job["inspected"] and Path(job["inspected"]),
            private=(self._channel.fileno(), *([self._nursery.descriptor] if self._nursery else [])),
            confine=confine,
            nursery=self._nursery if job["apart"] else None,
            denied=None if job["judging"] else frozenset(),
        )
        reports = _Reports()
        config.pluginmanager.register(reports)
        run = reports.of if job["judging"] else partial(_look, reports)
        specs = [items[nodeid] for nodeid in job["nodeids"]]
        for item, following in zip(specs, [*specs[1:], None], strict=True):
            for report in run(item, following):
                data = config.hook.pytest_report_to_serializable(config=config, report=report)
                self._channel.send(report=data)


class _Reports:
    """Gathers the reports of one test."""

    def __init__(self) -> None:
        self._gathered: list[pytest.TestReport] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._gathered.append(report)

    def of(self, item: pytest.Item, following: pytest.Item | None) -> list[pytest.TestReport]:
        """Run a test; its reports. What it shares with the `following` one stays set up."""
        self._gathered = []
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        return self._gathered


def _look(reports: _Reports, item: pytest.Item, following: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test with all of its comparisons assumed to hold, so that every one is recorded.

    If it fails right after a comparison, it may have asserted the opposite: it is run again (all samples
    are known by then) with that comparison assumed not to hold, and if it gets further it has.
    """
    context = item.config.stash[CONTEXT]
    denied: frozenset[int] = frozenset()
    gathered = reports.of(item, following)
    while any(report.failed for report in gathered):
        last = _comparisons(gathered) - 1
        if last < 0 or last in denied:
            break
        item.config.stash[CONTEXT] = replace(context, denied=denied | {last})
        again = reports.of(item, following)
        if any(report.failed for report in again) and _comparisons(again) <= last + 1:
            break
        denied, gathered = denied | {last}, again
    item.config.stash[CONTEXT] = context
    return gathered


def _comparisons(gathered: list[pytest.TestReport]) -> int:
    return sum(len(getattr(report, "glia", ())) for report in gathered)


def software() -> list[str]:
    """This Python and the installed distributions: any of them may take part in a replication."""
    installed = sorted({f"{each.name} {each.version}" for each in distributions()})
    return [f"Python {platform.python_version()} {platform.machine()}", *installed]


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any conftest: make imports come from the composed tree, and connect to the parent."""
    descriptor, parent, checkout, composed, *candidates = os.environ.pop(ENVIRONMENT).split(os.pathsep)
    die_with(int(parent))
    for path in candidates:
        file = early_config.rootpath / path
        if (file.parent / "__init__.py").exists():
            sys.path.insert(0, str(package_root(file)))
    sys.meta_path.insert(0, ComposedTree(Path(checkout), Path(composed)))
    early_config.pluginmanager.register(Evaluations(Channel.from_descriptor(int(descriptor))))
