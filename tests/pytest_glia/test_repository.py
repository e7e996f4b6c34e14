"""Git: what is read of it, and that the user's checkout is never written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_glia.misuse import Misuse
from pytest_glia.repository import Repository
from tests.project import MakeProject, Project


@pytest.fixture(autouse=True)
def _no_git_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's git settings, or a git hook that runs the tests, play no part."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    """Two commits on main; the second changes the candidate."""
    project = make_project({"a.py": "one\n", "keep.txt": "kept\n"})
    project.write({"a.py": "two\n"}).commit()
    return project


def repository(project: Project, folder: str = ".") -> Repository:
    return Repository(project.folder / folder)


def test_folder_without_repository(tmp_path: Path) -> None:
    """The error says what to do."""
    with pytest.raises(Misuse, match=r'not in a git repository.*"git init"'):
        Repository(tmp_path)


def test_bare_repository(make_project: MakeProject) -> None:
    """A repository without a working tree is no place for specs."""
    project = make_project({}, commit=False)
    project.git("init", "-q", "--bare", ".")
    with pytest.raises(Misuse, match="bare git repository"):
        repository(project)


def test_repository_without_commit(make_project: MakeProject) -> None:
    """There is no head yet; the error says to commit."""
    project = make_project({"a.py": ""}, commit=False)
    project.git("init", "-q", "-b", "main")
    with pytest.raises(Misuse, match="no commit yet: commit the spec"):
        repository(project).head()


def test_file_is_read_byte_for_byte(project: Project) -> None:
    """Bytes of any kind, trailing newlines or none."""
    content = b"\xff\0 no utf-8\r\n\n\n"
    (project.folder / "a.py").write_bytes(content)
    (project.folder / "empty.py").write_bytes(b"")
    project.commit()
    assert repository(project).read("HEAD", "a.py") == content
    assert repository(project).read("HEAD", "empty.py") == b""
    assert repository(project).read("HEAD~1", "a.py") == b"two\n"


def test_file_that_a_commit_lacks_is_none(project: Project) -> None:
    """Neither a missing file nor a folder is content."""
    project.write({"folder/b.py": ""}).commit()
    assert repository(project).read("HEAD", "other.py") is None
    assert repository(project).read("HEAD", "folder") is None


def test_paths_are_relative_to_the_folder(project: Project) -> None:
    """A root directory below the repository's top sees its own files, and composes to its counterpart."""
    project.write({"sub/dir/a.py": "inner\n"}).commit()
    inner = repository(project, "sub/dir")
    assert inner.read("HEAD", "a.py") == b"inner\n"
    assert inner.compose("HEAD", project.folder.parent / "tree") == project.folder.parent / "tree/sub/dir"
    assert (project.folder.parent / "tree/sub/dir/a.py").read_text() == "inner\n"
    assert (project.folder.parent / "tree/a.py").read_text() == "two\n"
    commit = inner.commit(inner.head(), inner.head(), {"a.py": b"new\n"}, "m", "glia/x", 0)
    assert project.git("diff", "--name-only", f"HEAD..{commit}") == "sub/dir/a.py"


def test_changed_files_are_found(project: Project) -> None:
    """Edited, staged, untracked, deleted; names with blanks and other letters as they are."""
    project.write({"a.py": "edited\n", "new file ü.py": "x\n", "staged.py": "x\n"})
    project.git("add", "staged.py")
    (project.folder / "keep.txt").unlink()
    found = repository(project)
    assert sorted(found.changed()) == ["a.py", "keep.txt", "new file ü.py", "staged.py"]


def test_nothing_changed(project: Project) -> None:
    """A clean checkout has no changes."""
    assert repository(project).changed() == []


def test_composed_tree_is_the_commit(project: Project) -> None:
    """Changes of the working tree are not in it; every file of the commit is, with its mode."""
    (project.folder / "run.sh").write_text("#!/bin/sh\n")
    (project.folder / "run.sh").chmod(0o755)
    project.commit()
    project.write({"a.py": "edited\n", "new.py": ""})
    tree = project.folder.parent / "tree"
    repository(project).compose("HEAD", tree)
    assert sorted(each.name for each in tree.iterdir()) == ["a.py", "keep.txt", "run.sh"]
    assert (tree / "a.py").read_text() == "two\n"
    assert (tree / "run.sh").stat().st_mode & 0o100


