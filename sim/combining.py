"""All combinations of policies of the layers, and what each costs: `python -m sim combine`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from string import ascii_lowercase

from sim import naming
from sim.comparing import rows
from sim.layers import LAYERS, Policies, policy
from sim.showing import cluster_of, titles

__all__ = ["report"]

_BAR = 20  # characters for the first combination's value


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report, one for each combination when it is measured.

    All serve the same workloads, one a seed. The first policy of each layer makes the first combination,
    which the others are compared with as in `sim.comparing`; bars show the first metric.
    """
    named = {layer: getattr(options, layer) for layer in LAYERS if getattr(options, layer)}
    if all(len(texts) == 1 for texts in named.values()):
        raise ValueError(
            "one policy a layer makes one combination; expected two of a layer, for example --router llq hra"
        )
    layers = {layer: [policy(layer, text) for text in texts] for layer, texts in named.items()}
    for layer, given in layers.items():
        if len({one.label for one in given}) < len(given):
            raise ValueError(f"a {layer} is given twice; expected different ones")
    layers = {"router": [policy("router", "llq")], **layers}
    cluster = cluster_of(options, autoscaled="autoscaler" in layers)
    metrics = options.metric or ["gpu_hours" if "autoscaler" in layers else "mean_response_time"]
    seeds = range(options.seed, options.seed + options.seeds)
    loads = [naming.workload(options.workload, options.rate, options.duration, seed) for seed in seeds]
    yield from titles(cluster, loads[0], options.workload)
    for layer, given in layers.items():
        for letter, one in zip(ascii_lowercase, given, strict=False):
            yield f"{layer + ' ' + letter if len(given) > 1 else layer:13s}{one.label}"
    varied = [layer for layer, given in layers.items() if len(given) > 1]
    yield (
        f"seeds {seeds[0]} to {seeds[-1]}; means over seeds; change of {metrics[0]} against the first, "
        "95 % interval"
    )
    yield ""
    yield f"{' '.join(layer[0] for layer in varied)}  {', '.join(metrics)}"
    values: dict[str, dict[str, list[float]]] = {}
    for chosen in product(*(enumerate(given) for given in layers.values())):
        policies = Policies(**{layer: one for layer, (_, one) in zip(layers, chosen, strict=True)})
        runs = [policies.serve(cluster, load, seed) for load, seed in zip(loads, seeds, strict=True)]
        letters = dict(zip(layers, (ascii_lowercase[number] for number, _ in chosen), strict=True))
        label = " ".join(letters[layer] for layer in varied)
        try:
            values[label] = {name: [run.metrics[name] for run in runs] for name in metrics}
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        first = next(iter(values))
        pair = {name: values[name] for name in (first, label)}
        _, mean, change, interval = rows(pair, metrics[0])[-1]
        bar = "#" * round(
            _BAR * min(sum(values[label][metrics[0]]) / (sum(values[first][metrics[0]]) or 1), 2)
        )
        others = "".join(f"  {rows(pair, name)[-1][1]:>7s}" for name in metrics[1:])
        yield f"{label}  {mean:>8s}{others}  {change:>7s} {interval:16s}  {bar}".rstrip()
