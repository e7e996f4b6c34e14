"""The designer funsearch, held to the published islands, clusters, prompts and resets."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from pytest_glia.designers.funsearch import ISLANDS, RESET, SIZE, Island, prompt, reset, short
from pytest_glia.designers.programs import Program
from tests.rivals import Played, costing, play
from tests.scripted_model import Says

VERSIONS = re.compile(
    r"## Version v(\d+).*?Score ([\d.]+)\.\n\n```python\ndef answer\(\):\n    return ([\d.]+)", re.DOTALL
)


def program(score: float, text: str = "", *losses: float) -> Program:
    return Program({"a.py": (text or f"return {score}").encode()}, "", score, losses or (-score,))


def island(*programs: Program) -> Island:
    found = Island()
    for each in programs:
        found.register(each)
    return found


def test_examples_are_versions_by_rising_score() -> None:
    """A prompt has at most three programs, the best last, as v0, v1, v2, and asks for v3."""
    here = island(program(1.0), program(1.02), program(1.04), program(1.01))
    rng = random.Random(1)
    for _ in range(50):
        examples = here.examples(rng)
        assert len(examples) == 3
        assert [each.score for each in examples] == sorted(each.score for each in examples)
    text = prompt("# The problem", examples, ["a.py"])
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == [
        "Version v0",
        "Version v1, an improved version of v0",
        "Version v2, an improved version of v1",
        "Version v3",
    ]
    assert text.startswith("# The problem")
    assert "Write v3, an improved version of v2" in text


def test_new_island_shows_fewer() -> None:
    """There are no more examples than clusters: at the beginning one."""
    assert len(island(program(1.0)).examples(random.Random(0))) == 1
    assert len(island(program(1.0), program(1.0, "another text")).examples(random.Random(0))) == 1


def test_programs_that_score_alike_on_every_seed_are_a_cluster() -> None:
    """The signature is the losses seed by seed, not their mean."""
    same, other = program(1.0, "x", 0.0, 2.0), program(1.0, "y", 0.0, 2.0)
    shifted = program(1.0, "z", 2.0, 0.0)
    assert list(island(same, other, shifted).clusters().values()) == [[same, other], [shifted]]


def test_shorter_programs_of_a_cluster_are_favoured() -> None:
    """A quarter of the length is drawn e^0.75 times as often."""
    cluster = [program(1.0, "x" * 100), program(1.0, "x" * 400)]
    rng = random.Random(2)
    drawn = Counter(len(short(cluster, rng).sources["a.py"]) for _ in range(4000))
    assert 1.9 < drawn[100] / drawn[400] < 2.4


def test_choice_grows_greedy_as_an_island_fills() -> None:
    """The temperature falls with the number of programs that came, and begins anew in a full island."""

    def share(registered: int) -> float:
        here = island(program(1.0), program(1.1))
        here.registered = registered
        rng = random.Random(3)
        drawn = [each.score for _ in range(1000) for each in here.examples(rng)]
        return drawn.count(1.1) / len(drawn)

    # e^(0.1/0.1), e^(0.1/0.05) and e^(0.1/0.005) to one.
    assert share(SIZE) == pytest.approx(0.73, abs=0.03)
    assert share(SIZE // 2) == pytest.approx(0.88, abs=0.03)
    assert share(SIZE - 1) == 1.0


def test_full_island_loses_its_least() -> None:
    """An island holds twenty programs."""
    here = island(*(program(1.0 + n / 100) for n in range(SIZE + 1)))
    assert len(here.programs) == SIZE
    assert min(each.score for each in here.programs) == 1.01


def test_reset_gives_the_worse_half_a_founder_from_the_better() -> None:
    """Two of five islands start again, each with one program, the best of an island that stays."""
    islands = [island(program(1.0), program(1.0 + n / 10)) for n in (3, 1, 4, 2, 5)]
    before = [list(each.programs) for each in islands]
    reset(islands, random.Random(4))
    assert [list(islands[n].programs) for n in (0, 2, 4)] == [before[n] for n in (0, 2, 4)]
    for place in (1, 3):
        [founder] = islands[place].programs
        assert founder.score in (1.3, 1.4, 1.5)


def replies(number: int, _: str) -> Says:
    """Costs without order; each seventh reply is no program."""
    return Says("Sorry.") if number % 7 == 6 else costing(round(5 + (number * 37) % 100 / 25, 2))


def held(played: Played) -> None:
    """Each prompt shows programs of the island to which the reply went: at most three, one a cluster.

    An island may be one of several, once the worse half was reset: which one, its next prompt tells.
    """
    trials = [list(map(int, re.findall(r"\d+", name))) for name in played.trials()]
    assert [number for number, _ in trials] == list(range(1, len(trials) + 1))
    possible = [[{9.0}] for _ in range(ISLANDS)]
    for (generation, place), text in zip(trials, played.prompts, strict=False):
        shown = [(float(score), float(cost)) for _, score, cost in VERSIONS.findall(text)]
        assert [score for score, _ in shown] == sorted(score for score, _ in shown)
        here = [
            costs
            for costs in possible[place - 1]
            if {cost for _, cost in shown} <= costs and len(shown) == min(3, len(costs))
        ]
        assert here, f"generation {generation} shows {shown} of {possible[place - 1]}"
        assert f"Write v{len(shown)}, " in text
        said = re.search(r"return ([\d.]+)", replies(generation - 1, "").text)
        possible[place - 1] = [costs | ({float(said[1])} if said else set()) for costs in here]
        if generation % RESET == 0:
            assert all(len(each) == 1 for each in possible)
            possible = after_reset([costs for [costs] in possible])


def after_reset(islands: list[set[float]]) -> list[list[set[float]]]:
    """What each may be: as it was, or with one founder; of islands that are equally good any may stay."""
    best = [min(costs) for costs in islands]
    stay = ISLANDS - ISLANDS // 2
    last, first_out = sorted(best)[stay - 1 : stay + 1]
    founders = [{cost} for cost in sorted(set(sorted(best)[:stay]))]
    return [
        ([costs] if least <= last else []) + (founders if least >= first_out else [])
        for costs, least in zip(islands, best, strict=True)
    ]


@pytest.mark.slow
def test_prompts_of_a_search(tmp_path: Path) -> None:
    """In a real search programs stay on their islands; a reply that is no program counts and is not shown."""
    played = play(tmp_path / "project", "funsearch", replies, budget="60 sims, 120 s, 10M tokens")
    assert len(played.trials()) > 12, played.ran.out
    assert "no fenced block of code" in played.ran.out
    held(played)


@pytest.mark.slow
def test_prompts_of_a_whole_search(tmp_path: Path) -> None:
    """A hundred generations, resets included; a second search asks the same."""
    wide = "1000 sims, 600 s, 100M tokens"
    played = play(tmp_path / "project", "funsearch", replies, budget=wide)
    assert len(played.trials()) == 100, played.ran.out
    assert len({name.partition("island ")[2] for name in played.trials()}) == ISLANDS
    held(played)
    again = play(tmp_path / "again", "funsearch", replies, budget="60 sims, 120 s, 10M tokens")
    scores = [VERSIONS.findall(text) for text in again.prompts]
    assert scores == [VERSIONS.findall(text) for text in played.prompts[: len(scores)]]
