"""The plugin manager of project ``glia``: entry points, and what pytest's own plugins implement."""

from __future__ import annotations

from importlib.metadata import entry_points

import pluggy
import pytest

from pytest_glia import hookspecs


def manager(config: pytest.Config) -> tuple[pluggy.PluginManager, list[str]]:
    """All implementations of the hooks of `hookspecs`, and a sentence for each domain not loaded.

    They come from the entry-point group ``glia`` and from any pytest plugin or ``conftest.py`` that
    has functions marked with ``pluggy.HookimplMarker("glia")``. A domain that cannot be imported, or
    whose package is shadowed by the user's own of the same name (a project with its own ``sim``), must
    not keep the others from working: it is passed over and reported.
    """
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
    for plugin in config.pluginmanager.get_plugins():
        if not hooks.is_registered(plugin):
            hooks.register(plugin)
    try:
        hooks.check_pending()
    except pluggy.PluginValidationError as error:
        raise pytest.UsageError(f"glia: {error}") from None
    return hooks, problems
