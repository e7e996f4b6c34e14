"""What may come out of a bundle: texts of the candidate and its note, in one commit on the base."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_glia.candidate import Candidate
from pytest_glia.proposing import Refused
from pytest_glia.proposing.bundle import Handed, handed
from pytest_glia.repository import Repository
from tests.project import PACKING, Project

CANDIDATE, NOTE = "candidates/packer.py", "candidates/packer.md"
BRANCH = "glia/packer/20260102-030405-abcd/best"
FILE, LINK, MODULE, PROGRAM = "100644", "120000", "160000", "100755"
GOOD = {CANDIDATE: (FILE, b"def pack(items):\n    return 1\n"), NOTE: (FILE, b"# pack\n")}

Files = Mapping[str, tuple[str, bytes]]


@dataclass(frozen=True)
class Base:
    """A project with a commit before the base."""

    project: Project
    before: str
    base: str

    def commit(self, files: Files, *parents: str) -> str:
        """A commit of the base's tree with files put in their place; empty ones are taken out."""
        lines = ["commit refs/heads/made", "committer Eve <eve@example.org> now", "data 1", "x"]
        stream = "\n".join(lines).encode() + b"\n"
        first, *others = parents or (self.base,)
        stream += f"from {first}\n".encode() + b"".join(f"merge {each}\n".encode() for each in others)
        stream += f'M 040000 {self.project.git("rev-parse", f"{self.base}^{{tree}}")} ""\n'.encode()
        for path, (mode, content) in files.items():
            if mode == MODULE:
                stream += f"M {mode} {content.decode()} {path}\n".encode()
            elif mode:
                stream += f"M {mode} inline {path}\ndata {len(content)}\n".encode() + content + b"\n"
            else:
                stream += f"D {path}\n".encode()
        subprocess.run(
            ["git", "fast-import", "--quiet", "--force", "--date-format=now"],
            cwd=self.project.folder,
            input=stream,
            check=True,
        )
        return self.project.git("rev-parse", "refs/heads/made")

    def bundle(self, refs: Mapping[str, str], name: str = "designs.bundle") -> Path:
        """A bundle of these refs without what the project has."""
        file = self.project.folder.parent / name
        for ref, commit in refs.items():
            self.project.git("update-ref", ref, commit)
        self.project.git("bundle", "create", "-q", str(file), *refs, "--not", self.before)
        for ref in refs:
            self.project.git("update-ref", "-d", ref)
        self.project.git("update-ref", "refs/heads/main", self.base)
        return file

    def handed(self, files: Files, *parents: str) -> list[Handed]:
        """What is taken of a bundle of one such commit, where the project's own refs do not know it."""
        file = self.bundle({f"refs/heads/{BRANCH}": self.commit(files, *parents)})
        return handed(Repository(self.project.folder), file, self.base)

    def checked(self, files: Files) -> list[str]:
        """The paths that a design of these files may change."""
        [design] = self.handed(files)
        candidates = [Candidate(CANDIDATE, "pack")]
        return design.checked(candidates, Repository(self.project.folder), self.base)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    project = Project(tmp_path_factory.mktemp("bundle") / "project")
    project.folder.mkdir()
    before = project.write({"readme.txt": "one\n"}).commit()
    return Base(project, before, project.write(PACKING).commit())


def test_a_winner_and_its_note_are_taken(base: Base) -> None:
    """They are named; nothing is checked out, and no branch is made."""
    before = base.project.fingerprint()
    assert sorted(base.checked(GOOD)) == [NOTE, CANDIDATE]
    assert base.checked({CANDIDATE: GOOD[CANDIDATE]}) == [CANDIDATE]
    refs = base.project.git("for-each-ref", "--format=%(refname)").split()
    assert refs == ["refs/glia/proposed/packer", "refs/heads/made", "refs/heads/main"]
    after = base.project.fingerprint()
    assert {**after, "refs": ""} == {**before, "refs": ""}


