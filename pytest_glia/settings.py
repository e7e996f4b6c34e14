"""The plugin's settings, read once from ``[tool.pytest]`` and the command line, and validated there."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from pytest_glia.budget import Budget
from pytest_glia.ini import number
from pytest_glia.models.settings import ModelSettings, model_settings
from pytest_glia.sandbox import describe, unavailable
from pytest_glia.seeds import FIXED

_MOST_CONTEXTS = 16
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Settings:
    """All that a user can set, with its meaning.

    Attributes:
        replications: Seeded runs behind each estimate (``glia_replications``).
        guard_seeds: The name of the seeds of a plain run: ``fixed``, or any text (``glia_guard_seeds``).
        confidence: Of the two-sided interval that decides a verdict (``glia_confidence``).
        margin: The change of loss that a search takes for no change (``glia_margin``).
        timeout: Seconds after which one replication is killed (``glia_timeout``).
        executor: Where a search runs replications: ``local``, or on a cluster of ``ray`` (``glia_executor``).
        workers: Replications that run at once (``glia_workers``; 0 is one a usable core).
        testbed: What the fixture ``testbed`` gives (``--glia-testbed``).
        designer: Who designs under ``--glia-optimize`` (``--glia-designer`` or ``glia_designer``); if that is
            not said, ``glia`` where a model is configured, and ``offline`` where none is.
        model: The language model that a designer may ask.
        budget: What a search may spend (``--glia-budget`` or ``glia_budget``).
        sandbox: Whether candidates are confined: ``auto`` where that is possible, ``required`` or ``off``
            (``glia_sandbox``).
        allow_imports: Modules that candidates may import besides those on the list (``glia_allow_imports``).
        contexts: Of the designer `glia`: how many side by side, or ``seq`` (``--glia-contexts``).
        hand_over: Whether a context is told what those before it have found (``glia_hand_over``).
        command: Of the designer `command`: what starts the agent, for ``sh -c`` (``glia_command``).
        command_env: The secrets of the environment that it is to have (``glia_command_env``).
        command_timeout: Seconds after which a round of it is ended (``glia_command_timeout``).
    """

    replications: int
    guard_seeds: str
    confidence: float
    margin: float
    timeout: float
    executor: str
    workers: int
    testbed: str
    designer: str
    model: ModelSettings
    budget: Budget
    sandbox: str
    allow_imports: tuple[str, ...]
    contexts: str
    hand_over: bool
    command: str
    command_env: tuple[str, ...]
    command_timeout: float

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read and validate; raises `pytest.UsageError` naming the setting, its value and its range."""
        replications = number(config, "glia_replications", "a whole number")
        if replications < 2:
            raise pytest.UsageError(
                f"glia_replications is {replications!r}: an interval needs at least 2 replications"
            )
        guard_seeds = config.getini("glia_guard_seeds")
        if not (guard_seeds.isprintable() and 1 <= len(guard_seeds) <= _LONGEST_NAME):
            raise pytest.UsageError(
                f"glia_guard_seeds is {guard_seeds!r}: give {FIXED}, or a text on one line, such as a date, "
                f"of at most {_LONGEST_NAME} characters, from which other seeds follow"
            )
        confidence = number(config, "glia_confidence", "a number")
        if not 0.5 <= confidence < 1:
            raise pytest.UsageError(
                f"glia_confidence is {confidence!r}: give a number from 0.5 up to, not including, 1"
            )
        margin = number(config, "glia_margin", "a number")
        if not 0 <= margin < 1:
            raise pytest.UsageError(
                f"glia_margin is {margin!r}: give a number from 0 up to, not including, 1; 0.01 is 1 %"
            )
        timeout = number(config, "glia_timeout", "a number of seconds")
        if not 0 < timeout < float("inf"):
            raise pytest.UsageError(f"glia_timeout is {timeout!r}: give a positive number of seconds")
        executor = config.getini("glia_executor")
        if executor not in ("local", "ray"):
            raise pytest.UsageError(f"glia_executor is {executor!r}: give local or ray")
        workers = number(config, "glia_workers", "a whole number")
        if workers < 0:
            raise pytest.UsageError(f"glia_workers is {workers!r}: give 0 (one a core) or a positive number")
        sandbox = config.getini("glia_sandbox")
        if sandbox not in ("auto", "required", "off"):
            raise pytest.UsageError(f"glia_sandbox is {sandbox!r}: give auto, required or off")
        if sandbox == "required" and (reason := unavailable()):
            raise pytest.UsageError(
                f"glia_sandbox is {sandbox!r}, but candidates cannot be confined: {reason}"
            )
        allowed = config.getini("glia_allow_imports")
        for name in allowed:
            if not all(part.isidentifier() for part in name.split(".")):
                raise pytest.UsageError(
                    f"glia_allow_imports has {name!r}: give names of modules, such as scipy or scipy.special"
                )
        contexts = config.getoption("glia_contexts")
        if contexts != "seq" and not (contexts.isdecimal() and 1 <= int(contexts) <= _MOST_CONTEXTS):
            raise pytest.UsageError(
                f"--glia-contexts is {contexts!r}: give 1 (a single context), a number up to "
                f"{_MOST_CONTEXTS} (that many side by side), or seq (one after another)"
            )
        command_timeout = number(config, "glia_command_timeout", "a number of seconds")
        if not 0 < command_timeout < float("inf"):
            raise pytest.UsageError(
                f"glia_command_timeout is {command_timeout!r}: give a positive number of seconds"
            )
        model = model_settings(config)
        designer = config.getoption("glia_designer") or config.getini("glia_designer")
        return cls(
            replications=replications,
            guard_seeds=guard_seeds,
            confidence=confidence,
            margin=margin,
            timeout=timeout,
            executor=executor,
            workers=workers or _usable_cores(),
            testbed=config.getoption("glia_testbed"),
            designer=designer or ("glia" if model.name else "offline"),
            model=model,
            budget=Budget.parse(config.getoption("glia_budget") or config.getini("glia_budget")),
            sandbox=sandbox,
            allow_imports=tuple(allowed),
            contexts=contexts,
            hand_over=config.getini("glia_hand_over"),
            command=config.getini("glia_command"),
            command_env=tuple(config.getini("glia_command_env")),
            command_timeout=command_timeout,
        )

    def confined(self) -> bool:
        """Whether candidates are confined here."""
        return self.sandbox != "off" and unavailable() is None

    def seeds_line(self) -> str:
        """What a run says of its guard seeds, if they are not those that every run has; else nothing."""
        if self.guard_seeds == FIXED:
            return ""
        return f"guard seeds: {self.guard_seeds!r} (glia_guard_seeds)"

    def sandbox_line(self) -> str:
        """What a run says of its sandbox."""
        if self.sandbox == "off":
            return "sandbox: off (glia_sandbox)"
        return f"sandbox: none, as {reason}" if (reason := unavailable()) else f"sandbox: {describe()}"


def _usable_cores() -> int:
    """Cores this process may use, shared evenly among the workers of pytest-xdist if there are any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
