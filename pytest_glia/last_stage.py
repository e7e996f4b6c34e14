"""The last stage of a search: a design that the simulator has confirmed runs its specs on real hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_glia.budget import BudgetExhausted
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.delivery import Delivery, not_run
from pytest_glia.domains import is_real, testbed_of
from pytest_glia.evaluator import Evaluator
from pytest_glia.hardware import uses_testbed
from pytest_glia.settings import Settings
from pytest_glia.summary import show

if TYPE_CHECKING:
    from pytest_glia.search import Search

__all__ = ["last_testbed", "on_hardware"]

_SIMULATED = "sim"
"""The testbed of a search, which is that of a plain run."""
_SILENCE = 86_400.0
"""Seconds that one run on hardware may take: those of its workload."""


def last_testbed(settings: Settings, items: Sequence[pytest.Item]) -> tuple[Settings, str]:
    """With what to search, and the testbed of the last stage: what was asked for, if that is hardware.

    Raises `Misuse` if no domain has that testbed, or it is set up wrongly.
    """
    if settings.testbed == _SIMULATED or not any(map(uses_testbed, items)):
        return settings, ""
    testbed = testbed_of(items[0].config)
    # A sentence says why there is none here, which the last stage tells, too.
    if is_real(testbed) or isinstance(testbed, str):
        return replace(settings, testbed=_SIMULATED), settings.testbed
    return settings, ""


def on_hardware(
    search: Search, delivery: Delivery, reports: list[pytest.TestReport]
) -> list[pytest.TestReport]:
    """The reports, those of specs that ran on the hardware instead of the simulator's.

    It is told, too; the design is delivered by now, and stays so. The seeds are those of the confirmation, as
    many as a plain run has. Nothing is charged but time.
    """
    name, settings = search.hardware, replace(search.settings, testbed=search.hardware, executor="local")
    items = [item for item in search.items if uses_testbed(item)]
    assert delivery.confirmation is not None
    seeds = delivery.confirmation.seeds[: settings.replications]
    search.write(
        f"On the testbed {name}, {len(seeds)} of these seeds, each in turns with what it is compared to:"
    )
    evaluator = Evaluator(
        search.config,
        settings,
        search.repository,
        search.ledger,
        search.account,
        search.candidates,
        search.base,
        [item.nodeid for item in items],
        search.write,
        _SILENCE,
    )
    try:
        found = evaluator.judge(delivery.winner, seeds, None, settings.confidence)
    except (BudgetExhausted, EvaluatorFailed) as error:
        told = f"not confirmed on the testbed {name}: {error}"
        search.delivered.append(f"  {told}")
        sentence = f"The design passes in the simulator, but was {told}"
        return _with(reports, [not_run(item, sentence) for item in items])
    finally:
        evaluator.close()
    show(search.write, found)
    skipped = {report.nodeid: report for report in found if report.skipped}
    ran = {report.nodeid for report in found} - set(skipped)
    missed = {report.nodeid for report in found if report.failed}
    told = f"on the testbed {name} {len(ran - missed)} of {len(items)} specs pass"
    if skipped:
        reasons = dict.fromkeys(map(_reason, skipped.values()))
        told += f", {len(skipped)} skipped: {'; '.join(reasons)}"
    search.delivered.append(f"  {told}")
    return _with(reports, [report for report in found if report.nodeid in ran])


def _with(
    reports: Sequence[pytest.TestReport], others: Sequence[pytest.TestReport]
) -> list[pytest.TestReport]:
    """The reports, those of the same tests replaced by the others."""
    replaced = {report.nodeid for report in others}
    return [*(report for report in reports if report.nodeid not in replaced), *others]


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    where = report.longrepr
    return str(where[-1] if isinstance(where, (tuple, list)) else where).removeprefix("Skipped: ")
