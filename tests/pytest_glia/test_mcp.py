"""The playground over MCP: a real client, over stdio, designs in the planted domain of the pumps."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.living import until
from tests.project import Project
from tests.pytest_glia.client import Session, evaluated, improve, played
from tests.pytest_glia.pumps import edit, experiments, pumps

pytestmark = pytest.mark.slow


async def design(session: Session) -> dict[str, str]:
    """Read, measure, analyse, write, evaluate, and conclude; what each has said."""
    said = {"tools": " ".join(each.name for each in (await session.client.list_tools()).tools)}
    said["problem"] = await session.use("problem")
    said["read"] = await session.use("read_file", path="plant.py")
    said["forbidden"] = await session.use("read_file", path="test_pump.py")
    said["wrong"] = await session.use("run", purpose="none", variants=[{"label": "a"}], replications="4")
    variants = [
        {"label": f"pressure {value}", "edits": [edit("50", str(value))]} for value in range(10, 91, 10)
    ]
    said["run"] = await session.use(
        "run", purpose="sweep", variants=variants, replications=2, metrics=["waste"]
    )
    swept = re.findall(r"\| waste \| pressure (\d+) \| ([\d.]+)", said["run"])
    pressure = min(swept, key=lambda each: float(each[1]))[0]
    await session.use("run", purpose="kept", variants=[{"label": "now"}], replications=1, inspect=True)
    code = "means = tables['valves'].groupby('valve').leak.mean()\nfindings['valve'] = means.idxmin()"
    said["analyse"] = await session.use("analyse", experiment="1.E2", question="Which valve?", code=code)
    valve = re.findall(r"valve = (\d)", said["analyse"])[0]
    said["no tables"] = await session.use("analyse", experiment="1.E1", question="Why?", code="")
    said["no experiment"] = await session.use("analyse", experiment="1.E9", question="Why?", code="")
    said["no figure"] = await session.use("analyse", experiment="1.E2", question="Why?", code="print(7)")
    said["no tool"] = await session.use("read_all")
    said["edit"] = await session.use("edit_files", edits=[edit("50", pressure), edit("0", valve)])
    said["evaluate"] = await evaluated(session)
    said["finding"] = await session.use("record_finding", finding="One valve leaks least.", source="1.A1")
    said["notebook"] = await session.use("notebook")
    claims = [
        {
            "name": name,
            "claim": f"The right {name}.",
            "predicts": {"waste": -20},
            "experiment": shown_by,
            "edits_that_remove_it": [edit(now, before)],
        }
        for name, shown_by, now, before in (
            ("pressure", "1.E1", pressure, "50"),
            ("valve", "candidate 1", valve, "0"),
        )
    ]
    said["conclude"] = await session.use("conclude", claims=claims)
    said["afterwards"] = await session.use("notebook")
    return said


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """A plant that a client has designed for, and what it was told."""
    project = pumps(tmp_path_factory.mktemp("mcp") / "project", seed=2)
    return project, played(project, design, "--glia-budget=200 sims, 120 s")


Designed = tuple[Project, dict[str, str]]


def test_client_finds_the_tools(designed: Designed) -> None:
    """They are listed before a search has begun: read, write, evaluate, experiment, findings, conclude."""
    _, said = designed
    assert said["tools"].split() == [
        *("problem", "notebook", "list_files", "read_file", "search_files", "write_file", "edit_files"),
        *("evaluate", "run", "analyse", "record_finding", "conclude"),
    ]


def test_client_sees_what_a_designer_may_see(designed: Designed) -> None:
    """The problem statement and exposed files; another file is refused in words."""
    _, said = designed
    assert said["problem"].startswith("# The problem")
    assert "Pressures go from 10 to 90." in said["read"]
    assert said["forbidden"].startswith("error: there is no file 'test_pump.py' to read")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("wrong", "error: replications is '4': give an integer"),
        (
            "no tables",
            "error: the experiment 1.E1 kept no tables: have those inspected that you want to know of",
        ),
        ("no experiment", "error: there is no experiment '1.E9': there are 1.E1, 1.E2"),
        ("no figure", "7\n\n(It left no figure in `findings`, so it is not kept.)"),
        ("no tool", "error: there is no tool 'read_all': there are problem, notebook, list_files, "),
    ],
)
def test_what_cannot_be_done_is_told(asked: str, answer: str, designed: Designed) -> None:
    """The error says what was given and what was expected; an analysis without a figure is not kept."""
    assert designed[1][asked].startswith(answer)


def test_concluded_design_is_confirmed_and_delivered(designed: Designed) -> None:
    """conclude answers when the search has ended; the branch has the design, its claims and its finding."""
    project, said = designed
    assert "It is the best so far." in said["evaluate"]
    assert "(exit code 0)" in said["conclude"]
    assert "1 of 1 specs pass" in said["conclude"]
    note = project.show(project.best(), "candidates/pump.md")
    assert note.count("**shown**") == 2
    assert "One valve leaks least." in note
    assert {"1.E1", "1.E2"} <= set(experiments(project))


def test_notebook_tells_what_there_is_and_what_it_took(designed: Designed) -> None:
    """Candidates, experiments, findings, and what was spent."""
    _, said = designed
    assert "- 1 measured setting: better" in said["notebook"]
    assert "- 1.E1: sweep" in said["notebook"]
    assert "- One valve leaks least. (1.A1)" in said["notebook"]
    assert "Spent: " in said["notebook"]


def test_after_the_end_every_tool_says_so(designed: Designed) -> None:
    """With the last words of the search."""
    assert designed[1]["afterwards"].startswith("error: The search has ended (exit code 0).")


def plants(folder: Path) -> Project:
    """Two plants, each with a candidate of its own."""
    project = pumps(folder, seed=3)
    for name in ("test_pump.py", "candidates/pump.py"):
        text = (project.folder / name).read_text("utf-8")
        project.write({name.replace("pump", "second"): text.replace("pump.py", "second.py")})
    project.commit()
    return project


async def conclude_one_and_go(session: Session) -> str:
    """Improve both candidates, and conclude but for the first."""
    await improve(session, "pump")
    concluded = await session.use("conclude", claims=[])
    await improve(session, "second")
    return concluded


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """Two plants whose search was left by its client, and what that was told when it concluded the first."""
    project = plants(tmp_path_factory.mktemp("left") / "project")
    told = played(project, conclude_one_and_go, "--glia-budget=300 sims, 200 s")
    until(lambda: not searching(project))
    return project, told


def test_search_with_several_candidates_goes_on(left: tuple[Project, str]) -> None:
    """After the first is concluded, and delivered, the client designs the next one."""
    project, told = left
    assert told.startswith("concluded")
    assert "the search goes on with another candidate: read `problem` again" in told
    assert any(each.endswith("/best") for each in project.branches("glia/pump/"))


def test_search_of_a_client_that_has_gone_ends_with_its_best(left: tuple[Project, str]) -> None:
    """Though the client ends its server, the best candidate so far is confirmed and delivered."""
    project, _ = left
    assert "The search ended because the client has gone." in log(project)
    [best] = [each for each in project.branches("glia/second/") if each.endswith("/best")]
    assert "does not meet its specs; the best so far" in project.git("log", "-1", "--format=%s", best)


def log(project: Project) -> str:
    """What the search has printed."""
    return "".join(each.read_text("utf-8") for each in project.folder.parent.glob("glia-mcp-*.log"))


def searching(project: Project) -> bool:
    """Whether a process works in the project."""
    there = [os.path.realpath(each) for each in Path("/proc").glob("[0-9]*/cwd")]
    return str(project.folder) in there


async def spend_all(session: Session) -> list[str]:
    """Sweep until there is nothing left, then conclude."""
    for value in range(10, 90):
        variants = [{"label": "other", "edits": [edit("50", str(value))]}]
        if (await session.use("run", purpose="sweep", variants=variants, replications=4)).startswith("error"):
            break
    await session.use("conclude", claims=[])
    return session.heard


def test_spent_budget_is_told(tmp_path: Path) -> None:
    """A call that costs more than is left is refused with the budget; the client can go on without."""
    heard = played(pumps(tmp_path / "project", seed=4), spend_all, "--glia-budget=24 sims, 120 s")
    assert heard[-2].startswith("error: not done, as the budget of 24 simulations is spent, but for ")
    assert heard[-1].startswith("error: nothing better than the start was found yet")


async def wait_for_the_end(session: Session) -> list[str]:
    """Do nothing of use until that is refused."""
    while not (await session.use("list_files")).startswith("error"):
        pass
    return session.heard


def test_search_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """A client that takes too long is told, and what became of the search."""
    heard = played(pumps(tmp_path / "project", seed=5), wait_for_the_end, "--glia-budget=100 sims, 8 s")
    assert "the budget of 8 seconds is spent" in heard[-1]
    assert "The search has ended (exit code 1)." in heard[-1]


def test_search_that_cannot_begin_is_told(tmp_path: Path) -> None:
    """What pytest says, such as misuse, is what the first tool says."""

    async def ask(session: Session) -> str:
        return await session.use("problem")

    said = played(pumps(tmp_path / "project", seed=6), ask, "--glia-budget=1 sims")
    assert said.startswith("error: The search has ended (exit code 4).")
    assert "the budget of 1 simulations is too small" in " ".join(said.split())


def test_designer_without_a_client_is_misuse(tmp_path: Path) -> None:
    """--glia-designer=mcp by itself says how it is used."""
    ran = pumps(tmp_path / "project", seed=7).pytest("--glia-optimize", "--glia-designer=mcp")
    assert ran.code == 4
    assert "python -m pytest_glia mcp --" in ran.text


def test_missing_library_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or one that is too old, as one without that module is: with what to install."""
    from pytest_glia.__main__ import main

    monkeypatch.setitem(sys.modules, "mcp_types", None)
    assert main(["mcp", "--", "specs"]) == 4
    assert 'pip install "pytest-glia[llm]"' in capsys.readouterr().err


