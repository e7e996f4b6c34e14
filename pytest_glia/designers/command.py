"""The designer command: any coding agent that a shell can start, in a folder with what a designer may see."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_glia.attended import Attended, attend
from pytest_glia.budget import BudgetExhausted
from pytest_glia.childprocess import without_secrets
from pytest_glia.designers import Proposal
from pytest_glia.designers.glia import Ended, proposal
from pytest_glia.draft import Refused
from pytest_glia.lab import Lab
from pytest_glia.markdown import fenced
from pytest_glia.misuse import Misuse
from pytest_glia.models.recorded import RecordEnded
from pytest_glia.playground import Playground
from pytest_glia.settings import Settings
from pytest_glia.trials import Hypothesis

_FRUITLESS = 3
"""Rounds in a row that leave nothing to measure, after which the search ends."""

_LARGEST = 1 << 20
"""Bytes of a candidate file."""

_NOTE = 2000
"""Characters of the agent's own note that are kept with its candidate."""

_TASK = """\
{statement}
## What to do here

Work in this folder. {files} is what you design: edit it in place. Whatever else you change here is ignored.
What was tried before, and what came of it, is in `RESULTS.md`; earlier candidates are in `tried/`.

End when the candidate is as you want it measured: then it is run against the specs, and if more is to be
done you are started again, in a folder like this one with the best candidate so far and the new results.
Write the idea in it into `DESIGN.md`: a title on the first line, then what it changes, and why that should
help. A round takes {seconds:.0f} s at most.
"""


@dataclass(frozen=True)
class Left:
    """What a round of the command has left.

    Attributes:
        ended: How it ended, in words.
        said: The end of what it has printed.
        sources: The candidate's files, by path.
        refused: Why there is no candidate; empty if there is one.
        note: What the agent has written of it.
    """

    ended: str
    said: str
    sources: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    note: str = ""


class CommandDesigner:
    """Runs ``glia_command`` round by round; what it leaves in the candidate's path is the candidate."""

    def check(self, settings: Settings) -> None:
        """Raise `Misuse` where there is no command, or not the environment that it is to have."""
        if not settings.command.strip():
            raise Misuse(
                "the designer 'command' has no command: set glia_command to what starts your agent, such as "
                "glia_command = 'codex exec --sandbox workspace-write - < TASK.md'"
            )
        for name in settings.command_env:
            if name not in os.environ:
                raise Misuse(
                    f"glia_command_env names {name!r}, which is not in the environment: set it, or drop it"
                )

    def design(self, lab: Lab) -> Proposal:
        """Work until the specs are met, the budget is spent, or round after round leaves nothing new."""
        playground = Playground(lab, lab.name)
        reason = _rounds(playground)
        lab.say(f"The search ended because {reason}.")
        return proposal(lab, [Ended(playground, (), reason)])


class _Nothing(Exception):
    """There is nothing to measure, and why."""


def _rounds(playground: Playground) -> str:
    """Run them; why there is no further one."""
    lab, results, fruitless = playground.lab, list[str](), 0
    while not playground.best.met():
        number = len(results) + 1
        try:
            left = _round(playground, number, results)
            lab.say(f"Round {number}: {left.ended}.")
            result = _measured(playground, left, number)
            fruitless = 0
        except BudgetExhausted as error:
            return str(error)
        except _Nothing as nothing:
            fruitless += 1
            words = left.said.strip().splitlines()[-1:]
            lab.say(
                " ".join([f"Nothing to measure: {nothing}.", *(f"It said: {each[-200:]}" for each in words)])
            )
            if fruitless == _FRUITLESS:
                return f"{fruitless} rounds in a row left nothing to measure: {nothing}"
            result = f"Nothing to measure: {nothing}.\n\nThe end of what was printed:\n\n{fenced(left.said)}"
        results.append(f"## Round {number}: {left.ended}\n\n{result}")
    return "the specs are met on the development seeds"


