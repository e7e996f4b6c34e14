"""Text of candidates and designers as it may be shown: without characters that steer a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls; what ends a line or turns its direction (Unicode's bidi controls); and surrogates, which
# cannot be written at all.
_STEERS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_STEERS}]")
_IN_LINE = re.compile(f"[{_STEERS}\n]")


def visible(text: str, *, line: bool = False) -> str:
    r"""The text with control characters but ``\n`` and ``\t`` as escapes; in a `line` also ``\n``."""
    return (_IN_LINE if line else _IN_TEXT).sub(lambda found: ascii(found[0])[1:-1], text)
