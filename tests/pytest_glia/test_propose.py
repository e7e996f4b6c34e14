"""``python -m pytest_glia propose``: what is verified here is pushed and proposed, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.__main__ import main
from pytest_glia.merit import Evaluation
from pytest_glia.misuse import Misuse
from pytest_glia.proposing.bundle import Handed
from pytest_glia.proposing.request import body
from pytest_glia.proposing.verification import Verified
from pytest_glia.repository import Repository
from tests.forge import StandIn, forge
from tests.project import PACKER, PACKER_SPEC, PACKING, Project, Result
from tests.rendered import headings, kinds, plain_text

TOKEN = "ghs_0123456789abcdefghijklmnop"
CANDIDATE, NOTE = "candidates/packer.py", "candidates/packer.md"
GOOD = """\
def pack(items):
    bins = []
    for item in sorted(items, reverse=True):
        for i, level in enumerate(bins):
            if level + item <= 1:
                bins[i] += item
                break
        else:
            bins.append(item)
    return len(bins)
"""
HOSTILE = "@ada ``` </details><img src=x> ![x](//e.org) | \n\n# Forged\n"


# The run ends at the first test that fails, as far as it is for pytest to say.
FILES = {
    **PACKING,
    "pytest.ini": PACKING["pytest.ini"].replace("addopts = ", "addopts = -x "),
    "candidates/other.py": PACKER,
    "specs/test_other.py": PACKER_SPEC.replace("packer.py", "other.py"),
}


def told(branch: str, **more: object) -> dict[str, Any]:
    """What a search says of a design; here all that a model could have written is hostile."""
    trial = {"number": 1, "name": HOSTILE, "seeds": 5, "simulations": 5, "shown": "1", "result": "better"}
    return {
        "name": branch.split("/")[1],
        "candidates": [{"path": CANDIDATE, "entry": HOSTILE}],
        "specs": ["specs/test_packer.py::test_little_waste"],
        "outcome": "met",
        "told": [],
        "run": branch.split("/")[2],
        "base": HOSTILE,
        "designer": HOSTILE,
        "budget": HOSTILE,
        "spent": {"simulations": {HOSTILE: 3}, "seconds": 1.5},
        "before": [],
        "goal": {"quantity": HOSTILE, "asked": HOSTILE, "threshold": 1.0},
        "trials": [{**trial, "best": {"number": 1, "measured": 1.0, "shown": HOSTILE}}],
        "audit": HOSTILE,
        "attempts": [{"run": HOSTILE, "outcome": HOSTILE}],
        "confirmation": None,
        "best": {"branch": branch, "commit": HOSTILE, "diff": "forged diff", "notes": {HOSTILE: HOSTILE}},
        **more,
    }


@dataclass(frozen=True)
class Job:
    """A clean checkout of the base with its remote, and what a search has left beside it."""

    project: Project
    forge: StandIn
    base: str
    environment: dict[str, str] = field(default_factory=lambda: {"GITHUB_TOKEN": TOKEN})

    @property
    def handed(self) -> Path:
        return self.project.folder.parent / "handed"

    def hand(self, *sources: str, run: str = "20260102-030405-abcd", **more: object) -> None:
        """A bundle of designs of the packer and of the other one, made in a clone, with their report."""
        clone = Project(self.project.folder.parent / f"clone {run}")
        self.project.git("clone", "-q", "--no-local", "../remote.git", str(clone.folder))
        branches = []
        for name, source in zip(("packer", "other"), sources, strict=False):
            branches.append(f"glia/{name}/{run}/best")
            note = f"# design note\n{HOSTILE}".encode()
            files = {f"candidates/{name}.py": source.encode(), f"candidates/{name}.md": note}
            message = f"Fixes #1 {HOSTILE}"
            Repository(clone.folder).commit(self.base, self.base, files, message, branches[-1], 0)
        self.handed.mkdir(exist_ok=True)
        file = self.handed / "designs.bundle"
        clone.git("bundle", "create", "-q", str(file), *branches, "--not", self.base)
        data = {"schema": 1, "designs": [told(branch, **more) for branch in branches]}
        (self.handed / "glia.json").write_text(json.dumps(data))

    def command(self, *arguments: str) -> list[str]:
        """The arguments of the job, with more."""
        return [
            *("propose", "--repository=ada/packing", f"--bundle={self.handed / 'designs.bundle'}"),
            *(f"--report={self.handed}", "--base=main", f"--forge-url={self.forge.url}", *arguments),
        ]

    def propose(self, *arguments: str, **environment: str) -> Result:
        """Run the job as CI does."""
        ran = subprocess.run(
            [sys.executable, "-m", "pytest_glia", *self.command(*arguments)],
            cwd=self.project.folder,
            env={**self.project._environ(), **self.environment, **environment},
            capture_output=True,
            text=True,
        )
        return Result(ran.returncode, ran.stdout + ran.stderr)

    def remote(self) -> Mapping[str, str]:
        """The branches of the remote."""
        lines = self.project.git("ls-remote", "--heads", "origin").splitlines()
        return {
            ref.removeprefix("refs/heads/"): commit for commit, ref in (line.split("\t") for line in lines)
        }


Misused = Callable[..., tuple[int, str]]


@pytest.fixture
def misused(job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Misused:
    """Exit code and words of a job that ends before it runs anything: no process is needed for it."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(job.project.folder)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        code = main(job.command(*arguments))
        out, err = capsys.readouterr()
        assert "test session starts" not in out
        return code, " ".join((out + err).split())

    return run


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    project = Project(tmp_path / "project")
    project.folder.mkdir()
    base = project.write(FILES).commit()
    project.git("init", "-q", "--bare", "-b", "main", "remote.git")
    (project.folder / "remote.git").rename(tmp_path / "remote.git")
    project.git("remote", "add", "origin", "../remote.git")
    project.git("push", "-q", "origin", "main")
    with forge(TOKEN) as standin:
        yield Job(project, standin, base)


