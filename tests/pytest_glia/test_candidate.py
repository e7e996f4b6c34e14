"""Candidates: what a marker may say, and how a file becomes the object that a replication gets."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pytest_glia import seeds
from pytest_glia.candidate import Candidate, fault, load, make, read
from pytest_glia.misuse import Misuse
from pytest_glia.replication import Failure, Replication, ReplicationError
from pytest_glia.running import run_all


class Item:
    """As much of `pytest.Item` as markers are read from."""

    def __init__(self, *marks: Mapping[str, Any], args: tuple[Any, ...] = ()) -> None:
        self._marks = [pytest.mark.glia(*args, **mark).mark for mark in marks]

    def iter_markers_with_node(self, name: str) -> list[tuple[object, pytest.Mark]]:
        """Each of another node, as if the closest came first."""
        assert name == "glia"
        return [(object(), mark) for mark in self._marks]


def of(*marks: Mapping[str, Any], args: tuple[Any, ...] = ()) -> tuple[Candidate, ...]:
    return Candidate.of(Item(*marks, args=args))  # type: ignore[arg-type]


def loaded(source: str, root: Path, path: str = "policy.py", entry: str = "entry") -> Any:
    """What `load` gives, in this process, whose modules stay as they were."""
    modules, places = dict(sys.modules), list(sys.path)
    try:
        return load(Candidate(path, entry), source.encode(), root)
    finally:
        sys.path[:] = places
        for name in set(sys.modules) - set(modules):
            del sys.modules[name]


def test_marker_names_file_and_entry() -> None:
    """A candidate is called by its file's name; its design note lies beside it."""
    [candidate] = of({"candidate": "policies/router.py", "entry": "Router", "exposes": ["a.py"]})
    assert (candidate.path, candidate.entry, candidate.role) == ("policies/router.py", "Router", None)
    assert (candidate.name, candidate.note_path) == ("router", "policies/router.md")
    assert candidate.exposes == ("a.py",)


def test_closest_marker_wins() -> None:
    """A test's own marker replaces its module's."""
    [candidate] = of({"candidate": "mine.py", "entry": "A"}, {"candidate": "module.py", "entry": "B"})
    assert candidate.path == "mine.py"


def test_candidates_with_roles_come_in_the_order_of_their_roles() -> None:
    """Two specs that name the same candidates in another order have one goal."""
    first = {"candidate": "r.py", "entry": "R", "role": "router"}
    second = {"candidate": "s.py", "entry": "S", "role": "scheduler"}
    assert of(first, second) == of(second, first)
    assert [each.role for each in of(first, second)] == ["router", "scheduler"]


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        ({}, "candidate=None, entry=None"),
        ({"candidate": "a.py"}, "entry=None"),
        ({"candidate": 3, "entry": "A"}, "candidate=3"),
        ({"candidate": "/etc/a.py", "entry": "A"}, "'/etc/a.py'.*relative path"),
        ({"candidate": "../a.py", "entry": "A"}, r"'\.\./a\.py'"),
        ({"candidate": "a.txt", "entry": "A"}, r"a\.txt.*\.py file"),
        ({"candidate": "a.py", "entry": "A", "exposes": "b.py"}, "exposes='b.py'.*list"),
        ({"candidate": "a.py", "entry": "A", "exposes": [1]}, r"exposes=\[1\]"),
        ({"candidate": "a.py", "entry": "A", "exposes": None}, "exposes=None"),
        ({"candidate": "a.py", "entry": "A", "role": 7}, "role=7"),
        ({"candidate": "a.py", "entry": "A", "role": "two words"}, "role='two words'"),
        ({"candidate": "a.py", "entry": "A", "enrty": "B"}, "'enrty': it takes the keywords candidate"),
    ],
)
def test_bad_marker_says_what_it_has_and_what_it_takes(mark: Mapping[str, Any], complaint: str) -> None:
    """The message shows the marker's own words."""
    with pytest.raises(Misuse, match=complaint):
        of(mark)


def test_positional_marker_is_refused() -> None:
    """A marker's arguments are keywords."""
    with pytest.raises(Misuse, match="positional arguments: it takes the keywords"):
        of({}, args=("a.py",))


def test_role_for_one_of_two_is_refused() -> None:
    """Either there is one candidate, or each has a role."""
    with pytest.raises(Misuse, match="give each its own role"):
        of({"candidate": "a.py", "entry": "A"}, {"candidate": "b.py", "entry": "B", "role": "b"})


