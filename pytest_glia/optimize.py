"""``--glia-optimize``: takes over pytest's run loop; failing specs are goals, passing ones constraints."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from pytest_glia.budget import Account
from pytest_glia.candidate import Candidate
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.last_stage import last_testbed
from pytest_glia.ledger import Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.search import REPLAYED, Search
from pytest_glia.settings import Settings

# Options with which pytest runs no test.
_NOTHING_RUNS = ("collectonly", "setuponly", "setupplan")


class Optimizer:
    """The plugin that takes over pytest's run loop when ``--glia-optimize`` is given."""

    def __init__(self, config: pytest.Config) -> None:
        if config.getoption("numprocesses", None) or config.getoption("tx", None):
            raise pytest.UsageError(
                "--glia-optimize does not go with -n or --tx: it runs replications in parallel itself "
                "(setting glia_workers); leave out -n, or give -n 0"
            )
        self._config = config
        self._settings = Settings.from_config(config)
        self._hardware = ""
        self._delivered: list[str] = []
        # The checkout still fails what its designs pass: --lf and --stepwise must go on finding it.
        for name in ("lfplugin", "stepwiseplugin"):
            config.pluginmanager.unregister(name=name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Design for each group of specs that share their candidates, then run the other tests as ever."""
        nothing_runs = any(self._config.getoption(name, False) for name in _NOTHING_RUNS)
        if session.testsfailed or nothing_runs or not session.items:
            return None
        try:
            groups, others = grouped(session.items)
            if not groups:
                pytest.exit(
                    "--glia-optimize: no selected test has a glia marker", pytest.ExitCode.NO_TESTS_COLLECTED
                )
            self._settings, self._hardware = last_testbed(self._settings, session.items)
            account = Account(self._settings.budget)
            for candidates, items in groups:
                replay(items, self._run_group(candidates, items, account), session)
                account = account.following()
        except (Misuse, EvaluatorFailed) as error:
            raise pytest.UsageError(f"--glia-optimize: {error}") from None
        for position, item in enumerate(others, start=1):
            following = others[position] if position < len(others) else None
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            _stop_if_asked(session)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the designs are, and how to take one."""
        if self._delivered:
            terminalreporter.write_sep("=", "glia designs")
            for line in self._delivered:
                terminalreporter.write_line(line)

    def _run_group(
        self, candidates: tuple[Candidate, ...], items: list[pytest.Item], account: Account
    ) -> list[pytest.TestReport]:
        ledger = Ledger(self._config.rootpath)
        search = None
        try:
            paths = list(dict.fromkeys(each.path for each in candidates))
            replayed = os.environ.get(REPLAYED)
            if replayed and ledger.outcomes().get(replayed, ("",))[0] != "+".join(paths):
                # What else the command has designed is another run.
                return []
            for path in paths:
                ledger.lock(path)
            search = Search(self._config, self._settings, ledger, candidates, items, account, self._hardware)
            reports = search.run()
            self._delivered += search.delivered
            return reports
        finally:
            if search is not None:
                report = self._config.pluginmanager.get_plugin("glia-report")
                try:
                    if report is not None:
                        report.add(search)
                finally:
                    search.close()
            ledger.close()


Group = tuple[tuple[Candidate, ...], list[pytest.Item]]
"""Candidates that are designed together, and their specs."""


def grouped(items: Sequence[pytest.Item]) -> tuple[list[Group], list[pytest.Item]]:
    """The specs by the files that they name, and the tests that name none.

    Specs that share a file are one goal, and so are those that a third one joins.
    """
    joined: list[tuple[set[str], list[pytest.Item]]] = []
    others = []
    for item in items:
        paths = {candidate.path for candidate in Candidate.of(item)}
        if not paths:
            others.append(item)
            continue
        touched = [group for group in joined if group[0] & paths]
        joined = [group for group in joined if group not in touched]
        joined.append((paths.union(*(group[0] for group in touched)), [item]))
        for _, specs in touched:
            joined[-1][1].extend(specs)
    order = {id(item): position for position, item in enumerate(items)}
    groups: list[Group] = []
    for _, specs in joined:
        specs.sort(key=lambda item: order[id(item)])
        exposed: dict[tuple[str, str], dict[str, None]] = {}
        for each in (candidate for item in specs for candidate in Candidate.of(item)):
            exposed.setdefault((each.path, each.entry), {}).update(dict.fromkeys(each.exposes))
        groups.append((tuple(Candidate(*key, exposes=tuple(exposed[key])) for key in sorted(exposed)), specs))
    return sorted(groups, key=lambda group: order[id(group[1][0])]), others


def replay(
    items: Sequence[pytest.Item], reports: Sequence[pytest.TestReport], session: pytest.Session
) -> None:
    """Give the child's reports to pytest as if the tests had run here."""
    for item in items:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            if report.nodeid == item.nodeid:
                item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        _stop_if_asked(session)


def _stop_if_asked(session: pytest.Session) -> None:
    """After a test: what -x, --maxfail or another plugin has asked for."""
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
