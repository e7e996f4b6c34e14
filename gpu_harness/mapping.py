"""The file that maps the clusters of specs to servers: read, checked, and asked for the servers of one.

    [[cluster]]
    spec = { gpu = "a10", model = "llama-3-8b" }
    launch = { model = "meta-llama/Llama-3.1-8B-Instruct", devices = ["0", "1", "2", "3"] }
    load = 0.8

Of several clusters the first counts whose `spec` is what the spec says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gpu_harness.launching import NAME, Launch
from sim.cluster import Cluster

__all__ = ["Entry", "NotHonoured", "Servers", "read"]

_OURS = ("replicas", "tensor_parallel", "kv_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens")
"""Settings of a spec's cluster that servers are started with; `prefix_caching` and `autoscaling`, too."""
_KEYS = {
    "spec": dict,
    "launch": dict,
    "urls": list,
    "served": str,
    "load": float,
    "requests": int,
    "start_timeout": float,
    "stall_timeout": float,
    "scrape_interval": float,
    "vocabulary": list,
}
_SETTINGS = {field.name: field.default for field in fields(Cluster)}
_LAUNCH = {field.name for field in fields(Launch)} - {"autoscaling"}


class NotHonoured(Exception):
    """What a spec asks for and the servers cannot do; the message says what, and what to do."""


@dataclass(frozen=True)
class Servers:
    """The servers of one cluster: to be started, or running at URLs under a model's name."""

    launch: Launch | None
    urls: tuple[str, ...]
    served: str
    scrape_interval: float


@dataclass(frozen=True)
class Entry:
    """One cluster of the file.

    Attributes:
        spec: What a spec's cluster must say, by the names of `sim.Cluster`; what it does not say has the
            defaults of that. These servers are declared to have it.
        launch: Fields of `Launch`; what a spec says of them, and the file does not, is taken from the spec.
        urls: Of running servers, instead; each replica has one.
        served: Their model's name.
        load: The fraction of the measured capacity at which workloads are to come; None as they are.
        requests: Of each workload no more than so many of the first; None for all.
        settings: Of `Testbed`: start_timeout, stall_timeout, scrape_interval (seconds), vocabulary.
    """

    spec: Mapping[str, Any]
    launch: Mapping[str, Any] | None
    urls: tuple[str, ...]
    served: str
    load: float | None
    requests: int | None
    settings: Mapping[str, Any]

    def stands_for(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is meant for a cluster with these settings."""
        said = {**_SETTINGS, **settings}
        return all(said[name] == value for name, value in self.spec.items())

    def servers(self, settings: Mapping[str, Any]) -> Servers:
        """Those of a cluster with these settings; NotHonoured if they cannot be as the spec says."""
        said = {
            name: value
            for name, value in settings.items()
            if name not in (*self.spec, "gpu", "model") and value != _SETTINGS[name]
        }
        interval = float(said.pop("staleness", 0.0) or self.settings.get("scrape_interval", 0.25))
        if said.get("engine") == "vllm":
            del said["engine"]
        if self.launch is None:
            return self._running({**_SETTINGS, **settings}["replicas"], said, interval)
        taken = {name: said.pop(name) for name in (*_OURS, "prefix_caching", "autoscaling") if name in said}
        _refuse(said)
        taken["replicas"] = {**_SETTINGS, **settings}["replicas"]
        if "kv_blocks" in settings:  # of the spec's blocks, not of those of vLLM's size
            taken |= {name: {**_SETTINGS, **settings}[name] for name in ("kv_blocks", "block_size")}
        return Servers(Launch(**{**taken, **self.launch}), (), NAME, interval)

    def _running(self, replicas: int, said: dict[str, Any], interval: float) -> Servers:
        said.pop("replicas", None)
        _refuse(said)
        if replicas > len(self.urls):
            raise NotHonoured(f"the spec has {replicas} replicas, and there are {len(self.urls)} urls")
        return Servers(None, self.urls[:replicas], self.served, interval)


def _refuse(said: Mapping[str, Any]) -> None:
    if said:
        listed = ", ".join(f"{name}={value!r}" for name, value in said.items())
        raise NotHonoured(
            f"the spec has {listed}, which these servers are not known to have; if they do, say it in the "
            "cluster's `spec`"
        )


def read(file: Path) -> tuple[Entry, ...]:
    """The clusters of a file, in order; ValueError that names the place and what was expected."""
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no TOML: {error}") from None
    if unknown := sorted(set(content) - {"cluster"}):
        raise ValueError(f"{file} has {unknown[0]!r}; expected [[cluster]] tables and nothing else")
    tables = content.get("cluster")
    if not isinstance(tables, list) or not tables or not all(isinstance(each, dict) for each in tables):
        raise ValueError(f"{file} has no [[cluster]]; expected one or more")
    return tuple(_entry(f"{file}, cluster {number}", table) for number, table in enumerate(tables, 1))


def _entry(place: str, table: dict[str, Any]) -> Entry:
    for name, value in table.items():
        if name not in _KEYS:
            raise ValueError(f"{place} has {name!r}; expected of {', '.join(_KEYS)}")
        kind = _KEYS[name]
        if not (isinstance(value, kind) or (kind is float and type(value) is int)) or type(value) is bool:
            raise ValueError(f"{place}: {name}={value!r}; expected a {kind.__name__}")
    spec, launch, urls = table.get("spec", {}), table.get("launch"), tuple(table.get("urls", ()))
    if unknown := sorted(set(spec) - set(_SETTINGS)):
        raise ValueError(f"{place}: spec has {unknown[0]!r}; expected settings of sim.Cluster")
    if (launch is None) == (not urls):
        raise ValueError(f"{place} has {sorted(table)}; expected one of launch (servers to start) and urls")
    if launch is not None:
        if unknown := sorted(set(launch) - _LAUNCH):
            raise ValueError(f"{place}: launch has {unknown[0]!r}; expected of {', '.join(sorted(_LAUNCH))}")
        launch = {name: tuple(each) if isinstance(each, list) else each for name, each in launch.items()}
        try:
            Launch(**launch)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: launch={launch!r}: {error}") from None
    elif not all(isinstance(url, str) and url.startswith(("http://", "https://")) for url in urls):
        raise ValueError(f"{place}: urls={list(urls)!r}; expected http://HOST:PORT of each server")
    elif "served" not in table:
        raise ValueError(f"{place} has urls and no `served`; expected the model's name at these servers")
    load, most = table.get("load"), table.get("requests")
    if load is not None and not 0 < load < 10:
        raise ValueError(f"{place}: load={load!r}; expected a fraction of the capacity, such as 0.8")
    if most is not None and most < 1:
        raise ValueError(f"{place}: requests={most!r}; expected a number of requests of at least 1")
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in table.items()
        if name in ("start_timeout", "stall_timeout", "scrape_interval", "vocabulary")
    }
    return Entry(spec, launch, urls, table.get("served", ""), load, most, settings)