def test_commit_changes_nothing_of_the_users(project: Project) -> None:
    """Index, HEAD, working tree and branches stay byte for byte, staged and unstaged work included."""
    project.write({"a.py": "staged\n"}).git("add", "a.py")
    project.write({"a.py": "edited\n", "new.py": ""})
    before = project.fingerprint()
    found = repository(project)
    found.changed()
    found.compose(found.head(), project.folder.parent / "tree")
    found.commit(found.head(), found.head(), {"a.py": b"glia\n"}, "glia", "glia/a/1", 0)
    assert project.fingerprint() == before


def test_commit_holds_the_base_with_the_files_in_place(project: Project) -> None:
    """Only the given files differ from the base, whatever the parent holds; the branch moves to it."""
    found = repository(project)
    base = found.head()
    first = found.commit(base, base, {"a.py": b"x\n", "extra.py": b""}, "first", "glia/a/1", 1)
    second = found.commit(first, base, {"a.py": b"y\r\n"}, "second\n\nTrailer: 1\n", "glia/a/1", 2)
    assert project.git("rev-parse", "glia/a/1") == second
    assert project.git("rev-parse", f"{second}^") == first
    assert project.git("diff", "--name-only", f"{base}..{second}") == "a.py"
    assert found.read(second, "a.py") == b"y\r\n"
    assert project.git("log", "-1", "--format=%B", second) == "second\n\nTrailer: 1"


