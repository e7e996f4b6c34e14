"""``--glia-optimize`` on a small domain: what it delivers, and that the checkout is never touched."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_glia import seeds
from tests.project import PACKING, MakeProject, Project, Result

SECRETS = {"OPENAI_API_KEY": "k-123", "GITHUB_TOKEN": "t-123", "DB_PASSWORD": "p-123"}
OTHER = "def test_another_thing():\n    pass\n\n\ndef test_that_fails():\n    assert 1 + 1 == 3\n"


@dataclass(frozen=True)
class Run:
    """A project in which a search has run, and how it was before."""

    project: Project
    result: Result
    before: dict[str, str]
    base: str

    @property
    def runs(self) -> list[str]:
        """A line for each replication: the module of what was run, and its seed."""
        return (self.project.folder.parent / "runs").read_text().splitlines()

    @property
    def trials(self) -> list[str]:
        """The messages of the commits on the branch of candidates, oldest first."""
        branch = self.project.best().replace("/best", "/1")
        log = self.project.git("log", "--reverse", "--format=%B%x00", f"{self.base}..{branch}")
        return [message.strip() for message in log.split("\0") if message.strip()]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Bin packing, designed until its specs pass, with work in progress in the checkout."""
    project = Project(tmp_path_factory.mktemp("packing") / "project", SECRETS)
    project.folder.mkdir()
    base = project.write({**PACKING, ".gitignore": "*.log\n", "readme.txt": "one\n"}).commit()
    project.write({"readme.txt": "staged\n"}).git("add", "readme.txt")
    project.write({"readme.txt": "edited\n", "notes.txt": "untracked\n", "x.log": "ignored\n"})
    before = project.fingerprint()
    runs = str(project.folder.parent / "runs")
    report = project.folder.parent / "report"
    result = project.pytest(
        "--glia-optimize", "--glia-budget=120 sims, 300 s", f"--glia-report={report}", RUNS=runs
    )
    return Run(project, result, before, base)


def test_ends_with_passing_specs(packed: Run) -> None:
    """Exit code 0, and the specs' own reports, of the winner, as pytest shows them."""
    assert packed.result.code == 0, packed.result.out
    assert "2 passed" in packed.result.out
    assert packed.result.lines("shown     test_packer.py::test_little_waste")


def test_checkout_is_untouched(packed: Run) -> None:
    """Index, HEAD, refs other than glia/*, config, staged, edited, untracked and ignored files."""
    assert packed.project.fingerprint() == packed.before


def test_nothing_is_left_running_or_lying_about(packed: Run) -> None:
    """No process, no composed tree; the ledger is ignored by git."""
    assert packed.project.processes() == []
    assert not list((packed.project.folder / ".glia").glob("tree-*"))
    assert ".glia" not in packed.project.git("status", "--porcelain")


def test_best_branch_is_the_base_and_one_commit(packed: Run) -> None:
    """It touches the candidate and its note, nothing else."""
    best = packed.project.best()
    assert re.fullmatch(r"glia/packer/[\w-]+/best", best)
    assert packed.project.git("rev-parse", f"{best}^") == packed.base
    changed = packed.project.git("diff", "--name-only", f"{packed.base}..{best}").split()
    assert changed == ["candidates/packer.md", "candidates/packer.py"]


def test_every_candidate_is_a_commit(packed: Run) -> None:
    """On the run's first branch, from the base; each touches only the candidate."""
    branch = packed.project.best().replace("/best", "/1")
    assert sorted(packed.project.branches("glia/")) == [branch, packed.project.best()]
    commits = packed.project.git("rev-list", f"{packed.base}..{branch}").split()
    assert len(commits) == len(packed.trials) >= 4
    for commit in commits:
        files = packed.project.git("diff", "--name-only", f"{packed.base}..{commit}").split()
        assert files == ["candidates/packer.py"]