def _measured(playground: Playground, left: Left, number: int) -> str:
    """What the specs say of the candidate that a round has left; raises `_Nothing` or `BudgetExhausted`."""
    if left.refused:
        raise _Nothing(left.refused)
    title, _, text = left.note.strip().partition("\n")
    name = title.strip("# ")[:60] or f"round {number} of the command"
    playground.sources = {path: text.encode() for path, text in left.sources.items()}
    try:
        trial = playground.evaluate(Hypothesis(name, text.strip()))
    except Refused as refused:
        raise _Nothing(str(refused)) from None
    finally:
        playground.sources = dict(playground.best.sources)
    if trial.result == "broken":
        raise _Nothing("; ".join(trial.evaluation.reasons))
    return playground.describe(trial)


def _round(playground: Playground, number: int, results: list[str]) -> Left:
    """What the command leaves, by running it; in a run that goes on after a kill, what it has left.

    Likewise that the budget did not allow it.
    """
    lab = playground.lab
    with lab.ending(f"round {number}"):
        ran = lab.recorded(f"round {number}", lambda: json.dumps(asdict(_ran(playground, number, results))))
    return Left(**json.loads(ran))


def _ran(playground: Playground, number: int, results: list[str]) -> Left:
    lab = playground.lab
    settings = lab.settings
    if not lab.account.timed:
        raise RecordEnded(f"the record of the run ends before round {number}, and a replay starts no command")
    for kind in ("simulations", "seconds"):
        if lab.account.left(kind) <= 0:
            raise lab.account.exhausted(kind)
    seconds = min(settings.command_timeout, lab.account.seconds_left())
    log = lab.folder / f"command-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    named = {name: os.environ[name] for name in settings.command_env}
    # Outside the project, whose history a git command would find from below it.
    with tempfile.TemporaryDirectory(prefix="glia-command-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve() / "work"
        environment = {**_environment(), **named, "PWD": str(folder)}
        _lay_out(folder, playground, seconds, results)
        lab.say(f"Round {number} prints to {log.relative_to(lab.folder.parents[2])}")
        attended = attend(settings.command, folder, environment, seconds, log)
        return _left(folder, tuple(playground.sources), attended)


def _environment() -> dict[str, str]:
    """Of this process, without secrets, and without what would lead to the project."""
    ours = ("PYTEST_", "GIT_", "OLDPWD")
    return {name: value for name, value in without_secrets(os.environ).items() if not name.startswith(ours)}


def _lay_out(folder: Path, playground: Playground, seconds: float, results: list[str]) -> None:
    """Write what a designer may see into a new folder."""
    task = _TASK.format(
        statement=playground.lab.statement,
        files=" and ".join(f"`{path}`" for path in playground.sources),
        seconds=seconds,
    )
    head = "# Results\n\nThe candidate here is the best so far. Rounds in order:"
    files = {path: playground.read(path) for path in playground.files()}
    files |= {"TASK.md": task, "RESULTS.md": "\n\n".join([head, *(results or ["none yet"])]) + "\n"}
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def _left(folder: Path, paths: tuple[str, ...], attended: Attended) -> Left:
    try:
        sources = {path: _text(folder, path) for path in paths}
    except _Nothing as nothing:
        return Left(attended.describe(), attended.said, refused=str(nothing))
    try:
        note = _text(folder, "DESIGN.md")[:_NOTE]
    except _Nothing:
        note = ""
    return Left(attended.describe(), attended.said, sources, note=note)


def _text(folder: Path, path: str) -> str:
    """A file that the agent has left; one that it might have put in another's place is none."""
    file = folder / path
    try:
        if not stat.S_ISREG(file.lstat().st_mode) or file.resolve() != file:
            raise _Nothing(f"{path} is, or is reached by, a symbolic link or no file: leave a plain file")
        if (size := file.lstat().st_size) > _LARGEST:
            raise _Nothing(f"{path} has {size} bytes: leave at most {_LARGEST}")
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Nothing(f"{path} is not UTF-8 ({error}): save it as UTF-8") from None
    except FileNotFoundError:
        raise _Nothing(f"{path} is gone: leave it in its place") from None
    except OSError as error:
        raise _Nothing(f"{path} cannot be read ({error}): leave a file that can") from None
