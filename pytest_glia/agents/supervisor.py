"""The Supervisor: sees the task and what the Researcher says, has no tools, and asks questions."""

from __future__ import annotations

import ast
import re
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
                first, _, rest = text.partition("\n")
                if first.strip().rstrip(".").upper() == "END":
                    return Remark(rest.strip(), ends=True)
                return Remark(text)
            self._conversation.say(_REJECTED)
        return Remark(_QUESTION)


def holds_code(text: str) -> bool:
    """Whether a text holds a block of code, or lines that are statements of Python rather than words."""
    if re.search(
        r"```|~~~|^\s*(def|class|import|from|return|while|elif|lambda)\b.*[:=(]", text, re.MULTILINE
    ):
        return True
    return any(_is_statement(line.strip()) for line in text.splitlines())


def _is_statement(line: str) -> bool:
    """Whether a line is an assignment or a call with arguments, as no sentence is."""
    if not re.search(r"[=(]", line):
        return False
    try:
        [node] = ast.parse(line).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
