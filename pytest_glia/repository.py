"""Everything that touches git: reading the base, composing a tree of it, and committing candidates.

The user's working tree, index and HEAD are never written: commits are made with a temporary index, and
git is told to take no optional locks.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_glia.misuse import Misuse

# A failing spec shows the user's lines, not these.
__tracebackhide__ = True

_IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "pytest-glia"), ("EMAIL", "pytest-glia@localhost"))
}


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
        self._git.update_environment(GIT_OPTIONAL_LOCKS="0", **_IDENTITY)
        self.top = Path(repo.working_tree_dir).resolve()
        self.prefix = root.resolve().relative_to(self.top)

    @classmethod
    def of(cls, root: Path) -> Repository:
        """The repository that holds `root`; raises `Misuse` if there is none."""
        return cls(root)

    def head(self) -> str:
        """The commit that is checked out; raises `Misuse` if there is none yet."""
        found = self._try("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if found is None:
            raise Misuse(
                f"the git repository {self.top} has no commit yet: commit the spec and the candidate first"
            )
        return found

    def branch(self) -> str | None:
        """The branch that is checked out; None if HEAD is detached."""
        return self._try("symbolic-ref", "--quiet", "--short", "HEAD")

    def merge_base(self) -> str | None:
        """Where HEAD left the default branch; on the default branch itself, its first parent.

        None if there is only one commit. Raises `Misuse` in a shallow clone that lacks it.
        """
        head = self.head()
        shallow = self._git.rev_parse("--is-shallow-repository") == "true"
        default = self._default_branch()
        base = self._try("merge-base", head, default) if default else head
        if base == head or (base is None and not shallow):
            base = self._try("rev-parse", "--verify", "--quiet", f"{head}^1^{{commit}}")
        if shallow and (base is None or default is None):
            raise Misuse(
                'against="base" needs the commits before this one, and this is a shallow clone: fetch the '
                "whole history (actions/checkout: fetch-depth: 0; elsewhere: git fetch --unshallow)"
            )
        return base

    def merge_base_of(self, commit: str) -> str:
        """Where a child of `commit` would have left the default branch."""
        default = self._default_branch()
        return (self._try("merge-base", commit, default) if default else None) or commit

    def read(self, commit: str, path: str) -> bytes | None:
        """The content of a file at a commit; None if it is not there."""
        try:
            content = self._git.cat_file(
                "blob",
                f"{commit}:{self._inside(path)}",
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
        except self._error:
            return None
        return bytes(content)

    def blob(self, content: bytes) -> str:
        """The hash under which git keeps some content; nothing is written."""
        with tempfile.NamedTemporaryFile(prefix="glia-") as file:
            file.write(content)
            file.flush()
            return str(self._git.hash_object("--no-filters", file.name))

    def changed(self, paths: Sequence[str] = ()) -> list[str]:
        """Files that differ from HEAD or are untracked, relative to the repository's top."""
        where = [f":(top){self._inside(path)}" for path in paths] or [":(top)"]
        status = self._git.status(
            "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *where,
            strip_newline_in_stdout=False,
        )  # fmt: skip
        return [line[3:] for line in status.split("\0") if line]

    def tree(self, commit: str) -> str:
        """The hash of everything in a commit."""
        return str(self._git.rev_parse(f"{commit}^{{tree}}"))

    def compose(self, commit: str, folder: Path) -> Path:
        """Write a commit's files below `folder`; returns the counterpart of this repository's root."""
        with self._own_index():
            self._git.read_tree(commit)
            self._git.checkout_index("--all", "--force", f"--prefix={folder}/")
        return folder / self.prefix

    def commit(self, parent: str, base: str, files: Mapping[str, bytes], message: str, branch: str) -> str:
        """Commit `base` with `files` put in its place, as a child of `parent`; moves `branch` to it."""
        with self._own_index():
            self._git.read_tree(base)
            with tempfile.TemporaryDirectory(prefix="glia-") as scratch:
                for path, content in files.items():
                    blob = Path(scratch) / "blob"
                    blob.write_bytes(content)
                    sha = self._git.hash_object("-w", "--no-filters", str(blob))
                    mode = self._mode(base, path)
                    self._git.update_index("--add", "--cacheinfo", f"{mode},{sha},{self._inside(path)}")
                text = Path(scratch) / "message"
                text.write_text(message, "utf-8")
                tree = self._git.write_tree()
                commit = str(self._git.commit_tree(tree, "-p", parent, "-F", str(text)))
        self._git.update_ref(f"refs/heads/{branch}", commit)
        return commit

    def _mode(self, base: str, path: str) -> str:
        listed = self._git.ls_tree("--full-tree", base, "--", self._inside(path))
        return listed.split()[0] if listed else "100644"

    def _inside(self, path: str) -> str:
        return (self.prefix / path).as_posix()

    def _default_branch(self) -> str | None:
        remote = self._try("symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
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

    @contextlib.contextmanager
    def _own_index(self) -> Iterator[None]:
        """Let git use an index of its own, deleted afterwards."""
        with (
            tempfile.TemporaryDirectory(prefix="glia-") as folder,
            self._git.custom_environment(GIT_INDEX_FILE=os.path.join(folder, "index")),
        ):
            yield
