"""Looks for a world in which a policy is beyond its margin, and shrinks it: `python -m specs.hunt LAYER`.

Hypothesis draws the worlds of a layer's family (`specs/families.py`), climbs towards worse ones, and shrinks
the first that is beyond: fewer requests, then shorter gaps and lengths. The policy is run in this process, so
look only for weaknesses of code that is trusted.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st

from sim import Cluster
from sim.layers import policy
from sim.policies import PolicyError
from specs.families import FAMILIES, Family, Found, World

BROKEN = 99.0
"""How far beyond its margin a policy is taken to be that ends the run with a `PolicyError`."""


class Beyond(AssertionError):
    """A world in which the policy is beyond its margin."""


def worlds(family: Family, cluster: str | None = None) -> st.SearchStrategy[World]:
    """The family's, at any of its clusters or at one of them."""

    @st.composite
    def drawn(draw: st.DrawFn) -> World:
        chosen = draw(st.sampled_from(list(family.clusters))) if cluster is None else cluster
        return family.draw(lambda low, high: draw(st.integers(low, high)), chosen)

    return drawn()


class Hunt:
    """What was met while hypothesis looked: the worlds tried, the worst, and the smallest that is beyond."""

    def __init__(self, family: Family, make: Callable[[], Any]) -> None:
        self.family, self.make = family, make
        self.tried = 0
        self.worst: dict[str, float] = {}
        self.smallest: World | None = None
        self.fault = ""

    def judge(self, world: World) -> dict[str, float]:
        """What is asked of the policy in this world alone; one that breaks the protocol is beyond all."""
        cluster = Cluster(**self.family.settings(world.cluster))
        try:
            return self.family.judge(cluster, [world], self.make())
        except PolicyError as error:
            self.fault = " ".join(str(error).split())
            return {"beyond_margin": BROKEN, "worlds_beyond": 1.0}

    def told(self, world: World) -> str:
        """The same in words."""
        found = self.judge(world)
        if found["beyond_margin"] == BROKEN:
            return self.fault
        return ", ".join(f"{name} {value:.3f}" for name, value in found.items())

    def look(self, examples: int, cluster: str | None, seed: int | None = None) -> World | None:
        """The smallest world found beyond the margin in so many examples, or None."""

        @settings(
            max_examples=examples,
            database=None,
            derandomize=seed is None,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.target, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(worlds(self.family, cluster))
        def within(world: World) -> None:
            found = self.judge(world)
            self.tried += self.smallest is None
            for name, value in found.items():
                self.worst[name] = max(value, self.worst.get(name, value))
                if name.startswith("worst_"):
                    target(value, label=name)
            if found["beyond_margin"] > 0:
                self.smallest = world
                raise Beyond(f"beyond by {found['beyond_margin']:.3f}")

        try:
            (within if seed is None else hypothesis.seed(seed)(within))()
        except Beyond:
            return self.smallest
        return None


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report; adds what was found to the layer's file if `--save` asks for it."""
    family = FAMILIES[options.layer]
    if options.margin is not None:
        family = replace(family, compared=dict.fromkeys(family.compared, options.margin))
    named = policy(options.layer, options.candidate or f"candidates/{options.layer}.py")
    hunt = Hunt(family, lambda: named.make(**named.arguments))
    if options.replay:
        yield from _replayed(hunt)
        return
    found = hunt.look(options.examples, options.cluster, options.seed)
    worst = ", ".join(f"{name} {value:.3f}" for name, value in sorted(hunt.worst.items()))
    if found is None:
        yield f"{named.name}: within its margins in all of {hunt.tried} worlds; {worst}"
        return
    measured = hunt.told(found)
    yield f"{named.name}: beyond its margins in world {hunt.tried}; shrunk to"
    yield f"{found}"
    yield f"{measured}"
    if options.save is not None:
        family.keep(Found(found, options.save, measured, options.open))
        yield f"saved in specs/counterexamples/{family.layer}.json"


def _replayed(hunt: Hunt) -> Iterator[str]:
    for each in hunt.family.saved():
        measured = hunt.told(each.world)
        yield f"{'open ' if each.open else ''}{each.world.cluster}, found in {each.found_in}: {measured}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 1 if a world was found."""
    parser = argparse.ArgumentParser(prog="python -m specs.hunt", description=__doc__)
    parser.add_argument("layer", choices=tuple(FAMILIES))
    parser.add_argument("--candidate", metavar="FILE_OR_NAME", help="instead of candidates/LAYER.py")
    parser.add_argument("--examples", type=int, default=1000, help="worlds (default %(default)s)")
    parser.add_argument("--cluster", help="only this one of the family's")
    parser.add_argument("--margin", type=float, help="instead of the family's")
    parser.add_argument("--seed", type=int, help="other worlds than those without")
    parser.add_argument("--replay", action="store_true", help="the saved worlds instead of new ones")
    parser.add_argument("--save", metavar="FOUND_IN", help="keep what is found, with these words")
    parser.add_argument("--open", action="store_true", help="... as not yet asked of the candidate")
    beyond = False
    for line in report(parser.parse_args(arguments)):
        print(line, flush=True)
        beyond = beyond or "beyond its margins" in line
    return int(beyond)


if __name__ == "__main__":
    sys.exit(main())
