"""``--glia-report``: what a run leaves for people and for programs, however it ends."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.report.findings import plain
from pytest_glia.report.plot import progress, trade_off
from tests.project import INI, PACKER, PACKER_IDEAS, PACKER_SPEC, PACKING, MakeProject, Project, Result, spec
from tests.rendered import headings, kinds, plain_text, tokens

HOSTILE = "@ada | ``` <script> ![x](//e.org) \\n\\n# Forged \\n| a | b |"
# One candidate for which an idea helps, one for which there is none, one that does well.
SEVERAL = {
    **PACKING,
    "pytest.ini": INI.replace("glia_replications = 6", "glia_replications = 5"),
    "conftest.py": PACKER_IDEAS.replace('"first fit"', f'"first fit {HOSTILE}"')
    .replace("Look for room", f"{HOSTILE} Look for room")
    .replace('if "bins" in source', 'if path.endswith("packer.py")'),
    "candidates/hopeless.py": PACKER.replace("SPLIT = 0.9", "").replace(" and item < SPLIT", ""),
    "specs/test_hopeless.py": PACKER_SPEC.replace("packer.py", "hopeless.py"),
    "candidates/fine.py": PACKER,
    "specs/test_fine.py": PACKER_SPEC.replace("packer.py", "fine.py").replace("< 1.1", "< 2"),
}


def read(folder: Path) -> dict[str, Any]:
    """The data of a report, which is JSON to the letter."""
    text = (folder / "glia.json").read_text("utf-8")
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(data, dict)
    return data


@dataclass(frozen=True)
class Reported:
    """A search of several groups, with its report."""

    project: Project
    ran: Result
    data: dict[str, Any]
    page: str

    def design(self, name: str) -> dict[str, Any]:
        """What is told of a group."""
        [found] = [each for each in self.data["designs"] if each["name"] == name]
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """One command, three groups of candidates."""
    project = Project(tmp_path_factory.mktemp("report") / "project")
    project.folder.mkdir()
    project.write(SEVERAL).commit()
    ran = project.pytest("--glia-optimize", "--glia-report=../out/deep")
    assert ran.code == 1, ran.out
    folder = project.folder.parent / "out/deep"
    return Reported(project, ran, read(folder), (folder / "report.md").read_text("utf-8"))


@pytest.mark.slow
def test_each_group_has_its_end(reported: Reported) -> None:
    """Met, nothing better found, nothing to do: told of each in one report."""
    ends = {each["name"]: each["outcome"] for each in reported.data["designs"]}
    assert ends == {"packer": "met", "hopeless": "nothing better found", "fine": "nothing to do"}
    assert (reported.data["schema"], reported.data["exit"]) == (1, 1)
    assert len(reported.data["tests"]) == 6


def test_page_has_the_winner_whole(reported: Reported) -> None:
    """Intervals, diff, note, attempts and seeds are on the page as they are in git."""
    best = reported.design("packer")["best"]
    note = reported.project.show(best["commit"], "candidates/packer.md")
    assert best["notes"] == {"candidates/packer.md": note + "\n"}
    assert " ".join(note.split()) in " ".join(reported.page.split())
    assert "+    for item in sorted(items, reverse=True):" in reported.page
    checks = reported.data["tests"][-2]["checks"]
    assert checks[0]["low"] < checks[0]["point"] < checks[0]["high"] < 1.1
    assert f"{checks[0]['point']:.4g} [{checks[0]['low']:.4g}, {checks[0]['high']:.4g}]" in reported.page
    found = reported.design("packer")["confirmation"]
    assert " ".join(map(str, found["seeds"])) in reported.page
    assert reported.design("packer")["attempts"] == [
        {"run": reported.design("packer")["run"], "outcome": "passed"}
    ]


def test_spend_adds_up(reported: Reported) -> None:
    """What each kind has cost is what the search said in all, without what others before it have cost."""
    spent = {each["name"]: each["spent"]["simulations"] for each in reported.data["designs"]}
    assert spent["packer"].keys() == {"search", "confirmation", "rationale"}
    assert (spent["hopeless"].keys(), spent["fine"]) == ({"search"}, {})
    # The last of the three to be designed says what it has cost itself, and so does its note.
    assert [each["name"] for each in reported.data["designs"]] == ["fine", "hopeless", "packer"]
    own = sum(spent["packer"].values())
    assert sum(spent["hopeless"].values()) > 0
    assert f"), {own} simulations" in reported.ran.out
    [note] = reported.design("packer")["best"]["notes"].values()
    searched = own - spent["packer"]["rationale"]
    assert searched <= int(note.partition("; spent ")[2].split()[0]) <= own


def test_best_so_far_only_gets_better(reported: Reported) -> None:
    """Against simulations that only grow; few replications alone make no best."""
    trials = reported.design("packer")["trials"]
    spent = [each["simulations"] for each in trials]
    best = [each["best"]["measured"] for each in trials]
    assert spent == sorted(spent)
    assert best == sorted(best, reverse=True)
    assert best[-1] < 1.1 < best[0]
    assert {each["best"]["number"] for each in trials} <= {
        each["number"] for each in trials if each["seeds"] == 5
    }


def test_pictures_are_those_the_page_names(reported: Reported) -> None:
    """Two of progress, well-formed, with the line and a dot a trial; one of what there is to choose."""
    folder = reported.project.folder.parent / "out/deep"
    pictures = sorted(each.name for each in folder.glob("*.svg"))
    assert [f"]({name})" in reported.page for name in pictures] == [True] * 3
    assert len(list(folder.iterdir())) == 5
    number = 1 + [each["name"] for each in reported.data["designs"]].index("packer")
    shapes = [each.tag.rpartition("}")[2] for each in ET.parse(folder / f"best-so-far-{number}.svg").iter()]
    assert shapes.count("circle") == len(reported.design("packer")["trials"])
    assert shapes.count("polyline") == 1


def test_designers_text_does_not_change_the_page(reported: Reported) -> None:
    """What an idea calls itself is told as it is, in code: no heading, link, image or mention of its own."""
    assert "first fit @ada" in reported.page
    assert "Forged" not in " ".join(headings(reported.page))
    assert not kinds(reported.page) & {"html_inline", "html_block", "link_open"}
    assert [token.content for token in tokens(reported.page) if token.type == "image"] == [
        *["best so far against simulations"] * 2,
        "one objective against another",
    ]
    assert "@" not in plain_text(reported.page)


@pytest.mark.slow
def test_a_second_report_takes_the_place_of_the_first(reported: Reported) -> None:
    """A plain run into the same folder: verdicts of the specs that ran, and none of the searches."""
    ran = reported.project.pytest("specs/test_packer.py", "--glia-report=../out/deep")
    folder = reported.project.folder.parent / "out/deep"
    data = read(folder)
    assert (ran.code, data["designs"], len(data["tests"])) == (1, [], 2)
    page = (folder / "report.md").read_text("utf-8")
    assert headings(page) == ["Design by test: report", "Verdicts", "The command"]
    assert "**`refuted`**" in page
    assert {each.name for each in folder.iterdir()} == {"glia.json", "report.md"}


def test_folder_that_cannot_be_written_is_misuse_at_the_start(make_project: MakeProject) -> None:
    """Before any replication; the error names the option and what was given."""
    project = make_project(PACKING)
    ran = project.pytest("--glia-report=pytest.ini/out", RUNS="runs")
    assert ran.code == 4
    assert "--glia-report=pytest.ini/out: the folder cannot be written" in ran.text
    assert "give another" in ran.text
    assert not (project.folder / "runs").exists()


STOPS = """\
import pluggy


