"""The designer command, with real agents: small scripts that behave as agents do, and as they should not."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.living import alive
from tests.project import MakeProject, Project, Result, spec

pytestmark = pytest.mark.slow

CANDIDATE = "def answer():\n    return 1.0\n"
BODY = '''
def run(answer, seed):
    return answer() + seed % 7 / 1000


def test_large(glia):
    """It is larger than three."""
    assert glia.measure(run) > 3
'''

AGENT = '''\
"""Does in each round what its number says: RESULTS.md tells how many there were."""

import os, pathlib, re, subprocess, sys, time

number = len(re.findall("^## Round", pathlib.Path("RESULTS.md").read_text(), re.M)) + 1
candidate = pathlib.Path("candidate.py")
notes = pathlib.Path(sys.argv[1])
(notes / f"seen-{number}").write_text("\\n".join(sorted(str(each) for each in pathlib.Path(".").rglob("*"))))
(notes / f"candidate-{number}").write_text(candidate.read_text())
(notes / f"results-{number}").write_text(pathlib.Path("RESULTS.md").read_text())
(notes / f"environment-{number}").write_text("\\n".join(f"{k}={v}" for k, v in os.environ.items()))


def answer(value):
    candidate.write_text(f"def answer():\\n    return {value}\\n")


if number == 1:
    git = subprocess.run(["git", "log"], capture_output=True, text=True)
    (notes / "git").write_text(git.stdout + git.stderr)
    pathlib.Path("test_spec.py").write_text("def test(): pass")
    print("\\x1b[2Jcleared", flush=True)
    answer(1.5)
    sys.exit(3)
if number == 2:
    candidate.unlink()
if number == 3:
    candidate.unlink()
    candidate.symlink_to("/etc/hostname")
if number == 4:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)", str(notes)]
    left = subprocess.Popen(sleep, start_new_session=True, env={})
    (notes / "left").write_text(str(left.pid))
    answer(2.0)
if number == 5:
    answer(2.5)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(600)
if number == 6:
    pass
if number == 7:
    answer("2.6" + " " * (1 << 20))
if number == 8:
    note = "# Four at last\\n\\nFour is \\x1b[31mmore than three.\\n"
    pathlib.Path("DESIGN.md").write_text(note + "x" * 5000)
    answer(4.0)
'''


@dataclass(frozen=True)
class Played:
    """A search with that agent: the project, what pytest said, and what the agent has seen in its rounds."""

    project: Project
    ran: Result
    notes: Path
    before: dict[str, str]

    def seen(self, name: str) -> str:
        """What the agent has written down."""
        return (self.notes / name).read_text("utf-8")

    def log(self, number: int) -> str:
        """What the agent has printed in a round."""
        [file] = (self.project.folder / ".glia" / "runs").glob(f"*/command-{number}.log")
        return file.read_text("utf-8")


SEARCH = ("--glia-optimize", "--glia-designer=command")


def files(command: str) -> dict[str, str]:
    """A project whose setting is that command."""
    return spec(CANDIDATE, BODY, f"[pytest]\nglia_replications = 6\nglia_command = {command}\n")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All rounds of the agent."""
    folder = tmp_path_factory.mktemp("command")
    notes = folder / "notes"
    notes.mkdir()
    (folder / "agent.py").write_text(AGENT, "utf-8")
    (folder / "project").mkdir()
    project = Project(folder / "project").write(files(f"{sys.executable} {folder}/agent.py {notes}"))
    project.write({"baselines.py": "def best():\n    return 4.0\n"}).commit()
    before = project.fingerprint()
    ran = project.pytest(
        *(*SEARCH, "--glia-budget=150 sims, 120 s"),
        *("-o", "glia_command_timeout=6", "-o", "glia_command_env=MY_AGENT_KEY"),
        MY_AGENT_KEY="for the agent",
        OTHER_API_KEY="not for the agent",
    )
    return Played(project, ran, notes, before)


def test_what_it_leaves_is_designed_with_round_by_round(played: Played) -> None:
    """Rounds that leave a better candidate lead to one that is confirmed, delivered and explained."""
    assert played.ran.code == 0, played.ran.out
    best = played.project.best()
    assert played.project.show(best, "candidate.py") == "def answer():\n    return 4.0"
    assert "more than three" in played.project.show(best, "candidate.md")


def test_what_it_sees_is_what_a_designer_may_see(played: Played) -> None:
    """Its folder holds candidate, task and results, later what was tried; no history, no baseline."""
    assert played.seen("seen-1").split("\n") == ["RESULTS.md", "TASK.md", "candidate.py"]
    assert played.seen("seen-2").split("\n")[3:] == ["tried", "tried/1", "tried/1/candidate.py"]
    assert "not a git repository" in played.seen("git")


def test_secrets_are_kept_from_it_but_for_those_named(played: Played) -> None:
    """It has the variable that glia_command_env names, and no other that looks like a secret."""
    environment = played.seen("environment-1")
    assert "MY_AGENT_KEY=for the agent" in environment
    assert "OTHER_API_KEY" not in environment


def test_the_checkout_is_as_before(played: Played) -> None:
    """Files that the agent writes are in its own folder: the project's, index and HEAD are untouched."""
    assert played.project.fingerprint() == played.before


def test_what_it_prints_steers_no_terminal(played: Played) -> None:
    """Escape sequences, in the log and in its note, are shown as text."""
    assert "\\x1b[2Jcleared" in played.log(1)
    commits = played.project.git("log", "--all", "--format=%B")
    assert "Four is \\x1b[31mmore than three." in commits
    assert "\x1b" not in played.log(1) + played.ran.out + commits


