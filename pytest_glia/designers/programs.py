"""Programs in a model's replies: how they are asked for, read, tried and scored, the same for all rivals.

Best-of-n, FunSearch, EoH and OpenEvolve differ in what they show a model; what they get from it goes through
here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_glia.lab import Lab
from pytest_glia.markdown import fenced
from pytest_glia.merit import SHORTFALL
from pytest_glia.models import Message, Model, Reply, Request
from pytest_glia.trials import Hypothesis, Trial

_FENCE = re.compile(r"^[ \t]*(`{3,})([^`\n]*)\n(.*?)^[ \t]*\1`*[ \t]*$", re.MULTILINE | re.DOTALL)
_ONE = "Give the whole file `{path}` in one fenced block of Python. Do not explain it."
_SEVERAL = (
    "Give each file that you change as a whole, in a fenced block of Python of its own under a line with its "
    "path ({paths}). A file that you leave out stays as it is in the problem. Do not explain them."
)


class Unreadable(Exception):
    """A reply holds no program, for the reason given."""


@dataclass(frozen=True)
class Program:
    """A program that was tried.

    Attributes:
        thought: The idea in a sentence, where the designer asks for one.
        score: Above 0, larger is better, 1 for the present candidate; 0 if it does not work.
        losses: Of its replications, in the order of the development seeds.
    """

    sources: Mapping[str, bytes]
    thought: str
    score: float
    losses: tuple[float, ...]

    @property
    def works(self) -> bool:
        """Whether it does what the specs take for granted, however well."""
        return self.score > 0

    def shown(self) -> str:
        """Its files, as they are shown to a model."""
        single = len(self.sources) == 1
        return "\n\n".join(
            ("" if single else f"`{path}`\n\n") + fenced(text.decode("utf-8", "replace"), "python")
            for path, text in self.sources.items()
        )


def wanted(paths: Sequence[str]) -> str:
    """How a reply has to give its program."""
    if len(paths) == 1:
        return _ONE.format(path=paths[0])
    return _SEVERAL.format(paths=", ".join(f"`{path}`" for path in paths))


def program_in(reply: Reply, start: Mapping[str, bytes]) -> dict[str, bytes]:
    """The sources that a reply gives, by path; raises `Unreadable`.

    Of one file it is the longest block: others are excerpts or examples of use.
    """
    blocks = [(found.start(), found[2], found[3]) for found in _FENCE.finditer(reply.text)]
    if not blocks:
        cut = " (it was cut at the limit of its tokens)" if reply.cut else ""
        raise Unreadable(f"the reply has no fenced block of code{cut}; it begins {reply.text.strip()[:60]!r}")
    if len(start) == 1:
        [path] = start
        return {path: _encoded(max((code for _, _, code in blocks), key=len))}
    found = dict(start)
    for place, language, code in blocks:
        heading = (reply.text[:place].rstrip().splitlines() or [""])[-1] + " " + language
        named = [path for path in start if path in heading]
        if len(named) != 1:
            raise Unreadable(
                f"a block of code stands under {heading.strip()[:60]!r}, where the path of one of "
                f"{', '.join(start)} was expected"
            )
        found[named[0]] = _encoded(code)
    return found


def _encoded(code: str) -> bytes:
    try:
        return code.encode()
    except UnicodeEncodeError as error:
        raise Unreadable(f"the program is no text that can be saved ({error.reason})") from None


def scored(lab: Lab, trial: Trial, thought: str = "") -> Program:
    """What a trial against the start is worth.

    exp(-change of loss / 11). What the goal lacks counts eleven times in the loss, so while it is not met
    this is how many times smaller the candidate makes what is compared (for an absolute limit the
    exponent is the change in shares of it). It is paired on the seeds that both have seen.
    """
    losses = tuple(lab.aim.losses(trial.evaluation))
    change = trial.change.mean
    if change == -math.inf:
        change = lab.aim.loss(trial.evaluation)
    exponent = -change / (1 + SHORTFALL)
    works = trial.result != "broken"
    return Program(trial.evaluation.sources, thought, math.exp(min(exponent, 50.0)) if works else 0.0, losses)


def present(lab: Lab, thought: str = "") -> Program:
    """The candidate that the run starts from, in the same terms."""
    return Program(lab.start.sources, thought, 1.0, tuple(lab.aim.losses(lab.start)))


def ask(lab: Lab, model: Model, prompt: str, role: str) -> Reply:
    """A model's reply to one prompt, without any conversation before it."""
    assert lab.models is not None
    tokens = lab.models.settings.max_tokens
    return model.complete(Request((Message("user", prompt),), max_tokens=tokens, role=role))


def tried(lab: Lab, reply: Reply, name: str, thought: str = "") -> Program:
    """The program in a reply, tried against the specs; one that is no program counts as a candidate, too."""
    hypothesis = Hypothesis(name, thought)
    try:
        sources = program_in(reply, lab.start.sources)
    except Unreadable as error:
        return scored(lab, lab.unreadable(hypothesis, str(error)), thought)
    return scored(lab, lab.full(sources, hypothesis, lab.start), thought)