def test_a_design_that_holds_is_proposed_once(job: Job) -> None:
    """The second time the branch is moved and the body is new; there is one pull request."""
    job.hand(GOOD)
    before = job.project.fingerprint()
    first = job.propose("specs")
    assert first.code == 0, first.out
    assert "packer: verified, and proposed: https://forge.example/ada/packing/pull/1" in first.out
    assert job.remote().keys() == {"main", "glia/packer/proposed"}
    [pull] = job.forge.pulls
    assert (pull["head"]["ref"], pull["base"]) == ("glia/packer/proposed", "main")
    text = pull["body"]
    _only_our_markup(text)
    commit = job.remote()["glia/packer/proposed"]
    _only_the_texts(job, commit)

    job.hand(GOOD + "\n\nLIMIT = 3\n", run="20260102-030405-ffff")
    second = job.propose("specs")
    assert second.code == 0, second.out
    assert job.remote()["glia/packer/proposed"] != commit
    [pull] = job.forge.pulls
    assert "+LIMIT = 3" in pull["body"]
    # Each job draws its own seeds.
    seeds = [re.search(r"HMAC-SHA256 under `(\w{64})` of", each) for each in (text, pull["body"])]
    assert seeds[0]
    assert seeds[1]
    assert seeds[0][1] != seeds[1][1]
    assert TOKEN not in first.out + second.out
    # git itself remembers what it has pushed.
    assert {**job.project.fingerprint(), "refs": ""} == {**before, "refs": ""}
    assert job.project.git("for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/main",
        "refs/remotes/origin/glia/packer/proposed",
        "refs/remotes/origin/main",
    ]
    assert job.project.processes() == []


