"""The Supervisor: sees the task and what the Researcher says, has no tools, and asks questions."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_glia.agents.conversation import Conversation
from pytest_glia.models import Model
from pytest_glia.models.settings import ModelSettings

_AGAIN = 2
"""Times that a reply with code in it is asked for again."""

_SHOWN = 12_000
"""Characters of what the Researcher has said since that it is shown."""

_REJECTED = (
    "That holds code or a ready policy, which is not yours to give. Ask a question instead: about a surprise "
    "that is not explained, a claim without an experiment, or a thing that was tried before."
)

_QUESTION = (
    "What have you measured that you did not expect, and which experiment would tell two explanations of it "
    "apart?"
)


@dataclass(frozen=True)
class Remark:
    """What the Supervisor says to the Researcher, and whether it ends the context."""

    text: str
    ends: bool = False


class Supervisor:
    """Speaks when the Researcher ends a turn."""

    def __init__(self, statement: str, model: Model, limits: ModelSettings) -> None:
        self._conversation = Conversation(
            model,
            "supervisor",
            f"{statement}\n\nThe Researcher's turns follow.",
            limits=limits,
        )

    def remark(self, heard: str) -> Remark:
        """A question about what was heard since; raises as the model does.

        A reply with code in it is rejected and asked for again; if there is still some, a question that is
        always fair takes its place.
        """
        self._conversation.say(heard[-_SHOWN:] or "(the Researcher said nothing)")
        for _ in range(1 + _AGAIN):
            text = self._conversation.ask().text.strip()
            if text and not holds_code(text):
                return _remark(text)
            self._conversation.say(_REJECTED)
        return Remark(_QUESTION)


def _remark(text: str) -> Remark:
    """What a reply says; one with a line END, or that begins with END and a stop, ends the context."""
    first, _, rest = text.partition("\n")
    begins = re.fullmatch(r"[\W_]*END[\W_]*?(?:[:.\u2013\u2014]|-(?=\s))[\W_]*(.*)", first)
    if re.fullmatch(r"[\W_]*END[\W_]*", first, re.IGNORECASE):
        return Remark(rest.strip(), ends=True)
    if begins:
        return Remark(f"{begins[1]}\n{rest}".strip(), ends=True)
    lines = text.splitlines()
    others = [line for line in lines if not re.fullmatch(r"[\W_]*END[\W_]*", line)]
    return Remark("\n".join(others).strip(), ends=len(others) < len(lines))


# Where these stand there is code, within a sentence, too.
_INLINE = re.compile(r"```|~~~|\bdef \w+\s*\(|[(=]\s*lambda\b[^:\n]*:")

# Lines over which the brackets of one statement may go.
_LINES = 12
_ITEM = re.compile(r"^(?:[-*+]|\d+[.)])\s+")
"""What an item of a list begins with."""
_SPAN = re.compile(r"`([^`\n]+)`")
_FIGURE = re.compile(r"\s*[\w.]+\s*=\s*[-+\d.e%]+\s*")
"""A name and a number: what was measured, or set, is told so."""


def holds_code(text: str) -> bool:
    """Whether a text holds a block of code, a definition, or lines that are statements of Python.

    A line that Python would accept may still be words: those that bare names and constants are ("return
    home", "if so: explain") do not count.
    """
    if _INLINE.search(text):
        return True
    lines = [_line(line) for line in text.splitlines()]
    spans = (span for span in _SPAN.findall(text) if not _FIGURE.fullmatch(span))
    if any(_is_statement([span]) for span in spans):
        return True
    return any(_is_statement(lines[at : at + _LINES]) for at in range(len(lines)))


def _line(line: str) -> str:
    """A line without the signs of a quotation or a list; nothing if it is a figure in a list."""
    quoted = line.strip().lstrip("> ")
    item = _ITEM.sub("", quoted).strip("`")
    return "" if item != quoted and _ITEM.match(quoted) and _FIGURE.fullmatch(item) else item


def _is_statement(lines: Sequence[str]) -> bool:
    """Whether the first line, with as many more as its brackets are open for, is a statement."""
    for end in range(1, len(lines) + 1):
        source = " ".join(lines[:end])
        if source.endswith(":"):
            source += " pass"
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return any(_does(node, source.encode()) for node in ast.parse(source).body)
        if all(source.count(one) <= source.count(other) for one, other in ("()", "[]", "{}")):
            break
    return False


def _does(node: ast.stmt, source: bytes) -> bool:
    """Whether a statement does something: assigns, imports, defines, gives back what it has worked out, or
    calls something with arguments."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        call = node.value
        # In "Explain (again)" there is a space.
        return bool(call.args or call.keywords) and source[call.func.end_col_offset :][:1] == b"("
    if isinstance(node, ast.AnnAssign):
        return node.value is not None
    if isinstance(node, ast.Return):
        return not isinstance(node.value, (ast.Name, ast.Constant, ast.Tuple, type(None)))
    if isinstance(node, (ast.For, ast.While, ast.If, ast.With, ast.Try)):
        return any(_does(each, source) for each in node.body)
    defines = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, (ast.Assign, ast.AugAssign, ast.Import, ast.ImportFrom, *defines))
