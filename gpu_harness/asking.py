"""What a client asks for: the body and headers of an HTTP request, as a flight through the proxy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from gpu_harness.prompts import Prompts
from gpu_harness.views import Flight

__all__ = ["asked_for"]


def asked_for(
    body: bytes, headers: Mapping[str, str], *, number: int, arrival: float, prompts: Prompts, block_size: int
) -> Flight:
    """The flight of a request; what is no JSON object is one, too, for its server will say what is wrong."""
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    asked = asked if isinstance(asked, dict) else {}
    session, priority = headers.get("X-Session-Id"), asked.get("priority")
    return Flight(
        number,
        arrival,
        prompts.read(asked),
        name=headers.get("X-Request-Id", ""),
        block_size=block_size,
        priority=priority if isinstance(priority, int) and abs(priority) < 2**63 else 0,
        session=None if session is None else _number_of(session),
        ttft_slo=_seconds(headers.get("X-TTFT-SLO")),
        tpot_slo=_seconds(headers.get("X-TPOT-SLO")),
    )


def _number_of(session: str) -> int:
    return int.from_bytes(hashlib.blake2b(session.encode(), digest_size=6).digest(), "big")


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value > 0 else None
