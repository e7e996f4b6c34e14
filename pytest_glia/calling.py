"""Calls the function that a spec gives: with what, what it may return, and what is said where it raises."""

from __future__ import annotations

import numbers
import random
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy import random as numpy_random

from pytest_glia.candidate import make
from pytest_glia.decisions import Objects
from pytest_glia.replication import Metrics, ReplicationError
from pytest_glia.seeds import global_seed
from pytest_glia.visible import abridged

# Of an error, in characters: Python wraps the words of a long one for ever.
_LONGEST = 3_000

Replicate = Callable[..., Any]
"""Of (candidate object, seed), or of the objects by their roles and ``seed`` as keywords."""


def call(replicate: Replicate, objects: Objects, seed: int) -> Any:
    """What the function returns for the objects and the seed."""
    seed_generators(global_seed(seed))
    if set(objects) == {None}:
        return replicate(objects[None], seed)
    return replicate(seed=seed, **{str(role): each for role, each in objects.items()})


def make_objects(entries: Objects, stream: int) -> Objects:
    """What a replication gets for the candidates' entries; `stream` is `policy_seed` of its seed."""
    return {role: make(entry, random.Random(stream)) for role, entry in entries.items()}


def seed_generators(start: int) -> None:
    """Forks start from one state of the global generators: else they would all draw the same.

    `start` is that of a replication's seed (`pytest_glia.seeds.global_seed`).
    """
    random.seed(start)
    numpy_random.seed(start)


@contextmanager
def told(files: frozenset[str]) -> Iterator[None]:
    """Make of whatever a replication raises the sentence for its user."""
    try:
        yield
    except ReplicationError:
        raise
    except Exception as error:
        raise ReplicationError(_sentence(error, files)) from error


def _sentence(error: BaseException, files: frozenset[str]) -> str:
    """An error of a replication with the lines of the candidate in it, or else of what was called last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    frames = [frame for each in reversed(chain) for frame in traceback.extract_tb(each.__traceback__)]
    outside = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
    shown = [frame for frame in outside if frame.filename in files] or outside[-3:]
    words = abridged(str(error).strip(), _LONGEST)
    sentence = f"the replication raised {type(error).__name__}: {words}".rstrip(": ")
    lines = [f"{frame.filename}:{frame.lineno}: in {frame.name}\n    {frame.line}" for frame in shown]
    return "\n".join([*textwrap.wrap(sentence, 78), *lines])


def function_of(result: Any) -> Callable[[], Any]:
    """What a function that prepares a timed call has returned."""
    if not callable(result):
        raise ReplicationError(
            f"with timed=True the function returned {result!r:.60}: return a function without arguments, "
            "whose call is timed and which returns the output"
        )
    return result  # type: ignore[no-any-return]


def metrics_of(result: Any) -> Metrics:
    """All numbers that a replication returned, by name."""
    if isinstance(result, numbers.Real):
        return {"value": float(result)}
    named = result if isinstance(result, Mapping) else getattr(result, "metrics", None)
    if not isinstance(named, Mapping) or not named:
        raise ReplicationError(
            f"the replication returned {type(result).__name__}: return a number, a mapping of numbers, or "
            "an object with .metrics"
        )
    for name, value in named.items():
        if not isinstance(value, numbers.Real):
            raise ReplicationError(f"the metric {name!r} is {value!r}: a metric is a number")
    return {str(name): float(value) for name, value in named.items()}
