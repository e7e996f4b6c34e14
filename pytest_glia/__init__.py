"""pytest-glia: performance specs as pytest tests, and a design loop that makes them pass."""

__version__ = "0.1.0"