HOSTILE: dict[str, tuple[Files, str]] = {
    "another file": ({"setup.py": (FILE, b"")}, "'setup.py', which is neither"),
    "a workflow": ({".github/workflows/x.yml": (FILE, b"on: push")}, "'.github/workflows/x.yml', which"),
    "a conftest": ({"candidates/conftest.py": (FILE, b"")}, "'candidates/conftest.py', which is neither"),
    "the spec": ({"specs/test_packer.py": (FILE, b"")}, "'specs/test_packer.py', which is neither"),
    "a spec gone": ({"specs/test_packer.py": ("", b"")}, "'specs/test_packer.py', which is neither"),
    "a note elsewhere": ({"packer.md": (FILE, b"")}, "'packer.md', which is neither"),
    "a name that steers": ({'"candidates/\\033[2Jx"': (FILE, b"")}, r"'candidates/\\x1b[2Jx', which"),
    "a link": ({CANDIDATE: (LINK, b"/etc/passwd")}, f"'{CANDIDATE}' of mode 100644 one of mode 120000"),
    "a note that is a link": ({NOTE: (LINK, b"../.git/config")}, "of mode 000000 one of mode 120000"),
    "a note that runs": ({NOTE: (PROGRAM, b"#!/bin/sh")}, "of mode 000000 one of mode 100755"),
    "a program": ({CANDIDATE: (PROGRAM, b"")}, "of mode 100644 one of mode 100755: only the text"),
    "no candidate": ({CANDIDATE: ("", b"")}, "of mode 100644 one of mode 000000"),
    "a submodule": ({CANDIDATE: (MODULE, b"1" * 40)}, "of mode 100644 one of mode 160000"),
    "a submodule beside": ({"more": (MODULE, b"1" * 40)}, "'more', which is neither"),
    "a huge text": ({CANDIDATE: (FILE, b"#" * 1_000_001)}, "has 1000001 bytes in"),
    "a huge note": ({NOTE: (FILE, b"#" * 1_000_001)}, "1000000 is the most"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_else_is_taken(what: str, base: Base) -> None:
    """Beside a winner that could be taken, each of these is named and refused."""
    files, sentence = HOSTILE[what]
    with pytest.raises(Refused) as raised:
        base.checked({**GOOD, **files})
    assert sentence in str(raised.value)


HISTORIES: dict[str, Callable[[Base], Sequence[str]]] = {
    "two commits": lambda base: [base.commit(GOOD)],
    "another base": lambda base: [base.before],
    "a merge": lambda base: [base.base, base.before],
}


@pytest.mark.parametrize("what", HISTORIES)
def test_one_commit_on_the_base(what: str, base: Base) -> None:
    """Two commits, an older base, a merge: the sentence names the parents."""
    with pytest.raises(Refused, match=f"is not one commit on top of the base {base.base[:9]}: its parents"):
        base.handed(GOOD, *HISTORIES[what](base))


def test_a_commit_without_parents(base: Base) -> None:
    """A history of its own has no base at all."""
    tree = base.project.git("rev-parse", f"{base.commit(GOOD)}^{{tree}}")
    lone = base.project.git("commit-tree", "-m", "lone", tree)
    file = base.bundle({f"refs/heads/{BRANCH}": lone})
    with pytest.raises(Refused, match="its parents are none"):
        handed(Repository(base.project.folder), file, base.base)


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main",
        "refs/heads/glia/packer/best",
        "refs/heads/glia/packer/20260102-030405-abcd/1",
        "refs/heads/glia/a/b/20260102-030405-abcd/best",
        "refs/heads/glia/é/20260102-030405-abcd/best",
        "refs/heads/glia/x;id/20260102-030405-abcd/best",
        "refs/tags/glia/packer/20260102-030405-abcd/best",
        "refs/heads/refs/heads/glia/packer/20260102-030405-abcd/best",
    ],
)
def test_only_best_branches(ref: str, base: Base) -> None:
    """Any other name in the bundle, alone or beside a good one, and none of it is taken."""
    commit = base.commit(GOOD)
    file = base.bundle({f"refs/heads/{BRANCH}": commit, ref: commit})
    with pytest.raises(Refused, match="only glia/NAME/RUN/best may be in"):
        handed(Repository(base.project.folder), file, base.base)


def test_two_designs_of_one_candidate(base: Base) -> None:
    """Which of them is meant is not guessed."""
    commit = base.commit(GOOD)
    file = base.bundle(
        {f"refs/heads/{BRANCH}": commit, f"refs/heads/{BRANCH.replace('abcd', 'ffff')}": commit}
    )
    with pytest.raises(Refused, match="holds two designs of packer"):
        handed(Repository(base.project.folder), file, base.base)


def test_what_is_no_bundle(base: Base, tmp_path: Path) -> None:
    """A missing file, another kind of file, half a bundle, one that is too large."""
    repository, file = Repository(base.project.folder), tmp_path / "x.bundle"
    with pytest.raises(Refused, match="there is no file"):
        handed(repository, file, base.base)
    file.write_text("nothing")
    with pytest.raises(Refused, match="is not a git bundle: "):
        handed(repository, file, base.base)
    whole = base.bundle({f"refs/heads/{BRANCH}": base.commit(GOOD)}).read_bytes()
    file.write_bytes(whole[:-30])
    base.project.git(
        "clone", "-q", "--no-local", "--single-branch", "-b", "main", ".", str(tmp_path / "clone")
    )
    with pytest.raises(Refused, match="cannot be fetched from the bundle: "):
        handed(Repository(tmp_path / "clone"), file, base.base)
    with file.open("wb") as large:
        large.truncate(10_000_001)
    with pytest.raises(Refused, match="10000000 is the most"):
        handed(repository, file, base.base)
