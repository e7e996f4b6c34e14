"""The designer eoh, held to the published operators, and to its population."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from pytest_glia.designers.eoh import (
    ELITE,
    POPULATION,
    Operator,
    parent,
    parents,
    prompt,
    survivors,
    thought_in,
)
from pytest_glia.designers.programs import Program
from pytest_glia.models import Reply
from tests.rivals import Played, costing, play
from tests.scripted_model import Says

HEURISTICS = re.compile(
    r"## Heuristic (\d)\n\n(.*?)\n\nScore ([\d.]+)\.\n\n```python\ndef answer\(\):\n    return ([\d.]+)"
)


def program(score: float, text: str = "") -> Program:
    return Program({"a.py": (text or f"return {score}").encode()}, f"It scores {score}.", score, (-score,))


@pytest.mark.parametrize(
    ("operator", "number", "words"),
    [
        ("i1", 0, "Design a new heuristic for this problem."),
        ("e1", 2, "as different from the given ones as possible"),
        ("e2", 2, "First find the idea that the given heuristics have in common"),
        ("m1", 1, "by modifying the given one"),
        ("m2", 1, "First find the main parameters"),
        ("m3", 1, "Then design a simpler one"),
    ],
)
def test_prompt_of_each_operator(operator: Operator, number: int, words: str) -> None:
    """The problem, the parents with thought, score and code, the operator's task, thought first."""
    given = [program(1.5), program(1.2)][:number]
    text = prompt(operator, "# The problem", given, ["a.py"])
    assert text.startswith("# The problem")
    assert re.findall(r"## Heuristic (\d)\n\n(.*)\n\nScore (.*)\.\n", text) == [
        (str(place), each.thought, f"{each.score:.4f}") for place, each in enumerate(given, start=1)
    ]
    assert text.count("```python\nreturn") == number
    task = text.partition("## Your task")[2]
    assert words in task
    assert task.index("in one sentence, inside braces") < task.index("Give the whole file `a.py`")


def test_thought_is_the_sentence_in_braces() -> None:
    """Braces of the code are none of it; without any, what stands before the code is the thought."""
    assert (
        thought_in(Reply("So:\n{Pack the\nlargest first.}\n```python\nx = {1}\n```"))
        == "Pack the largest first."
    )
    assert (
        thought_in(Reply("Pack the largest first.\n\n```python\nx = {1}\n```")) == "Pack the largest first."
    )


def test_tournament_of_three() -> None:
    """The best of three drawn is a parent: the two last of ten never, the first in three of ten draws."""
    population = [program(1 + n / 10) for n in range(10)]
    rng = random.Random(1)
    won = Counter(parent(population, rng).score for _ in range(3000))
    assert won[1.0] == won[1.1] == 0
    assert won[1.9] / 3000 == pytest.approx(0.3, abs=0.03)
    assert parent(population[:2], rng).score == 1.1


def test_one_child_in_ten_is_a_mutation() -> None:
    """Mutations have one parent, and take m1, m2 and m3 alike; others have two, and take e1 and e2 alike."""
    population = [program(1 + n / 10) for n in range(10)]
    rng = random.Random(2)
    made = [parents(population, rng) for _ in range(5000)]
    assert {operator: {len(of) for each, of in made if each == operator} for operator, _ in made} == {
        **{each: {2} for each in ("e1", "e2")},
        **{each: {1} for each in ("m1", "m2", "m3")},
    }
    counted = Counter(str(operator) for operator, _ in made)
    for operator, share in {
        **dict.fromkeys(("e1", "e2"), 0.45),
        **dict.fromkeys(("m1", "m2", "m3"), 0.1 / 3),
    }.items():
        assert counted[operator] / 5000 == pytest.approx(share, abs=0.02)


def test_survivors_are_the_best_that_work_once_each() -> None:
    """Broken programs and second copies are left out, and no more are kept than asked."""
    broken = Program({"a.py": b"?"}, "", 0.0, ())
    found = survivors([program(1.0), program(1.5), broken, program(1.5), program(1.2)], 2)
    assert [each.score for each in found] == [1.5, 1.2]


def replies(number: int, _: str) -> Says:
    """Costs without order, each with a thought; each seventh reply is no program."""
    cost = round(5 + (number * 37) % 400 / 100, 2)
    return Says("Sorry.") if number % 7 == 6 else costing(cost, f"{{It costs {cost}.}}")


def held(played: Played) -> None:
    """The first forty come from the problem alone; parents are of the population, as many as it takes."""
    names = [name.split() for name in played.trials()]
    costs: list[list[float]] = [[]]
    population: list[float] = []
    for place, (name, text) in enumerate(zip(names, played.prompts, strict=False)):
        operator, generation = name[0], int(name[-1])
        if generation == len(costs):
            before = population if generation > 1 else []
            elite = sorted(before)[:ELITE]
            population = sorted({*elite, *costs[-1]})[:POPULATION]
            costs.append([])
        shown = HEURISTICS.findall(text)
        assert (operator == "i1") == (place < POPULATION)
        assert len(shown) == {"i": 0, "e": 2, "m": 1}[operator[0]]
        for number, (heading, thought, _, cost) in enumerate(shown, start=1):
            assert int(heading) == number
            assert thought == f"It costs {cost}."
            assert float(cost) in population
        said = re.search(r"return ([\d.]+)", replies(place, "").text)
        costs[-1] += [float(said[1])] if said else []


@pytest.mark.slow
def test_first_prompts_of_a_search(tmp_path: Path) -> None:
    """A search begins with programs from the problem alone, keeps each thought, and says that it is short."""
    played = play(tmp_path / "project", "eoh", replies, budget="40 sims, 120 s, 10M tokens")
    assert len(played.trials()) > 7, played.ran.out
    held(played)
    assert "fewer than the first population of 40: perhaps no generation follows it." in played.ran.text
    assert "The search ended within the first population of 40: nothing has evolved." in played.ran.text
    [branch] = [each for each in played.project.branches() if each.endswith("/1")]
    assert "It costs 5.0." in played.project.git("log", "--format=%B", branch)


@pytest.mark.slow
def test_prompts_of_a_longer_search(tmp_path: Path) -> None:
    """Two generations after the first forty: each keeps its elite and makes twenty children."""
    played = play(tmp_path / "project", "eoh", replies, budget="350 sims, 600 s, 100M tokens")
    generations = Counter(name.split()[-1] for name in played.trials())
    assert generations["0"] == POPULATION, played.ran.out
    assert generations["1"] == generations["2"] == POPULATION - ELITE
    assert {name.split()[0] for name in played.trials()} >= {"e1", "e2"}
    held(played)
