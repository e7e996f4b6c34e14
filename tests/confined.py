"""Forks that are confined, and what happens to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_glia import sandbox
from pytest_glia.sandbox import Confinement, kernel

ROOT = Path(__file__).resolve().parents[1]


def confinement(root: Path = ROOT, **changes: Any) -> Confinement:
    return replace(Confinement.of_project(root, seconds=60, workers=2), **changes)


def error_of_call(number: int) -> int:
    """The errno with which a system call without arguments fails; 0 if it does not."""
    return error_of(lambda: kernel.call(number))


def error_of_reading(place: str | Path) -> int:
    """The errno with which a file cannot be opened; 0 if it can."""
    return error_of(lambda: open(place, "rb").close())


def in_fork(action: Callable[[], Any], become: int | None, confined: Confinement | None) -> tuple[Any, int]:
    """What `action` returns in a fork, as JSON tells it (None if it dies), and the wait status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if become is not None:
                os.setgroups([])
                os.setgid(become)
                os.setuid(become)
            if confined is not None:
                sandbox.confine(confined, [writer])
            os.write(writer, json.dumps(action()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(f"raised {error!r}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    status = os.waitpid(pid, 0)[1]
    return (json.loads(said) if said else None), status


def error_of(action: Callable[[], Any]) -> int:
    """The errno with which an action fails; 0 if it does not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0