def test_exit_code_is_told_and_does_not_decide(played: Played) -> None:
    """A round that exits with 3 counts as any other."""
    assert "ended with code 3" in played.ran.text
    assert "return 1.5" in played.seen("candidate-2")


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (2, "candidate.py is gone: leave it in its place"),
        (3, "candidate.py is, or is reached by, a symbolic link or no file: leave a plain file"),
        (6, "the candidate is the same as the best so far: change it first"),
        (7, "has 1048605 bytes: leave at most 1048576"),
    ],
)
def test_what_is_no_candidate_is_refused_in_words(number: int, says: str, played: Played) -> None:
    """Gone, a link, unchanged, or too large: the user and the agent are told, the best is back."""
    assert says in played.ran.text
    assert says in played.seen(f"results-{number + 1}")
    assert played.seen(f"candidate-{number + 1}") == played.seen(f"candidate-{number}")


def test_what_it_starts_ends_with_its_round(played: Played) -> None:
    """A process that it has left in a session and environment of its own is gone."""
    assert not alive(int(played.seen("left")))


def test_round_that_hangs_is_ended_and_counts(played: Played) -> None:
    """After glia_command_timeout what is in the candidate's path is the candidate."""
    assert "the command was ended, as its time was over, after 6 s" in played.ran.text
    assert "return 2.5" in played.seen("candidate-6")


def test_results_tell_what_was_measured(played: Played) -> None:
    """RESULTS.md has the table of each candidate that was tried."""
    assert "| test_large | value |" in played.seen("results-2")


def test_replay_does_not_run_it(played: Played) -> None:
    """From the record come the same commits; the agent, and the key that it needs, are not asked for."""
    before = [each.stat().st_mtime_ns for each in sorted(played.notes.iterdir())]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest_glia", "replay", played.project.best().split("/")[2]],
        cwd=played.project.folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [each.stat().st_mtime_ns for each in sorted(played.notes.iterdir())] == before


def test_command_that_does_nothing_is_given_up(make_project: MakeProject) -> None:
    """Three rounds without anything to measure end the search, with what the command said."""
    ran = make_project(files("no-such-agent --go")).pytest(*SEARCH)
    assert ran.code == 1, ran.out
    assert "ended with code 127" in ran.text
    assert "no-such-agent: not found" in ran.text
    assert "3 rounds in a row left nothing to measure" in ran.text
    assert "no better candidate than the present one was found" in ran.text


def test_spent_budget_ends_with_the_best(make_project: MakeProject) -> None:
    """An agent that gets better and better is stopped by the budget, and its best is delivered."""
    better = "n=$(grep -c '^## Round' RESULTS.md); echo \"def answer(): return 1.1$n\" > candidate.py"
    project = make_project(files(better))
    ran = project.pytest(*SEARCH, "--glia-budget=40 sims, 120 s")
    assert ran.code == 1, ran.out
    assert "The search ended because the budget of 40 simulations is spent" in ran.text
    assert "does not meet its specs; the best so far" in ran.text
    assert "return 1.1" in project.show(project.best(), "candidate.py")


# The agent's time is over when its first candidate has been measured.
LATE = """\
import pluggy
from pytest_glia.designers.command import CommandDesigner


class Late(CommandDesigner):
    def design(self, lab):
        full = lab.full

        def late(*given, **more):
            trial = full(*given, **more)
            lab.account.started -= 1000
            return trial

        lab.full = late
        return super().design(lab)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"late": Late()}
"""


def test_replay_ends_its_rounds_where_the_run_did(make_project: MakeProject, tmp_path: Path) -> None:
    """When the time was over after a round, a replay, for which no time is over, starts no further one."""
    agent = f"echo round >> {tmp_path}/rounds; echo 'def answer(): return 2.0' > candidate.py"
    project = make_project({**files(agent), "conftest.py": LATE})
    ran = project.pytest("--glia-optimize", "--glia-designer=late", "--glia-budget=150 sims, 500 s")
    assert "The search ended because the budget of 500 seconds is spent" in ran.text, ran.out
    again = project.command("replay", project.best().split("/")[2])
    assert again.code == 0, again.out
    assert (tmp_path / "rounds").read_text() == "round\n"


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("", (), "the designer 'command' has no command: set glia_command"),
        (
            "true",
            ("-o", "glia_command_env=ABSENT_KEY"),
            "glia_command_env names 'ABSENT_KEY', which is not in",
        ),
    ],
)
def test_what_is_missing_is_said_at_once(
    command: str, arguments: tuple[str, ...], says: str, make_project: MakeProject
) -> None:
    """Without a command, or a variable that it is to have, no search begins."""
    ran = make_project(files(command)).pytest(*SEARCH, *arguments)
    assert ran.code == 4
    assert says in ran.text


def test_killed_search_goes_on_without_running_its_rounds_again(
    make_project: MakeProject, tmp_path: Path
) -> None:
    """After SIGKILL the same command takes what the first round has left from the record."""
    count, script = tmp_path / "count", tmp_path / "agent.sh"
    project = make_project(files(f"exec sh {script}"))
    # Its second round kills the search that started it: the process above the one that attends it.
    script.write_text(
        f"echo round >> {count}\n"
        f"if [ $(wc -l < {count}) = 2 ]; then kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 60; fi\n"
        f"echo 'def answer(): return 1.'$(wc -l < {count}) > candidate.py\n"
        f"if [ $(wc -l < {count}) = 3 ]; then echo 'def answer(): return 5' > candidate.py; fi\n"
    )
    assert project.pytest(*SEARCH).code == -signal.SIGKILL
    ran = project.pytest(*SEARCH)
    assert ran.code == 0, ran.out
    assert "It goes on: what it paid for is not paid again." in ran.text
    assert count.read_text().count("round") == 3
