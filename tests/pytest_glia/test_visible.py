"""What candidates and designers write: nothing of it steers a terminal, or changes what pytest reports."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_glia import replication, sandbox
from pytest_glia.replication import Failure, Metrics, Replication
from pytest_glia.running import run_all
from pytest_glia.trials import Hypothesis
from pytest_glia.visible import visible
from tests.confined import ROOT
from tests.project import MakeProject, spec

confinable = pytest.mark.skipif(
    sandbox.unavailable() is not None, reason=f"no sandbox here: {sandbox.unavailable()}"
)
MEASURED = (
    "def run(answer, seed):\n    return answer()\n\ndef test_it(glia):\n    assert glia.measure(run) < 20\n"
)


@given(st.text(st.characters()))
def test_only_what_steers_is_escaped(text: str) -> None:
    """No control character but line end and tab is left, in a line no line end; other text is as it was."""
    shown = visible(text)
    assert {each for each in shown if unicodedata.category(each) in ("Cc", "Cs")} <= {"\n", "\t"}
    shown.encode("utf-8")
    assert visible(shown) == shown
    if "::" not in text:
        assert visible(text, line=True) == shown.replace("\n", "\\n")
    if text.isprintable() and "::" not in text and "##" not in text:
        assert shown == text


def test_escapes_can_be_read() -> None:
    """An escape sequence is shown as it would be written in Python."""
    assert visible("\x1b[2Jé\x9b\u202e\r\n\t") == r"\x1b[2Jé\x9b\u202e\r" + "\n\t"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("::stop-commands::x", r"\x3a:stop-commands::x"),
        ("a\n \t\xa0::add-mask::0", "a\n \t\xa0\\x3a:add-mask::0"),
        ("RuntimeError: ##[error]all passed", r"RuntimeError: \x23#[error]all passed"),
        ("###[group]x", r"#\x23#[group]x"),
        ("##vso[task.complete result=Succeeded;]", r"\x23#vso[task.complete result=Succeeded;]"),
        ("##teamcity[testFinished name='x']", r"\x23#teamcity[testFinished name='x']"),
    ],
)
def test_ci_jobs_are_given_no_commands(said: str, shown: str) -> None:
    """A job's log has candidates' words in it: none is an instruction to the service that runs the job."""
    assert visible(said) == visible(shown) == shown


@pytest.mark.parametrize(
    "text", ["a::b\n:c:", "spec.py::test_it failed", "## Heading [link](x)", "#[1]", "# #["]
)
def test_what_is_no_command_is_shown_as_it_is(text: str) -> None:
    """Names of tests and headings are no commands."""
    assert visible(text) == text


def test_hypothesis_steers_nothing() -> None:
    """Each text of a designer that heads a line or stands in a commit is escaped."""
    given = Hypothesis("\x1b[2Jgood\nx", "a\x1b]0;owned\x07\nb", "\x9bm", {"bins\n": -1})
    assert given == Hypothesis("\\x1b[2Jgood\\nx", "a\\x1b]0;owned\\x07\nb", "\\x9bm", {"bins\\n": -1})


def test_failure_steers_nothing() -> None:
    """What a replication raises is told with its escapes, in the sentence and in the traceback."""

    def clears() -> Metrics:
        raise RuntimeError("\x1b[2J\ud800 all passed")

    [(_, failed)] = run_all([Replication(clears)], workers=1, timeout=30)
    assert isinstance(failed, Failure)
    assert r"\x1b[2J\ud800 all passed" in failed.message
    assert "\x1b" not in str(failed)
    assert "in clears" in failed.details


@confinable
def test_confined_output_is_shown_with_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    """What a confined fork prints, by whatever way, is shown; it cannot go back in its parent's output."""
    confine = sandbox.confining(ROOT, seconds=30, workers=1)

    def prints() -> Metrics:
        print("?\x1b[2Jprinted", flush=True)
        os.write(2, b"written\xff\n")
        os.pwrite(1, b"\\", 0)
        return {"value": 1.0}

    os.write(1, b"reported\n")
    outcomes = list(run_all([Replication(prints, confined=True)], workers=1, timeout=30, confine=confine))
    assert outcomes == [(0, {"value": 1.0})]
    told = capfd.readouterr()
    assert told.out == "reported\n\\\\x1b[2Jprinted\nwritten\\xff\n"
    assert told.err == ""


@confinable
def test_quiet_and_confined_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """What is to be thrown away is, also in the sandbox."""
    confine = sandbox.confining(ROOT, seconds=30, workers=1)

    def prints() -> Metrics:
        print("printed")
        os.write(1, b"written")
        return {"value": 1.0}

    replications = [Replication(prints, confined=True, quiet=True)]
    assert list(run_all(replications, workers=1, timeout=30, confine=confine)) == [(0, {"value": 1.0})]
    assert capfd.readouterr() == ("", "")


@confinable
def test_long_output_is_cut(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a bound is shown, with a word on that; no file is left open, whatever the end."""
    monkeypatch.setattr(replication, "_SHOWN", 5)
    confine = sandbox.confining(ROOT, seconds=30, workers=1)

    def floods() -> Metrics:
        os.write(1, b"abcdefgh")
        while True:
            pass

    before = len(os.listdir("/proc/self/fd"))
    [(_, failed)] = run_all([Replication(floods, confined=True)], workers=1, timeout=1, confine=confine)
    assert isinstance(failed, Failure)
    assert len(os.listdir("/proc/self/fd")) == before
    told = capfd.readouterr().out
    assert told.startswith("abcde\n")
    assert "no more than 5 bytes" in told


@confinable
def test_report_in_a_file_cannot_be_overwritten(make_project: MakeProject, tmp_path: Path) -> None:
    """With `pytest -s > report`, a candidate that writes at the head of the file leaves the report whole."""
    source = """\
import os

def answer():
    for descriptor in range(256):
        try:
            os.pwrite(descriptor, b"==== all passed", 0)
            os.lseek(descriptor, 0, 0)
            os.write(descriptor, b"==== all passed")
        except OSError:
            pass
    return 50.0
"""
    project = make_project(spec(source, MEASURED), commit=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:xdist", "-o", "glia_allow_imports=os"]
    with (tmp_path / "report").open("wb") as report:
        done = subprocess.run(command, cwd=project.folder, env=environment, stdout=report, timeout=120)
    told = (tmp_path / "report").read_text("utf-8")
    assert done.returncode == 1
    assert "test session starts" in told.splitlines()[0]
    assert "1 failed" in told.splitlines()[-1]
