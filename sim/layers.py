"""Policies of the three layers by name or file, as the command line gives them, and runs under them.

A policy is a file, `candidates/router.py` or `candidates/router.py:Router`, or a name of this package, with
arguments if it has any: `llq`, `Fixed(replicas=6)`. Oracles are given the workload; their names are marked.
"""

from __future__ import annotations

import ast
import inspect
import random
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import autoscalers, balancing, baselines, schedulers
from sim.cluster import Cluster
from sim.complaints import complaint, nearest
from sim.policies import Place, PolicyError
from sim.results import Run
from sim.streams import POLICY, stream
from sim.workloads import ClosedWorkload, Workload

__all__ = ["LAYERS", "NamedPolicy", "Policies", "policy"]


@dataclass(frozen=True)
class Layer:
    """One of the three layers of the cluster."""

    method: str
    signature: str
    modules: tuple[types.ModuleType, ...]
    short: Mapping[str, str]

    @property
    def names(self) -> dict[str, type]:
        """The policies of this package, by name."""
        listed = {name: getattr(module, name) for module in self.modules for name in module.__all__}
        return {name: found for name, found in listed.items() if callable(getattr(found, self.method, None))}


LAYERS: Mapping[str, Layer] = {
    "router": Layer(
        "route",
        "(queue, replicas, now)",
        (baselines, balancing),
        {
            "rr": "RoundRobin",
            "llq": "LeastLoadedQueue",
            "lor": "LeastOutstandingRequests",
            "hra": "HeadRoomAdmission",
        },
    ),
    "scheduler": Layer(
        "plan", "(engine, now)", (schedulers,), {"fcfs": "FirstComeFirstServed", "spf": "ShortestPromptFirst"}
    ),
    "autoscaler": Layer("target", "(cluster, now)", (autoscalers,), {}),
}
"""By the name of the option."""


@dataclass(frozen=True)
class NamedPolicy:
    """A policy to be made anew for each run."""

    name: str
    layer: str
    path: Path | None
    """Its file; None for one of this package."""
    make: Callable[..., Any]
    arguments: Mapping[str, Any]

    @property
    def is_oracle(self) -> bool:
        """Whether it is given the workload, with all output lengths: only oracles of this package are."""
        return self.path is None and "workload" in inspect.signature(self.make).parameters

    @property
    def label(self) -> str:
        """Its name, an oracle's marked as one."""
        return self.name + (" (oracle, for bounds only)" if self.is_oracle else "")

    def new(self, workload: Workload | ClosedWorkload, seed: int) -> Any:
        """One with nothing learnt; its constructor gets a generator of this seed if it asks for `rng`.

        ValueError if one of this package refuses its arguments, PolicyError if another's constructor raises.
        """
        try:
            wants_rng = "rng" in inspect.signature(self.make).parameters
        except (TypeError, ValueError):
            wants_rng = False
        given = dict(self.arguments)
        if wants_rng:
            given["rng"] = random.Random(int(stream(seed, POLICY).integers(2**63)))
        if self.is_oracle:
            given["workload"] = workload
        try:
            return self.make(**given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self.path is None:
                raise ValueError(f"{self.layer} {self.name}: {error}") from error
            raise complaint(self.make, "__init__", f"making {self.name}", error) from error


@dataclass(frozen=True)
class Policies:
    """A policy for each layer that has one."""

    router: NamedPolicy
    scheduler: NamedPolicy | None = None
    autoscaler: NamedPolicy | None = None

    @property
    def label(self) -> str:
        """Their names."""
        return " + ".join(one.label for one in (self.router, self.scheduler, self.autoscaler) if one)

    def serve(self, cluster: Cluster, workload: Workload | ClosedWorkload, seed: int) -> Run:
        """A run of new ones; PolicyError if a constructor raises, or `Cluster.run` says so."""
        named = {"router": self.router, "scheduler": self.scheduler, "autoscaler": self.autoscaler}
        made = {layer: one.new(workload, seed) for layer, one in named.items() if one is not None}
        return cluster.run(workload, **made)


def policy(layer: str, text: str) -> NamedPolicy:
    """The policy of this layer with this name or file; ValueError or FileNotFoundError if there is none,
    PolicyError if its file raises or has none."""
    if (shipped := _shipped(layer, text)) is not None:
        return shipped
    file, _, entry = text.rpartition(":") if ".py:" in text else (text, "", "")
    path = Path(file)
    if path.suffix != ".py":
        names, short = LAYERS[layer].names, {name: brief for brief, name in LAYERS[layer].short.items()}
        listed = (f"{name} ({short[name]})" if name in short else name for name in names)
        near = nearest(text.partition("(")[0], (*names, *short.values()))
        raise ValueError(
            f"no {layer} is called {text!r}{near}; expected a file ({layer}.py[:{layer.title()}]) or one of "
            f"{', '.join(listed)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"the {layer}'s file is not there: {str(path)!r}")
    try:
        module = _loaded(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise complaint(None, "", f"loading {path}", error) from error
    return NamedPolicy(text, layer, path, _entry(layer, path, module, entry), {})


def _shipped(layer: str, text: str) -> NamedPolicy | None:
    """The policy of this package that is called so; ValueError if its arguments are wrong."""
    name, opening, rest = text.partition("(")
    names = LAYERS[layer].names
    wanted = LAYERS[layer].short.get(name.lower(), name).lower()
    found = next((name for name in names if name.lower() == wanted), None)
    if found is None:
        return None
    parameters = inspect.signature(names[found]).parameters
    try:
        call = ast.parse(f"f({rest}" if opening else "f()", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("expected keywords")
        arguments = {str(each.arg): _literal(each) for each in call.keywords}
        required = {"workload": None} if "workload" in parameters else {}
        inspect.signature(names[found]).bind(**arguments, **required)
    except (SyntaxError, TypeError, ValueError) as error:
        own = [name for name in parameters if name not in ("rng", "workload")]
        expected = f"{found}({', '.join(f'{name}=...' for name in own)})" if own else found
        raise ValueError(f"the {layer} {text!r} cannot be made: {error}; expected {expected}") from error
    return NamedPolicy(found + (f"({rest}" if opening else ""), layer, None, names[found], arguments)


def _literal(keyword: ast.keyword) -> Any:
    try:
        return ast.literal_eval(keyword.value)
    except ValueError:
        given = f"{keyword.arg}={ast.unparse(keyword.value)}"
        raise ValueError(f"{given} is no number, text, True, False or None") from None


def _loaded(path: Path) -> Mapping[str, Any]:
    """What the file defines, in a module of its own that leaves no files behind."""
    module = types.ModuleType(f"candidate at {path}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses of a candidate look themselves up there
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return vars(module)


def _entry(layer: str, path: Path, module: Mapping[str, Any], entry: str) -> Callable[..., Any]:
    """The class of this name, or the one called as the layer is, or the only one with the layer's method."""
    method, usual = LAYERS[layer].method, layer.title()
    classes = {
        name: found
        for name, found in module.items()
        if isinstance(found, type)
        and callable(getattr(found, method, None))
        and found.__module__ == module["__name__"]
    }
    wanted = entry or (usual if usual in classes else next(iter(classes), usual))
    if wanted in classes and (entry or wanted == usual or len(classes) == 1):
        return classes[wanted]
    has = f"has {', '.join(classes)}" if classes else "has none"
    raise PolicyError(
        f"the file {has}; expected a class {wanted if entry or not classes else usual} with a method {method}"
        f"{LAYERS[layer].signature}, or name one as FILE.py:CLASS",
        place=Place(str(path), 1, ""),
    )