def _only_our_markup(body: str) -> None:
    assert headings(body)[:3] == ["Verified again", "`packer`: met", "Best so far"]
    assert "Forged" not in " ".join(headings(body))
    assert not kinds(body) & {"html_inline", "html_block", "image", "link_open"}
    assert "@" not in plain_text(body)
    assert "forged diff" not in body
    assert "+    for item in sorted(items, reverse=True):" in body
    assert re.search(r"\| `test_little_waste` \| `share` \| `< 1.1` \| `1.0\d+ \[.*\| `shown` \|", body)


def _only_the_texts(job: Job, commit: str) -> None:
    """The commit is this job's: of the other's, neither message nor author nor anything but texts."""
    git = job.project.git
    git("fetch", "-q", "origin", commit)
    assert git("rev-parse", f"{commit}^@") == job.base
    assert git("diff", "--name-only", job.base, commit).split() == [NOTE, CANDIDATE]
    assert git("show", f"{commit}:{CANDIDATE}") == GOOD.strip()
    message = git("log", "-1", "--format=%B", commit)
    assert message.startswith("packer: a design that meets its specs\n\nOn 7 seeds drawn after")
    assert "Fixes" not in message


@pytest.mark.slow
def test_one_that_fails_does_not_stop_another(job: Job) -> None:
    """Whatever a report says: of two designs the one that holds is proposed, and the exit code is 1."""
    job.hand(PACKER + "\n# better\n", GOOD)
    ran = job.propose("specs")
    assert ran.code == 1
    assert "refused: glia/packer/20260102-030405-abcd/best does not meet its specs" in ran.text
    assert "other: verified, and proposed: " in ran.out
    assert job.remote().keys() == {"main", "glia/other/proposed"}
    assert [each["head"]["ref"] for each in job.forge.pulls] == ["glia/other/proposed"]


@pytest.mark.slow
def test_rules_hold_here_too(job: Job) -> None:
    """A text that no search would have let in is not run."""
    job.hand("import os\n\n" + GOOD)
    ran = job.propose("specs")
    assert ran.code == 1
    assert "refused: glia/packer/20260102-030405-abcd/best: " in ran.out
    assert "imports os" in ran.text
    assert job.remote().keys() == {"main"}


def test_a_dry_run_needs_no_token_and_changes_nothing(job: Job) -> None:
    """It verifies, and shows what it would propose."""
    job.hand(GOOD)
    ran = job.propose("specs", "--dry-run", GITHUB_TOKEN="")
    assert ran.code == 0, ran.out
    assert "packer: verified. Would push" in ran.out
    assert "## Verified again" in ran.out
    assert (list(job.remote()), job.forge.requests) == (["main"], [])


def test_what_is_not_met_is_not_proposed(job: Job, misused: Misused) -> None:
    """A search that came near has failed nobody: exit code 0, and nothing happens."""
    job.hand(PACKER, outcome="not met")
    code, said = misused("specs")
    assert code == 0
    assert "packer: 'not met' says the report, so it is not proposed" in said
    assert "nothing to propose" in said
    assert job.forge.requests == []


@pytest.mark.slow
def test_commits_of_people_are_not_overwritten(job: Job) -> None:
    """Who went on with the proposal keeps their work; the sentence says what to do."""
    job.hand(GOOD)
    job.project.git("push", "-q", "origin", "main:refs/heads/glia/packer/proposed")
    ran = job.propose("specs")
    assert ran.code == 4
    assert "glia/packer/proposed on origin ends with a commit of 'ada@example.org': merge it" in ran.text
    assert job.remote()["glia/packer/proposed"] == job.base


@pytest.mark.slow
def test_the_forge_may_refuse(job: Job) -> None:
    """One sentence, exit code 4, no traceback and no token."""
    job.hand(GOOD)
    ran = job.propose("specs", GITHUB_TOKEN="ghs_notthatone0123456789")
    assert ran.code == 4
    assert "does not accept the token: give one that is valid" in ran.text
    assert "ghs_notthatone" not in ran.out
    assert "Traceback" not in ran.out


