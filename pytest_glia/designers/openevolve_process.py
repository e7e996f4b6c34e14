"""The process in which OpenEvolve runs: ``python -m pytest_glia.designers.openevolve_process FOLDER``.

It holds no key and runs no candidate: model and evaluation are asked for at ``GLIA_ENDPOINT``
(`pytest_glia.designers.openevolve`).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

_FOREVER = 10**8  # seconds: it is the run that sets limits

_EVALUATION = "from pytest_glia.designers.openevolve_process import evaluate, name_alike\n\nname_alike()\n"


def evaluate(program_path: str) -> Any:
    """The score of the program in a file, and why it failed if it did, as the library calls it."""
    from openevolve.evaluation_result import EvaluationResult

    body = json.dumps({"program": Path(program_path).read_text("utf-8")}).encode()
    request = urllib.request.Request(
        f"{os.environ['GLIA_ENDPOINT']}/evaluate",
        body,
        {"Authorization": f"Bearer {os.environ['GLIA_ENDPOINT_TOKEN']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        found = json.loads(answer.read())
    return EvaluationResult({"combined_score": found["score"]}, found["failures"])


def name_alike() -> None:
    """Have this process and its workers give the same names in each run.

    The library names programs at random, and the names decide in which order it draws from sets of them: a
    run that goes on, or is replayed, could not come to the same programs.
    """
    names = random.Random(multiprocessing.current_process().name)
    uuid.uuid4 = lambda: uuid.UUID(int=names.getrandbits(128), version=4)


def configuration(statement: str, iterations: int, seed: int) -> Any:
    """The library's, with the settings of the comparison in Glia's paper; one program at a time."""
    from openevolve.config import (
        Config,
        DatabaseConfig,
        EvaluatorConfig,
        LLMConfig,
        LLMModelConfig,
        PromptConfig,
    )

    model = LLMModelConfig(
        name="glia",
        api_base=os.environ["GLIA_ENDPOINT"],
        api_key=os.environ["GLIA_ENDPOINT_TOKEN"],
        timeout=_FOREVER,
        retries=0,
    )
    return Config(
        max_iterations=iterations,
        checkpoint_interval=iterations + 1,
        random_seed=seed,
        language="python",
        diff_based_evolution=False,
        max_code_length=1_000_000,
        llm=LLMConfig(models=[model], timeout=_FOREVER, retries=0),
        prompt=PromptConfig(system_message=statement, num_top_programs=3, num_diverse_programs=2),
        database=DatabaseConfig(population_size=500, num_islands=6, archive_size=100),
        evaluator=EvaluatorConfig(
            timeout=_FOREVER, max_retries=0, cascade_evaluation=False, parallel_evaluations=1
        ),
    )


def main(folder: Path) -> None:
    """Evolve the program of a folder by its task."""
    from openevolve import OpenEvolve

    task = json.loads((folder / "task.json").read_text("utf-8"))
    (folder / "evaluation.py").write_text(_EVALUATION, "utf-8")
    config = configuration(task["statement"], task["iterations"], task["seed"])
    search = OpenEvolve(
        str(folder / "program.py"), str(folder / "evaluation.py"), config, output_dir=str(folder / "output")
    )
    asyncio.run(search.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
