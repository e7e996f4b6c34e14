"""The domains at hand: implementations of the hooks of project ``glia``, and their ideas, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeGuard

import pluggy
import pytest

from pytest_glia import hookspecs
from pytest_glia.hookspecs import ApartAudit, Audit, Mechanism, RealTestbed
from pytest_glia.misuse import Misuse

_MECHANISM = ("name", "claim", "predicts", "numbers", "defaults", "called_for", "apply")


_DOMAINS = pytest.StashKey[tuple[pluggy.PluginManager, list[str]]]()


def manager(config: pytest.Config) -> tuple[pluggy.PluginManager, list[str]]:
    """All implementations of the hooks of `hookspecs`, and a sentence for each domain not loaded.

    They come from the entry-point group ``glia`` and from any pytest plugin or ``conftest.py`` that
    has functions marked with ``pluggy.HookimplMarker("glia")``. A domain that cannot be imported, or
    whose package is shadowed by the user's own of the same name (a project with its own ``sim``), must
    not keep the others from working: it is passed over and reported. They are looked for once; later calls
    only add the plugins that have come since.
    """
    if _DOMAINS not in config.stash:
        config.stash[_DOMAINS] = _of_entry_points()
    hooks, problems = config.stash[_DOMAINS]
    for plugin in config.pluginmanager.get_plugins():
        if not hooks.is_registered(plugin):
            hooks.register(plugin)
    try:
        hooks.check_pending()
    except pluggy.PluginValidationError as error:
        raise pytest.UsageError(f"glia: {error}") from None
    return hooks, problems


def _of_entry_points() -> tuple[pluggy.PluginManager, list[str]]:
    hooks = pluggy.PluginManager("glia")
    hooks.add_hookspecs(hookspecs)
    problems = []
    for entry in sorted(entry_points(group="glia")):
        try:
            plugin = entry.load()
        except ImportError as error:
            problems.append(f"the domain {entry.name!r} was not loaded: {error}")
        else:
            hooks.register(plugin, name=f"entry point {entry.name}")
    return hooks, problems


_TESTBED = pytest.StashKey[Any]()


def testbed_of(config: pytest.Config) -> Any:
    """What the domains give for ``--glia-testbed``, asked once; a string is a reason to skip.

    Raises `Misuse` if no domain has it, or it is set up wrongly.
    """
    if _TESTBED not in config.stash:
        name = config.getoption("glia_testbed")
        hooks, problems = manager(config)
        try:
            found = hooks.hook.glia_testbed(
                name=name, file=config.rootpath / config.getini("glia_testbed_file")
            )
        except ValueError as error:
            raise Misuse(f"--glia-testbed {name}: {error}") from error
        if found is None:
            raise Misuse("; ".join([f"no domain provides the testbed {name!r}", *problems]))
        config.stash[_TESTBED] = found
    return config.stash[_TESTBED]


def is_real(testbed: Any) -> TypeGuard[RealTestbed]:
    """Whether a testbed is real hardware (`RealTestbed`)."""
    return all(callable(getattr(testbed, name, None)) for name in ("answering", "asking", "busy", "close"))


@dataclass(frozen=True)
class Words:
    """What a domain says of its runs: of its `knobs` (`Audit`), and what its metrics mean.

    And whether its candidates can be in another process than these (`is_apart`).
    """

    knobs: Mapping[str, str]
    metrics: str
    apart: bool

    @classmethod
    def of(cls, audit: Audit) -> Words:
        """A domain's, by its audit, which may say nothing of metrics."""
        return cls(dict(audit.knobs), str(getattr(audit, "metrics", "")), is_apart(audit))


_AUDIT = ("name", "knobs", "record", "recording", "varied", "future_changed", "scenario")


def audits(hooks: Any) -> tuple[Audit, ...]:
    """How the domains record what their candidates decide; raises `Misuse` for one that is not complete."""
    found = tuple(hooks.glia_audits())
    for audit in found:
        missing = [name for name in _AUDIT if not hasattr(audit, name)]
        if missing:
            name = getattr(audit, "name", type(audit).__name__)
            raise Misuse(f"the audit {name!r} has no {missing[0]!r}: it needs {', '.join(_AUDIT)}")
        if hasattr(audit, "asking") != hasattr(audit, "answering"):
            raise Misuse(
                f"the audit {audit.name!r} has only one of asking and answering: it needs both, or neither"
            )
    return found


def is_apart(audit: Audit) -> TypeGuard[ApartAudit]:
    """Whether candidates of a domain can be in another process than what they are simulated in."""
    return hasattr(audit, "asking") and hasattr(audit, "answering")


def mechanisms(hooks: Any, path: str, entry: str, source: str) -> list[Mechanism]:
    """All ideas that the domains have for a candidate; raises `Misuse` for one that is not complete."""
    found = [idea for ideas in hooks.glia_mechanisms(path=path, entry=entry, source=source) for idea in ideas]
    for idea in found:
        missing = [name for name in _MECHANISM if not hasattr(idea, name)]
        name = getattr(idea, "name", type(idea).__name__)
        if missing:
            raise Misuse(f"the mechanism {name!r} has no {missing[0]!r}: it needs {', '.join(_MECHANISM)}")
        if set(idea.numbers) != set(idea.defaults):
            raise Misuse(
                f"the mechanism {name!r} has numbers {sorted(idea.numbers)} and defaults "
                f"{sorted(idea.defaults)}: give each number a range and a default"
            )
        for number, limits in idea.numbers.items():
            if len(limits) != 2 or not limits[0] < limits[1]:
                raise Misuse(f"the mechanism {name!r} has {number}={limits!r}: give a pair (low, high)")
            if not limits[0] <= idea.defaults[number] <= limits[1]:
                raise Misuse(
                    f"the mechanism {name!r} has the default {number}={idea.defaults[number]!r}, which is "
                    f"not in its range {tuple(limits)!r}"
                )
    return found