def test_commit_needs_no_identity(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without user.name and user.email still keeps candidates, signed as the plugin's."""
    monkeypatch.setenv("HOME", "/nonexistent")
    found = repository(project)
    commit = found.commit(found.head(), found.head(), {"a.py": b""}, "m", "glia/a/1", 0)
    assert project.git("log", "-1", "--format=%an %cn", commit) == "pytest-glia pytest-glia"


def test_commit_runs_no_hook_and_no_filter(project: Project) -> None:
    """The user's hooks and line-ending settings do not touch a candidate's text."""
    project.write({".gitattributes": "*.py text eol=crlf\n"}).commit()
    hook = project.folder / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {project.folder}/hooked\n")
    hook.chmod(0o755)
    found = repository(project)
    commit = found.commit(found.head(), found.head(), {"a.py": b"x\r\ny\n"}, "m", "glia/a/1", 0)
    assert found.read(commit, "a.py") == b"x\r\ny\n"
    assert not (project.folder / "hooked").exists()


def test_commit_keeps_the_mode_of_a_file(project: Project) -> None:
    """An executable candidate stays one."""
    (project.folder / "a.py").chmod(0o755)
    project.commit()
    found = repository(project)
    commit = found.commit(found.head(), found.head(), {"a.py": b"", "b.py": b""}, "m", "glia/a/1", 0)
    modes = {line.split()[-1]: line.split()[0] for line in project.git("ls-tree", commit).splitlines()}
    assert (modes["a.py"], modes["b.py"]) == ("100755", "100644")


def test_blob_hash_is_gits_own(project: Project) -> None:
    """Anyone can compute it from the file again."""
    assert repository(project).blob(b"two\n") == project.git("rev-parse", "HEAD:a.py")


def test_base_on_the_default_branch_is_the_parent(project: Project) -> None:
    """On main, what was there before the last commit."""
    now = (project.folder / "a.py").read_bytes()
    before = project.show("HEAD~1", "a.py").encode()
    assert repository(project).earlier("a.py", now).text().strip() == before
    assert repository(project).earlier("a.py", b"edited").text() == now


def test_base_of_a_branch_without_commits_is_its_start(project: Project) -> None:
    """A new branch has changed nothing yet; what main changed last is not its doing."""
    project.git("switch", "-q", "-c", "feature")
    now = (project.folder / "a.py").read_bytes()
    assert repository(project).earlier("a.py", now).text() == now


def test_base_on_a_branch_is_where_it_left_the_default_branch(project: Project) -> None:
    """However many commits the branch has, and wherever main has gone since."""
    left = project.git("rev-parse", "HEAD")
    project.git("switch", "-q", "-c", "feature")
    project.write({"a.py": "three\n"}).commit()
    project.write({"a.py": "four\n"}).commit()
    project.git("switch", "-q", "main")
    project.write({"keep.txt": "newer\n"}).commit()
    project.git("switch", "-q", "feature")
    assert repository(project).merge_base("feature") == left


def test_base_of_a_detached_head_is_found_too(project: Project) -> None:
    """What CI checks out is no branch; its base is that of its commit."""
    project.git("switch", "-q", "--detach", "HEAD")
    project.write({"a.py": "three\n"}).commit()
    assert repository(project).merge_base("HEAD") == project.git("rev-parse", "main")


def test_base_of_the_only_commit_is_none(make_project: MakeProject) -> None:
    """There was nothing before."""
    earlier = repository(make_project({"a.py": ""})).earlier("a.py", b"")
    assert earlier.content is None
    assert earlier.skip
    assert "one commit only" in earlier.reason


def test_base_follows_the_remotes_default_branch(project: Project, tmp_path: Path) -> None:
    """A remote may call its default branch as it likes."""
    project.git("branch", "-m", "main", "trunk")
    project.git("clone", "-q", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.git("switch", "-q", "-c", "feature")
    clone.write({"a.py": "three\n"}).commit()
    clone.write({"a.py": "four\n"}).commit()
    assert repository(clone).merge_base("HEAD") == project.git("rev-parse", "trunk")


def test_shallow_clone_is_told_how_to_fetch_more(project: Project, tmp_path: Path) -> None:
    """CI's default checkout lacks the base; the error names its setting."""
    project.git("clone", "-q", "--depth=1", f"file://{project.folder}", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    earlier = repository(clone).earlier("a.py", (clone.folder / "a.py").read_bytes())
    with pytest.raises(Misuse, match=r"shallow clone.*fetch-depth: 0.*git fetch --unshallow"):
        earlier.text()


def test_shallow_clone_of_a_branch_is_no_wrong_base(project: Project, tmp_path: Path) -> None:
    """Where the branch left main lies beyond the clone: an error, not the parent that happens to be there."""
    project.git("switch", "-q", "-c", "feature")
    for text in ("three", "four", "five"):
        project.write({"a.py": text}).commit()
    project.git("switch", "-q", "main")
    url = f"file://{project.folder}"
    project.git(
        "clone", "-q", "--depth=2", "--branch=feature", "--no-single-branch", url, str(tmp_path / "c")
    )
    with pytest.raises(Misuse, match="fetch-depth: 0"):
        repository(Project(tmp_path / "c")).merge_base("HEAD")


def test_a_clone_has_the_same_base(project: Project, tmp_path: Path) -> None:
    """On a branch, and on one without a commit of its own, it is that of where it comes from."""
    project.git("clone", "-q", str(project.folder), str(tmp_path / "user"))
    user = Project(tmp_path / "user")
    user.git("switch", "-q", "-c", "feature")
    user.git("branch", "glia/a/run/best")
    for where in (project, user):
        if where is project:
            where.git("switch", "-q", "-c", "feature")
        for text in ("", "three\n", "four\n"):
            if text:
                where.write({"a.py": text}).commit()
            at = repository(where)
            folder = tmp_path / f"{where.folder.name} {text!r}".strip()
            at.clone(folder, at.head(), without="/glia/")
            copy = Repository(folder)
            text_now = (where.folder / "a.py").read_bytes()
            assert copy.earlier("a.py", text_now) == at.earlier("a.py", text_now)
            assert copy.merge_base("HEAD") == at.merge_base("HEAD") == project.git("rev-parse", "main")
            assert Project(folder).branches("glia/") == []
            assert copy.changed() == []
