"""What a vLLM server's /metrics says of its queue, batch and cache, read from Prometheus text."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["NOTHING", "Gauges", "MetricsMissing", "parse"]

_LINE = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|num_preemptions_total"
    rb"|prompt_tokens_total|generation_tokens_total|prefix_cache_queries_total|prefix_cache_hits_total"
    rb"|iteration_tokens_total_count)"
    rb"(?:\{[^\n]*\})? ([0-9.eE+-]+)",
    re.MULTILINE,
)
_CONFIG = re.compile(rb"^vllm:cache_config_info\{([^\n]*)\}", re.MULTILINE)
_LABEL = re.compile(rb'(\w+)="([^"]*)"')
_NEEDED = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


class MetricsMissing(ValueError):
    """A /metrics that is not vLLM's."""


@dataclass(frozen=True)
class Gauges:
    """One scrape; of several engines behind one port (data parallelism) the sum."""

    running: int
    waiting: int
    kv_use: float
    """Fraction of the blocks in use."""
    blocks_total: int
    """KV blocks that requests can have: vLLM keeps one for itself."""
    block_size: int
    """Tokens per block."""
    preemptions: int
    prompt_tokens: int
    """Since the server's start, as are the counts below."""
    generation_tokens: int
    looked_up_tokens: int
    hit_tokens: int
    steps: int

    @property
    def blocks_used(self) -> int:
        """KV blocks that requests hold."""
        return round(self.kv_use * self.blocks_total)


NOTHING = Gauges(0, 0, 0.0, 0, 16, 0, 0, 0, 0, 0, 0)
"""Of a server that has not answered yet."""


def parse(text: bytes) -> Gauges:
    """The gauges in the text of /metrics; MetricsMissing, which names what is not there."""
    found: dict[str, list[float]] = {}
    for name, value in _LINE.findall(text):
        found.setdefault(name.decode(), []).append(float(value))
    missing = [name for name in _NEEDED if name not in found]
    config = [dict(_LABEL.findall(labels)) for labels in _CONFIG.findall(text)]
    if missing or not config:
        name = missing[0] if missing else "cache_config_info"
        raise MetricsMissing(
            f"/metrics has no vllm:{name}; expected the metrics of vLLM (is it a vLLM server, without "
            "--disable-log-stats?)"
        )
    try:
        blocks = sum(int(each[b"num_gpu_blocks"]) - 1 for each in config)
        block_size = int(config[0][b"block_size"])
    except (KeyError, ValueError):
        raise MetricsMissing(
            f"vllm:cache_config_info has the labels {config[0]!r}; expected whole numbers num_gpu_blocks and "
            "block_size"
        ) from None
    total = {name: sum(values) for name, values in found.items()}
    use = found["kv_cache_usage_perc"]
    return Gauges(
        running=int(total["num_requests_running"]),
        waiting=int(total["num_requests_waiting"]),
        kv_use=sum(use) / len(use),
        blocks_total=blocks,
        block_size=block_size,
        preemptions=int(total.get("num_preemptions_total", 0)),
        prompt_tokens=int(total.get("prompt_tokens_total", 0)),
        generation_tokens=int(total.get("generation_tokens_total", 0)),
        looked_up_tokens=int(total.get("prefix_cache_queries_total", 0)),
        hit_tokens=int(total.get("prefix_cache_hits_total", 0)),
        steps=int(total.get("iteration_tokens_total_count", 0)),
    )
