"""Numbers among the settings, with a sentence of the plugin's own where one is none."""

from __future__ import annotations

import re
from typing import Any

import pytest


def number(config: pytest.Config, name: str, wanted: str) -> Any:
    """A setting that pytest makes a number of; raises `pytest.UsageError` that says what is `wanted`."""
    try:
        return config.getini(name)
    except pytest.UsageError as error:
        # pytest's sentence ends with the value, but does not always name the setting.
        value = re.search(r": ('.*'|\S+)$", str(error))
        raise pytest.UsageError(f"{name} is {value[1] if value else error}: give {wanted}") from None
