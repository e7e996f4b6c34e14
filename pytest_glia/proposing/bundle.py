"""What a search hands over: a git bundle, of which only the texts of candidates and notes may be taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_glia.candidate import Candidate
from pytest_glia.delivery import note_path
from pytest_glia.proposing import Refused
from pytest_glia.repository import GitFailed, Repository
from pytest_glia.visible import visible

_BRANCH = re.compile(r"refs/heads/(glia/([A-Za-z0-9_+-]{1,100})/\d{8}-\d{6}-[0-9a-f]{4}/best)")
_LARGEST_BUNDLE = 10_000_000
_LARGEST_FILE = 1_000_000
_FILES = ("100644", "100755")


@dataclass(frozen=True)
class Change:
    """What a commit does to one file: as ``git diff-tree --raw`` tells, and the size in bytes afterwards."""

    path: str
    before: str
    after: str
    size: int


@dataclass(frozen=True)
class Handed:
    """A design in a bundle: the branch that a search has delivered, and what its one commit changes."""

    name: str
    branch: str
    commit: str
    changes: tuple[Change, ...]

    def checked(self, candidates: Sequence[Candidate], repository: Repository, base: str) -> list[str]:
        """The candidates and notes that it changes, by their paths relative to pytest's root directory.

        Raises:
            Refused: it changes anything else, or more of them than their text.
        """
        sources = {repository.inside(each.path): each.path for each in candidates}
        own = [note_path(repository, base, each) for each in candidates]
        notes = {repository.inside(path): path for path in own}
        for change in self.changes:
            shown = visible(change.path, line=True)
            if change.path not in {**sources, **notes}:
                raise Refused(f"{self.branch} changes {shown!r}, which is neither a candidate nor its note")
            new_note = change.path in notes and (change.before, change.after) == ("000000", "100644")
            if not new_note and (change.before != change.after or change.before not in _FILES):
                raise Refused(
                    f"{self.branch} makes {shown!r} of mode {change.before} one of mode {change.after}: only "
                    "the text of a file may change"
                )
            if change.size > _LARGEST_FILE:
                raise Refused(
                    f"{self.branch} has {change.size} bytes in {shown!r}: {_LARGEST_FILE} is the most"
                )
        return [{**sources, **notes}[change.path] for change in self.changes]


def own_ref(name: str) -> str:
    """Where a design lies while it is looked at: in nobody's way."""
    return f"refs/glia/proposed/{name}"


def handed(repository: Repository, file: Path, base: str) -> list[Handed]:
    """The designs in a bundle, fetched into refs of their own; nothing is checked out.

    The path is absolute.

    Raises:
        Refused: the file is no bundle, or holds anything but branches of one commit on top of `base`.
    """
    if not file.is_file():
        raise Refused(f"there is no file {str(file)!r}")
    if file.stat().st_size > _LARGEST_BUNDLE:
        raise Refused(f"{str(file)!r} has {file.stat().st_size} bytes: {_LARGEST_BUNDLE} is the most")
    try:
        heads = [line.split(" ", 1) for line in _lines(repository.run("bundle", "list-heads", str(file)))]
    except GitFailed as error:
        raise Refused(f"{str(file)!r} is not a git bundle: {_brief(error)}") from None
    found: dict[str, Handed] = {}
    for commit, ref in heads:
        match = _BRANCH.fullmatch(ref)
        if match is None:
            raise Refused(
                f"the bundle holds {visible(ref, line=True)[:200]!r}: only glia/NAME/RUN/best may be in"
            )
        branch, name = match.groups()
        if name in found:
            raise Refused(f"the bundle holds two designs of {name}")
        found[name] = Handed(name, branch, commit, ())
    return [_fetched(repository, file, each, base) for each in found.values()]


def _fetched(repository: Repository, file: Path, design: Handed, base: str) -> Handed:
    try:
        repository.run(
            *("-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--force", "--no-tags"),
            *("--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"),
            *("--", str(file), f"refs/heads/{design.branch}:{own_ref(design.name)}"),
        )
        parents = repository.run("rev-parse", f"{own_ref(design.name)}^@").split()
        commit = repository.run("rev-parse", "--verify", f"{own_ref(design.name)}^{{commit}}")
    except GitFailed as error:
        raise Refused(f"{design.branch} cannot be fetched from the bundle: {_brief(error)}") from None
    if parents != [base] or commit != design.commit:
        raise Refused(
            f"{design.branch} is not one commit on top of the base {base[:9]}: its parents are "
            f"{', '.join(each[:9] for each in parents) or 'none'}"
        )
    return Handed(design.name, design.branch, commit, tuple(_changes(repository, base, commit)))


def _changes(repository: Repository, base: str, commit: str) -> list[Change]:
    raw = repository.run("diff-tree", "-r", "-z", "--raw", "--no-renames", base, commit)
    fields = [field for field in raw.split("\0") if field]
    changes = []
    for head, path in zip(fields[::2], fields[1::2], strict=True):
        before, after, _, blob, _ = head.removeprefix(":").split(" ")
        size = int(repository.run("cat-file", "-s", blob)) if after in _FILES else 0
        changes.append(Change(path, before, after, size))
    return changes


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def _brief(error: GitFailed) -> str:
    return visible(str(error), line=True)[:300]