def test_replay_repeats_what_the_client_has_done(designed: Designed) -> None:
    """From the record, without a client: the same commits."""
    project, _ = designed
    ran = subprocess.run(
        [sys.executable, "-m", "pytest_glia", "replay", project.best().split("/")[2]],
        cwd=project.folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the same commits" in ran.stdout


def searches(project: Project) -> list[int]:
    """The processes of searches in a project that wait for clients."""
    return [
        int(each.parent.name)
        for each in Path("/proc").glob("[0-9]*/cmdline")
        if b"--glia-designer=mcp" in each.read_bytes()
        and os.path.realpath(each.parent / "cwd") == str(project.folder)
    ]


def test_killed_search_goes_on_where_its_client_was(tmp_path: Path) -> None:
    """After SIGKILL another client finds what the one before has done, and concludes with it."""
    project = pumps(tmp_path / "project", seed=8)

    async def improve_and_kill(session: Session) -> str:
        await improve(session, "pump")
        for pid in searches(project):
            os.kill(pid, signal.SIGKILL)
        return await session.use("notebook")

    async def find_and_conclude(session: Session) -> tuple[str, str]:
        return await session.use("notebook"), await session.use("conclude", claims=[])

    budget = "--glia-budget=200 sims, 120 s"
    assert "(exit code -9)" in played(project, improve_and_kill, budget)
    notebook, concluded = played(project, find_and_conclude, budget)
    assert "- 1 pressure " in notebook
    assert concluded.startswith("concluded")
    assert project.best()
