"""Settings are read once, and a bad one is misuse that names itself."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_glia.settings import Settings

DEFAULTS: dict[str, Any] = {
    "glia_replications": 10,
    "glia_confidence": 0.95,
    "glia_margin": 0.01,
    "glia_timeout": 60.0,
    "glia_executor": "local",
    "glia_workers": 3,
    "glia_designer": "offline",
    "glia_budget": "200 sims, 5 min",
    "glia_sandbox": "auto",
    "glia_allow_imports": [],
    "--glia-testbed": "sim",
    "--glia-designer": None,
    "--glia-budget": None,
}


class Config:
    """As much of `pytest.Config` as settings are read from."""

    def __init__(self, **changes: Any) -> None:
        self._values = {**DEFAULTS, **changes}

    def getini(self, name: str) -> Any:
        return self._values[name]

    def getoption(self, name: str) -> Any:
        return self._values["--" + name.replace("_", "-")]


def settings(**changes: Any) -> Settings:
    return Settings.from_config(Config(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("glia_replications", 1),
        ("glia_replications", -3),
        ("glia_confidence", 1.0),
        ("glia_confidence", 0.4),
        ("glia_confidence", 95.0),
        ("glia_confidence", float("nan")),
        ("glia_margin", -0.01),
        ("glia_margin", 1.0),
        ("glia_margin", float("nan")),
        ("glia_timeout", 0.0),
        ("glia_timeout", float("inf")),
        ("glia_timeout", float("nan")),
        ("glia_executor", "dask"),
        ("glia_workers", -1),
        ("glia_sandbox", "yes"),
    ],
)
def test_bad_setting_names_itself_and_its_value(name: str, value: object) -> None:
    """The message begins with the setting and what it is."""
    with pytest.raises(pytest.UsageError, match=f"^{name} is {value!r}: "):
        settings(**{name: value})


@pytest.mark.parametrize("name", ["scipy-stats", "numpy.", "a b", "../x", ""])
def test_module_to_allow_is_a_name(name: str) -> None:
    """What no import statement could name is misuse; what one could is kept in order."""
    with pytest.raises(pytest.UsageError, match=r"^glia_allow_imports has .*: give names of modules"):
        settings(glia_allow_imports=["scipy", name])
    assert settings(glia_allow_imports=["scipy", "a.b"]).allow_imports == ("scipy", "a.b")


def test_command_line_wins_over_ini() -> None:
    """Designer and budget of the command line replace those of the ini file."""
    chosen = settings(**{"--glia-designer": "other", "--glia-budget": "7 sims"})
    assert (chosen.designer, chosen.budget.simulations) == ("other", 7)
    assert (settings().designer, settings().budget.simulations) == ("offline", 200)


def test_no_number_of_workers_means_one_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero workers are at least one, and the workers of xdist share the cores."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    alone = settings(glia_workers=0).workers
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1000")
    assert settings(glia_workers=0).workers == 1 <= alone
    assert settings(glia_workers=3).workers == 3
