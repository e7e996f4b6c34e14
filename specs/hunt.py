"""Looks for a world in which a policy is beyond its margin, and shrinks it: `python -m specs.hunt FAMILY`.

Hypothesis draws the worlds of a family (`specs/families.py`), climbs towards worse ones, and shrinks
the first that is beyond: fewer requests, then shorter gaps and lengths. The policy is run in this process, so
look only for weaknesses of code that is trusted.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st

from sim import Cluster
from sim.layers import NamedPolicy, policy
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

    def __init__(self, family: Family, policies: Sequence[NamedPolicy]) -> None:
        self.family, self.policies = family, policies
        self.tried = 0
        self.worst: dict[str, float] = {}
        self.smallest: World | None = None
        self.fault = ""

    def judge(self, world: World) -> dict[str, float]:
        """What is asked of the policy in this world alone; one that breaks the protocol is beyond all."""
        cluster = Cluster(**self.family.settings(world.cluster))
        made = {each.layer: each.make(**each.arguments) for each in self.policies}
        try:
            return self.family.judge(cluster, [world], made)
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
    """The lines of the report; adds what was found to the family's file if `--save` asks for it.

    ValueError for a cluster that the family has not, for numbers out of range, and for another number of
    candidates than the family has layers; FileNotFoundError or PolicyError for a candidate that is none.
    """
    family = FAMILIES[options.family]
    if options.examples < 1 or (options.margin is not None and options.margin < 0):
        raise ValueError(
            f"--examples {options.examples} and --margin {options.margin}; expected at least 1 world, and a "
            "margin of at least 0 (0.1 for 10 %)"
        )
    if options.cluster is not None:
        family.settings(options.cluster)
    if options.margin is not None:
        family = replace(family, compared=dict.fromkeys(family.compared, options.margin))
    given = options.candidate or list(family.candidates.values())
    if len(given) != len(family.candidates):
        raise ValueError(
            f"--candidate {' '.join(given)}; expected one for each of {', '.join(family.candidates)}, in "
            "this order"
        )
    policies = [policy(layer, text) for layer, text in zip(family.candidates, given, strict=True)]
    name = " + ".join(each.name for each in policies)
    hunt = Hunt(family, policies)
    if options.replay:
        yield from _replayed(hunt)
        return
    found = hunt.look(options.examples, options.cluster, options.seed)
    if found is None:
        worst = ", ".join(f"{metric} {value:.3f}" for metric, value in sorted(hunt.worst.items()))
        yield f"{name}: within its margins in all of {hunt.tried} worlds; {worst}"
        return
    measured = hunt.told(found)
    yield f"{name}: beyond its margins in world {hunt.tried}; shrunk to"
    yield f"{found}"
    yield f"{measured}"
    if options.save is not None:
        family.keep(Found(found, options.save, measured, options.open))
        yield f"saved in specs/counterexamples/{family.name}.json"


def _replayed(hunt: Hunt) -> Iterator[str]:
    for each in hunt.family.saved():
        measured = hunt.told(each.world)
        yield f"{'open ' if each.open else ''}{each.world.cluster}, found in {each.found_in}: {measured}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 1 if a world was found, 2 with a sentence if none can be looked for."""
    parser = argparse.ArgumentParser(prog="python -m specs.hunt", description=__doc__)
    parser.add_argument("family", choices=tuple(FAMILIES))
    parser.add_argument(
        "--candidate", nargs="+", metavar="FILE_OR_NAME", help="instead of the family's own, one a layer"
    )
    parser.add_argument("--examples", type=int, default=1000, help="worlds (default %(default)s)")
    parser.add_argument("--cluster", help="only this one of the family's")
    parser.add_argument("--margin", type=float, help="instead of the family's")
    parser.add_argument("--seed", type=int, help="other worlds than those without")
    parser.add_argument("--replay", action="store_true", help="the saved worlds instead of new ones")
    parser.add_argument("--save", metavar="FOUND_IN", help="keep what is found, with these words")
    parser.add_argument("--open", action="store_true", help="... as not yet asked of the candidate")
    beyond = False
    try:
        for line in report(parser.parse_args(arguments)):
            print(line, flush=True)
            beyond = beyond or "beyond its margins" in line
    except (OSError, ValueError, PolicyError) as error:
        print(f"python -m specs.hunt: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return int(beyond)


if __name__ == "__main__":
    sys.exit(main())
