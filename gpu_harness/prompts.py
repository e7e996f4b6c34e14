"""How many tokens the prompt of an OpenAI request has, and hashes of its blocks."""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["BYTES_PER_TOKEN", "Prompt", "Prompts", "Tokenizer"]

BYTES_PER_TOKEN = 4
"""Of UTF-8 text, where no tokenizer is given: an estimate, put right when the server tells its `usage`."""


class Tokenizer(Protocol):
    """Turns text into token ids."""

    def __call__(self, text: str) -> Sequence[int]: ...


class Prompt:
    """One request's prompt: its length in tokens, and, when asked, hashes of its full blocks."""

    __slots__ = ("_data", "_key", "_unit", "tokens")

    def __init__(self, tokens: int, data: bytes, unit: int, key: bytes) -> None:
        """`data` takes `unit` bytes a token."""
        self.tokens = tokens
        self._data, self._unit, self._key = data, unit, key

    def hashes(self, block_size: int) -> tuple[int, ...]:
        """Signed 64-bit hashes of the full blocks of so many tokens, each over all that comes before, too."""
        step = block_size * self._unit
        found, before = [], b""
        for start in range(0, len(self._data) - step + 1, step):
            before = hashlib.blake2b(
                before + self._data[start : start + step], digest_size=8, key=self._key
            ).digest()
            found.append(int.from_bytes(before, "big", signed=True))
        return tuple(found)


class Prompts:
    """Reads prompts. Hashes are keyed with a secret of this object: no text can be guessed from them."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer
        self._key = secrets.token_bytes(16)

    @classmethod
    def with_tokenizer(cls, path: str | Path) -> Prompts:
        """With the tokenizer of a model folder or a `tokenizer.json`; FileNotFoundError if it has none."""
        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(
                f"tokenizer={str(path)!r}; expected a tokenizer.json or a folder with one"
            )
        from tokenizers import Tokenizer as Fast

        fast = Fast.from_file(str(file))
        return cls(lambda text: fast.encode(text).ids)

    def read(self, body: Mapping[str, Any]) -> Prompt:
        """The prompt of a body of /v1/completions or /v1/chat/completions.

        Token ids are counted exactly. Text is what the tokenizer makes of it, or `BYTES_PER_TOKEN` bytes a
        token; of a chat it is the text of all messages, without what its template adds.
        """
        prompt = body.get("prompt")
        if prompt is None:
            prompt = "".join(_texts(body.get("messages")))
        elif isinstance(prompt, list) and prompt and isinstance(prompt[0], list | str):
            flat = [
                self._of(each) for each in prompt
            ]  # several prompts in one request: one length, no hashes
            return Prompt(sum(each.tokens for each in flat), b"", 1, self._key)
        return self._of(prompt)

    def _of(self, prompt: Any) -> Prompt:
        if isinstance(prompt, str):
            if self._tokenizer is None:
                data = prompt.encode("utf-8", "surrogatepass")
                return Prompt(max(1, -(-len(data) // BYTES_PER_TOKEN)), data, BYTES_PER_TOKEN, self._key)
            prompt = self._tokenizer(prompt)
        try:
            ids = array("I", prompt)
        except (TypeError, ValueError, OverflowError):
            return Prompt(1, b"", 1, self._key)  # no prompt at all: the server will say so
        return Prompt(max(1, len(ids)), ids.tobytes(), ids.itemsize, self._key)


def _texts(messages: Any) -> list[str]:
    """All text in a chat's messages."""
    found: list[str] = []
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, list):
            found += [str(part["text"]) for part in content if isinstance(part, dict) and "text" in part]
    return found
