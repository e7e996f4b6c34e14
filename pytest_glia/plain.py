"""A plain run: the working tree's candidate on the guard seeds, nothing written, no budget."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from pytest_glia import seeds
from pytest_glia.candidate import read
from pytest_glia.context import Context, MemoryStore
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
        base_source=cache(lambda path: _base_source(root, path)),
        seeds=seeds.known("guard", settings.replications),
        confidence=settings.confidence,
        timeout=settings.timeout,
        workers=settings.workers,
        samples=MemoryStore(),
        harness="this session",
    )


def _base_source(root: Path, path: str) -> bytes:
    """The candidate at the merge-base with the default branch; skips the test where it is new."""
    from pytest_glia.repository import Repository

    repository = Repository.of(root)
    base = repository.merge_base()
    if base is None:
        pytest.skip('against="base": the repository has one commit only, so there is no earlier candidate')
    source = repository.read(base, path)
    if source is None:
        pytest.skip(f'against="base": {path} does not exist at the base commit {base[:9]}')
    return source
