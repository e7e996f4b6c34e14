"""The evaluating side of a search: a pytest in the composed tree that runs specs for any candidate text.

It collects the specs once and loads no candidate itself. For each job it forks; the fork runs the
tests, and each replication in a fork of its own. The parent is in `evaluator`.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_glia.budget import BudgetExhausted
from pytest_glia.candidate import package_root
from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.context import CONTEXT, Context
from pytest_glia.domains import manager
from pytest_glia.replication import Metrics, die_with

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
        file = Path(place)
        if file.is_relative_to(self._composed) or not file.is_relative_to(self._checkout):
            return None
        moved = self._composed / file.relative_to(self._checkout)
        return moved if moved.exists() else None


class RemoteStore:
    """The samples that the parent keeps."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def find(self, keys: Sequence[str], *, simulations: bool) -> dict[str, Metrics]:
        self._channel.send(find=list(keys), simulations=simulations)
        answer = self._channel.receive()
        if "exhausted" in answer:
            raise BudgetExhausted(*answer["exhausted"])
        known: dict[str, Metrics] = answer["known"]
        return known

    def add(self, key: str, metrics: Metrics) -> None:
        self._channel.send(add=key, metrics=metrics)


class Evaluations:
    """Answers the parent's jobs instead of running the session's tests."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None
        items = {item.nodeid: item for item in session.items}
        if any("testbed" in item.fixturenames for item in session.items):  # type: ignore[attr-defined]
            # Once here, so that no fork has to load or compile the domain again.
            hooks, _ = manager(session.config)
            hooks.hook.glia_testbed(name=session.config.getoption("glia_testbed"))
        gc.freeze()
        self._channel.send(ready=sorted(items))
        try:
            while True:
                self._fork_job(session.config, items, self._channel.receive())
        except ChannelClosed:
            return True

    def _fork_job(self, config: pytest.Config, items: dict[str, pytest.Item], job: dict[str, Any]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                die_with(parent)
                self._run_job(config, items, job)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        self._channel.send(done=os.waitstatus_to_exitcode(status))

    def _run_job(self, config: pytest.Config, items: dict[str, pytest.Item], job: dict[str, Any]) -> None:
        config.stash[CONTEXT] = Context(
            root=config.rootpath,
            source=lambda path: bytes(job["sources"][path], "latin-1"),
            base_source=lambda path: _base_source(job["base"], path),
            seeds=tuple(job["seeds"]),
            confidence=job["confidence"],
            timeout=job["timeout"],
            workers=job["workers"],
            samples=RemoteStore(self._channel),
            harness=job["harness"],
            private=(self._channel.fileno(),),
            lenient=job["lenient"],
        )
        config.pluginmanager.register(_Reports(config, self._channel))
        for nodeid in job["nodeids"]:
            item = items[nodeid]
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)


class _Reports:
    def __init__(self, config: pytest.Config, channel: Channel) -> None:
        self._config = config
        self._channel = channel

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._channel.send(report=data)


def _base_source(base: dict[str, str | None], path: str) -> bytes:
    source = base[path]
    if source is None:
        pytest.skip(f'against="base": there is no {path} at the base commit')
    return bytes(source, "latin-1")


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