class Stops:
    def design(self, lab):
        STOP


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"stops": Stops()}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "code", "outcome", "sentence"),
    [
        ("raise KeyboardInterrupt", 2, "interrupted", "The search was interrupted."),
        (
            "lab.account.reserve({'simulations': 1000})",
            1,
            "budget spent",
            "The budget was spent before a candidate",
        ),
    ],
    ids=["Ctrl-C", "budget"],
)
def test_a_search_that_was_stopped_is_reported(
    stop: str, code: int, outcome: str, sentence: str, make_project: MakeProject
) -> None:
    """The page tells of the search up to there, and why it ended."""
    project = make_project({**PACKING, "conftest.py": STOPS.replace("STOP\n", f"{stop}\n")})
    ran = project.pytest("--glia-optimize", "--glia-designer=stops", "--glia-report=out")
    [design] = read(project.folder / "out")["designs"]
    assert (ran.code, design["outcome"], design["best"]) == (code, outcome, None)
    page = (project.folder / "out/report.md").read_text("utf-8")
    assert sentence in page
    assert "1.206 [1.182, " in page


def test_what_fails_or_is_skipped_is_told(make_project: MakeProject) -> None:
    """A spec that raised, one that was skipped and one that could not be set up: each with its reason."""
    body = (
        "def run(answer, seed):\n    return answer()\n\n\n"
        "@pytest.fixture\ndef broken():\n    raise OSError('no disk | `x`')\n\n\n"
        "def test_raises(glia):\n    assert glia.measure(run) < 1\n\n\n"
        "def test_skips(glia):\n    pytest.skip('no @gpu')\n\n\n"
        "def test_set_up(glia, broken):\n    pass\n\n\n"
        "def test_plain():\n    pass\n"
    )
    project = make_project(spec("def answer():\n    raise ValueError('no')\n", body), commit=False)
    project.pytest("--glia-report=out")
    tests = {each["nodeid"].rpartition("::")[2]: each for each in read(project.folder / "out")["tests"]}
    assert {name: each["outcome"] for name, each in tests.items()} == {
        "test_raises": "failed",
        "test_skips": "skipped",
        "test_set_up": "failed",
    }
    assert "ValueError: no" in tests["test_raises"]["message"]
    page = (project.folder / "out/report.md").read_text("utf-8")
    assert "no disk ¦ `x`" in page
    assert "@gpu" not in plain_text(page)


