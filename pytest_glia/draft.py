"""The candidate as an agent is writing it, and the files that the agent may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_glia.lab import Lab
from pytest_glia.visible import abridged

_LINES, _WIDTH = 400, 2_000
"""Of a file that are shown at once, and characters of each."""


class Refused(Exception):
    """Something that cannot be done, with the reason and what to do instead."""


@dataclass(frozen=True)
class Edit:
    """Some text of a file, which occurs there once, and what takes its place."""

    path: str
    old: str
    new: str


@dataclass
class Draft:
    """What is written in one context; nothing of it is run.

    Attributes:
        lab: That evaluates, and knows the files.
        sources: The working text of each candidate file.
    """

    lab: Lab
    sources: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.sources = dict(self.lab.start.sources)

    def files(self) -> dict[str, str]:
        """What may be read, by path, with a word on each."""
        found = dict.fromkeys(self.sources, "the candidate as you are writing it")
        for each in self.lab.candidates:
            found |= {
                path: "exposed by the specs" for path in each.exposes if self.lab.read(path) is not None
            }
        for trial in self.lab.trials:
            found |= {
                f"tried/{trial.number}/{path}": f"{trial.hypothesis.name}: {trial.result}"
                for path in trial.evaluation.sources
            }
        return found

    def read(self, path: str) -> str:
        """A file's text; raises `Refused` for one that may not be read."""
        if path in self.sources:
            return self.sources[path].decode("utf-8", "replace")
        if path in self.files():
            content = self.lab.read(path)
            if content is not None:
                return content.decode("utf-8", "replace")
            _, number, inner = path.split("/", 2)
            [trial, *_] = [each for each in self.lab.trials if str(each.number) == number]
            return trial.evaluation.sources[inner].decode("utf-8", "replace")
        raise Refused(f"there is no file {path!r} to read: there are {', '.join(self.files())}")

    def shown(self, path: str, first: int = 1, count: int = _LINES) -> str:
        """Lines of a file with their numbers."""
        lines = self.read(path).splitlines()
        part = lines[max(0, first - 1) : max(0, first - 1) + min(count, _LINES)]
        numbered = [
            f"{number:5} {abridged(line, _WIDTH)}" for number, line in enumerate(part, start=max(1, first))
        ]
        left = len(lines) - (max(0, first - 1) + len(part))
        return "\n".join([*numbered, *([f"({left} more lines)"] if left > 0 else [])])

    def search(self, text: str) -> str:
        """Lines of all readable files that contain a text."""
        if not text:
            raise Refused("the text to search for is empty: give some")
        found = [
            f"{path}:{number}: {line.strip()[:160]}"
            for path in self.files()
            for number, line in enumerate(self.read(path).splitlines(), start=1)
            if text in line
        ]
        more = f"\n({len(found) - 60} more)" if len(found) > 60 else ""
        return "\n".join(found[:60]) + more or f"nothing contains {text!r}"

    def write(self, path: str, text: str) -> None:
        """Replace a candidate file's whole text; raises `Refused` for another file or a broken rule."""
        self._own(path)
        self._take({**self.sources, path: text.encode()})

    def edit(self, edits: Sequence[Edit]) -> None:
        """Work exact-match edits into the candidate, all or none; raises `Refused`."""
        self._take(self.edited(edits))

    def edited(self, edits: Sequence[Edit], sources: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """The sources (by default those being written) with edits worked in; raises `Refused`."""
        found = dict(self.sources if sources is None else sources)
        for edit in edits:
            self._own(edit.path)
            text = found[edit.path].decode()
            count = text.count(edit.old) if edit.old else 0
            if count != 1:
                raise Refused(
                    f"the text to replace occurs {count} times in {edit.path}: give one that occurs once, "
                    f"with its white space; it begins {edit.old[:60]!r}"
                )
            found[edit.path] = text.replace(edit.old, edit.new).encode()
        return found

    def _own(self, path: str) -> None:
        if path not in self.sources:
            raise Refused(f"{path!r} is no candidate file: you may write {', '.join(self.sources)}")

    def _take(self, sources: dict[str, bytes]) -> None:
        if broken := self.lab.fault(sources):
            raise Refused(f"not written: {broken}")
        self.sources = sources
