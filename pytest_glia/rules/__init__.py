"""Static rules: what the text of a candidate may not say, told before any of it is executed."""

from pytest_glia.rules.checking import violation
from pytest_glia.rules.modules import Modules
from pytest_glia.rules.reading import parsed

__all__ = ["Modules", "parsed", "violation"]