def test_numbers_that_are_not_finite_are_null() -> None:
    """JSON has no word for them."""
    assert plain({"a": [math.inf, -math.inf, math.nan, 1.5, 2, "x", None, True]}) == {
        "a": [None, None, None, 1.5, 2, "x", None, True]
    }


@pytest.mark.parametrize("values", [[], [None], [2.0], [2.0, 2.0], [None, -1e300, 5.0]], ids=repr)
def test_every_progress_has_a_picture(values: list[float | None]) -> None:
    """Nothing tried, nothing that works, one value, figures far apart: all of it is well-formed."""
    trials = [{"simulations": 5 * i, "measured": v, "best": {"measured": v}} for i, v in enumerate(values)]
    root = ET.fromstring(progress(trials, "<x> & \x1b", 1.0))
    numbers = [
        value for each in root.iter() for name, value in each.attrib.items() if name in ("cx", "cy", "y1")
    ]
    assert all(math.isfinite(float(value)) for value in numbers)


@pytest.mark.parametrize("low", [None, 1.0])
@pytest.mark.parametrize("points", [[], [1.0], [1.0, 1.0], [-1e300, 5.0]], ids=repr)
def test_every_choice_has_a_picture(points: list[float], low: float | None) -> None:
    """No candidate, one, two at one place, figures far apart, intervals without end: all is well-formed."""
    asked = {"quantity": "<x> & \x1b", "asked": "< 1", "threshold": 1.0}
    candidates = [
        {
            "number": number,
            "member": True,
            "winner": not number,
            "measured": [{"low": low, "point": point, "high": None}] * 2,
        }
        for number, point in enumerate(points)
    ]
    root = ET.fromstring(trade_off({"objectives": [asked] * 2, "candidates": candidates}, 1))
    places = [
        each.attrib[name] for each in root.iter() for name in ("cx", "cy", "x1", "y1") if name in each.attrib
    ]
    assert all(math.isfinite(float(place)) for place in places)
