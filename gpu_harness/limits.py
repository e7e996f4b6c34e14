"""What bounds the router proxy."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What bounds the proxy; seconds, and requests."""

    max_queued: int = 1000
    """Requests in the global queue; more are answered with 503."""
    retry_after: int = 1
    """What a 503 tells its client, in seconds."""
    router_time: float = 0.1
    """Of one call of the candidate."""
    router_rest: float = 30.0
    """After a stall, before the candidate is asked again."""
    router_patience: float = 1.0
    """With requests that the candidate holds while all replicas are idle."""
    scrape_interval: float = 0.25
    resolve_interval: float = 10.0
    """Between two questions to DNS."""
    read_timeout: float = 600.0
    """Without a byte from a replica."""
    drain: float = 60.0
    """For open requests, after SIGTERM."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in ("drain", "router_rest") else None
            if not (value > 0 or value == least):
                raise ValueError(f"{field.name}={value!r}; expected a positive number")
