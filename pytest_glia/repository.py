"""Everything that touches git: reading the base, composing a tree of it, and committing candidates.

The user's working tree, index and HEAD are never written: commits are made without an index, and git is
told to take no optional locks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_glia.context import BaseSource
from pytest_glia.misuse import Misuse

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True

_NAME, MAIL = "pytest-glia", "pytest-glia@localhost"
_REMOTE_HEAD = "refs/remotes/origin/HEAD"


_SHALLOW = (
    'against="base" needs the commits before this one, and this is a shallow clone: fetch the whole history '
    "(actions/checkout: fetch-depth: 0; elsewhere: git fetch --unshallow)"
)


class GitFailed(Exception):
    """A git command failed; the message is what git said."""


class Repository:
    """The git repository around a folder. Paths are relative to that folder, with forward slashes."""

    def __init__(self, root: Path) -> None:
        try:
            import git
        except ImportError as error:
            reason = "git is not installed" if "git executable" in str(error) else str(error)
            raise Misuse(f"{reason}: pytest-glia keeps candidates as git commits; install git") from None
        try:
            repo = git.Repo(root, search_parent_directories=True)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError):
            raise Misuse(
                f"{root} is not in a git repository: pytest-glia keeps candidates as git commits; "
                'run "git init", add the spec and the candidate, and commit them'
            ) from None
        if repo.working_tree_dir is None:
            raise Misuse(f"{root} is in a bare git repository: run from a checkout")
        self._error = git.GitCommandError
        self._repo = repo
        self._git = repo.git
        self._git.update_environment(GIT_OPTIONAL_LOCKS="0")
        try:
            self._git.rev_parse("--git-dir")
        except git.GitCommandError as error:
            raise Misuse(f"git refuses to work in {root}: {error.stderr.strip()}") from None
        self.top = Path(repo.working_tree_dir).resolve()
        self.prefix = root.resolve().relative_to(self.top)

    def head(self) -> str:
        """The commit that is checked out; raises `Misuse` if there is none yet."""
        found = self._try("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if found is None:
            raise Misuse(
                f"the git repository {self.top} has no commit yet: commit the spec and the candidate first"
            )
        return found

    def earlier(self, path: str, text: bytes) -> BaseSource:
        """The candidate before the change under test, for ``against="base"``.

        That is where HEAD left the default branch. Where that is HEAD itself, and `text` is what HEAD has, it
        is HEAD's first parent: the last commit is the change, unless this is a branch that has none yet.
        """
        head = self.head()
        try:
            base = self.merge_base(head)
        except Misuse as error:
            return BaseSource(None, str(error), skip=False)
        if base == head and self.read(head, path) == text and not self._is_fresh_branch():
            parent = self._try("rev-parse", "--verify", "--quiet", f"{head}^1^{{commit}}")
            if parent is None and self._is_shallow():
                return BaseSource(None, _SHALLOW, skip=False)
            if parent is None:
                return BaseSource(None, "there is one commit only, so there is no earlier candidate")
            base = parent
        source = self.read(base, path)
        if source is None:
            return BaseSource(None, f"{path} does not exist at the base commit {base[:9]}")
        return BaseSource(source.decode("latin-1"))

    def merge_base(self, commit: str) -> str:
        """Where `commit` left the default branch; itself, if there is no such branch.

        Raises `Misuse` in a shallow clone that lacks it.
        """
        default = self._default_branch()
        base = self._try("merge-base", commit, default) if default else None
        if base is None and self._is_shallow():
            raise Misuse(_SHALLOW)
        return base or commit

    def tip(self, branch: str) -> str | None:
        """The commit of a branch; None if there is no such branch."""
        return self._try("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}")

    def has(self, commit: str) -> bool:
        """Whether there is such a commit."""
        return self._try("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") is not None

    def _is_shallow(self) -> bool:
        return bool(self._git.rev_parse("--is-shallow-repository") == "true")

    def _is_fresh_branch(self) -> bool:
        """Whether a branch other than the default one is checked out."""
        branch = self._try("symbolic-ref", "--quiet", "--short", "HEAD")
        default = self._default_branch()
        return branch is not None and default is not None and default.rpartition("/")[2] != branch

    def read(self, commit: str, path: str) -> bytes | None:
        """The content of a file at a commit; None if it is not there."""
        try:
            content = self._git.cat_file(
                "blob",
                f"{commit}:{self.inside(path)}",
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
        except self._error:
            return None
        return bytes(content)

    def blob(self, content: bytes) -> str:
        """The hash under which git keeps some content; nothing is written."""
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            return str(self._git.hash_object("--stdin", istream=file))

    def is_link(self, commit: str, path: str) -> bool:
        """Whether a file is a symbolic link at a commit."""
        return self._mode(commit, path) == "120000"

    def changed(self) -> list[str]:
        """Files that differ from HEAD or are untracked, relative to the repository's top."""
        status = self._git.status(
            "--porcelain", "-z", "--no-renames", "--untracked-files=all",
            strip_newline_in_stdout=False,
        )  # fmt: skip
        return [line[3:] for line in status.split("\0") if line]

    def branches(self, containing: str) -> dict[str, str]:
        """The commits of the branches ``glia/...`` whose name contains a text, by name."""
        listed = self._git.for_each_ref("--format=%(refname:short) %(objectname)", "refs/heads/glia/")
        found = dict(line.split() for line in listed.splitlines())
        return {name: commit for name, commit in found.items() if containing in name}

    def clone(self, folder: Path, commit: str, without: str) -> None:
        """Make a repository in a new folder that borrows this one's objects, with `commit` checked out.

        It has the same refs, but for those whose names contain the text `without`, and so the same default
        branch; and it is on the same branch, if that is at `commit`.
        """
        self._git.clone("--quiet", "--shared", "--no-checkout", "--no-tags", str(self.top), str(folder))
        other = type(self._repo)(folder).git
        # To git, the branch that is checked out here would be the default one there.
        other.remote("remove", "origin")
        for name in other.for_each_ref("--format=%(refname)").splitlines():
            other.update_ref("-d", name)
        refs = dict(
            line.split() for line in self._git.for_each_ref("--format=%(refname) %(objectname)").splitlines()
        )
        kept = {name: at for name, at in refs.items() if without not in name and not name.endswith("/HEAD")}
        for name, at in kept.items():
            other.update_ref(name, at)
        if default := self._try("symbolic-ref", "--quiet", _REMOTE_HEAD):
            other.symbolic_ref(_REMOTE_HEAD, default)
        other.checkout("--quiet", "--detach", commit)
        branch = self._try("symbolic-ref", "--quiet", "HEAD")
        if branch and kept.get(branch) == commit:
            other.symbolic_ref("HEAD", branch)

    def tree(self, commit: str) -> str:
        """The hash of everything in a commit."""
        return str(self._git.rev_parse(f"{commit}^{{tree}}"))

    def compose(self, commit: str, folder: Path) -> Path:
        """Write a commit's files below `folder`; returns the counterpart of this repository's root.

        Beside it is the index that git uses for that.
        """
        with self._git.custom_environment(GIT_INDEX_FILE=f"{folder}.index"):
            self._git.read_tree(commit)
            self._git.checkout_index("--all", "--force", f"--prefix={folder}/")
        return folder / self.prefix

    def commit(
        self,
        parent: str,
        base: str,
        files: Mapping[str, bytes],
        message: str,
        branch: str,
        when: float,
    ) -> str:
        """Commit `base` with `files` put in its place, as a child of `parent`; moves `branch` to it.

        `when`, in seconds since the epoch, is the commit's date: the same arguments give the same commit.
        `branch` may also be a whole ref, such as ``refs/glia/...``, which is in nobody's way.

        One call of git, which leaves nothing lying about if this process is killed.
        """
        text = message.encode()
        who = f"{_NAME} <{MAIL}> {int(when)} +0000"
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        stream = [
            f"commit {ref}\nmark :1\ncommitter {who}\ndata {len(text)}\n".encode() + text,
            f'from {parent}\nM 040000 {self.tree(base)} ""'.encode(),
        ]
        for path, content in files.items():
            place = self.inside(path).replace("\\", "\\\\").replace('"', '\\"')
            head = f'M {self._mode(base, path)} inline "{place}"\ndata {len(content)}\n'
            stream.append(head.encode() + content)
        stream.append(b"get-mark :1\ndone\n")
        with tempfile.TemporaryFile() as file:
            file.write(b"\n".join(stream))
            file.seek(0)
            return str(
                self._git.fast_import("--quiet", "--force", "--done", "--date-format=raw", istream=file)
            )

    def diff(self, base: str, commit: str, paths: Sequence[str]) -> str:
        """What `commit` changes of some files, as text, whatever the user's configuration of diffs."""
        return str(
            self._git.diff(
                *("--text", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", base, commit),
                *("--", *(f":(top,literal){self.inside(path)}" for path in paths)),
                stdout_as_string=True,
            )
        )

    def run(self, *arguments: str, **environment: str) -> str:
        """What a git command prints; raises `GitFailed` with git's words."""
        try:
            with self._git.custom_environment(**environment):
                return str(self._git.execute(["git", *arguments], stdout_as_string=True))
        except self._error as error:
            raise GitFailed(str(error.stderr).strip().removeprefix("stderr: ").strip("'\n ")) from None

    def _mode(self, base: str, path: str) -> str:
        listed = self._git.ls_tree("--full-tree", base, "--", self.inside(path))
        return listed.split()[0] if listed else "100644"

    def inside(self, path: str) -> str:
        """A path relative to the repository's top."""
        return (self.prefix / path).as_posix()

    def _default_branch(self) -> str | None:
        remote = self._try("symbolic-ref", "--quiet", _REMOTE_HEAD)
        if remote is not None:
            return remote
        names = (
            "refs/remotes/origin/main",
            "refs/heads/main",
            "refs/remotes/origin/master",
            "refs/heads/master",
        )
        return next((name for name in names if self._try("rev-parse", "--verify", "--quiet", name)), None)

    def _try(self, command: str, *arguments: str) -> str | None:
        try:
            return str(getattr(self._git, command.replace("-", "_"))(*arguments)) or None
        except self._error:
            return None
