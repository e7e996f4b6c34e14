"""Settings are read once, and a bad one is misuse that names itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_glia.budget import Budget
from pytest_glia.misuse import Misuse
from pytest_glia.models.settings import ModelSettings, Price
from pytest_glia.settings import Settings

DEFAULTS: dict[str, Any] = {
    "glia_replications": 10,
    "glia_guard_seeds": "fixed",
    "glia_confidence": 0.95,
    "glia_margin": 0.01,
    "glia_timeout": 60.0,
    "glia_command": "",
    "glia_command_env": [],
    "glia_command_timeout": 900.0,
    "glia_executor": "local",
    "glia_workers": 3,
    "glia_designer": "",
    "glia_model": "",
    "glia_base_url": "",
    "glia_api_key_env": "OPENAI_API_KEY",
    "glia_price": [],
    "glia_reasoning_effort": "",
    "glia_model_tools": "native",
    "glia_model_timeout": 300.0,
    "glia_model_context": 128_000,
    "glia_max_output_tokens": 8192,
    "glia_budget": "200 sims, 5 min",
    "glia_sandbox": "auto",
    "glia_allow_imports": [],
    "glia_hand_over": False,
    "--glia-testbed": "sim",
    "--glia-designer": None,
    "--glia-model": None,
    "--glia-budget": None,
    "--glia-contexts": "1",
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


@pytest.mark.parametrize("contexts", ["0", "17", "two", "-1", ""])
def test_contexts_are_a_number_or_seq(contexts: str) -> None:
    """One, some side by side, or one after another."""
    with pytest.raises(pytest.UsageError, match=f"--glia-contexts is {contexts!r}: give 1"):
        settings(**{"--glia-contexts": contexts})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("glia_replications", 1),
        ("glia_replications", -3),
        ("glia_guard_seeds", ""),
        ("glia_guard_seeds", "x" * 81),
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
        ("glia_command_timeout", 0.0),
        ("glia_command_timeout", float("inf")),
        ("glia_executor", "dask"),
        ("glia_workers", -1),
        ("glia_sandbox", "yes"),
        ("glia_base_url", "localhost:8000"),
        ("glia_base_url", "ftp://example.org"),
        ("glia_base_url", "https:///v1"),
        ("glia_api_key_env", "sk-123"),
        ("glia_api_key_env", "MODEL"),
        ("glia_reasoning_effort", "very high"),
        ("glia_model_tools", "json"),
        ("glia_model_timeout", 0.0),
        ("glia_model_timeout", float("inf")),
        ("glia_model_timeout", float("nan")),
        ("glia_model_context", 0),
        ("glia_max_output_tokens", 0),
        ("glia_max_output_tokens", 128_000),
    ],
)
def test_bad_setting_names_itself_and_its_value(name: str, value: object) -> None:
    """The message begins with the setting and what it is."""
    with pytest.raises(pytest.UsageError, match=f"^{name} is {value!r}: "):
        settings(**{name: value})


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m"])
def test_name_of_the_guard_seeds_can_be_shown(text: str) -> None:
    """It is told on the terminal, so what would do something there is refused, and shown escaped."""
    with pytest.raises(pytest.UsageError, match=r"^glia_guard_seeds is 'a") as refused:
        settings(glia_guard_seeds=text)
    assert str(refused.value).isprintable()
    assert settings(glia_guard_seeds="the night of 2026-11-28").guard_seeds == "the night of 2026-11-28"


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


@pytest.mark.parametrize("price", ["3", "1 2 3", "cheap 1", "-1 2", "nan 1", "1 inf"])
def test_price_is_two_numbers(price: str) -> None:
    """Dollars per million tokens, read and written; anything else names the setting."""
    with pytest.raises(pytest.UsageError, match=f"^glia_price is '{price}': give dollars per million"):
        settings(glia_price=price.split())
    assert settings(glia_price=["2.5", "10"]).model.price == Price(2.5, 10)
    assert settings().model.price is None


def test_designer_follows_from_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model configured it is glia, else offline, keys or not; who names a designer gets that one."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    assert settings().designer == "offline"
    assert settings(glia_model="some").designer == "glia"
    assert settings(**{"--glia-model": "some"}).designer == "glia"
    assert settings(**{"--glia-model": "some", "--glia-designer": "offline"}).designer == "offline"
    assert settings(glia_model="some", glia_designer="other").designer == "other"


def test_model_of_the_command_line_wins() -> None:
    """--glia-model replaces glia_model; the rest of its settings is taken as it is."""
    model = settings(
        glia_model="one", glia_base_url="http://127.0.0.1:8000/v1", **{"--glia-model": "two"}
    ).model
    assert (model.name, model.host) == ("two", "127.0.0.1:8000")


MODEL = ModelSettings("some", "http://127.0.0.1:8000/v1")
FREE, PRICED = Price(0, 0), Price(1, 2)


@pytest.mark.parametrize(
    ("model", "budget", "complaint"),
    [
        (ModelSettings(), Budget(tokens=1), "asks a language model, and none is configured"),
        (ModelSettings("some", price=FREE), Budget(10), "has no key OPENAI_API_KEY: set it"),
        (MODEL, Budget(10), "may cost money, and the budget '10 simulations' does not limit it"),
        (replace(MODEL, price=PRICED), Budget(10), "may cost money"),
        (MODEL, Budget(dollars=1), "what the model 'some' costs is not known: set glia_price"),
        (MODEL, Budget(dollars=1, tokens=5), "is not known: set glia_price"),
    ],
)
def test_model_without_a_limit_is_refused(model: ModelSettings, budget: Budget, complaint: str) -> None:
    """No model, no key for OpenAI, no limit to what it may cost, dollars without a price: each a sentence."""
    with pytest.raises(Misuse, match=complaint):
        model.refuse("glia", budget, "")


@pytest.mark.parametrize(
    ("price", "budget"),
    [(None, Budget(tokens=1)), (PRICED, Budget(dollars=1)), (PRICED, Budget(tokens=1)), (FREE, Budget(10))],
)
def test_model_within_a_limit_is_allowed(price: Price | None, budget: Budget) -> None:
    """Tokens limit any model, dollars one with a price; one that costs nothing needs no limit."""
    replace(MODEL, price=price).refuse("glia", budget, "")


def test_no_number_of_workers_means_one_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero workers are at least one, and the workers of xdist share the cores."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    alone = settings(glia_workers=0).workers
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1000")
    assert settings(glia_workers=0).workers == 1 <= alone
    assert settings(glia_workers=3).workers == 3
