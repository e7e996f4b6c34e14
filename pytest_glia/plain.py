"""A plain run: the working tree's candidate on the guard seeds, nothing written, no budget."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from pytest_glia import seeds
from pytest_glia.candidate import read
from pytest_glia.context import BaseSource, Context, MemoryStore
from pytest_glia.domains import audits, manager
from pytest_glia.sandbox import confining
from pytest_glia.settings import Settings

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True


def plain_context(config: pytest.Config) -> Context:
    """The context of a run without ``--glia-optimize``."""
    settings = Settings.from_config(config)
    root = config.rootpath
    return Context(
        root=root,
        source=cache(lambda path: read(root, path)),
        base_source=lambda path: _base_source(root, path).text(),
        seeds=seeds.guard(settings.guard_seeds, settings.replications),
        confidence=settings.confidence,
        timeout=settings.timeout,
        workers=settings.workers,
        samples=MemoryStore(),
        harness="this session",
        audits=audits(manager(config)[0].hook),
        confine=confining(root, seconds=settings.timeout, workers=settings.workers)
        if settings.confined()
        else None,
    )


@cache
def _base_source(root: Path, path: str) -> BaseSource:
    from pytest_glia.repository import Repository

    return Repository(root).earlier(path, read(root, path))