def verified(job: Job, note: bytes = b"# note\n") -> Verified:
    """What this job might have found, for what is written of it."""
    design = Handed("packer", "glia/packer/20260102-030405-abcd/best", "0" * 40, ())
    files = {CANDIDATE: GOOD.encode(), NOTE: note}
    evaluation = Evaluation(files, (1, 2), {})
    return Verified(
        design, Repository(job.project.folder), files, evaluation, (), b"secret", "1" * 40, "sandbox"
    )


@pytest.mark.parametrize("size", [100, 30_000, 900_000])
def test_a_body_is_cut_between_its_parts(size: int, job: Job) -> None:
    """Within the forge's limit in bytes, and with no part begun that does not end."""
    found = verified(job, ("é`" * size).encode())
    trials = [told(found.design.branch)["trials"][0]] * (size // 100)
    text = body(found, told(found.design.branch, trials=trials), "+x\n" * size, job.base, 65_536)
    assert 0 < len(text.encode()) <= 65_536
    assert ("The rest is in the report of the search" in plain_text(text)) == (size > 100)
    assert headings(text)[:2] == ["Verified again", "`packer`: met"]
    assert not kinds(text) & {"html_inline", "html_block", "image", "link_open"}
    assert "@" not in plain_text(text)


NO_REPORT: dict[str, object] = {
    "outcome": "met @ada",
    "trials": [{"simulations": "@ada"}],
    "spent": {"simulations": {"search": "many"}, "seconds": 1},
    "attempts": 3,
    "goal": None,
    "candidates": [HOSTILE],
    "confirmation": {"attempt": 1, "confidence": "x", "seeds": ["@ada"], "secret": "", "content": ""},
    "before": [{"nodeid": "x", "outcome": "@ada", "checks": [{"quantity": 3}]}],
}


@pytest.mark.parametrize("name", NO_REPORT)
def test_data_of_another_form_is_not_rendered(name: str, job: Job) -> None:
    """Text where a number belongs, an outcome that is none: the report is refused, not repeated."""
    found = verified(job)
    with pytest.raises(Misuse, match=f"the report of {found.design.branch} is none"):
        body(found, told(found.design.branch, **{name: NO_REPORT[name]}), "", job.base, 65_536)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repository=ada"], "--repository is 'ada': give owner/name"),
        (["--forge-url=http://forge.example"], "give an address that begins with https://"),
        (["--base=nowhere"], "--base is 'nowhere': give a branch"),
        (["--token-variable=NONE"], "the environment variable NONE holds no token"),
        (["--report=/nowhere"], "/nowhere/glia.json cannot be read"),
        (["--bundle=/nowhere"], "refused: there is no file '/nowhere'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_misuse_is_said_at_once(arguments: list[str], sentence: str, job: Job, misused: Misused) -> None:
    """Before anything is run: what was given, and what to give."""
    job.hand(GOOD)
    code, said = misused(*arguments)
    assert code in (1, 4)
    assert sentence in said


def test_only_a_clean_checkout_of_the_base(job: Job, misused: Misused) -> None:
    """An untracked conftest, and another commit than the base, are refused."""
    job.hand(GOOD)
    job.project.write({"conftest.py": "raise SystemExit\n"})
    code, said = misused()
    assert (code, "has changed or untracked files (such as 'conftest.py')" in said) == (4, True)
    job.project.git("checkout", "-q", ".")
    job.project.git("checkout", "-q", "-b", "other")
    job.project.commit("more")
    code, said = misused()
    assert (code, "another commit is checked out: git checkout main" in said) == (4, True)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "designs": [{"best": 3}]}', "[" * 100_000],
    ids=lambda text: text[:20],
)
def test_a_report_that_is_none(text: str, job: Job, misused: Misused) -> None:
    """Any other file is named, with what was expected."""
    job.hand(GOOD)
    (job.handed / "glia.json").write_text(text)
    code, said = misused()
    assert code == 4
    assert re.search(r"glia\.json is (no report: give the folder of|of schema 2, and 1 is known)", said)