def test_missing_file_is_named_with_the_folder_that_was_searched(tmp_path: Path) -> None:
    """The user sees whether the path or the root directory is wrong."""
    with pytest.raises(Misuse, match=rf"candidate a/b\.py does not exist \(looked in {tmp_path}\)"):
        read(tmp_path, "a/b.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(Misuse, match="is not readable"):
        read(tmp_path, "folder.py")


@pytest.mark.parametrize(
    "source",
    [
        "class entry: ...",
        "def entry(): ...",
        "async def entry(): ...",
        "entry = make()",
        "entry: object = make()",
        "from somewhere import entry",
        "from somewhere import other as entry",
        "import package.entry as entry",
        "if fast:\n    def entry(): ...",
    ],
)
def test_source_that_defines_its_entry_has_no_fault(source: str) -> None:
    """However Python lets a name be bound at a module's top level, it can be an entry."""
    assert fault(Candidate("a.py", "entry"), source.encode(), ["somewhere", "package"]) is None


def test_fault_tells_a_syntax_error_with_its_line() -> None:
    """What cannot be parsed is told by file and line, before anything runs."""
    told = fault(Candidate("a.py", "entry"), b"x = 1\ndef entry(:\n")
    assert told is not None
    assert told.startswith("a.py:2 is not valid Python: ")


def test_fault_tells_a_missing_entry_and_what_there_is() -> None:
    """A typing error is seen by comparing the entry with what the file defines."""
    told = fault(Candidate("a.py", "Router"), b"class Ruoter: ...\n_private = 1\n")
    assert told is not None
    assert "no 'Router'" in told
    assert told.endswith("it defines Ruoter")
    assert str(fault(Candidate("a.py", "Router"), b"")).endswith("it defines nothing")


def test_class_is_made_afresh_with_its_own_stream() -> None:
    """Each replication gets a new instance; ``rng`` is a generator that the seed alone decides."""

    class Policy:
        def __init__(self, rng: random.Random) -> None:
            self.first = rng.random()

    one, same, other = (
        make(Policy, Random(seeds.policy_seed(1))),
        make(Policy, Random(seeds.policy_seed(1))),
        make(Policy, Random(seeds.policy_seed(2))),
    )
    assert one is not same
    assert one.first == same.first == Random(seeds.policy_seed(1)).random()
    assert one.first != other.first


def test_class_without_rng_is_made_without() -> None:
    """A constructor that does not ask for ``rng`` is not given one."""

    class Policy:
        def __init__(self, size: int = 3) -> None:
            self.size = size

    assert make(Policy, Random(seeds.policy_seed(1))).size == 3


def test_function_is_passed_as_it_is() -> None:
    """A function is the candidate itself."""

    def policy() -> None: ...

    assert make(policy, Random(seeds.policy_seed(1))) is policy


def test_entry_that_cannot_be_called_is_an_error() -> None:
    """A constant is no candidate, and the error shows it."""
    with pytest.raises(ReplicationError, match="the entry is 42: it must be a class or a function"):
        make(42, Random(seeds.policy_seed(1)))


def test_entry_is_that_of_the_text_given(tmp_path: Path) -> None:
    """The text decides, not the file of that name."""
    (tmp_path / "policy.py").write_text("def entry(): return 'file'\n")
    assert loaded("def entry(): return 'text'\n", tmp_path)() == "text"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "\n\nimport no_such_module_x",
            r"policy\.py:3 does not import: ModuleNotFoundError: .*no_such_module_x",
        ),
        ("x = 1\ny = x / 0", r"policy\.py:2 does not import: ZeroDivisionError"),
        ("x = 1\n\ndef f(:\n", r"policy\.py:3 does not import: SyntaxError"),
        ("import sys; sys.exit(0)", r"policy\.py:1 does not import: SystemExit"),
        ("def other(): ...", r"has no 'entry', the entry that the glia marker names; it defines other"),
    ],
)
def test_text_that_does_not_load_says_where(tmp_path: Path, source: str, complaint: str) -> None:
    """File and line of the candidate itself, and the reason."""
    with pytest.raises(ReplicationError, match=complaint):
        loaded(source, tmp_path)


def test_traceback_shows_the_text_that_ran(tmp_path: Path) -> None:
    """The lines of a failing candidate are its own, though no file has them."""
    (tmp_path / "policy.py").write_text("def entry():\n    return 'an older text'\n")

    def run() -> dict[str, float]:
        load(Candidate("policy.py", "entry"), b"def entry():\n    raise KeyError  # the text\n", tmp_path)()
        return {}

    [(_, failed)] = run_all([Replication(run)], workers=1, timeout=30)
    assert isinstance(failed, Failure)
    assert "raise KeyError  # the text" in failed.details


def test_dataclass_in_a_candidate_works(tmp_path: Path) -> None:
    """What looks its own module up, as dataclasses with postponed annotations do, finds it."""
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass entry:\n    size: int = 3\n"
    )
    assert loaded(source, tmp_path)().size == 3


def test_candidate_inside_a_package_has_relative_imports(tmp_path: Path) -> None:
    """A file in a package is that package's module, with its neighbours and parents."""
    package = tmp_path / "src" / "pack_rel" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package.parent / "base.py").write_text("BASE = 40\n")
    (package / "__init__.py").touch()
    (package / "near.py").write_text("NEAR = 2\n")
    source = "from ..base import BASE\nfrom .near import NEAR\n\ndef entry(): return BASE + NEAR, __name__\n"
    entry = loaded(source, tmp_path, "src/pack_rel/inner/policy.py")
    assert entry() == (42, "pack_rel.inner.policy")


def test_package_that_is_found_elsewhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old installed copy that is already imported must not be measured in the candidate's place."""
    for place in ("old", "new"):
        (tmp_path / place / "pack_old").mkdir(parents=True)
        (tmp_path / place / "pack_old" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "old")
    monkeypatch.syspath_prepend(tmp_path / "new")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "old"), str(tmp_path / "new"), *sys.path])
    with pytest.raises(ReplicationError, match=rf"imported from {tmp_path}{os.sep}old.*not from {tmp_path}"):
        loaded("def entry(): ...", tmp_path, "new/pack_old/policy.py")
