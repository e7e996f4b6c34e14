"""What is found out about a confirmed winner: its ideas taken out, its findings and numbers again."""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_glia.budget import BudgetExhausted
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.designers import Claim, Look, Proposal, Retested
from pytest_glia.designers.source import constants, with_constants
from pytest_glia.merit import Aim, Evaluation, Result, result_of
from pytest_glia.statistics import Interval

_CONSTANTS = 6
"""Of a design that are looked at for how much hangs on them."""

_FACTORS = (0.5, 2.0)

_FEW = slice(4)
"""Of the seeds, as many as something is looked at that is no verdict."""

_SHOWN = 40


@dataclass(frozen=True)
class Ablation:
    """What the winner does without one idea, the change of loss that this makes, and what that shows."""

    evaluation: Evaluation
    change: Interval
    result: Result


@dataclass(frozen=True)
class Rationale:
    """What was found out.

    Attributes:
        ablations: By the name of the claim.
        retested: By the text of the finding, what came of testing it again.
        sensitivity: By constant and value, the change of loss that this makes, and what it shows.
    """

    ablations: Mapping[str, Ablation] = field(default_factory=dict)
    retested: Mapping[str, Retested] = field(default_factory=dict)
    sensitivity: Mapping[str, tuple[Interval, Result]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inquiry:
    """Looks into a confirmed winner, as far as the budget goes.

    Attributes:
        look: On the confirmation seeds.
        margin: A change of loss that is taken for none.
    """

    proposal: Proposal
    confirmed: Evaluation
    aim: Aim
    look: Look
    confidence: float
    margin: float
    write: Callable[[str], None]

    def find_out(self) -> Rationale:
        """Everything, in the order of its importance; what the budget does not allow is left out and said."""
        ablations = dict[str, Ablation]()
        retested = dict[str, Retested]()
        sensitivity = dict[str, tuple[Interval, Result]]()
        try:
            if self.proposal.claims:
                self._ablate(ablations)
            if self.proposal.findings:
                self._retest(retested)
            if not self.proposal.tuning:
                self._vary(sensitivity)
        except (BudgetExhausted, EvaluatorFailed) as error:
            # The design is confirmed all the same.
            self.write(f"  The rest stays unverified: {str(error).splitlines()[0]}")
        return Rationale(ablations, retested, sensitivity)

    def _ablate(self, found: dict[str, Ablation]) -> None:
        """The winner without each of its ideas."""
        self.write("Without each idea, on the same seeds: change of loss (above zero: it is needed)")
        for claim in self.proposal.claims:
            evaluation = self.look(claim.without)
            change, result = self._change(evaluation)
            found[claim.name] = Ablation(evaluation, change, result)
            self.write(f"  {claim.name[:_SHOWN]:<{_SHOWN}} {change} {result}")

    def _retest(self, found: dict[str, Retested]) -> None:
        """Each finding on seeds that the search has not seen."""
        self.write("Each finding again, on seeds that no search has seen:")
        for finding in self.proposal.findings:
            again = found[finding.text] = finding.again(self.look)
            self.write(textwrap.shorten(f"{again.verdict}: {finding.text}", 76, placeholder=" ..."))
            self.write(textwrap.shorten(f"    {again.text}", 240, placeholder=" ..."))

    def _vary(self, found: dict[str, tuple[Interval, Result]]) -> None:
        """Each constant at half and at twice its value."""
        winner = self.proposal.evaluation.sources
        numbers = [(path, name, value) for path in winner for name, value in _constants(winner[path]).items()]
        if numbers:
            self.write("Each constant at half and at twice its value: change of loss")
        for path, name, value in numbers[:_CONSTANTS]:
            for factor in _FACTORS:
                try:
                    other = type(value)(round(value * factor) if isinstance(value, int) else value * factor)
                    of = f"{name} of {path}" if len(winner) > 1 else name
                    label = f"{of} = {other:g} instead of {value:g}"
                except OverflowError:
                    continue
                if other == value:
                    continue
                text = with_constants(winner[path].decode(), {name: other})
                found[label] = self._change(self.look({**winner, path: text.encode()}, on=_FEW))
                self.write(f"  {label[:_SHOWN]:<{_SHOWN}} {found[label][0]} {found[label][1]}")

    def _change(self, of: Evaluation) -> tuple[Interval, Result]:
        change = self.aim.change(of, self.confirmed, self.confidence)
        return change, result_of(change, self.margin)


def uncovered(
    winner: Mapping[str, bytes], start: Mapping[str, bytes], claims: Sequence[Claim]
) -> list[tuple[str, int, str]]:
    """Lines of the winner that are new and that no claim takes out: path, number and text of each.

    Blank lines, comments and docstrings claim nothing, and are left out.
    """
    found = []
    for path, text in winner.items():
        new = _not_in(text, start[path])
        covered = set[int]().union(*(_not_in(text, claim.without[path]) for claim in claims))
        lines, silent = text.decode().splitlines(), _docstrings(text.decode())
        for number in sorted(new - covered - silent):
            line = lines[number - 1]
            if line.strip() and not line.strip().startswith("#"):
                found.append((path, number, line))
    return found


def _constants(source: bytes) -> Mapping[str, int | float]:
    return constants(source.decode("utf-8", "replace"))


def _not_in(text: bytes, other: bytes) -> set[int]:
    """The numbers of a text's lines, from 1, that another one does not have at their place."""
    theirs, ours = other.decode().splitlines(), text.decode().splitlines()
    matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
    changes = [op for op in matcher.get_opcodes() if op[0] != "equal"]
    return {number + 1 for _, _, _, begin, end in changes for number in range(begin, end)}


def _docstrings(source: str) -> set[int]:
    """The numbers of the lines of docstrings."""
    found: set[int] = set()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return found
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found
