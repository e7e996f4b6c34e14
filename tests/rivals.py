"""A small problem for designers that ask a model, and a model that writes a program for each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.project import Project, Result, spec
from tests.scripted_model import Says, ScriptedModel

FILES = spec(
    "def answer():\n    return 9.0\n",
    "def cost(answer, seed):\n    return answer() + seed % 7 / 100\n\n\n"
    'def test_cost(glia):\n    """It costs little."""\n    assert glia.measure(cost) < 3\n',
    "[pytest]\nglia_replications = 4\nglia_workers = 2\naddopts = -p no:cacheprovider\n",
)


@dataclass(frozen=True)
class Played:
    """A search and what its model was asked."""

    project: Project
    ran: Result
    prompts: list[str]

    def trials(self) -> list[str]:
        """What was tried, in order, by the subjects of the commits."""
        [branch] = [each for each in self.project.branches() if each.endswith("/1")]
        log = self.project.git("log", "--reverse", "--format=%s", f"main..{branch}")
        return [line.partition(": ")[2] for line in log.splitlines()]


def costing(value: float, words: str = "") -> Says:
    """A reply whose program costs that much."""
    return Says(f"{words}\n```python\ndef answer():\n    return {value}\n```\n")


def play(
    folder: Path,
    designer: str,
    replies: Callable[[int, str], Says],
    *more: str,
    budget: str = "300 sims, 120 s, 10M tokens",
) -> Played:
    """A search by a designer; `replies` are made of the request's number, from 0, and its prompt."""
    folder.mkdir()
    project = Project(folder).write(FILES)
    project.commit()
    prompts: list[str] = []

    def says(body: dict[str, Any]) -> Says:
        prompts.append("\n\n".join(str(message["content"]) for message in body["messages"]))
        return replies(len(prompts) - 1, prompts[-1])

    with ScriptedModel(says) as model:
        ran = project.pytest(
            "--glia-optimize",
            f"--glia-designer={designer}",
            "--glia-model=scripted",
            f"--glia-budget={budget}",
            *("-o", f"glia_base_url={model.url}", "-o", "glia_price=0 0"),
            *more,
        )
    return Played(project, ran, prompts)