def test_commit_tells_hypothesis_result_and_table(packed: Run) -> None:
    """What was thought, what called for it, what came of it, and the figures with their trailers."""
    first = packed.trials[0]
    assert "Hypothesis: Take the items by decreasing size" in first
    assert re.search(r"Called for by: bins are 1\.\d\d times the volume", first)
    assert "Predicted: share falls" in first
    assert re.search(r"Result: (better|not shown|equivalent|worse)\. Loss [+-]\d", first)
    assert "| test_little_waste | share |" in first
    assert re.search(r"\| test_fewer_than_one_bin_each \| .*bins against one_bin_each \|", first)
    trailers = packed.project.git(
        "log", "-1", "--format=%(trailers:only,unfold)", packed.project.best().replace("/best", "/1")
    )
    assert "Glia-Run: " in trailers
    evidence = re.search(r"Glia-Evidence: (.*)", trailers)
    assert evidence
    assert json.loads(evidence[1]).keys() == {"bins", "share"}


def test_progress_has_a_line_for_each_candidate(packed: Run) -> None:
    """As it goes: number, simulations and seconds spent, what was tried, what it measured."""
    lines = [line for line in packed.result.out.splitlines() if re.match(r" +\d+ +\d+ +\d+ +\d+ s \S", line)]
    assert len(lines) == len(packed.trials)
    assert any("largest first" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_end_tells_how_to_take_the_design(packed: Run) -> None:
    """The commands to read the note and to merge."""
    best = packed.project.best()
    assert f"git show {best}:candidates/packer.md" in packed.result.out
    assert f"git merge {best}" in packed.result.out


def test_merging_the_best_branch_makes_the_specs_pass(packed: Run, tmp_path: Path) -> None:
    """In a clone, with plain pytest, on the guard seeds that the search has not used."""
    packed.project.git("clone", "-q", str(packed.project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert clone.pytest().code == 1
    clone.git("merge", "-q", f"origin/{packed.project.best()}")
    assert clone.pytest().code == 0


def test_note_names_each_idea_with_its_ablation(packed: Run) -> None:
    """Every idea of the winner: what it is, what called for it, what the design is without it."""
    note = packed.project.show(packed.project.best(), "candidates/packer.md")
    source = packed.project.show(packed.project.best(), "candidates/packer.py")
    design = note.partition("## The design")[2].partition("\n## ")[0]
    ideas = design.split("\n### ")[1:]
    kept = {idea.splitlines()[0] for idea in ideas}
    assert ("largest first" in kept) == ("sorted(" in source)
    assert ("first fit" in kept) == ("enumerate(bins)" in source)
    assert kept
    for idea in ideas:
        assert "Called for by: bins are" in idea
        assert re.search(r"Ablation: without it.*, loss [+-]\d\.\d+ \[[+-].*\]: \*\*", idea)
        assert re.search(r"`share`: \d.* without, \d.* with: ", idea)


def test_note_holds_the_measured_table_and_where_it_comes_from(packed: Run) -> None:
    """Figures of the confirmation, run, base commit, secret and seeds."""
    note = packed.project.show(packed.project.best(), "candidates/packer.md")
    assert "| test_little_waste | share | " in note
    assert f"base commit `{packed.base}`" in note
    assert "No language model took part" in note
    secret = re.search(r"secret `([0-9a-f]{64})`", note)
    assert secret


def test_confirmation_seeds_can_be_computed_again(packed: Run) -> None:
    """From the secret of the note and the winner's blob, anyone gets the seeds; the search used none.

    There are 7, two more than its replications: so many equal values need at the first attempt's confidence.
    """
    best = packed.project.best()
    note = " ".join(packed.project.show(best, "candidates/packer.md").split())
    secret = re.search(r"secret `([0-9a-f]{64})`", note)
    assert secret
    blob = packed.project.git("rev-parse", f"{best}:candidates/packer.py")
    sealed = seeds.sealed(bytes.fromhex(secret[1]), blob, 7)
    assert all(str(seed) in note for seed in sealed)
    order = [int(line.split()[1]) for line in packed.runs]
    first = min(order.index(seed) for seed in sealed)
    assert set(order[first:]) == set(sealed)


def test_confirmation_tells_its_attempt_and_confidence(packed: Run) -> None:
    """Terminal, note and verdicts: the first attempt has 6 / pi^2 of the error that all may have."""
    note = " ".join(packed.project.show(packed.project.best(), "candidates/packer.md").split())
    assert "seeds that no search has seen (attempt 1: 96.96 %)" in packed.result.text
    assert "This was attempt 1 to confirm a design from this base commit" in note
    assert "judged with 96.96 % confidence" in note
    assert packed.result.text.count("(n=7, 96.96 %); asked") == 2


def test_search_does_not_see_the_guard_seeds(packed: Run) -> None:
    """Only the starting candidate is run on the seeds that a plain run will judge with."""
    guard = set(seeds.known("guard", 5))
    on_guard = [line for line in packed.runs if int(line.split()[1]) in guard]
    # And once something that decides nothing, to see what the replication asks of its candidate.
    assert len(on_guard) == 2 * len(guard) + 1
    assert packed.runs[: len(on_guard)] == on_guard


def test_budget_is_hard(packed: Run) -> None:
    """Runs of candidates, apart from the first look at the specs, are no more than the simulations given."""
    guard = set(seeds.known("guard", 5))
    searched = [
        line
        for line in packed.runs
        if line.startswith("glia_candidate_") and int(line.split()[1]) not in guard
    ]
    assert 20 < len(searched) <= 120


def test_json_holds_the_winners_verdicts(packed: Run) -> None:
    """The file is that of the reports shown: the confirmation's."""
    data = json.loads((packed.project.folder.parent / "report/glia.json").read_text())
    assert [test["outcome"] for test in data["tests"]] == ["passed", "passed"]
    assert data["tests"][0]["checks"][0]["outcome"] == "shown"


def test_ledger_keeps_the_run_and_its_outcome(packed: Run) -> None:
    """One run, ended: a later one has nothing to clear up."""
    ledger = sqlite3.connect(packed.project.folder / ".glia/ledger.db")
    rows = ledger.execute("SELECT candidate, base, designer, outcome FROM runs").fetchall()
    ledger.close()
    assert rows == [("candidates/packer.py", packed.base, "offline", "passed")]


def test_changed_files_that_play_no_part_are_mentioned(packed: Run) -> None:
    """What is evaluated is the commit, and the user is told."""
    assert "2 other changed or untracked files (such as" in packed.result.text
    assert "play no part" in packed.result.text


@pytest.mark.slow
def test_second_search_pays_for_little(packed: Run) -> None:
    """The same command again knows all samples but those of its own confirmation seeds."""
    done = len(packed.runs)
    again = packed.project.pytest(
        "--glia-optimize", "--glia-budget=120 sims, 300 s", RUNS=str(packed.project.folder.parent / "runs")
    )
    assert again.code == 0
    new = packed.runs[done:]
    sealed = {line.split()[1] for line in new}
    assert len(sealed) == 9
    assert not sealed & {line.split()[1] for line in packed.runs[:done]}
    assert "(attempt 2: 99.24 %)" in again.text


@pytest.mark.slow
def test_other_tests_of_the_session_run_as_ever(make_project: MakeProject) -> None:
    """A test without candidate passes or fails as in any run, and decides the exit code too."""
    project = make_project({**PACKING, "test_other.py": OTHER})
    ran = project.pytest("--glia-optimize", "--glia-budget=60 sims")
    assert ran.code == 1
    assert "1 failed, 3 passed" in ran.out
    assert "assert (1 + 1) == 3" in ran.out


@pytest.mark.slow
def test_nothing_to_do(make_project: MakeProject) -> None:
    """Specs that pass end at once: exit code 0, no branch, no run, and the sentence says so."""
    project = make_project(PACKING)
    ran = project.pytest("--glia-optimize", "-k", "fewer")
    assert ran.code == 0
    assert "No spec fails: nothing to do, and nothing of the budget was spent" in ran.text
    assert "1 passed, 1 deselected" in ran.out
    assert project.branches("glia") == []
    ledger = sqlite3.connect(project.folder / ".glia/ledger.db")
    assert ledger.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    ledger.close()
